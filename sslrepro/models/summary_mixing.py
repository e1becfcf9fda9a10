"""SummaryMixing (arXiv 2307.07421; in the cell of its SSL paper, arXiv 2407.13377): each frame is combined with a summary
of its utterance, at a cost linear in its frames.

    h_t = c( f(x_t), s̄ ),   s̄ = 1/T Σ_t s(x_t)

f (local) and s (summary): two block-diagonal linears ("heads"), each followed by the activation; a layer norm on f(x_t)
and on s̄; c: a linear of the two side by side, and the activation. The mean is over the utterance's true length.

s̄ is the same for every frame, so its half of c is multiplied once an utterance: the same value for half of c's work.
Dropout before c therefore drops channels of s̄ once an utterance, where the authors' code drops them frame by frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslrepro.config import EncoderSettings
from sslrepro.models.activation import Activation
from sslrepro.models.blocks import BlockMLP, blocks_of, join, mapped, split
from sslrepro.models.dropout import Dropout
from sslrepro.models.linear import Linear
from sslrepro.models.padding import Padding
from sslrepro.models.spectrum import convolve

DECAY = 0.995  # a frame: the authors' value


class SummaryMixing(nn.Module):
    """The full form, `(batch, frames, width)` → the same. Subclasses change how branches are made and averaged."""

    def __init__(self, settings: EncoderSettings):
        super().__init__()
        self.width, self.blocks = settings.width, blocks_of(settings)
        self.activation = Activation(settings.activation)
        self.dropout = Dropout(settings.dropout)
        self._build_branches()
        self.local_norm, self.summary_norm = nn.LayerNorm(self.width), nn.LayerNorm(self.width)
        self.of_local = Linear(self.width, self.width, bias=False)  # the two halves of c
        self.of_summary = Linear(self.width, self.width)

    def _build_branches(self) -> None:
        self.local = BlockMLP(self.width, self.blocks, self.activation)
        self.summary = BlockMLP(self.width, self.blocks, self.activation)

    def branches(self, x: Tensor, padding: Padding) -> tuple[Tensor, Tensor]:
        """f(x_t) `(batch, frames, width)` and s̄ `(batch, 1, width)`."""
        f, s = mapped(split(x, self.blocks), self.local, self.summary)
        return join(f, x), mean_of_blocks(s, padding)

    def forward(self, x: Tensor, padding: Padding) -> Tensor:
        f, s = self.branches(x, padding)
        f, s = self.dropout(self.local_norm(f)), self.dropout(self.summary_norm(s))
        return self.activation(self.of_local(f).add_(self.of_summary(s)))


class FastSummaryMixing(SummaryMixing):
    """f and s are one full linear and an activation, split in two (the authors' "fast" form)."""

    def _build_branches(self) -> None:
        self.first = Linear(self.width, 2 * self.width)

    def branches(self, x: Tensor, padding: Padding) -> tuple[Tensor, Tensor]:
        f, s = self.activation(self.first(x)).chunk(2, dim=-1)
        return f, mean(s, padding)


class DecaySummaryMixing(SummaryMixing):
    """Each frame has a summary of its own, a mean with weights 0.995^|t - u| (the authors' "expdecay" form): by a Fourier
    transform, so T log T.
    """

    def branches(self, x: Tensor, padding: Padding) -> tuple[Tensor, Tensor]:
        """s̄ is `(batch, frames, width)` here."""
        f, s = (join(y, x) for y in mapped(split(x, self.blocks), self.local, self.summary))
        frames = x.shape[1]
        lags = torch.arange(1 - frames, frames, device=x.device, dtype=_exact(s))
        sums = convolve(padding.zero(s), (DECAY ** lags.abs()).to(s.dtype)[:, None])
        return f, sums / _decayed_count(padding, s)


def _decayed_count(padding: Padding, x: Tensor) -> Tensor:
    """Σ_u 0.995^|t - u| over the frames u of each utterance, a geometric series: `(batch, frames, 1)`."""
    at = torch.arange(padding.size, device=x.device, dtype=_exact(x))
    left = torch.tensor(padding.lengths).to(x.device, non_blocking=True)[:, None] - at
    series = (1 + DECAY - DECAY ** (at + 1) - DECAY ** left.clamp(min=0)) / (1 - DECAY)
    return series.to(x.dtype)[..., None]


def _exact(x: Tensor) -> torch.dtype:
    """x's, at least float32: that of DECAY to the power of a tensor, which for integers would be float32 beside doubles too."""
    return torch.promote_types(x.dtype, torch.float32)


class LiteSummaryMixing(nn.Module):
    """h_t = s̄ alone, layer-normed (the authors' "lite" form): what is local is left to the residual, or to the other
    branch of a Branchformer.
    """

    def __init__(self, settings: EncoderSettings):
        super().__init__()
        self.blocks = blocks_of(settings)
        self.summary = BlockMLP(settings.width, self.blocks, Activation(settings.activation))
        self.summary_norm = nn.LayerNorm(settings.width)

    def forward(self, x: Tensor, padding: Padding) -> Tensor:
        s = mean_of_blocks(self.summary(split(x, self.blocks)), padding)
        return self.summary_norm(s).expand_as(x)


def mean(x: Tensor, padding: Padding) -> Tensor:
    """The mean over true lengths of `(batch, frames, width)`: `(batch, 1, width)`."""
    if padding.valid is None:
        return x.mean(1, keepdim=True)
    return _weights(padding, x) @ x


def mean_of_blocks(x: Tensor, padding: Padding) -> Tensor:
    """The same of `(blocks, batch · frames, width / blocks)`, which is read where it lies."""
    x = x.unflatten(1, (len(padding.lengths), padding.size))
    # a sum's gradient is a view, a mean's a tensor of all frames
    means = x.sum(2) / padding.size if padding.valid is None else (_weights(padding, x) @ x).squeeze(2)  # (blocks, batch, width / blocks)
    return means.transpose(0, 1).flatten(1)[:, None]


def _weights(padding: Padding, x: Tensor) -> Tensor:
    """1 / length on valid frames: `(batch, 1, frames)`."""
    valid = padding.valid[:, None].to(x.dtype)
    return valid / valid.sum(-1, keepdim=True)
