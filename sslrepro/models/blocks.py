"""A linear map by blocks: each group of channels has a small matrix of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sslrepro.config import EncoderSettings
from sslrepro.errors import UserError


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
        return torch.baddbmm(self.bias, x, self.weight)


class BlockMLP(nn.Module):
    """Two block-diagonal linears, each followed by the activation: `(blocks, rows, width / blocks)` → the same."""

    def __init__(self, width: int, blocks: int, activation: nn.Module):
        super().__init__()
        self.first, self.second = BlockLinear(width, width, blocks), BlockLinear(width, width, blocks)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.second(self.activation(self.first(x))))


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
