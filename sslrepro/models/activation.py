"""The activations, by name."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Activation(nn.Module):
    """GELU (exact, or its tanh form) or Swish, by name."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        if self.name == "swish":
            return F.silu(x)
        return F.gelu(x, approximate="tanh" if self.name == "gelu_tanh" else "none")
