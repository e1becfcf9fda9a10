"""Segments of variable length: few where the input stands still, many where it changes.

Meng et al. (arXiv 2210.07189) shorten a distilled student's input by fixed or variable lengths, at best down to phones; Chen et al.
(arXiv 2211.02332) train one such model for a continuous range of mean lengths. How exactly is in no source that we could read. Continuous
integrate and fire (Dong 2020, arXiv 1905.11235) ends a segment where the sum of the frames' weights reaches one. The rest is ours:

- a frame's weight is the sigmoid of a linear of |x[t] - x[t-1]|, which starts as an increasing function of the mean change, and is learned
  from the objective alone;
- an utterance of T frames has n = round(T / rate) segments: weights are scaled to the sum n, then drawn towards their mean until none is
  above 1, so at rate 1 every frame is a segment of its own;
- a frame that straddles a boundary counts in both segments by its shares, and reads both by the same shares on the way back.

Everything is continuous in the weights, so their gradient is plain autograd's, and rounding never moves a boundary by a frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sslrepro.config import segment_count
from sslrepro.models.linear import Linear
from sslrepro.models.padding import Padding

STEEPNESS = 4.0  # at the start: how much faster a weight's logit grows than the mean change
STILL = -2.0  # at the start: the logit of a frame like the one before it


@dataclass(frozen=True)
class Segments:
    """`shares` (batch, segments, frames): how much of each segment each frame is; a segment's sum is 1, a frame's is its weight.

    `weights` (batch, frames), 1 on padding. `padding`: which segments there are.
    """

    shares: Tensor
    weights: Tensor
    padding: Padding

    def average(self, x: Tensor) -> Tensor:
        """`(batch, frames, dim)` → `(batch, segments, dim)`."""
        return self.shares.to(x.dtype) @ x

    def spread(self, x: Tensor) -> Tensor:
        """`(batch, segments, dim)` → `(batch, frames, dim)`; zero on padding."""
        return (self.shares / self.weights[:, None]).transpose(1, 2).to(x.dtype) @ x


def segments_of(weights: Tensor, padding: Padding, rate: float) -> Segments:
    """Segments from positive weights `(batch, frames)`, whatever they are on padding."""
    counts = [segment_count(n, rate) for n in padding.lengths]
    inner = Padding.of(counts, segment_count(padding.size, rate), weights.device)
    mean = torch.tensor([k / n for k, n in zip(counts, padding.lengths, strict=True)], dtype=weights.dtype).to(
        weights.device, non_blocking=True
    )[:, None]
    total = torch.tensor(counts, dtype=weights.dtype).to(weights.device, non_blocking=True)[:, None]
    weights = weights if padding.valid is None else weights.masked_fill(~padding.valid, 0.0)
    weights = weights * (total / weights.sum(1, keepdim=True))
    excess = (weights.amax(1, keepdim=True) - mean).clamp(min=1e-6)
    weights = mean + ((1 - mean) / excess).clamp(max=1.0) * (weights - mean)
    weights = weights if padding.valid is None else weights.masked_fill(~padding.valid, 0.0)
    ends = torch.minimum(_running_sum(weights), total)
    starts = torch.cat([torch.zeros_like(ends[:, :1]), ends[:, :-1]], dim=1)
    first = torch.arange(inner.size, device=weights.device, dtype=weights.dtype)[:, None]
    shares = (torch.minimum(ends[:, None], first + 1) - torch.maximum(starts[:, None], first)).clamp(min=0)
    return Segments(shares, weights if padding.valid is None else weights.masked_fill(~padding.valid, 1.0), inner)


def _running_sum(x: Tensor) -> Tensor:
    """`(batch, frames)` summed along the frames; as sums of their own where the order must be fixed: a GPU's cumsum has none."""
    if not torch.are_deterministic_algorithms_enabled():
        return x.cumsum(1)
    return (x[:, None] * torch.ones(x.shape[1], x.shape[1], dtype=x.dtype, device=x.device).tril()).sum(2)


class Segmenter(nn.Module):
    """Weights of frames, `(batch, frames, dim)` → Segments at a mean of `rate` frames."""

    def __init__(self, dim: int):
        super().__init__()
        self.change = Linear(dim, 1)

    def initialise(self) -> None:
        nn.init.constant_(self.change.weight, STEEPNESS / self.change.in_features)
        nn.init.constant_(self.change.bias, STILL)

    def forward(self, x: Tensor, padding: Padding, rate: float) -> Segments:
        changes = (x - torch.cat([x[:, :1], x[:, :-1]], dim=1)).abs()
        weights = self.change(changes)[..., 0]
        return segments_of(torch.sigmoid(weights if weights.dtype == torch.float64 else weights.float()), padding, rate)
