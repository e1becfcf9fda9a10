"""What front ends cost: frames, parameters and MACs from settings and a number of samples."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from sslrepro.budget.ops import Part, conv1d, linear, parameters, rfft_macs
from sslrepro.config import FrontEnd, LogMelConvFrontEnd, LogMelFrontEnd, WaveformFrontEnd

SAMPLE_RATE = 16_000
WINDOW, HOP = 400, 160  # 25 ms windows every 10 ms


def front_end(settings: FrontEnd, samples: int) -> tuple[int, int, Part]:
    """Frames, channels, and cost of the front end for one utterance of `samples` samples."""
    if isinstance(settings, WaveformFrontEnd):
        return _waveform(settings, samples)
    mel_frames, part = _log_mel(settings.mels, samples)
    if isinstance(settings, LogMelFrontEnd):
        return mel_frames // settings.stack, settings.mels * settings.stack, part
    return _log_mel_conv(settings, mel_frames, part)


def hop(settings: FrontEnd) -> int:
    """Samples from one frame to the next."""
    if isinstance(settings, LogMelFrontEnd):
        return HOP * settings.stack
    return prod(settings.strides) * (1 if isinstance(settings, WaveformFrontEnd) else HOP)


def has_weights(settings: FrontEnd) -> bool:
    """Whether there is anything in the front end to train."""
    return not isinstance(settings, LogMelFrontEnd)


def waveform_layers(settings: WaveformFrontEnd, samples: int) -> Iterator[tuple[int, int, bool]]:
    """Frames and channels after each convolution, pointwise ones included, and whether a norm follows it."""
    frames = samples
    for i, channels in enumerate(settings.channels):
        frames = _after(frames, settings.kernels[i], settings.strides[i], settings.padding[i])
        yield frames, channels, settings.norm == "layer" or i == 0
        if settings.pointwise and i > 0:
            yield frames, channels, settings.norm == "layer"


def packs(settings: WaveformFrontEnd) -> bool:
    """Whether it has wav2vec 2.0 base's shape, which a processor runs as matrix products over packed utterances (models/packed_conv.py)."""
    fits = all(k >= s for k, s in zip(settings.kernels, settings.strides, strict=True))
    return fits and settings.norm == "group" and not (settings.bias or settings.pointwise or any(settings.padding))


def _after(frames: int, kernel: int, stride: int, padding: int = 0) -> int:
    return max(0, (frames + 2 * padding - kernel) // stride + 1)


def _waveform(settings: WaveformFrontEnd, samples: int) -> tuple[int, int, Part]:
    """wav2vec 2.0, section 2; with `pointwise`, SEW's WFE-C. No gradient goes into the waveform."""
    frames, inputs, total = samples, 1, Part()
    layers = zip(settings.channels, settings.kernels, settings.strides, settings.padding, strict=True)
    for i, (channels, kernel, stride, padding) in enumerate(layers):
        frames = _after(frames, kernel, stride, padding)
        total += conv1d(frames, inputs, channels, kernel, bias=settings.bias, input_grad=i > 0)
        norms = 1
        if settings.pointwise and i > 0:
            total += conv1d(frames, channels, channels, 1, bias=settings.bias)
            norms = 2
        if settings.norm == "layer":
            total += parameters(2 * channels * norms)
        elif i == 0:
            total += parameters(2 * channels)
        inputs = channels
    return frames, inputs, total


def _log_mel(mels: int, samples: int) -> tuple[int, Part]:
    """Windows, their Fourier transforms (which torch's counter does not see) and the filter bank; nothing is trained."""
    frames = _after(samples, WINDOW, HOP)
    transforms = frames * rfft_macs(WINDOW)
    filters = linear(frames, WINDOW // 2 + 1, mels, bias=False).macs
    return frames, Part(macs=transforms + filters, unseen=transforms)


def _log_mel_conv(settings: LogMelConvFrontEnd, frames: int, total: Part) -> tuple[int, int, Part]:
    """SummaryMixing's SSL recipe: convolutions with bias, layer norm, GELU."""
    inputs = settings.mels
    for i, (channels, kernel, stride) in enumerate(zip(settings.channels, settings.kernels, settings.strides, strict=True)):
        frames = _after(frames, kernel, stride)
        total += conv1d(frames, inputs, channels, kernel, input_grad=i > 0) + parameters(2 * channels)
        inputs = channels
    return frames, inputs, total
