"""Predicted bytes that one layer's mixer leaves saved for the backward, its input (which the norm before it keeps) left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sslrepro.budget.mixers import FEATURES, HIDDEN
from sslrepro.budget.ops import fast_length
from sslrepro.config import EncoderSettings

FLOAT = 4
STATISTICS = 2  # a norm keeps mean and inverse deviation of each row


@dataclass(frozen=True)
class Kernels:
    """What differs between ways to run. fused: attention keeps no T x T weights; mask: bytes of one entry of a dropout mask; own: the
    functions for processors that make again what is cheap to make (models: packed_conv, activated, dropped_attention)."""

    fused: bool
    mask: int
    own: bool = False


CUDA = Kernels(fused=True, mask=1)
PLAIN = Kernels(fused=False, mask=4)  # torch's own operations, one after the other: what runs on the meta device
PROCESSOR = Kernels(fused=True, mask=1, own=True)


def dropout_mask(entries: int, rate: float, kernels: Kernels) -> int:
    return kernels.mask * entries if rate > 0 else 0


def attention(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    """Queries, keys, values, output; the weights of every head unless they are fused, or made again: then which were dropped."""
    queries, keys = (-(-frames // factor) for factor in (s.compression.query, s.compression.key_value))
    projected = 2 * FLOAT * (queries + keys) * s.attended + _pooled(s, frames, queries, keys)
    weights = s.heads * queries * keys
    if kernels.own and s.attention_dropout > 0:
        return projected + dropout_mask(weights, s.attention_dropout, kernels)
    if kernels.fused:
        return projected + FLOAT * s.heads * queries
    dropped = dropout_mask(weights, s.attention_dropout, kernels) + (FLOAT * weights if s.attention_dropout > 0 else 0)
    return projected + FLOAT * weights + dropped


def _pooled(s: EncoderSettings, frames: int, queries: int, keys: int) -> int:
    """Means and the counts they were divided by; where both are means, the input itself is not kept."""
    pooled = [n for n, factor in ((queries, s.compression.query), (keys, s.compression.key_value)) if factor > 1]
    return FLOAT * (sum(n * (s.width + 1) for n in pooled) - (frames * s.width if len(pooled) == 2 else 0))


def unfused(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    """Its dropout is torch's own: on a processor four bytes an entry."""
    return attention(s, frames, PLAIN if kernels.own else replace(kernels, fused=False))


def summary_mixing(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    """Both branches before and after the first activation, before the second; the local one normed, before and after; the sum; and the
    summary of the utterance."""
    wide = frames * s.width
    return FLOAT * (9 * wide + STATISTICS * frames) + dropout_mask(wide, s.dropout, kernels) + _summary(s, kernels)


def _summary(s: EncoderSettings, kernels: Kernels) -> int:
    """One an utterance: into its norm, out of it, dropped."""
    return FLOAT * (2 * s.width + STATISTICS) + dropout_mask(s.width, s.dropout, kernels)


def summary_mixing_lite(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    return FLOAT * (3 * frames * s.width + s.width + STATISTICS)


def summary_mixing_fast(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    wide = frames * s.width
    return FLOAT * (6 * wide + STATISTICS * frames) + dropout_mask(wide, s.dropout, kernels) + _summary(s, kernels)


def summary_mixing_decay(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    """As the full form with a summary a frame, which is normed and dropped too; the spectrum of the decay, the padded input of the
    transform, and the counts."""
    wide, long = frames * s.width, fast_length(frames)
    transform = long * s.width + 2 * (long // 2 + 1) + frames
    return FLOAT * (11 * wide + transform + 2 * STATISTICS * frames) + dropout_mask(2 * wide, s.dropout, kernels)


def fnet(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    """A linear map without weights: its input alone."""
    return 0


def sumformer(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    """Before phi's activation, before and after psi's; the mean and the sum of the utterance."""
    return FLOAT * (3 * frames * s.width + 2 * s.width)


def hyena(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    """The short convolution's input and output (three each), product, sum and gated sum; window, padded inputs and spectra of the long
    one; and the filter's network."""
    lags, long = 2 * frames - 1, fast_length(frames)
    network = lags * (FEATURES + 4 * HIDDEN)
    return FLOAT * (s.width * (9 * frames + lags + 2 * long + 2 * (long + 2)) + network)


MIXER_ACTIVATIONS: dict[str, Callable[[EncoderSettings, int, Kernels], int]] = {
    "attention": attention,
    "unfused": unfused,
    "summary_mixing": summary_mixing,
    "summary_mixing_lite": summary_mixing_lite,
    "summary_mixing_fast": summary_mixing_fast,
    "summary_mixing_decay": summary_mixing_decay,
    "fnet": fnet,
    "sumformer": sumformer,
    "hyena": hyena,
}
