"""Convolutions over whole utterances by fast Fourier transforms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
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


class GroupedConvolution(torch.autograd.Function):
    """`conv1d(x, weight, padding=kernel // 2, groups=groups)` in float32: `(batch, channels, frames)`, `(channels, channels / groups,
    kernel)` → `(batch, channels, frames or, with an even kernel, one more)`. Keeps what torch's own keeps.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.groups = groups
        kernel, n = weight.shape[2], _length(x, weight)
        y = _at_each(x, groups, n, kernel // 2) @ _taps(weight, groups, n).conj().mT
        return _back(y, n, x.shape[2] + 1 - kernel % 2)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        kernel, n = weight.shape[2], _length(x, weight)
        by_y = _at_each(grad, ctx.groups, n)
        by_x = _back(by_y @ _taps(weight, ctx.groups, n), n, kernel // 2 + x.shape[2])[..., kernel // 2 :]
        by_taps = by_y.mH @ _at_each(x, ctx.groups, n, kernel // 2)
        return by_x, torch.fft.irfft(by_taps.flatten(1, 2).permute(1, 2, 0), n)[..., :kernel], None


def _length(x: Tensor, weight: Tensor) -> int:
    return fast_length((x.shape[2] + 2 * (weight.shape[2] // 2)) // 2 + 1)


def _at_each(x: Tensor, groups: int, n: int, before: int = 0) -> Tensor:
    """Spectra, behind so many zeros: `(batch, channels, frames)` → `(frequencies, groups, batch, channels / groups)`."""
    return torch.fft.rfft(F.pad(x, (before, 0)), n).unflatten(1, (groups, -1)).permute(3, 1, 0, 2).contiguous()


def _taps(weight: Tensor, groups: int, n: int) -> Tensor:
    """`(frequencies, groups, outputs / groups, inputs / groups)`."""
    return torch.fft.rfft(weight, n).unflatten(0, (groups, -1)).permute(3, 0, 1, 2).contiguous()


def _back(spectra: Tensor, n: int, frames: int) -> Tensor:
    """From spectra as of `_at_each` the first frames: `(batch, channels, frames)`."""
    return torch.fft.irfft(spectra.permute(2, 1, 3, 0).flatten(1, 2), n)[..., :frames]


def wide(x: Tensor) -> Tensor:
    """At least float32, which transforms need."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
