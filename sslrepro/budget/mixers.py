"""What one layer's mixer costs for a number of frames, by the names of models.mixers."""

from __future__ import annotations

from collections.abc import Callable

from sslrepro.budget.ops import Part, conv1d, fast_length, fft_macs, linear, parameters, product, rfft_macs, transforms
from sslrepro.config import EncoderSettings

# models.hyena: features of a lag, width of the filter's network, frames of the short convolution; written here too, so that a count
# needs no torch
FEATURES, HIDDEN, SHORT = 17, 64, 3


def attention(settings: EncoderSettings, frames: int) -> Part:
    """Four linears, and the two products of queries, keys and values: T (4 d^2) + 2 T^2 d. With pooling, queries and what comes out of them
    are T / q, keys and values T / k: d^2 (2 T / q + 2 T / k) + 2 (T / q) (T / k) d. With heads of a size of their own, heads x size is d of
    the products and one side of the linears."""
    d, inner, pooling = settings.width, settings.attended, settings.compression
    queries, keys = (-(-frames // factor) for factor in (pooling.query, pooling.key_value))
    return linear(queries, d, inner) + linear(queries, inner, d) + 2 * linear(keys, d, inner) + 2 * product(queries, keys, inner)


def _by_frame_and_once(frames: int, width: int) -> Part:
    """A linear of a frame's vector beside one that all frames share, whose half is multiplied once."""
    return linear(frames, width, width, bias=False) + linear(1, width, width)


def summary_mixing(settings: EncoderSettings, frames: int) -> Part:
    """SummaryMixing (arXiv 2307.07421) as its SSL recipe sets it up: two block-diagonal linears for the local branch and two for the
    summary, a layer norm on each, and one full linear from both: T (4 d^2 / blocks + d^2) + d^2. Linear in T: the mean is element-wise."""
    d = settings.width
    branches = 4 * linear(frames, d, d, blocks=settings.heads)
    return branches + _by_frame_and_once(frames, d) + parameters(2 * 2 * d)


def summary_mixing_lite(settings: EncoderSettings, frames: int) -> Part:
    """The summary's branch and its norm alone: T (2 d^2 / blocks)."""
    return 2 * linear(frames, settings.width, settings.width, blocks=settings.heads) + parameters(2 * settings.width)


def summary_mixing_fast(settings: EncoderSettings, frames: int) -> Part:
    """One full linear for both branches: T (3 d^2) + d^2."""
    d = settings.width
    return linear(frames, d, 2 * d) + _by_frame_and_once(frames, d) + parameters(2 * 2 * d)


def summary_mixing_decay(settings: EncoderSettings, frames: int) -> Part:
    """A summary for each frame: T (4 d^2 / blocks + 2 d^2), and a convolution by Fourier transforms with one fixed kernel."""
    d = settings.width
    transform = rfft_macs(fast_length(frames))
    branches = 4 * linear(frames, d, d, blocks=settings.heads)
    return branches + linear(frames, 2 * d, d) + parameters(2 * 2 * d) + transforms(2 * d * transform) + transforms(transform, False)


def fnet(settings: EncoderSettings, frames: int) -> Part:
    """A real transform of each frame, and a complex one over time of each half of the channels. No weights."""
    d = settings.width
    return transforms(frames * rfft_macs(d) + (d // 2 + 1) * fft_macs(frames))


def sumformer(settings: EncoderSettings, frames: int) -> Part:
    """phi and psi of two linears each: T (3 d^2) + 2 d^2, as phi's second is multiplied once."""
    d = settings.width
    return 2 * linear(frames, d, d) + linear(1, d, d) + _by_frame_and_once(frames, d)


def hyena(settings: EncoderSettings, frames: int) -> Part:
    """Order 2: T (4 d^2 + 9 d), the filter's network at 2 T - 1 lags, and the transforms of signal, filter and product."""
    d, lags = settings.width, 2 * frames - 1
    filters = linear(lags, FEATURES, HIDDEN, input_grad=False) + linear(lags, HIDDEN, HIDDEN) + linear(lags, HIDDEN, d)
    short = conv1d(frames, 3 * d, 3 * d, SHORT, groups=3 * d)
    long = transforms(3 * d * rfft_macs(fast_length(frames))) + parameters(d)
    return linear(frames, d, 3 * d) + short + filters + long + linear(frames, d, d)


MIXER_COSTS: dict[str, Callable[[EncoderSettings, int], Part]] = {
    "attention": attention,
    "unfused": attention,
    "summary_mixing": summary_mixing,
    "summary_mixing_lite": summary_mixing_lite,
    "summary_mixing_fast": summary_mixing_fast,
    "summary_mixing_decay": summary_mixing_decay,
    "fnet": fnet,
    "sumformer": sumformer,
    "hyena": hyena,
}
