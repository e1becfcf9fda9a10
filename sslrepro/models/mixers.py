"""What mixes information between frames. A new mixer is one class in its own file and one line in `MIXERS`.

A mixer is built from `EncoderSettings` and maps `(batch, frames, width)` to the same shape, given `Padding`; padding
must not reach valid frames. What it returns on padding does not matter.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sslrepro.config import EncoderSettings
from sslrepro.models.compression import pool
from sslrepro.models.dropped_attention import dropped_attention
from sslrepro.models.fnet import FourierMixing
from sslrepro.models.hyena import Hyena
from sslrepro.models.linear import Linear
from sslrepro.models.padding import Padding
from sslrepro.models.sumformer import Sumformer
from sslrepro.models.summary_mixing import DecaySummaryMixing, FastSummaryMixing, LiteSummaryMixing, SummaryMixing


class SelfAttention(nn.Module):
    """Multi-head self-attention by torch's scaled dot product; keys on padding are left out. Four linears with bias.

    `query_pool`, `key_value_pool` (stochastic wav2vec 2.0; the form is ours): queries, and keys and values, are of
    means of so many frames; what a query finds is repeated for its frames. At 1 nothing is pooled.
    """

    def __init__(self, settings: EncoderSettings):
        super().__init__()
        width, attended = settings.width, settings.attended
        self.heads = settings.heads
        self.dropout = settings.attention_dropout
        self.query_pool = self.key_value_pool = 1
        self.q_proj = Linear(width, attended)
        self.k_proj = Linear(width, attended)
        self.v_proj = Linear(width, attended)
        self.out_proj = Linear(attended, width)

    def forward(self, x: Tensor, padding: Padding) -> Tensor:
        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        queries, _ = pool(x, self.query_pool, padding)
        keys, seen = pool(x, self.key_value_pool, padding)
        q, k, v = split(self.q_proj(queries)), split(self.k_proj(keys)), split(self.v_proj(keys))
        mask = None if seen.valid is None else seen.valid[:, None, None, :]
        y = self.attend(q, k, v, mask, self.dropout if self.training else 0.0)
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        return y if self.query_pool == 1 else y.repeat_interleave(self.query_pool, dim=1)[:, : x.shape[1]]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
        """`(batch, heads, frames, width / heads)` each; `mask` (batch, 1, 1, keys), true on keys that are seen."""
        if dropout > 0 and q.device.type == "cpu":
            return dropped_attention(q, k, v, mask, dropout)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


class UnfusedAttention(SelfAttention):
    """The same attention with the weights of every query on every key written out: what was timed before fused kernels."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return F.dropout(scores.softmax(-1), dropout) @ v


MIXERS: dict[str, type[nn.Module]] = {
    "attention": SelfAttention,
    "unfused": UnfusedAttention,
    "summary_mixing": SummaryMixing,
    "summary_mixing_lite": LiteSummaryMixing,
    "summary_mixing_fast": FastSummaryMixing,
    "summary_mixing_decay": DecaySummaryMixing,
    "fnet": FourierMixing,
    "sumformer": Sumformer,
    "hyena": Hyena,
}


def build_mixer(settings: EncoderSettings) -> nn.Module:
    return MIXERS[settings.mixer](settings)
