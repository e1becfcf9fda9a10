"""wav2vec 2.0's strided convolutions as matrix products on the processor: half the time of torch's convolutions, and under half the memory.

Utterances lie one after the other, each filled up to a whole number of hops, as `(time, channels)`. `stride` frames side by side are then a
view, a convolution is one product for each such group of its taps, and no padding between utterances is computed. Frames that look across
an utterance's end are junk; nothing that is kept reads them.

The first block's group norm needs no pass over its output: mean and variance of each channel follow from those of the windows of the
waveform (kernel x kernel numbers an utterance), and the norm becomes part of the weights. Its output is made again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sslrepro.models.linear import add_product, product

_ROWS = 1024  # of the first block at a time: stays in the cache


def packed_features(
    waveforms: Tensor, lengths: Sequence[int], weights: Sequence[Tensor], strides: Sequence[int], scale: Tensor, shift: Tensor, eps: float
) -> list[Tensor]:
    """Features of each utterance, `(frames, channels)`, of its first `lengths` samples in `waveforms` (batch, samples).

    `weights`: of the convolutions, `(outputs, inputs, kernel)`, no bias, no padding, kernels no smaller than strides; `scale`, `shift`,
    `eps`: of the group norm after the first, one group a channel. GELU after each block.
    """
    hop = 1
    for stride in strides:
        hop *= stride
    sizes = [-(-n // hop) * hop for n in lengths]
    flat = torch.cat([F.pad(row[:n], (0, size - n)) for row, n, size in zip(waveforms, lengths, sizes, strict=True)])
    precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else waveforms.dtype
    with torch.autocast("cpu", enabled=False):
        x = _first(flat, lengths, sizes, weights[0], strides[0], scale, shift, eps, precision)
        for number, (weight, stride) in enumerate(zip(weights[1:], strides[1:], strict=True)):
            x = _Convolution.apply(x, weight.to(precision), stride, number > 0)
        x = F.gelu(x)
    frames = list(lengths)
    for weight, stride in zip(weights, strides, strict=True):
        frames = [(n - weight.shape[2]) // stride + 1 for n in frames]
    return [row[:n] for row, n in zip(x.split([size // hop for size in sizes]), frames, strict=True)]


def _first(
    flat: Tensor, lengths: Sequence[int], sizes: Sequence[int], weight: Tensor, stride: int, scale: Tensor, shift: Tensor, eps: float,
    precision: torch.dtype,
) -> Tensor:  # fmt: skip
    """Convolution of the waveform, group norm, GELU: `(samples,)` → `(samples // stride, channels)`."""
    kernel = weight.shape[2]
    windows = F.pad(flat, (0, kernel - stride)).unfold(0, kernel, stride).contiguous()
    taps, start, folded, shifts = weight[:, 0].double(), 0, [], []  # few numbers, and sums over many frames
    for n, size in zip(lengths, sizes, strict=True):
        own = windows[start : start + (n - kernel) // stride + 1].double()
        mean = own.mean(0)
        centred = own - mean
        variance = ((taps @ (centred.T @ centred / len(own))) * taps).sum(1)
        folded.append(taps * (scale * torch.rsqrt(variance + eps))[:, None])
        shifts.append(shift - folded[-1] @ mean)
        start += size // stride
    weights, biases = torch.stack(folded).to(windows.dtype), torch.stack(shifts).to(windows.dtype)
    return _Pointwise.apply(windows, weights, biases, [size // stride for size in sizes], precision)


class _Pointwise(torch.autograd.Function):
    """GELU(window @ weight.T + bias) with the weights of its utterance. Keeps the windows alone."""

    @staticmethod
    def forward(ctx, windows: Tensor, weights: Tensor, biases: Tensor, sizes: list[int], precision: torch.dtype) -> Tensor:
        ctx.save_for_backward(windows, weights, biases)
        ctx.sizes = sizes
        out = windows.new_empty(len(windows), weights.shape[1], dtype=precision)
        for row, piece in _pieces(sizes):
            before = product(windows[piece], weights[row], biases[row])
            if precision == before.dtype:
                torch.ops.aten.gelu.out(before, out=out[piece])
            else:
                out[piece] = F.gelu(before)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[None, Tensor, Tensor, None, None]:
        windows, weights, biases = ctx.saved_tensors
        by_weights, by_biases = torch.zeros_like(weights), torch.zeros_like(biases)
        for row, piece in _pieces(ctx.sizes):
            before = product(windows[piece], weights[row], biases[row])
            before = torch.ops.aten.gelu_backward(grad[piece].to(before.dtype), before)
            by_weights[row] += product(before.T, windows[piece].T)
            by_biases[row] += before.sum(0)
        return None, by_weights, by_biases, None, None


def _pieces(sizes: list[int]) -> list[tuple[int, slice]]:
    """(utterance, its frames), some at a time."""
    starts = [sum(sizes[:row]) for row in range(len(sizes))]
    return [
        (row, slice(first, min(first + _ROWS, start + size)))
        for row, (start, size) in enumerate(zip(starts, sizes, strict=True))
        for first in range(start, start + size, _ROWS)
    ]


class _Convolution(torch.autograd.Function):
    """`(time, inputs)` → `(time // stride, outputs)`, with the GELU before it where `activate`: then what comes in is what was before the
    GELU, and that alone is kept.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: int, activate: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.activate = stride, activate
        blocks = (F.gelu(x) if activate else x).view(-1, stride * x.shape[1])
        out = None
        for late, taps in _groups(weight, stride):
            if out is None:
                out = product(blocks, taps)
            else:
                add_product(out[:-late], blocks[late:, : taps.shape[1]], taps)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        blocks = (F.gelu(x) if ctx.activate else x).view(-1, ctx.stride * x.shape[1])
        by_blocks, by_taps = None, []
        for late, taps in _groups(weight, ctx.stride):
            rows = grad[: len(grad) - late]
            by_taps.append(product(rows.T, blocks[late:, : taps.shape[1]].T))
            if by_blocks is None:
                by_blocks = product(rows, taps.T)
            else:
                add_product(by_blocks[late:, : taps.shape[1]], rows, taps.T)
        outputs, inputs, kernel = weight.shape
        by_weight = torch.cat(by_taps, dim=1).view(outputs, kernel, inputs).transpose(1, 2)
        by_x = by_blocks.view(x.shape)
        return (torch.ops.aten.gelu_backward(by_x, x) if ctx.activate else by_x), by_weight, None, None


def _groups(weight: Tensor, stride: int) -> list[tuple[int, Tensor]]:
    """How many blocks of `stride` frames later, and the taps there: `(outputs, taps x inputs)`."""
    taps = weight.transpose(1, 2)
    return [(first // stride, taps[:, first : first + stride].flatten(1)) for first in range(0, weight.shape[2], stride)]
