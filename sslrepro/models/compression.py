"""Sequence compression: SEW's fixed one (arXiv 2109.06870, section 4.2) and stochastic wav2vec 2.0's (arXiv
2204.11934), where one set of weights serves every factor.

Squeeze, both: mean of `factor` frames plus the position embedding at that stride, cut to the shorter. Upsampling, SEW:
a linear to `factor` x width and GELU, read as `factor` frames, as the authors' code has it. Stochastic: repetition plus
a residual linear; how exactly is in no source that we could read, so its form is ours. Frames left over at the end are
zero. Pooling of queries, and of keys and values, is inside the mixer (`models.mixers`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslrepro.models.linear import Linear
from sslrepro.models.padding import Padding


def squeeze(x: Tensor, position: Tensor | None, factor: int) -> Tensor:
    """`(batch, frames, dim)` and its position embedding `(batch, about frames / factor, dim)` → `(batch, frames //
    factor, dim)`.
    """
    frames = x.shape[1] // factor
    pooled = x[:, : frames * factor].unflatten(1, (frames, factor)).mean(2)
    return pooled if position is None else pooled + position[:, :frames]


def spread(x: Tensor, factor: int, padding: Padding) -> Tensor:
    """Each frame repeated `factor` times, `(batch, squeezed, dim)` to `(batch, frames, dim)`; zero past the last whole
    group.
    """
    return _fit(x.repeat_interleave(factor, dim=1), factor, padding)


def pool(x: Tensor, factor: int, padding: Padding) -> tuple[Tensor, Padding]:
    """Means of `factor` frames, `(batch, frames, dim)` to `(batch, ceil(frames / factor), dim)`. The last group of an
    utterance is the mean of what it has; padding counts nowhere.
    """
    if factor == 1:
        return x, padding
    size = -(-x.shape[1] // factor)
    rest = size * factor - x.shape[1]
    sums = F.pad(padding.zero(x), (0, 0, 0, rest)).unflatten(1, (size, factor)).sum(2)
    valid = torch.ones_like(x[:1, :, 0]) if padding.valid is None else padding.valid.to(x.dtype)
    counts = F.pad(valid, (0, rest)).unflatten(1, (size, factor)).sum(2).clamp(min=1)
    return sums / counts[:, :, None], Padding.of([-(-n // factor) for n in padding.lengths], size, x.device)


def _fit(x: Tensor, factor: int, padding: Padding) -> Tensor:
    x = x[:, : padding.size]
    x = F.pad(x, (0, 0, 0, padding.size - x.shape[1]))
    return padding.whole_groups(factor).zero(x)


class Upsampling(nn.Module):
    """`(batch, squeezed, dim)` → `(batch, size, dim)`. Frames past the last whole group of an utterance are zero."""

    def __init__(self, dim: int, factor: int):
        super().__init__()
        self.factor = factor
        self.proj = Linear(dim, factor * dim)

    def initialise(self) -> None:
        nn.init.kaiming_normal_(self.proj.weight, mode="fan_out")
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor, padding: Padding) -> Tensor:
        """`padding` describes the frames that come out."""
        return _fit(F.gelu(self.proj(x)).unflatten(-1, (self.factor, -1)).flatten(1, 2), self.factor, padding)


class SharedUpsampling(nn.Module):
    """`(batch, squeezed, dim)` → `(batch, size, dim)` at any factor up to `largest`: each frame repeated, plus a linear
    of it that differs with the place in the group. It starts at zero; place i has the same weights at every factor.
    """

    def __init__(self, dim: int, largest: int):
        super().__init__()
        self.proj = Linear(dim, largest * dim)

    def initialise(self) -> None:
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor, factor: int, padding: Padding) -> Tensor:
        """`padding` describes the frames that come out."""
        wide = factor * x.shape[-1]
        places = F.linear(x, self.proj.weight[:wide], self.proj.bias[:wide]).unflatten(-1, (factor, -1))
        return _fit((x[:, :, None] + places).flatten(1, 2), factor, padding)
