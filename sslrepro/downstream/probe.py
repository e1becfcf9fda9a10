"""Training of a head on frozen states: the learned weighted sum of layers, the order of utterances, and one short loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from sslrepro.config import DownstreamSettings, ScheduleSettings
from sslrepro.config.downstream import BUCKET
from sslrepro.downstream.features import FrozenStates
from sslrepro.downstream.spec_augment import spec_augment
from sslrepro.downstream.task import Task
from sslrepro.draws import key64, numpy_generator
from sslrepro.training.schedule import learning_rate


class LayerMix(nn.Module):
    """Softmax-weighted sum of hidden states, one scalar a state, zeros at first: (n, layers, dim) -> (n, dim) (SUPERB, arXiv 2105.01051).

    moments: mean and deviation (layers, dim) by which each state is standardised first; None: as they are.
    """

    def __init__(self, layers: int, moments: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(layers))
        self.moments = moments

    def forward(self, states: Tensor) -> Tensor:
        weights = self.scores.softmax(0)[:, None]
        if self.moments is None:
            return (states.float() * weights).sum(1)
        mean, deviation = self.moments
        scale = weights / deviation
        return (states.float() * scale).sum(1) - (mean * scale).sum(0)


class Probe(nn.Module):
    """Layer weights, a linear projection where there is one, and a head; `augmented` says whether SpecAugment comes between in training.

    states (frames end to end, layers, dim); what follows goes to the head, the frames of each utterance (utterances,) first, if any.
    """

    def __init__(self, mix: LayerMix, project: nn.Linear | None, head: nn.Module, augmented: bool = False) -> None:
        super().__init__()
        self.mix, self.project, self.head, self.augmented = mix, project, head, augmented

    def forward(self, states: Tensor, *more) -> Tensor:
        x = self.mix(states)
        if self.augmented and self.training:
            x = spec_augment(x, more[0])
        return self.head(x if self.project is None else self.project(x), *more)


def train_probe(
    task: Task, outputs: int, frozen: FrozenStates, rows: np.ndarray, settings: DownstreamSettings, seed: int,
    loss: Callable[[Probe, np.ndarray], Tensor], error: Callable[[Probe], float] | None = None,
    wrap: Callable[[nn.Module], nn.Module] = lambda head: head, buckets: list[np.ndarray] | None = None,
) -> Probe:  # fmt: skip
    """Adam, `settings.updates` batches of `settings.batch` utterances, at a rate that falls linearly to zero or stays (settings.schedule);
    the layers' weights may have one of their own.

    loss(probe, rows of a batch) is their mean loss. error(probe) is that of the validation split, lower better: with
    settings.select_every, of the heads after so many updates each the first with the least is returned (S3PRL's runner), else the last.
    wrap(head) is what is trained in the task's head's place. buckets: rows that come in a batch together (None: each row by itself).
    Initial weights, dropout and order depend on (seed, task) alone, so two encoders of one shape meet the same head. Returns the probe in
    evaluation mode.
    """
    rate = settings.learning_rates.get(task.name, settings.learning_rate)
    schedule = ScheduleSettings(kind=settings.schedule, warmup=0.0)
    with torch.random.fork_rng([frozen.device] if frozen.device.type == "cuda" else []):
        torch.manual_seed(key64(seed, "head", task.name))
        moments = frozen.moments(rows) if settings.standardise else None
        project = None if settings.project is None else nn.Linear(frozen.dim, settings.project)
        head = wrap(task.head(settings.project or frozen.dim, outputs, settings))
        probe = Probe(LayerMix(frozen.layers, moments), project, head, settings.spec_augment).to(frozen.device)
        learned = [part for name, part in probe.named_children() if name != "mix"]
        groups = [{"params": probe.mix.parameters(), "peak": settings.mix_learning_rate or rate}]
        groups += [{"params": part.parameters(), "peak": rate} for part in learned]
        optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
        least, kept = np.inf, None
        for update, batch in enumerate(_batches(rows, buckets, settings.batch, settings.updates, (seed, "order", task.name))):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(schedule, group["peak"], (update + 0.5) / settings.updates, settings.updates)
            optimizer.zero_grad()
            loss(probe, batch).backward()
            if settings.clip_norm is not None:
                nn.utils.clip_grad_norm_(probe.parameters(), settings.clip_norm)
            optimizer.step()
            if settings.select_every and (update + 1) % settings.select_every == 0:
                found = error(probe.eval())
                if found < least:
                    least, kept = found, {name: tensor.clone() for name, tensor in probe.state_dict().items()}
                probe.train()
        if kept is not None:
            probe.load_state_dict(kept)
    return probe.eval()


def _batches(rows: np.ndarray, buckets: list[np.ndarray] | None, size: int, updates: int, key: tuple) -> Iterator[np.ndarray]:
    """Permutation after permutation, cut into batches of `size` rows (all, where there are fewer), or of size / BUCKET buckets."""
    if buckets is not None:
        for chosen in _batches(np.arange(len(buckets)), None, size // BUCKET, updates, key):
            yield np.concatenate([buckets[i] for i in chosen])
        return
    size, held, epoch = min(size, len(rows)), np.empty(0, dtype=np.int64), 0
    for _ in range(updates):
        if len(held) < size:
            held = np.concatenate([held, numpy_generator(*key, epoch).permutation(rows)])
            epoch += 1
        yield held[:size]
        held = held[size:]
