"""Matrix products with weights, by the fastest exact kernel at hand.

On processors torch gives float32 products to MKL, which runs at half of oneDNN's speed where the processor is not Intel's. On Intel's it is
the faster one, as oneDNN copies transposed matrices first (measured in benchmarks/NOTES.md). Both are in torch; this is
`torch.nn.Linear` through the faster one, forward and backward. Other devices and precisions go torch's own way.
"""

from __future__ import annotations

import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _intel() -> bool:
    """Whether the processor is Intel's."""
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return "Intel" in platform.processor()


_ONEDNN = (
    torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    and not (torch.backends.mkl.is_available() and _intel())
)
_LEAST = 1 << 26  # multiplications; below, making the kernel for a new shape (0.25 ms) costs more than it saves
_LEAST_OF_BLOCKS = _LEAST // 2  # which share a kernel, and MKL's small products are slower
_LEAST_OF_A_BLOCK = 1 << 22  # below, calling them one by one costs more than it saves


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x @ weight.T + bias`: `(..., inputs)`, `(outputs, inputs)`, `(outputs,)` → `(..., outputs)`."""
    if torch.is_autocast_enabled("cpu") or not (x.dtype == weight.dtype == torch.float32 and _by_onednn(x, weight)):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


def by_blocks(a: Tensor, b: Tensor) -> bool:
    """Whether oneDNN makes the products `a @ b` best: `(..., rows, inner)`, `(..., inner, columns)`, one by one, by `onednn`."""
    single = a.dtype == b.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    one, many = a.shape[-2] * a.shape[-1] * b.shape[-1], a.numel() * b.shape[-1]
    return single and _ONEDNN and a.device.type == "cpu" and one >= _LEAST_OF_A_BLOCK and many >= _LEAST_OF_BLOCKS


class Linear(nn.Linear):
    """`torch.nn.Linear`, through `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """`a @ b.T + bias` of one precision, without a gradient: `(..., inner)`, `(columns, inner)`. Transposed matrices are not copied."""
    return onednn(a, b, bias) if a.dtype == torch.float32 and _by_onednn(a, b) else F.linear(a, b, bias)


def add_product(out: Tensor, a: Tensor, b: Tensor) -> None:
    """Adds `a @ b.T` to `out`, which may have gaps between rows; without a gradient."""
    if a.dtype == torch.bfloat16 or _by_onednn(a, b):  # the one has no such kernel for gaps, the other none that adds
        out += product(a, b)
    else:
        out.addmm_(a, b.T)


def onednn(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """`product` of float32 on the processor, whatever its size."""
    return torch.ops.mkldnn._linear_pointwise(_dense(a), _dense(b), bias, "none", [], None)


def _dense(x: Tensor) -> Tensor:
    """oneDNN falls back to plain loops, a thousand times slower, where a matrix has gaps."""
    return x if x.dim() == 2 and x.T.is_contiguous() else x.contiguous()


def _by_onednn(a: Tensor, b: Tensor) -> bool:
    return _ONEDNN and a.device.type == "cpu" and a.numel() * b.shape[0] >= _LEAST


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        rows = product(x.reshape(-1, x.shape[-1]), weight, bias)
        return torch.ops.aten._unsafe_view(rows, (*x.shape[:-1], weight.shape[0]))  # no view, so that what follows may write into it

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        dx = product(rows, weight.T).view(x.shape) if ctx.needs_input_grad[0] else None
        dw = product(rows.T, x.reshape(-1, x.shape[-1]).T) if ctx.needs_input_grad[1] else None
        return dx, dw, rows.sum(0) if ctx.biased and ctx.needs_input_grad[2] else None
