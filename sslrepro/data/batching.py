"""Batches filled by seconds of audio, as a pure function of (seed, update).

The training split is an endless stream: one permutation an epoch, end to end. A window of that stream, at most an epoch long where the
batch allows it, is sorted by length and cut into micro-batches of equal seconds; these are shuffled and dealt to the window's updates.
So padding is small, no utterance is left out, every update costs about the same, and update u can be found without walking to it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError

WINDOW_UPDATES = 16  # the most updates that share a window: enough lengths to sort, near enough in time to stay random


class UpdatePlan:
    """Deals utterances to updates.

    durations: seconds of each utterance as the model will see it (after cropping), shape (utterances,).
    """

    def __init__(self, durations: np.ndarray, batch_seconds: float, micro_batch_seconds: float, seed: int) -> None:
        if len(durations) == 0:
            raise UserError("no utterance is left to train on: check training.min_seconds and data.hours against the corpus")
        self.durations = np.asarray(durations, dtype=np.float64)
        self.seed = seed
        self.micro_batches_per_update = max(1, math.ceil(batch_seconds / micro_batch_seconds - 1e-9))
        epoch_seconds = float(self.durations.sum())
        self.window_updates = max(1, min(WINDOW_UPDATES, int(epoch_seconds / batch_seconds)))
        pieces = self.window_updates * self.micro_batches_per_update
        wanted = self.window_updates * batch_seconds / epoch_seconds * len(self.durations)
        self.window_size = max(round(wanted), pieces)  # utterances; at least one a micro-batch
        self._window = lru_cache(maxsize=2)(self._build_window)
        self._permutation = lru_cache(maxsize=4)(self._draw_permutation)

    def update(self, update: int) -> list[np.ndarray]:
        """The micro-batches of an update (0-based): arrays of positions in `durations`."""
        window, place = divmod(update, self.window_updates)
        k = self.micro_batches_per_update
        return self._window(window)[place * k : (place + 1) * k]

    def _draw_permutation(self, epoch: int) -> np.ndarray:
        return numpy_generator(self.seed, "order", epoch).permutation(len(self.durations))

    def _stream(self, start: int, stop: int) -> np.ndarray:
        n = len(self.durations)
        parts = []
        while start < stop:
            epoch, place = divmod(start, n)
            parts.append(self._permutation(epoch)[place : place + stop - start])
            start += len(parts[-1])
        return np.concatenate(parts)

    def _build_window(self, window: int) -> list[np.ndarray]:
        pieces = self.window_updates * self.micro_batches_per_update
        members = self._stream(window * self.window_size, (window + 1) * self.window_size)
        members = members[np.argsort(self.durations[members], kind="stable")]
        return _shuffled(_cut(members, self.durations[members], pieces), numpy_generator(self.seed, "window", window))


def _cut(members: np.ndarray, seconds: np.ndarray, pieces: int) -> list[np.ndarray]:
    """Consecutive pieces of about equal seconds, none empty."""
    ends = np.cumsum(seconds)
    middle = ends - seconds / 2
    cuts = np.searchsorted(middle, ends[-1] * np.arange(1, pieces) / pieces)
    cuts = np.maximum(cuts, np.arange(1, pieces))  # at least one utterance in every piece before ...
    cuts = np.minimum(np.maximum.accumulate(cuts), len(members) - pieces + np.arange(1, pieces))  # ... and after
    for i in range(1, len(cuts)):
        cuts[i] = max(cuts[i], cuts[i - 1] + 1)
    return np.split(members, cuts)


def _shuffled(pieces: list[np.ndarray], generator: np.random.Generator) -> list[np.ndarray]:
    return [pieces[i] for i in generator.permutation(len(pieces))]


def by_length(durations: np.ndarray, micro_batch_seconds: float) -> list[np.ndarray]:
    """Batches for evaluation: everything once, by length, each at most `micro_batch_seconds` with its padding, or one utterance."""
    order = np.argsort(durations, kind="stable")
    batches: list[list[int]] = [[]]
    for index in order:
        if batches[-1] and durations[index] * (len(batches[-1]) + 1) > micro_batch_seconds:
            batches.append([])
        batches[-1].append(int(index))
    return [np.array(batch) for batch in batches if batch]
