"""The context encoder: position embedding, then layers of one layout, at the frame rate or squeezed."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from sslrepro.config import EncoderSettings
from sslrepro.errors import UserError
from sslrepro.models.branchformer import BranchformerLayer, GatedConvMLP
from sslrepro.models.compression import Upsampling, squeeze
from sslrepro.models.conformer import ConformerLayer
from sslrepro.models.layers import TransformerLayer
from sslrepro.models.padding import Padding
from sslrepro.models.position import build_position

LAYOUTS = {"transformer": TransformerLayer, "conformer": ConformerLayer, "branchformer": BranchformerLayer}


class Encoder(nn.Module):
    """`(batch, frames, width)` → the input of the first layer and every layer's output, and the final output at the
    frame rate.

    Layer norm on the input (`post`) or on the last output (`pre`). Conformer and Branchformer are of the second kind.
    `exact` as in `Upstream`. Linears start at a normal of 0.02 with zero bias (BERT, wav2vec 2.0), the rest as its own
    module says.
    """

    def __init__(self, settings: EncoderSettings, exact: bool):
        super().__init__()
        if settings.layout != "transformer" and settings.norm != "pre":
            raise UserError(f"model.encoder.norm: a {settings.layout} has norm 'pre' only, not {settings.norm!r}")
        if settings.layout != "transformer" and settings.conv_kernel % 2 == 0:
            raise UserError(f"model.encoder.conv_kernel: must be odd, so that frames keep their place; got {settings.conv_kernel}")
        self.exact = exact
        self.pre = settings.norm == "pre"
        self.factor = settings.compression.squeeze if settings.compression.kind == "fixed" else 1
        self.position = build_position(settings.position, settings.width, self.factor)
        self.norm = nn.LayerNorm(settings.width)
        self.dropout = nn.Dropout(settings.dropout)
        self.layers = nn.ModuleList(LAYOUTS[settings.layout](settings) for _ in range(settings.layers))
        self.upsample = Upsampling(settings.width, self.factor) if settings.compression.kind == "fixed" else None
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, GatedConvMLP):
                module.open_gate()
        if self.upsample is not None:
            self.upsample.initialise()

    def forward(self, x: Tensor, padding: Padding, layer_keep: Sequence[bool]) -> tuple[list[Tensor], Tensor]:
        """States at the encoder's own rate `(batch, frames // squeeze, width)` and the output `(batch, frames,
        width)`.
        """
        x = padding.zero(x)
        inner, seen = padding, padding if self.exact else padding.full()
        if self.factor > 1:
            x, inner = self._squeeze(x, padding, seen)
        elif self.position is not None:
            x = x + self.position(x, seen)
        x = self.dropout(x if self.pre else self.norm(x))
        states = [x]
        for layer, keep in zip(self.layers, layer_keep, strict=True):
            x = layer(x, inner) if keep else x
            states.append(x)
        if self.pre:
            states[-1] = x = self.norm(x)
        if self.upsample is not None:
            x = self.upsample(x, seen)
        return states, x

    def _squeeze(self, x: Tensor, padding: Padding, seen: Padding) -> tuple[Tensor, Padding]:
        if x.shape[1] < self.factor:  # not one whole group: the output will be zero, but attention needs a key
            x = F.pad(x, (0, 0, 0, self.factor - x.shape[1]))
            seen = Padding.of(seen.lengths, self.factor, x.device)
        position = None if self.position is None else self.position(x, seen)
        x = squeeze(x, position, self.factor)
        counts = (n // self.factor if self.exact else -(-n // self.factor) for n in padding.lengths)
        return x, Padding.of([max(1, n) for n in counts], x.shape[1], x.device)
