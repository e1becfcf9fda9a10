"""Scaled dot-product attention with dropout on the processor.

torch's fast kernel there knows no dropout; its other path keeps the attention weights three times over, in float32. This one keeps which
weights were dropped, and makes the rest again in the backward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sslrepro.models.dropout import drop, kept


def dropped_attention(q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None, share: float) -> Tensor:
    """`(batch, heads, frames, dim)` each, of one precision; `valid` (batch, 1, 1, frames) bool or None: keys that count."""
    keep = kept((*q.shape[:3], k.shape[2]), share)
    with torch.autocast("cpu", enabled=False):
        return _Attention.apply(q * q.shape[-1] ** -0.5, k, v, valid, keep, share)


def _weights(q: Tensor, k: Tensor, valid: Tensor | None) -> Tensor:
    scores = q @ k.transpose(-2, -1)
    if valid is not None:
        scores.masked_fill_(~valid, -torch.inf)
    return torch.softmax(scores, dim=-1)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None, keep: Tensor, share: float) -> Tensor:
        ctx.save_for_backward(q, k, v, valid, keep)
        ctx.share = share
        return drop(_weights(q, k, valid), keep, share) @ v

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        q, k, v, valid, keep = ctx.saved_tensors
        weights = _weights(q, k, valid)
        by_v = drop(weights, keep, ctx.share).transpose(-2, -1) @ grad
        by_weights = drop(grad @ v.transpose(-2, -1), keep, ctx.share)
        by_scores = torch.ops.aten._softmax_backward_data(by_weights, weights, -1, weights.dtype)
        return by_scores @ k, by_scores.transpose(-2, -1) @ q, by_v, None, None, None
