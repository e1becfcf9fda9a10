"""Conformer layer (Gulati et al., arXiv 2005.08100) in the form of SummaryMixing's SSL recipe (SpeechBrain's).

    x = x + 1/2 FFN(LN(x));  x = x + mixer(LN(x));  x = x + conv(LN(x));  x = LN(x + 1/2 FFN(LN(x)))

The convolution module is pointwise (to twice the width) → GLU → depthwise over time → layer norm → activation →
linear; every convolution and linear has a bias. Its norm is a layer norm, as in that recipe, where the paper has batch
norm: no statistic then crosses frames, utterances or padding. With width 768, FFN 3072, kernel 31 and self-attention a
layer has 13,612,800 parameters.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sslrepro.config import EncoderSettings
from sslrepro.models.activation import Activation
from sslrepro.models.dropout import Dropout
from sslrepro.models.layers import FeedForward
from sslrepro.models.linear import Linear
from sslrepro.models.mixers import build_mixer
from sslrepro.models.padding import Padding


class ConvModule(nn.Module):
    """The convolution module, `(batch, frames, width)` → the same; the residual is the layer's."""

    def __init__(self, settings: EncoderSettings):
        super().__init__()
        width, kernel = settings.width, settings.conv_kernel
        self.norm = nn.LayerNorm(width)
        self.pointwise = Linear(width, 2 * width)  # a convolution of kernel 1
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.depthwise_norm = nn.LayerNorm(width)
        self.activation = Activation(settings.activation)
        self.out = Linear(width, width)
        self.dropout = Dropout(settings.dropout)

    def forward(self, x: Tensor, padding: Padding) -> Tensor:
        x = padding.zero(F.glu(self.pointwise(self.norm(x))))
        x = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return self.dropout(self.out(self.activation(self.depthwise_norm(x))))


class ConformerLayer(nn.Module):
    """`(batch, frames, width)` → the same."""

    def __init__(self, settings: EncoderSettings):
        super().__init__()
        width = settings.width
        self.first_norm, self.first = nn.LayerNorm(width), FeedForward(settings)
        self.mixer_norm, self.mixer = nn.LayerNorm(width), build_mixer(settings)
        self.dropout = Dropout(settings.dropout)
        self.conv = ConvModule(settings)
        self.second_norm, self.second = nn.LayerNorm(width), FeedForward(settings)
        self.final_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, padding: Padding) -> Tensor:
        x = x + 0.5 * self.first(self.first_norm(x))
        x = x + self.dropout(self.mixer(self.mixer_norm(x), padding))
        x = x + self.conv(x, padding)
        return self.final_norm(x + 0.5 * self.second(self.second_norm(x)))
