"""Sumformer (Alberti et al., arXiv 2307.02301, definition 3): y_t = ψ(x_t, Σ), Σ = Σ_u φ(x_u).

φ and ψ are two linears with an activation between. The sum is divided by the utterance's true length, so that its scale does
not grow with it. φ's last linear commutes with the mean, and Σ is the same for every frame: both are multiplied once an utterance.
"""

from __future__ import annotations

from torch import Tensor, nn

from sslrepro.config import EncoderSettings
from sslrepro.models.activation import Activation
from sslrepro.models.linear import Linear
from sslrepro.models.padding import Padding
from sslrepro.models.summary_mixing import mean


class Sumformer(nn.Module):
    """`(batch, frames, width)` → the same."""

    def __init__(self, settings: EncoderSettings):
        super().__init__()
        width = settings.width
        self.activation = Activation(settings.activation)
        self.phi_first, self.phi_last = Linear(width, width), Linear(width, width)
        self.psi_frame, self.psi_sum = Linear(width, width, bias=False), Linear(width, width)  # the halves of psi's first
        self.psi_last = Linear(width, width)

    def forward(self, x: Tensor, padding: Padding) -> Tensor:
        total = self.phi_last(mean(self.activation(self.phi_first(x)), padding))
        return self.psi_last(self.activation(self.psi_frame(x) + self.psi_sum(total)))
