"""A linear map by blocks: each group of channels has a small matrix of its own.

On processors torch gives batched products to MKL; large ones of float32 go to oneDNN here, as those of `models.linear` do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sslrepro.config import EncoderSettings
from sslrepro.errors import UserError
from sslrepro.models.activation import Activation, activate, activation_backward
from sslrepro.models.linear import by_blocks, onednn


class BlockLinear(nn.Module):
    """A block-diagonal linear in the layout that batched products read: `(blocks, rows, inputs / blocks)` → `(blocks,
    rows, outputs / blocks)`. Weights uniform within 1 / √fan-in, biases zero.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(blocks, inputs // blocks, outputs // blocks))
        self.bias = nn.Parameter(torch.zeros(blocks, 1, outputs // blocks))
        bound = 1 / math.sqrt(inputs // blocks)
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":  # where baddbmm would write the bias out first, a pass more
            return torch.bmm(x, self.weight).add_(self.bias)
        return torch.baddbmm(self.bias, x, self.weight)


class BlockMLP(nn.Module):
    """Two block-diagonal linears, each followed by the activation: `(blocks, rows, width / blocks)` → the same."""

    def __init__(self, width: int, blocks: int, activation: Activation):
        super().__init__()
        self.first, self.second = BlockLinear(width, width, blocks), BlockLinear(width, width, blocks)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return mapped(x, self)[0]

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.first.weight, self.first.bias, self.second.weight, self.second.bias


def mapped(x: Tensor, *mlps: BlockMLP) -> Sequence[Tensor]:
    """What each of these, of one width and activation, makes of `x`."""
    if by_blocks(x, mlps[0].first.weight):
        return _Mapped.apply(x, mlps[0].activation.name, *(part for mlp in mlps for part in mlp.parts()))
    return [mlp.activation(mlp.second(mlp.activation(mlp.first(x)))) for mlp in mlps]


class _Mapped(torch.autograd.Function):
    """Block after block, so that a block stays in the cache from product to product. Keeps what torch's own operations keep; what comes out
    lies as `(rows, width)`, so that `join` copies nothing."""

    @staticmethod
    def forward(ctx, x: Tensor, activation: str, *parts: Tensor) -> tuple[Tensor, ...]:
        mlps = [(_transposed(w1), b1, _transposed(w2), b2) for w1, b1, w2, b2 in _fours(parts)]
        outputs, kept = [_side_by_side(x) for _ in mlps], []
        for i in range(len(x)):
            block = x[i].contiguous()
            for y, (w1, b1, w2, b2) in zip(outputs, mlps, strict=True):
                a = onednn(block, w1[i], b1[i, 0])
                b = activate(a, activation)
                c = onednn(b, w2[i], b2[i, 0])
                y[i] = activate(c, activation)
                kept += [a, b, c]
        ctx.save_for_backward(x, *parts, *kept)
        ctx.activation, ctx.parts = activation, len(parts)
        return tuple(outputs)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        mlps, kept = _fours(saved[: ctx.parts]), iter(saved[ctx.parts :])
        by_parts = [torch.empty_like(part) for part in saved[: ctx.parts]]
        by_x = _side_by_side(x) if ctx.needs_input_grad[0] else None
        for i in range(len(x)):
            block, by_block = x[i].contiguous(), []
            for grad, (w1, _, w2, _), by_mlp in zip(grads, mlps, _fours(by_parts), strict=True):
                a, b, c = next(kept), next(kept), next(kept)
                by_c = activation_backward(grad[i].contiguous(), c, ctx.activation)
                by_a = activation_backward(onednn(by_c, w2[i]), a, ctx.activation)
                of_block = (onednn(block.T, by_a.T), by_a.sum(0), onednn(b.T, by_c.T), by_c.sum(0))
                for whole, part in zip(by_mlp, of_block, strict=True):
                    whole[i] = part
                if by_x is not None:
                    by_block.append(onednn(by_a, w1[i]))
            if by_x is not None:
                by_x[i] = sum(by_block)
        return by_x, None, *by_parts


def _side_by_side(like: Tensor) -> Tensor:
    """Room for `(blocks, rows, channels)` that lies in memory as `(rows, blocks · channels)`."""
    blocks, rows, channels = like.shape
    return split(like.new_empty(1, rows, blocks * channels), blocks)


def _fours(parts: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    """Weights and biases of one MLP after the other."""
    return [parts[i : i + 4] for i in range(0, len(parts), 4)]


def _transposed(weight: Tensor) -> Tensor:
    return weight.transpose(1, 2).contiguous()


def blocks_of(settings: EncoderSettings) -> int:
    """As many blocks as heads. Raises UserError where they do not divide the width."""
    if settings.width % settings.heads:
        raise UserError(f"model.encoder.heads: {settings.heads} blocks do not divide width {settings.width}")
    return settings.heads


def split(x: Tensor, blocks: int) -> Tensor:
    """`(batch, frames, width)` → `(blocks, batch · frames, width / blocks)`, a view."""
    return x.flatten(0, 1).unflatten(1, (blocks, -1)).transpose(0, 1)


def join(x: Tensor, like: Tensor) -> Tensor:
    """Back to the shape `(batch, frames, width)` of `like`."""
    return x.transpose(0, 1).reshape(like.shape)
