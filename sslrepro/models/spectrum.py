"""Convolutions over whole utterances by fast Fourier transforms."""

from __future__ import annotations

import torch
from torch import Tensor

from sslrepro.budget.ops import fast_length


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """y[t] = Σ_u kernel[t - u] x[u]: `x` (batch, frames, channels) and `kernel` (2 · frames - 1, channels or 1), whose entries
    are the lags from -(frames - 1) to frames - 1. Frames beyond an utterance's end must be zero. T log T.
    """
    frames = x.shape[1]
    n = fast_length(frames)
    x, kernel = wide(x), wide(kernel)
    spectrum = torch.fft.rfft(x, n, dim=1) * torch.fft.rfft(kernel, n, dim=0)
    return torch.fft.irfft(spectrum, n, dim=1)[:, frames - 1 : 2 * frames - 1]


def wide(x: Tensor) -> Tensor:
    """At least float32, which transforms need."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
