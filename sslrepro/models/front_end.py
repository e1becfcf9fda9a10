"""From the waveform to frames: strided convolutions (wav2vec 2.0), stacked log-mels (MelHuBERT), log-mels through
convolutions.

Every front end has `dim` (its channels), `hop` (samples a frame), `frames(samples)`, and maps `(batch, samples)` to
`(batch, frames, dim)`. Frames past an utterance's own end hold no signal; those before it are as if the utterance were
alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslrepro.config import FrontEnd, LogMelConvFrontEnd, LogMelFrontEnd, WaveformFrontEnd
from sslrepro.models.logmel import HOP, log_mel, logmel_frames, mel_filters
from sslrepro.models.norms import ChannelNorm, standardise
from sslrepro.models.packed_conv import packed_features
from sslrepro.models.padding import Padding


def build_front_end(settings: FrontEnd) -> nn.Module:
    kinds = {"waveform": WaveformFeatures, "logmel": LogMelFeatures, "logmel_conv": LogMelConvFeatures}
    return kinds[settings.kind](settings)


class ConvBlock(nn.Module):
    """Convolution, norm (or none), GELU on `(batch, channels, time)`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, bias: bool, norm: str):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, padding, bias=bias)
        nn.init.kaiming_normal_(self.conv.weight)
        self.norm = {"group": ChannelNorm, "layer": nn.LayerNorm, "none": nn.Identity}[norm](outputs)

    def frames(self, n: int) -> int:
        kernel, stride, padding = self.conv.kernel_size[0], self.conv.stride[0], self.conv.padding[0]
        return max(0, (n + 2 * padding - kernel) // stride + 1)

    def forward(self, x: Tensor, padding: Padding | None) -> Tensor:
        """`padding` describes the output; None: statistics over everything (as the peers)."""
        x = self.conv(x)
        if isinstance(self.norm, ChannelNorm):
            x = self.norm(x, padding)
        elif isinstance(self.norm, nn.LayerNorm):
            x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return F.gelu(x)


class ConvStack(nn.Module):
    """Convolution blocks one after the other, `(batch, channels, time)` → `(batch, frames, dim)`."""

    def __init__(self, blocks: Sequence[ConvBlock]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def frames(self, n: int) -> int:
        for block in self.blocks:
            n = block.frames(n)
        return n

    def forward(self, x: Tensor, lengths: Sequence[int], exact: bool) -> Tensor:
        padding = None
        for i, block in enumerate(self.blocks):
            if exact and i > 0 and block.conv.padding[0] and padding.valid is not None:
                x = padding.zero(x, time=2)  # what a lone utterance has past its end
            lengths = [block.frames(n) for n in lengths]
            if exact:
                padding = Padding.of(lengths, block.frames(x.shape[-1]), x.device)
            x = block(x, padding)
        return x.transpose(1, 2)


class WaveformFeatures(nn.Module):
    """wav2vec 2.0's seven strided convolutions, section 2; with `pointwise`, SEW's compact extractor (arXiv
    2109.06870, WFE-C).
    """

    def __init__(self, settings: WaveformFrontEnd):
        super().__init__()
        blocks, inputs = [], 1
        stages = zip(settings.channels, settings.kernels, settings.strides, settings.padding, strict=True)
        for i, (outputs, kernel, stride, padding) in enumerate(stages):
            norm = settings.norm if settings.norm == "layer" or i == 0 else "none"
            blocks.append(ConvBlock(inputs, outputs, kernel, stride, padding, settings.bias, norm))
            if settings.pointwise and i > 0:
                after = "layer" if settings.norm == "layer" else "none"
                blocks.append(ConvBlock(outputs, outputs, 1, 1, 0, settings.bias, after))
            inputs = outputs
        self.stack = ConvStack(blocks)
        self.dim = inputs
        self.hop = math.prod(settings.strides)
        self.frames = self.stack.frames
        # wav2vec 2.0 base's shape: on a processor its convolutions are matrix products
        fits = all(k >= s for k, s in zip(settings.kernels, settings.strides, strict=True))
        self._packs = fits and settings.norm == "group" and not (settings.bias or settings.pointwise or any(settings.padding))

    def forward(self, waveforms: Tensor, lengths: Sequence[int], exact: bool) -> Tensor:
        blocks = list(self.stack.blocks)
        if waveforms.device.type != "cpu" or not self._packs or waveforms.requires_grad:
            return self.stack(waveforms[:, None], lengths, exact)
        size = waveforms.shape[1]
        weights, strides = [block.conv.weight for block in blocks], [block.conv.stride[0] for block in blocks]
        norm = blocks[0].norm
        rows = packed_features(waveforms, lengths if exact else [size] * len(lengths), weights, strides, norm.weight, norm.bias, norm.eps)
        return torch.stack([F.pad(row, (0, 0, 0, self.frames(size) - len(row))) for row in rows])


class LogMelFeatures(nn.Module):
    """Log-mels, each band standardised over the utterance's own frames, `stack` frames side by side (MelHuBERT). No
    parameters.
    """

    def __init__(self, settings: LogMelFrontEnd):
        super().__init__()
        self.stack = settings.stack
        self.dim = settings.mels * settings.stack
        self.hop = HOP * settings.stack
        self.register_buffer("filters", mel_filters(settings.mels), persistent=False)

    def frames(self, n: int) -> int:
        return logmel_frames(n) // self.stack

    def forward(self, waveforms: Tensor, lengths: Sequence[int], exact: bool) -> Tensor:
        x = _normal_log_mel(waveforms, self.filters, lengths)
        frames = x.shape[1] // self.stack
        return x[:, : frames * self.stack].reshape(len(x), frames, self.dim)


class LogMelConvFeatures(nn.Module):
    """Log-mels, standardised, through strided convolutions with layer norm and GELU (SummaryMixing's SSL recipe)."""

    def __init__(self, settings: LogMelConvFrontEnd):
        super().__init__()
        inputs = [settings.mels, *settings.channels[:-1]]
        shapes = zip(inputs, settings.channels, settings.kernels, settings.strides, strict=True)
        self.stack = ConvStack([ConvBlock(i, o, k, s, 0, True, "layer") for i, o, k, s in shapes])
        self.dim = settings.channels[-1]
        self.hop = HOP * math.prod(settings.strides)
        self.register_buffer("filters", mel_filters(settings.mels), persistent=False)

    def frames(self, n: int) -> int:
        return self.stack.frames(logmel_frames(n))

    def forward(self, waveforms: Tensor, lengths: Sequence[int], exact: bool) -> Tensor:
        x = _normal_log_mel(waveforms, self.filters, lengths)
        return self.stack(x.transpose(1, 2), [logmel_frames(n) for n in lengths], exact)


def _normal_log_mel(waveforms: Tensor, filters: Tensor, lengths: Sequence[int]) -> Tensor:
    x = log_mel(waveforms, filters)
    padding = Padding.of([logmel_frames(n) for n in lengths], x.shape[1], x.device)
    with torch.no_grad():
        return standardise(x, padding, eps=1.0e-5)
