"""The activations, by name, and their derivatives."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Activation(nn.Module):
    """GELU (exact, or its tanh form) or Swish, by name."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return activate(x, self.name)


def activate(x: Tensor, name: str) -> Tensor:
    return F.silu(x) if name == "swish" else F.gelu(x, approximate=_form(name))


def activation_backward(grad: Tensor, x: Tensor, name: str) -> Tensor:
    """What `grad` of the activation is for its input `x`."""
    if name == "swish":
        return torch.ops.aten.silu_backward(grad, x)
    return torch.ops.aten.gelu_backward(grad, x, approximate=_form(name))


def _form(name: str) -> str:
    return "tanh" if name == "gelu_tanh" else "none"
