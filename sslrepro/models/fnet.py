"""FNet's mixer (Lee-Thorp et al., arXiv 2105.03824, equation 3): y = Re(F_time(F_channels(x))), without parameters.

The transform over time is of each utterance's true length, so padding is not in it. Both transforms are orthonormal here; the
paper's are not, and its layer norm after the sum takes their scale √(frames · width) out again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslrepro.config import EncoderSettings
from sslrepro.models.padding import Padding
from sslrepro.models.spectrum import wide


class FourierMixing(nn.Module):
    """`(batch, frames, width)` → the same; zeros on padding."""

    def __init__(self, settings: EncoderSettings):
        super().__init__()

    def forward(self, x: Tensor, padding: Padding) -> Tensor:
        if padding.valid is None:
            return real_transform(wide(x)).to(x.dtype)
        rows = [
            F.pad(real_transform(wide(row[None, :n])), (0, 0, 0, padding.size - n))
            for row, n in zip(x.unbind(0), padding.lengths, strict=True)
        ]
        return torch.cat(rows).to(x.dtype)


def real_transform(x: Tensor) -> Tensor:
    """The real part of the transform of `(batch, frames, width)` over both last axes. The signal is real, so half of the
    channels' frequencies are enough: those at width - k are those at k, with time mirrored.
    """
    width = x.shape[2]
    half = torch.fft.rfft2(x, norm="ortho").real  # channel frequencies 0 to width // 2
    rest = half[:, :, 1 : (width + 1) // 2].flip(2)
    mirrored = torch.cat([rest[:, :1], rest[:, 1:].flip(1)], dim=1)
    return torch.cat([half, mirrored], dim=2)
