"""Hyena of order 2 (Poli et al., arXiv 2302.10866, section 3), looking both ways: y = q ⊙ (h * (k ⊙ v) + b ⊙ k ⊙ v).

q, k and v are linears of the input, each through a short depthwise convolution over three frames. The filter h is as long as the
utterance, one a channel: a small network with sines for activations reads a frame's lag (linear and Fourier features) and its
output fades with an exponential window whose length differs by channel. The convolution is by Fourier transform, T log T.

Departures, so that an utterance's length and padding change nothing: lags are in frames, not shares of the longest input; the
window has unit energy; lags before and after a frame are both there (the paper's is causal).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sslrepro.config import EncoderSettings
from sslrepro.models.linear import Linear
from sslrepro.models.padding import Padding
from sslrepro.models.spectrum import convolve

REACH = 1000  # frames: the unit of lags, 20 s at 50 Hz
BANDS = 8  # Fourier features: sines and cosines of 1 to 8 turns in REACH
HIDDEN = 64  # width of the filter's network (paper, appendix)
FREQUENCY = 10.0  # of its sines (paper, appendix)
FADED = 0.01  # the window's height at its length, which goes from 0.3 to 1.5 REACH over the channels (authors' values)
SHORT = 3  # frames of the short convolution


class LongFilter(nn.Module):
    """h: `(2 · frames - 1, width)`, the lags from -(frames - 1) to frames - 1."""

    def __init__(self, width: int):
        super().__init__()
        self.first = Linear(1 + 2 * BANDS, HIDDEN)
        self.second = Linear(HIDDEN, HIDDEN)
        self.last = Linear(HIDDEN, width)
        rates = -math.log(FADED) / torch.linspace(0.3, 1.5, width) / REACH
        self.register_buffer("rates", rates, persistent=False)

    def forward(self, frames: int) -> Tensor:
        lags = torch.arange(1 - frames, frames, device=self.rates.device, dtype=self.rates.dtype)
        turns = 2 * math.pi / REACH * lags[:, None] * torch.arange(1, BANDS + 1, device=lags.device)
        features = torch.cat([lags[:, None] / REACH, turns.sin(), turns.cos()], dim=1)
        hidden = torch.sin(FREQUENCY * self.first(features))
        hidden = torch.sin(FREQUENCY * self.second(hidden))
        window = torch.exp(-self.rates * lags.abs()[:, None]) * self.rates.tanh().sqrt()  # its squares over all lags sum to 1
        return self.last(hidden) * window


class Hyena(nn.Module):
    """`(batch, frames, width)` → the same."""

    def __init__(self, settings: EncoderSettings):
        super().__init__()
        width = settings.width
        self.qkv = Linear(width, 3 * width)
        self.short = nn.Conv1d(3 * width, 3 * width, SHORT, padding=SHORT // 2, groups=3 * width)
        self.filter = LongFilter(width)
        self.skip = nn.Parameter(torch.ones(width))
        self.out_proj = Linear(width, width)

    def forward(self, x: Tensor, padding: Padding) -> Tensor:
        qkv = self.short(padding.zero(self.qkv(x)).transpose(1, 2)).transpose(1, 2)
        q, k, v = qkv.chunk(3, dim=-1)
        v = padding.zero(k * v)
        return self.out_proj(q * (convolve(v, self.filter(x.shape[1])) + self.skip * v).to(q.dtype))
