"""What every objective has in common: how a micro-batch looks, what it must know of the whole update, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError
from sslrepro.models.logmel import HOP
from sslrepro.models.upstream import Upstream, UpstreamOutput

Key = tuple[int | str, ...]


@dataclass(frozen=True)
class Batch:
    """A micro-batch. Everything that decides a shape was drawn on the host, so that no step waits for the device.

    waveforms (batch, samples); lengths (batch,) in samples, on the host; mask (batch, frames); masked (batch, most masked frames) holds the
    places of the masked frames, masked_valid says which entries are real; negatives (batch, most masked frames, count) are places in
    `masked`; labels (batch, frames), -1 where padded; spectra (batch, frames, dim): the objective's own spectral features of the clean
    audio; noise (batch, frames, channels) and keep (batch, channels): how the front end's output is altered.
    keys: the counter of each utterance, from which device-side draws come.
    """

    waveforms: Tensor
    lengths: Tensor
    utterances: list[str]
    keys: list[Key]
    indices: Tensor
    mask: Tensor | None = None
    masked: Tensor | None = None
    masked_valid: Tensor | None = None
    negatives: Tensor | None = None
    labels: Tensor | None = None
    spectra: Tensor | None = None
    noise: Tensor | None = None
    keep: Tensor | None = None
    host_masked_counts: list[int] = field(default_factory=list)  # the same counts on the host, so that nobody waits for them
    host_frames: list[int] = field(default_factory=list)

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on the device; `lengths` stay on the host, where shapes are decided."""
        if device.type == "cpu":
            return self
        moved = {
            f.name: value.to(device, non_blocking=True)
            for f in fields(self)
            if f.name != "lengths" and isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Totals:
    """What the loss of one micro-batch must know of the whole update, so that accumulation is the bigger batch.

    masked: masked frames; frames: true frames; micro_batches: how many, over all devices; mean_codes (groups, codes): the update's mean
    code distribution, or None where each micro-batch uses its own. progress: share of the budget used; update: 0-based; seed: the run's.
    """

    masked: float | Tensor
    frames: float | Tensor
    micro_batches: int
    progress: float
    update: int
    seed: int = 0
    mean_codes: Tensor | None = None


class LossOutput(NamedTuple):
    """loss: this micro-batch's share, so that the shares of an update add up to its loss per masked frame. sums: metrics as sums over
    micro-batches. utterances: per-utterance sums, each (batch,)."""

    loss: Tensor
    sums: dict[str, Tensor]
    utterances: dict[str, Tensor]


class Objective(nn.Module):
    """An upstream with the heads and the loss that train it."""

    # what the targets are made of, where the objective makes them itself: waveform (samples,) -> (frames, dim), on the host
    spectra: Callable[[np.ndarray], np.ndarray] | None = None

    def __init__(self, upstream: Upstream) -> None:
        super().__init__()
        self.upstream = upstream

    def draws(self, key: Key, frames: int) -> dict[str, np.ndarray]:
        """The random choices of one utterance, from its counter: `mask` (frames,), and what else the objective needs."""
        raise NotImplementedError

    def layer_keep(self, totals: Totals) -> Tensor | None:
        """Which layers this update keeps (layers,), the same on every device and in every micro-batch; None keeps all."""
        encoder = self.upstream.settings.encoder
        if not self.training or encoder is None or encoder.layer_drop == 0:
            return None
        draw = numpy_generator(totals.seed, "layers", totals.update).random(encoder.layers)
        return torch.from_numpy(draw >= encoder.layer_drop)

    def code_sums(self, batch: Batch, totals: Totals) -> Tensor | None:
        """Sum over masked frames of the soft code distribution (groups, codes), where the loss needs the update's mean; else None."""
        return None

    def forward(self, batch: Batch, totals: Totals) -> LossOutput:
        raise NotImplementedError

    def summarize(self, sums: dict[str, float | np.ndarray]) -> dict[str, float]:
        """Metrics from sums over any number of micro-batches."""
        raise NotImplementedError

    def after_update(self, progress: float, updates: float, sound: Tensor) -> None:
        """Called once after each update, at `progress` of a run of about so many. sound: 1, or 0 where it did not reach the weights and
        nothing may change: a number on the device, that nobody waits for it."""

    def weight_metrics(self) -> dict[str, float]:
        """Metrics of the weights alone, beside those of a validation."""
        return {}

    def chance(self) -> dict[str, float]:
        """The metrics of a model that knows nothing, to be drawn beside every curve; those that are known without the data."""
        raise NotImplementedError

    def chance_on(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Those that only the data tell, from the whole validation split with its fixed masks."""
        return {}

    def collapse(self, metrics: dict[str, float]) -> str | None:
        """Why these training metrics mean a collapsed model, or None."""
        return None


def spectra_a_frame(upstream: Upstream) -> int:
    """How many 10 ms frames one frame of the model holds. Raises UserError where it is no whole number."""
    hop = upstream.front_end.hop
    if hop % HOP:
        raise UserError(f"model.front_end: a frame of {hop} samples holds no whole number of the targets' frames of {HOP} samples")
    return hop // HOP


def take_frames(x: Tensor, places: Tensor) -> Tensor:
    """x (batch, frames, dim) at places (batch, n) -> (batch, n, dim)."""
    return x.gather(1, places.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def feature_penalty(output: UpstreamOutput, total_frames: float | Tensor) -> Tensor:
    """This micro-batch's share of the mean square of the front end's output over the update's true frames (wav2vec 2.0's L2 term)."""
    squares = output.features.float().pow(2).mean(-1)
    valid = output.padding.valid
    return (squares if valid is None else squares * valid).sum() / total_frames


def variance(x: Tensor, valid: Tensor) -> Tensor:
    """Mean variance over the valid frames: x (batch, n, dim), valid (batch, n)."""
    n = valid.sum().clamp(min=1)
    w = valid[..., None].float()
    mean = (x.float() * w).sum((0, 1)) / n
    return (((x.float() - mean) ** 2) * w).sum((0, 1)).mean() / n


def numbers(sums: dict[str, Tensor]) -> dict[str, float | np.ndarray]:
    """Tensors to plain numbers (one wait for the device)."""
    return {name: (value.item() if value.ndim == 0 else value.cpu().numpy()) for name, value in sums.items()}
