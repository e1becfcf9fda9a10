"""SEW's fixed sequence compression (arXiv 2109.06870, section 4.2): the encoder runs on every `factor` frames, its
output is spread again.

Squeeze: mean of `factor` frames plus the position embedding at that stride, cut to the shorter. Upsampling: a linear
to `factor` x width and GELU, read as `factor` frames; frames left over at the end are zero. Both as the authors' code
has it.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

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


def _fit(x: Tensor, factor: int, padding: Padding) -> Tensor:
    x = x[:, : padding.size]
    x = F.pad(x, (0, 0, 0, padding.size - x.shape[1]))
    return padding.whole_groups(factor).zero(x)


class Upsampling(nn.Module):
    """`(batch, squeezed, dim)` → `(batch, size, dim)`. Frames past the last whole group of an utterance are zero."""

    def __init__(self, dim: int, factor: int):
        super().__init__()
        self.factor = factor
        self.proj = nn.Linear(dim, factor * dim)

    def initialise(self) -> None:
        nn.init.kaiming_normal_(self.proj.weight, mode="fan_out")
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor, padding: Padding) -> Tensor:
        """`padding` describes the frames that come out."""
        return _fit(F.gelu(self.proj(x)).unflatten(-1, (self.factor, -1)).flatten(1, 2), self.factor, padding)
