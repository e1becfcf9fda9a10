"""What a task is, and what scoring one gives. A new task is a line in `registry.py`, and a file where its head or protocol is new."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import nn

from sslrepro.config import DownstreamSettings

if TYPE_CHECKING:
    from sslrepro.data.corpus import Corpus
    from sslrepro.downstream.features import FrozenStates


class Unavailable(Exception):
    """This corpus cannot give what the task needs; the message says what is missing."""


@dataclass(frozen=True)
class Labelled:
    """What is learned from and what is scored: rows of the corpus, and each one's label.

    labels: row -> class name (str), slots of an intent (tuple of str), symbols (list of str) or phone intervals (labels.Intervals), as the
    task's protocol wants. classes: what the training rows hold, sorted. trials (verification): left row, right row, same (trials, 3).
    valid: rows by which the best head is selected; none where nothing is. folds: row -> its fold's name, where each is tested in turn;
    then all rows are in `train` and in `test`.
    """

    train: np.ndarray
    test: np.ndarray
    labels: dict[int, Any]
    classes: list[str]
    trials: np.ndarray | None = None
    valid: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    folds: dict[int, str] | None = None

    def within(self, rows: np.ndarray) -> Labelled:
        """The same without training, validation, test and trial rows that are not in `rows`."""
        trials = self.trials
        if trials is not None:
            trials = trials[np.isin(trials[:, :2], rows).all(1)]
        train, valid, test = (part[np.isin(part, rows)] for part in (self.train, self.valid, self.test))
        return replace(self, train=train, valid=valid, test=test, trials=trials)


@dataclass(frozen=True)
class TaskResult:
    """metrics: by the names of docs/schemas.md. speakers: rows `metric, speaker, errors, units`. trials: `metric, speaker, score, same`.

    notes: what was left out, and why.
    """

    metrics: dict[str, float]
    speakers: list[tuple[str, str, float, float]] = field(default_factory=list)
    trials: list[tuple[str, str, float, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Protocol = Callable[["Task", Labelled, "FrozenStates", DownstreamSettings, int], TaskResult]


@dataclass(frozen=True)
class Task:
    """A task on a frozen encoder.

    data: labels from a corpus, or Unavailable. head: (dim, classes, settings) -> module on the weighted sum of the hidden states.
    metric: the task's first; direction: which way it is better. protocol: trains the head on the training rows and scores the test rows.
    """

    name: str
    data: Callable[[Corpus, DownstreamSettings], Labelled]
    head: Callable[[int, int, DownstreamSettings], nn.Module]
    metric: str
    direction: Literal["higher", "lower"]
    protocol: Protocol
