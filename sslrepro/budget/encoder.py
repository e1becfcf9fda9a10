"""What context encoders cost, layout by layout and mixer by mixer, for a number of frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sslrepro.budget.mixers import MIXER_COSTS
from sslrepro.budget.ops import Part, conv1d, linear, parameters, product
from sslrepro.config import EncoderSettings, PositionSettings
from sslrepro.errors import UserError

Parts = dict[str, Part]


def mixer(settings: EncoderSettings, frames: int) -> Part:
    if settings.mixer not in MIXER_COSTS:
        raise UserError(f"model.encoder.mixer: no cost formula for {settings.mixer!r}; there are: {', '.join(sorted(MIXER_COSTS))}")
    return MIXER_COSTS[settings.mixer](settings, frames)


def feed_forward(settings: EncoderSettings, frames: int) -> Part:
    d, f = settings.width, settings.ffn
    return linear(frames, d, f) + linear(frames, f, d)


def norm(width: int) -> Part:
    return parameters(2 * width)


def transformer_layer(settings: EncoderSettings, frames: int) -> Parts:
    return {
        "mixer": mixer(settings, frames),
        "feed_forward": feed_forward(settings, frames),
        "norms": 2 * norm(settings.width),
    }


def conformer_layer(settings: EncoderSettings, frames: int) -> Parts:
    """Two half-step feed-forwards around mixer and convolution module (Gulati 2020), each with a norm, and one at the end."""
    d = settings.width
    convolution = (
        linear(frames, d, 2 * d)  # pointwise, gated
        + conv1d(frames, d, d, settings.conv_kernel, groups=d)
        + linear(frames, d, d)
    )
    return {
        "mixer": mixer(settings, frames),
        "feed_forward": 2 * feed_forward(settings, frames),
        "convolution": convolution,
        "norms": 6 * norm(d),  # feed-forward, mixer, convolution, inside the convolution, feed-forward, output
    }


def branchformer_layer(settings: EncoderSettings, frames: int) -> Parts:
    """The mixer beside a gated MLP whose gate is convolved (Peng 2022), and a linear that merges the two."""
    d, half = settings.width, settings.ffn // 2
    return {
        "mixer": mixer(settings, frames),
        "feed_forward": linear(frames, d, settings.ffn) + linear(frames, half, d) + linear(frames, 2 * d, d),
        "convolution": conv1d(frames, half, half, settings.conv_kernel, groups=half),
        "norms": 2 * norm(d) + norm(half),
    }


LAYERS: dict[str, Callable[[EncoderSettings, int], Parts]] = {
    "transformer": transformer_layer,
    "conformer": conformer_layer,
    "branchformer": branchformer_layer,
}


def position(settings: PositionSettings, width: int, frames: int, stride: int = 1) -> Part:
    """Grouped convolutions over the encoder's input; an even kernel computes one frame that is then dropped."""
    if settings.kind != "conv":
        return Part()
    part = Part()
    if settings.layers == 1:
        part += parameters(settings.kernel)  # weight norm's gain
    for i in range(settings.layers):
        computed = (frames + 2 * (settings.kernel // 2) - settings.kernel) // (stride if i == 0 else 1) + 1
        part += conv1d(computed, width, width, settings.kernel, groups=settings.groups)
        frames = computed - (1 - settings.kernel % 2)
    return part


def encoder(settings: EncoderSettings, frames: int) -> Parts:
    """By component: position, mixer, feed_forward, norms, and what else the layout has. With compression the layers run on the squeezed
    frames, and a linear spreads their output again."""
    squeeze = settings.compression.squeeze
    inner = settings.compression.inner(frames)
    parts = {"position": position(settings.position, settings.width, frames, squeeze)}
    for name, part in LAYERS[settings.layout](settings, inner).items():
        parts[name] = settings.layers * part
    parts["norms"] += norm(settings.width)
    if settings.compression.kind == "variable":
        # a weight a frame; products of shares with frames, and with segments on the way back
        parts["compression"] = linear(frames, settings.width, 1) + 2 * product(inner, frames, settings.width)
    elif settings.compression.kind != "none":
        parts["compression"] = upsampling(settings, inner)
    return parts


def upsampling(settings: EncoderSettings, inner: int) -> Part:
    """A linear from a squeezed frame to the frames that it stands for. Stochastic: weights for the largest factor, of which the first are
    used; none at factor 1."""
    d, compression = settings.width, settings.compression
    used = linear(inner, d, d * compression.squeeze)
    if compression.kind == "fixed":
        return used
    held = linear(0, d, d * max(compression.squeeze_factors))
    return replace(used if compression.squeeze > 1 else Part(), params=held.params)
