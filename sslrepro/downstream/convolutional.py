"""The convolutional heads of MP3S (arXiv 2306.00452): ContextNet for symbols in order, ECAPA-TDNN for what an utterance is as a whole.

Both work on padded utterances, channels first, and are zero beyond an utterance's end after each layer, so that a convolution reads there
what it reads at the end of a batch. Batch norms see true frames alone.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

BLOCKS, LAYERS, KERNEL, DROPOUT = 21, 5, 3, 0.15  # of ContextNet between its first and last layer, all as MP3S has it
SQUEEZE = 8  # channels over those of ContextNet's gate
SCALE, BOTTLENECK, ATTENTION = 8, 128, 64  # ECAPA-TDNN: parts of a Res2 layer; channels of its gate, and of its pooling's attention
DILATIONS = (2, 3, 4)
MARGIN, SHARPNESS = 0.2, 30.0  # AAM-softmax (arXiv 1801.07698), as MP3S has it


def inside(lengths: Tensor | np.ndarray, frames: int, device: torch.device) -> Tensor:
    """Which frames are an utterance's own: (batch, frames)."""
    return torch.arange(frames, device=device) < torch.as_tensor(lengths).to(device)[:, None]


class FrameNorm(nn.BatchNorm1d):
    """Batch norm over true frames: (batch, channels, frames), (batch, frames) -> the same, zero elsewhere."""

    def forward(self, x: Tensor, own: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        normed = super().forward(x[own])
        return torch.zeros_like(x, dtype=normed.dtype).masked_scatter(own[..., None], normed).transpose(1, 2)


class Gate(nn.Module):
    """Squeeze and excitation: every channel of an utterance times a weight that its mean over the true frames gives."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(channels, inner), nn.Linear(inner, channels)

    def forward(self, x: Tensor, own: Tensor) -> Tensor:
        mean = x.sum(-1) / own.sum(-1, keepdim=True)
        return x * self.excite(F.relu(self.squeeze(mean))).sigmoid()[..., None]


class _Separable(nn.Module):
    """A convolution over time for each channel, one over channels, a norm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(inputs, inputs, KERNEL, padding=KERNEL // 2, groups=inputs, bias=False)
        self.pointwise, self.norm = nn.Conv1d(inputs, outputs, 1, bias=False), FrameNorm(outputs)

    def forward(self, x: Tensor, own: Tensor) -> Tensor:
        return self.norm(self.pointwise(self.depthwise(x)), own)


class _ContextBlock(nn.Module):
    """Five separable convolutions, a gate, a linear residual, then swish. The last one's norm begins at zero, as 21 blocks are slow to
    learn from random ones."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Separable(outputs if i else inputs, outputs) for i in range(LAYERS))
        nn.init.zeros_(self.layers[-1].norm.weight)
        self.gate = Gate(outputs, max(1, outputs // SQUEEZE))
        self.residual, self.residual_norm = nn.Conv1d(inputs, outputs, 1, bias=False), FrameNorm(outputs)

    def forward(self, x: Tensor, own: Tensor) -> Tensor:
        y = x
        for layer in self.layers:
            y = layer(y, own)
        return F.dropout(F.silu(self.gate(y, own) + self.residual_norm(self.residual(x), own)), DROPOUT, self.training)


class ContextNet(nn.Module):
    """ContextNet (arXiv 2005.03191) at one frame rate, all its strides 1, then linear.

    (batch, frames, dim), lengths (batch,) -> (batch, frames, classes). Ten blocks of width / 2 channels, eleven of width and a last layer
    of 5 / 4 width: at width 512 the paper's 256, 512 and 640.
    """

    def __init__(self, dim: int, classes: int, width: int) -> None:
        super().__init__()
        widths = [width // 2] * 11 + [width] * (BLOCKS - 10)
        self.first, self.last = _Separable(dim, widths[0]), _Separable(width, 5 * width // 4)
        self.blocks = nn.ModuleList(map(_ContextBlock, widths[:-1], widths[1:]))
        self.out = nn.Linear(5 * width // 4, classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        own, x = inside(lengths, x.shape[1], x.device), x.transpose(1, 2)
        x = F.silu(self.first(x, own))
        for block in self.blocks:
            x = block(x, own)
        return self.out(F.silu(self.last(x, own)).transpose(1, 2))


class _Layer(nn.Module):
    """A convolution over time, ReLU, a norm: ECAPA-TDNN's TDNN layer."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, padding=kernel // 2 * dilation)
        self.norm = FrameNorm(outputs)

    def forward(self, x: Tensor, own: Tensor) -> Tensor:
        return self.norm(F.relu(self.conv(x)), own)


class _Res2Block(nn.Module):
    """A layer, dilated ones in eighths of the channels of which each also reads what the one before made, a layer, a gate, a residual."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.before, self.after = _Layer(channels, channels), _Layer(channels, channels)
        self.parts = nn.ModuleList(_Layer(channels // SCALE, channels // SCALE, 3, dilation) for _ in range(SCALE - 1))
        self.gate = Gate(channels, BOTTLENECK)

    def forward(self, x: Tensor, own: Tensor) -> Tensor:
        first, *rest = self.before(x, own).chunk(SCALE, dim=1)
        made: list[Tensor] = []
        for part, layer in zip(rest, self.parts, strict=True):
            made.append(layer(part + made[-1] if made else part, own))
        return x + self.gate(self.after(torch.cat([first, *made], dim=1), own), own)


class ECAPA(nn.Module):
    """ECAPA-TDNN (arXiv 2005.07143): (frames end to end, dim), lengths (utterances,) -> (utterances, outputs).

    Three Res2 blocks of `width` channels (MP3S: 512), one layer on all of them side by side, the mean and the deviation over time by
    weights that each channel's attention gives, linear. What is pooled gets a layer norm, as a batch may be of one utterance.
    """

    def __init__(self, dim: int, outputs: int, width: int) -> None:
        super().__init__()
        wide = 3 * width
        self.first = _Layer(dim, width, 5)
        self.blocks = nn.ModuleList(_Res2Block(width, dilation) for dilation in DILATIONS)
        self.merge, self.look, self.weigh = _Layer(wide, wide), _Layer(3 * wide, ATTENTION), nn.Conv1d(ATTENTION, wide, 1)
        self.norm, self.out = nn.LayerNorm(2 * wide), nn.Linear(2 * wide, outputs)

    def forward(self, x: Tensor, lengths: np.ndarray) -> Tensor:
        padded = pad_sequence(x.split(lengths.tolist()), batch_first=True).transpose(1, 2)
        own = inside(lengths, padded.shape[-1], x.device)
        y, made = self.first(padded, own), []
        for block in self.blocks:
            y = block(y, own)
            made.append(y)
        y = self.merge(torch.cat(made, dim=1), own)
        alike = (own / own.sum(-1, keepdim=True))[:, None]
        context = torch.cat([y, *(part.expand_as(y) for part in _moments(y, alike))], dim=1) * own[:, None]
        scores = self.weigh(self.look(context, own).tanh()).masked_fill(~own[:, None], -torch.inf)
        return self.out(self.norm(torch.cat(_moments(y, scores.softmax(-1)), dim=1).squeeze(-1)))


def _moments(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and deviation over time: each (batch, channels, 1)."""
    mean = (x * weights).sum(-1, keepdim=True)
    return mean, (((x - mean) ** 2) * weights).sum(-1, keepdim=True).clamp_min(1e-5).sqrt()


class ECAPAEmbedding(ECAPA):
    """The same as an embedding, compared by its cosine; `voices` (voices, outputs) are the directions of the training voices."""

    needs = 1  # frames of an utterance

    def __init__(self, dim: int, voices: int, width: int) -> None:
        super().__init__(dim, width, width)
        self.voices = nn.Parameter(torch.randn(voices, width))

    def loss(self, embeddings: Tensor, voice: Tensor) -> Tensor:
        """AAM-softmax: the angle to the right voice larger by a margin, cosines scaled, then cross-entropy."""
        cosines = (F.normalize(embeddings, dim=-1) @ F.normalize(self.voices, dim=-1).T).clamp(-1 + 1e-6, 1 - 1e-6)
        right = F.one_hot(voice, len(self.voices)).bool()
        return F.cross_entropy(SHARPNESS * torch.where(right, (cosines.acos() + MARGIN).cos(), cosines), voice)
