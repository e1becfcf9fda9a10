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
    """What differs between machines. fused: attention keeps no T x T weights; mask: bytes of one entry of a dropout mask."""

    fused: bool
    mask: int


CUDA = Kernels(fused=True, mask=1)
CPU = Kernels(fused=False, mask=4)  # with dropout in attention, which its fused kernel does not have


def dropout_mask(entries: int, rate: float, kernels: Kernels) -> int:
    return kernels.mask * entries if rate > 0 else 0


def attention(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    """Queries, keys, values, output; the weights of every head unless they are fused."""
    queries, keys = (-(-frames // factor) for factor in (s.compression.query, s.compression.key_value))
    projected = 2 * FLOAT * (queries + keys) * s.attended + sum(FLOAT * n * s.width for n in (queries, keys) if n < frames)  # and the means
    if kernels.fused:
        return projected + FLOAT * s.heads * queries
    weights = s.heads * queries * keys
    dropped = dropout_mask(weights, s.attention_dropout, kernels) + (FLOAT * weights if s.attention_dropout > 0 else 0)
    return projected + FLOAT * weights + dropped


def unfused(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    return attention(s, frames, replace(kernels, fused=False))


def summary_mixing(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    """Both branches before and after the first activation, before the second; the local one normed, before and after; the sum."""
    wide = frames * s.width
    return FLOAT * (9 * wide + STATISTICS * frames) + dropout_mask(wide, s.dropout, kernels)


def summary_mixing_lite(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    return FLOAT * 3 * frames * s.width


def summary_mixing_fast(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    wide = frames * s.width
    return FLOAT * (6 * wide + STATISTICS * frames) + dropout_mask(wide, s.dropout, kernels)


def summary_mixing_decay(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    """As the full form with a summary a frame, which is normed and dropped too, and the padded input of the transform."""
    wide = frames * s.width
    long = fast_length(frames) * s.width
    return FLOAT * (11 * wide + long + 2 * STATISTICS * frames) + dropout_mask(2 * wide, s.dropout, kernels)


def fnet(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    """A linear map without weights."""
    return 0


def sumformer(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    """Before phi's activation, before and after psi's."""
    return FLOAT * 3 * frames * s.width


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
