"""Scaled dot-product attention with dropout on the processor.

torch's fast kernel there knows no dropout; its other path keeps the attention weights three times over, in float32. This one keeps which
weights were dropped, and makes the rest again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor

from sslrepro.models.dropout import drop, factors, kept
from sslrepro.models.linear import by_blocks, onednn

_LARGE = 1 << 22  # multiplications of a head; below, calling a few at a time costs more than it saves
_CACHED = 1 << 20  # attention weights, 4 MB: two processors' own caches


def dropped_attention(q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None, share: float) -> Tensor:
    """`(batch, heads, frames, dim)` each, of one precision; `valid` (batch, 1, 1, frames) bool or None: keys that count."""
    keep = kept((*q.shape[:3], k.shape[2]), share)
    with torch.autocast("cpu", enabled=False):
        return _Attention.apply(q * q.shape[-1] ** -0.5, k, v, valid, keep, share)


class _Attention(torch.autograd.Function):
    """Large products of float32 a few heads at a time, so that their squares of weights stay in the cache; else all at once."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None, keep: Tensor, share: float) -> Tensor:
        ctx.save_for_backward(q, k, v, valid, keep)
        ctx.share = share
        y = _by_frames(q)
        for at, times in _pieces(q, k):
            y[at] = times(drop(_weights(q[at], k[at], valid, at, times), keep[at], share), v[at].mT)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        whole_q, whole_k, whole_v, valid, keep = ctx.saved_tensors
        by_q, by_k, by_v = _by_frames(whole_q), _by_frames(whole_k), _by_frames(whole_v)
        for at, times in _pieces(whole_q, whole_k):
            q, k, v, by_y = (x[at] if times is _rows else x[at].contiguous() for x in (whole_q, whole_k, whole_v, grad))
            weights, scale = _weights(q, k, valid, at, times), factors(keep[at], ctx.share, q.dtype)
            by_v[at] = times((weights * scale).mT, by_y.mT)
            by_weights = times(by_y, v).mul_(scale)
            by_scores = torch.ops.aten._softmax_backward_data(by_weights, weights, -1, weights.dtype)
            by_q[at], by_k[at] = times(by_scores, k.mT), times(by_scores.mT, q.mT)
        return by_q, by_k, by_v, None, None, None


def _weights(q: Tensor, k: Tensor, valid: Tensor | None, at: tuple, times: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    scores = times(q, k)
    if valid is not None:
        scores.masked_fill_(~valid[at[0], 0 if len(at) > 1 else slice(None)], -torch.inf)
    return torch.softmax(scores, dim=-1)


def _pieces(q: Tensor, k: Tensor) -> Iterator[tuple[tuple, Callable[[Tensor, Tensor], Tensor]]]:
    """Where a piece lies in `(batch, heads)`, and how it multiplies `a @ b.mT`."""
    (batch, heads, frames, dim), keys = q.shape, k.shape[2]
    if by_blocks(q, k.mT):
        yield from ((at, onednn) for at in product(range(batch), range(heads)))
    elif q.dtype == torch.float32 and frames * keys * dim >= _LARGE:
        some = -(-heads // -(-heads * frames * keys // _CACHED))  # in as few pieces as may be, all alike
        yield from (((row, slice(head, head + some)), _rows) for row, head in product(range(batch), range(0, heads, some)))
    else:
        yield (slice(None),), lambda a, b: a @ b.mT


def _rows(a: Tensor, b: Tensor) -> Tensor:
    """Rows may be apart, as heads of one tensor's are."""
    return a @ b.mT


def _by_frames(like: Tensor) -> Tensor:
    """Room for `(batch, heads, frames, dim)` that lies in memory as `(batch, frames, heads, dim)`, as linears read and write it."""
    batch, heads, frames, dim = like.shape
    return like.new_empty(batch, frames, heads, dim).transpose(1, 2)
