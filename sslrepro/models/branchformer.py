"""Branchformer layer (Peng et al., arXiv 2207.02971): a global branch (the mixer) beside a local one (a gated MLP with
convolution).

    x = x + merge([mixer(LN(x)), cgMLP(LN(x))])

The gated MLP is linear (to `ffn`) → GELU → half of it, layer-normed and convolved over time, gates the other half →
linear back. The merge is a linear of the two branches side by side (the paper's concatenation merge). Everything has a
bias.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslrepro.config import EncoderSettings
from sslrepro.errors import UserError
from sslrepro.models.activation import Activation
from sslrepro.models.dropout import Dropout
from sslrepro.models.linear import Linear
from sslrepro.models.mixers import build_mixer
from sslrepro.models.padding import Padding


class GatedConvMLP(nn.Module):
    """The local branch, `(batch, frames, width)` → the same."""

    def __init__(self, settings: EncoderSettings):
        super().__init__()
        if settings.ffn % 2:
            raise UserError(f"model.encoder.ffn: a Branchformer splits it in two halves, {settings.ffn} is odd")
        half, kernel = settings.ffn // 2, settings.conv_kernel
        self.up = Linear(settings.width, settings.ffn)
        self.activation = Activation(settings.activation)
        self.gate_norm = nn.LayerNorm(half)
        self.gate_conv = nn.Conv1d(half, half, kernel, padding=kernel // 2, groups=half)
        self.dropout = Dropout(settings.dropout)
        self.down = Linear(half, settings.width)

    def open_gate(self) -> None:
        """The gate starts near one, so that the block starts as a plain MLP (paper, section 2.3.2)."""
        nn.init.normal_(self.gate_conv.weight, std=1.0e-6)
        nn.init.ones_(self.gate_conv.bias)

    def forward(self, x: Tensor, padding: Padding) -> Tensor:
        x, gate = self.activation(self.up(x)).chunk(2, dim=-1)
        gate = padding.zero(self.gate_norm(gate))
        gate = self.gate_conv(gate.transpose(1, 2)).transpose(1, 2)
        return self.down(self.dropout(x * gate))


class BranchformerLayer(nn.Module):
    """`(batch, frames, width)` → the same."""

    def __init__(self, settings: EncoderSettings):
        super().__init__()
        width = settings.width
        self.mixer_norm, self.mixer = nn.LayerNorm(width), build_mixer(settings)
        self.local_norm, self.local = nn.LayerNorm(width), GatedConvMLP(settings)
        self.merge = Linear(2 * width, width)
        self.dropout = Dropout(settings.dropout)

    def forward(self, x: Tensor, padding: Padding) -> Tensor:
        far = self.dropout(self.mixer(self.mixer_norm(x), padding))
        near = self.dropout(self.local(self.local_norm(x), padding))
        return x + self.dropout(self.merge(torch.cat([far, near], dim=-1)))
