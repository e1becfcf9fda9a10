"""SEW's predictor head (arXiv 2109.06870; its authors' code): linear without bias → batch norm → ReLU → linear, in pre-training only."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FrameNorm(nn.Module):
    """Batch norm over the valid frames of a micro-batch, `(batch, n, dim)` → the same, in float32; running statistics in evaluation.

    Statistics are those of one micro-batch on one device, as in the authors' code: padding takes no part, other micro-batches neither.
    """

    def __init__(self, dim: int, momentum: float = 0.1, eps: float = 1.0e-5) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))
        self.momentum, self.eps = momentum, eps

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """valid (batch, n)"""
        x = x.float()
        mean, var = self.running_mean, self.running_var
        if self.training:
            w = valid[..., None].float()
            n = w.sum().clamp(min=1)
            mean = (x * w).sum((0, 1)) / n
            var = ((x - mean).square() * w).sum((0, 1)) / n
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var * n / (n - 1).clamp(min=1), self.momentum)
        return (x - mean) * torch.rsqrt(var + self.eps) * self.weight + self.bias


class MLPHead(nn.Module):
    """`(batch, n, inputs)` → `(batch, n, outputs)`."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(inputs, hidden, bias=False), FrameNorm(hidden), nn.Linear(hidden, outputs)
        for linear in (self.up, self.down):
            nn.init.xavier_normal_(linear.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        return self.down(self.norm(self.up(x), valid).relu())
