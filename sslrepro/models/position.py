"""Position embeddings, added to the encoder's input: `(batch, frames, dim)` → `(batch, frames, dim)`, or at a stride one for
`stride` frames.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from sslrepro.config import PositionSettings
from sslrepro.errors import UserError
from sslrepro.models.padding import Padding
from sslrepro.models.spectrum import GroupedConvolution

_LONG, _KERNELS = 32, 1 << 13  # taps; pairs of an input and an output channel, whose spectra are what the transforms cost


def build_position(settings: PositionSettings, dim: int) -> nn.Module | None:
    if settings.kind == "conv":
        return ConvPosition(dim, settings.kernel, settings.groups, settings.layers)
    return SinusoidalPosition(dim) if settings.kind == "sinusoidal" else None


class ConvPosition(nn.Module):
    """Grouped convolutions and GELU. One layer is weight-normed along time (wav2vec 2.0); several have a layer norm
    without weights before the GELU instead (data2vec, arXiv 2202.03555). The first layer takes the stride, as SEW; the
    weights are the same at every stride.

    The input must be zero on padding: so each utterance sees zeros beyond its own end, as if it were alone.
    """

    def __init__(self, dim: int, kernel: int, groups: int, layers: int):
        super().__init__()
        if dim % groups:
            raise UserError(f"model.encoder.position.groups: {groups} does not divide width {dim}")
        self.convs = nn.ModuleList(nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups) for _ in range(layers))
        for conv in self.convs:
            nn.init.normal_(conv.weight, std=math.sqrt(4.0 / (kernel * dim)))
            nn.init.zeros_(conv.bias)
        self.normed = layers > 1
        if not self.normed:
            weight_norm(self.convs[0], dim=2)
        self.drop = 1 - kernel % 2  # an even kernel gives one output too many

    def forward(self, x: Tensor, padding: Padding, stride: int = 1) -> Tensor:
        x = x.transpose(1, 2)
        for i, conv in enumerate(self.convs):
            if i > 0:
                x = padding.zero(x, time=2)
            x = self._convolve(x, conv, stride if i == 0 else 1)
            x = x[..., : x.shape[-1] - self.drop]
            if i == 0 and self.normed:
                padding = self._strided(padding, x.shape[-1], stride)
            if self.normed:
                x = F.layer_norm(x.transpose(1, 2), x.shape[1:2]).transpose(1, 2)
            x = F.gelu(x)
        return x.transpose(1, 2)

    def _convolve(self, x: Tensor, conv: nn.Conv1d, stride: int) -> Tensor:
        """Long kernels of few channels a group by Fourier transforms, in a quarter of the time (benchmarks/NOTES.md)."""
        weight = conv.weight
        single = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if single and stride == 1 and weight.shape[2] >= _LONG and weight[..., 0].numel() <= _KERNELS:
            return GroupedConvolution.apply(x, weight, conv.groups) + conv.bias[:, None]
        return F.conv1d(x, weight, conv.bias, stride, conv.padding, groups=conv.groups)

    def _strided(self, padding: Padding, size: int, stride: int) -> Padding:
        if stride == 1:
            return padding
        return Padding.of([(n - 1 + self.drop) // stride + 1 - self.drop for n in padding.lengths], size, padding.device)


class SinusoidalPosition(nn.Module):
    """Absolute sine and cosine positions (Attention Is All You Need, section 3.5), sines in even channels. No
    parameters.
    """

    def __init__(self, dim: int):
        super().__init__()
        rates = torch.exp(torch.arange(0, dim, 2).float() * (-math.log(10_000.0) / dim))
        self.register_buffer("rates", rates, persistent=False)

    def forward(self, x: Tensor, padding: Padding, stride: int = 1) -> Tensor:
        time = torch.arange(0, x.shape[1], stride, device=x.device, dtype=torch.float32)
        angles = time[:, None] * self.rates.float()
        table = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, : x.shape[2]]
        return table.to(x.dtype).expand(len(x), -1, -1)
