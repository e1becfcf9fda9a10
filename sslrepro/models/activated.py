"""Activation, dropout and the linear after them as one step of the backward pass: of the wide tensors only the first is kept."""

from __future__ import annotations

import torch
from torch import Tensor

from sslrepro.models.activation import activate, activation_backward
from sslrepro.models.dropout import drop, kept
from sslrepro.models.linear import product


def activated_linear(x: Tensor, weight: Tensor, bias: Tensor, activation: str, share: float) -> Tensor:
    """`dropout(activation(x)) @ weight.T + bias` on the processor: `(..., inputs)` → `(..., outputs)`, in the precision of `x`.

    `activation`: as `models.layers.Activation`; `share`: of the inputs that is dropped, 0 for none.
    """
    keep = kept(x.shape, share) if share else None
    return _Activated.apply(x, weight, bias, keep, activation, share)


class _Activated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, keep: Tensor | None, activation: str, share: float) -> Tensor:
        ctx.save_for_backward(x, weight, keep)
        ctx.activation, ctx.share = activation, share
        with torch.autocast("cpu", enabled=False):
            return product(_wide(ctx, x, keep), weight.to(x.dtype), bias.to(x.dtype))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        x, weight, keep = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        by_weight = product(rows.T, _wide(ctx, x, keep).reshape(-1, x.shape[-1]).T)
        by_wide = product(rows, weight.to(rows.dtype).T).view(x.shape)
        if keep is not None:
            by_wide = drop(by_wide, keep, ctx.share)
        return activation_backward(by_wide, x, ctx.activation), by_weight.to(weight.dtype), rows.sum(0).to(weight.dtype), None, None, None


def _wide(ctx, x: Tensor, keep: Tensor | None) -> Tensor:
    wide = activate(x, ctx.activation)
    return wide if keep is None else drop(wide, keep, ctx.share)
