"""Training of a head on frozen states: the learned weighted sum of layers, the order of utterances, and one short loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from sslrepro.config import DownstreamSettings, ScheduleSettings
from sslrepro.downstream.features import FrozenStates
from sslrepro.draws import key64, numpy_generator
from sslrepro.training.schedule import learning_rate

DECAY = ScheduleSettings(kind="linear", warmup=0.0)


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
    """Layer weights and a head."""

    def __init__(self, mix: LayerMix, head: nn.Module) -> None:
        super().__init__()
        self.mix, self.head = mix, head

    def forward(self, states: Tensor, *more) -> Tensor:
        return self.head(self.mix(states), *more)


def train_probe(
    head: Callable[[], nn.Module], frozen: FrozenStates, rows: np.ndarray, settings: DownstreamSettings, task: str, seed: int,
    loss: Callable[[Probe, np.ndarray], Tensor],
) -> Probe:  # fmt: skip
    """Adam with a rate that falls linearly to zero, `settings.updates` batches of `settings.batch` utterances; nothing is selected.

    loss(probe, rows of a batch) is their mean loss. Initial weights, dropout and order depend on (seed, task) alone, so two encoders of
    one shape meet the same head. Returns the probe in evaluation mode.
    """
    rate = settings.learning_rates.get(task, settings.learning_rate)
    with torch.random.fork_rng([frozen.device] if frozen.device.type == "cuda" else []):
        torch.manual_seed(key64(seed, "head", task))
        moments = frozen.moments(rows) if settings.standardise else None
        probe = Probe(LayerMix(frozen.layers, moments), head()).to(frozen.device)
        optimizer = torch.optim.Adam(probe.parameters(), lr=rate)
        for update, batch in enumerate(_batches(rows, settings.batch, settings.updates, (seed, "order", task))):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(DECAY, rate, (update + 0.5) / settings.updates, settings.updates)
            optimizer.zero_grad()
            loss(probe, batch).backward()
            optimizer.step()
    return probe.eval()


def _batches(rows: np.ndarray, size: int, updates: int, key: tuple) -> Iterator[np.ndarray]:
    """Permutation after permutation, cut into batches of `size` (all rows, where there are fewer)."""
    size, held, epoch = min(size, len(rows)), np.empty(0, dtype=np.int64), 0
    for _ in range(updates):
        if len(held) < size:
            held = np.concatenate([held, numpy_generator(*key, epoch).permutation(rows)])
            epoch += 1
        yield held[:size]
        held = held[size:]
