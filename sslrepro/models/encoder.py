"""The context encoder: position embedding, then layers of one layout, at the frame rate or squeezed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from sslrepro.config import EncoderSettings, Factors
from sslrepro.errors import UserError
from sslrepro.models.branchformer import BranchformerLayer, GatedConvMLP
from sslrepro.models.compression import SharedUpsampling, Upsampling, spread, squeeze
from sslrepro.models.conformer import ConformerLayer
from sslrepro.models.dropout import Dropout
from sslrepro.models.layers import TransformerLayer
from sslrepro.models.mixers import SelfAttention
from sslrepro.models.padding import Padding
from sslrepro.models.position import build_position
from sslrepro.models.segments import Segmenter

Spread = Callable[[Tensor], Tensor]
LAYOUTS = {"transformer": TransformerLayer, "conformer": ConformerLayer, "branchformer": BranchformerLayer}


class Encoder(nn.Module):
    """`(batch, frames, width)` → the input of the first layer and every layer's output, and the final output at the
    frame rate.

    Layer norm on the input (`post`) or on the last output (`pre`). Conformer and Branchformer are of the second kind.
    `exact` as in `Upstream`. `factors` and `rate` are what it runs at; in training, what was drawn where it was. Linears start
    at a normal of 0.02 with zero bias (BERT, wav2vec 2.0), the rest as its own module says.
    """

    def __init__(self, settings: EncoderSettings, exact: bool):
        super().__init__()
        if settings.layout != "transformer" and settings.norm != "pre":
            raise UserError(f"model.encoder.norm: a {settings.layout} has norm 'pre' only, not {settings.norm!r}")
        if settings.layout != "transformer" and settings.conv_kernel % 2 == 0:
            raise UserError(f"model.encoder.conv_kernel: must be odd, so that frames keep their place; got {settings.conv_kernel}")
        self.settings, self.exact = settings, exact
        self.pre = settings.norm == "pre"
        compression = settings.compression
        self.fixed, self.drawn = compression.factors, None
        self.fixed_rate, self.drawn_rate = compression.rate, None
        self.position = build_position(settings.position, settings.width)
        self.norm = nn.LayerNorm(settings.width)
        self.dropout = Dropout(settings.dropout)
        self.layers = nn.ModuleList(LAYOUTS[settings.layout](settings) for _ in range(settings.layers))
        self.upsample = self.segmenter = None
        if compression.kind == "fixed":
            self.upsample = Upsampling(settings.width, compression.squeeze)
        elif compression.kind == "stochastic":
            self.upsample = SharedUpsampling(settings.width, max(compression.squeeze_factors))
        elif compression.kind == "variable":
            self.segmenter = Segmenter(settings.width)
        if any(f.query > 1 or f.key_value > 1 for f in compression.choices) and settings.mixer != "attention":
            raise UserError(f"model.encoder.compression: query and key/value pooling need the mixer 'attention', not {settings.mixer!r}")
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, GatedConvMLP):
                module.open_gate()
        for compression in (self.upsample, self.segmenter):
            if compression is not None:
                compression.initialise()

    def forward(self, x: Tensor, padding: Padding, layer_keep: Sequence[bool]) -> tuple[list[Tensor], Tensor, Spread]:
        """States at the encoder's own rate `(batch, inner, width)`, the output `(batch, frames, width)`, and what brings
        a state to the frame rate.
        """
        x = padding.zero(x)
        factors = self.factors
        self._pool(factors)
        inner, seen = padding, padding if self.exact else padding.full()
        if factors.squeeze > 1:
            x, inner = self._squeeze(x, padding, seen, factors.squeeze)
        elif self.position is not None:
            x = x + self.position(x, seen)
        segments = None if self.segmenter is None else self.segmenter(x, padding, self.rate)
        if segments is not None:
            x, inner = segments.average(x), segments.padding
        x = self.dropout(x if self.pre else self.norm(x))
        states = [x]
        for layer, keep in zip(self.layers, layer_keep, strict=True):
            x = layer(x, inner) if keep else x
            states.append(x)
        if self.pre:
            states[-1] = x = self.norm(x)
        if isinstance(self.upsample, Upsampling):
            x = self.upsample(x, seen)
        elif factors.squeeze > 1:  # at 1 there is nothing to spread: plain wav2vec 2.0
            x = self.upsample(x, factors.squeeze, seen)
        elif segments is not None:
            x = segments.spread(x)
        return states, x, partial(spread, factor=factors.squeeze, padding=padding) if segments is None else segments.spread

    @property
    def factors(self) -> Factors:
        """What the next forward runs at."""
        return self.drawn if self.training and self.drawn is not None else self.fixed

    @property
    def rate(self) -> float:
        """The mean length of segments in the next forward, where there are segments."""
        return self.drawn_rate if self.training and self.drawn_rate is not None else self.fixed_rate

    def _pool(self, factors: Factors) -> None:
        for layer in self.layers:
            if isinstance(layer.mixer, SelfAttention):
                layer.mixer.query_pool, layer.mixer.key_value_pool = factors.query, factors.key_value

    def _squeeze(self, x: Tensor, padding: Padding, seen: Padding, factor: int) -> tuple[Tensor, Padding]:
        if x.shape[1] < factor:  # not one whole group: the output will be zero, but attention needs a key
            x = F.pad(x, (0, 0, 0, factor - x.shape[1]))
            seen = Padding.of(seen.lengths, factor, x.device)
        position = None if self.position is None else self.position(x, seen, factor)
        x = squeeze(x, position, factor)
        counts = (n // factor if self.exact else -(-n // factor) for n in padding.lengths)
        return x, Padding.of([max(1, n) for n in counts], x.shape[1], x.device)
