"""Statistics over true lengths."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslrepro.models.padding import Padding


class ChannelNorm(nn.GroupNorm):
    """Group norm with one group a channel, `(batch, channels, time)`: mean and variance of each channel over the row's
    true length.

    wav2vec 2.0's first layer normalises over the padded length, so that padding changes every output (fairseq and
    transformers do); here each row is normalised as if it were alone. Without padding it is `nn.GroupNorm`. Padded
    places come out as zeros.
    """

    def __init__(self, channels: int):
        super().__init__(channels, channels)

    def forward(self, x: Tensor, padding: Padding | None = None) -> Tensor:
        if padding is None or padding.valid is None:
            return super().forward(x)
        rows = [
            F.pad(super(ChannelNorm, self).forward(row[None, :, :n]), (0, padding.size - n))
            for row, n in zip(x.unbind(0), padding.lengths, strict=True)
        ]
        return torch.cat(rows)


def standardise(x: Tensor, padding: Padding, eps: float) -> Tensor:
    """Zero mean and unit variance (of the population) over axis 1 of `(batch, time, ...)` within each true length;
    zeros on padding.
    """
    shape = (-1,) + (1,) * (x.dim() - 1)
    if padding.valid is None:
        variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
        return (x - mean) * torch.rsqrt(variance + eps)
    valid = padding.valid.reshape(padding.valid.shape + (1,) * (x.dim() - 2))
    count = padding.valid.sum(1).to(x.dtype).reshape(shape)
    mean = x.masked_fill(~valid, 0.0).sum(1, keepdim=True) / count
    centred = (x - mean).masked_fill(~valid, 0.0)
    variance = centred.square().sum(1, keepdim=True) / count
    return centred * torch.rsqrt(variance + eps)
