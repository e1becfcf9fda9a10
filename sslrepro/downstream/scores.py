"""What a cell's scoring gives, and the one call that makes it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sslrepro.config import DownstreamSettings, LabelShare
from sslrepro.data.corpus import Corpus
from sslrepro.downstream.features import FrozenStates
from sslrepro.downstream.fine_tune import CTCModel, fine_tune
from sslrepro.downstream.kept import keep
from sslrepro.downstream.parameter_efficient import Adapters
from sslrepro.downstream.registry import find_task
from sslrepro.downstream.task import Labelled, Task, TaskResult, Unavailable
from sslrepro.errors import UserError
from sslrepro.models.upstream import Upstream

SPEAKERS = ["metric", "speaker", "errors", "units"]
TRIALS = ["metric", "speaker", "score", "same"]


@dataclass(frozen=True)
class Scores:
    """metrics, rows of speakers.csv and trials.csv (docs/schemas.md).

    unavailable: task -> why it was not scored; notes: what was left out, and why. adapters: fine-tuning -> what it learned, where that is
    not the whole model. models: minutes of labels -> the whole fine-tuned model, where it is to be kept.
    """

    metrics: dict[str, float]
    speakers: list[tuple[str, str, float, float]]
    trials: list[tuple[str, str, float, int]]
    unavailable: dict[str, str]
    notes: list[str] = field(default_factory=list)
    adapters: dict[str, Adapters] = field(default_factory=dict)
    models: dict[float, CTCModel] = field(default_factory=dict)

    @classmethod
    def empty(cls) -> Scores:
        return cls({}, [], [], {})

    @classmethod
    def none(cls, settings: DownstreamSettings, reason: str) -> Scores:
        """Nothing is scored, all for one reason."""
        return cls({}, [], [], dict.fromkeys([*settings.tasks, *map(_tuning, settings.fine_tune.shares)], reason))

    @classmethod
    def of(cls, result: TaskResult) -> Scores:
        """Raises UserError when a metric is not finite."""
        for metric, value in result.metrics.items():
            if not math.isfinite(value):
                raise UserError(f"downstream: {metric} is {value}")
        return cls(result.metrics, result.speakers, result.trials, {}, result.notes)

    def __add__(self, other: Scores) -> Scores:
        return Scores(
            self.metrics | other.metrics, self.speakers + other.speakers, self.trials + other.trials,
            self.unavailable | other.unavailable, self.notes + other.notes, self.adapters | other.adapters,
            self.models | other.models,
        )  # fmt: skip

    def at(self, suffix: str) -> Scores:
        """The same with a suffix on each metric's name, such as `@0.5` for a snapshot, whose models are not kept."""
        return Scores(
            {name + suffix: value for name, value in self.metrics.items()},
            [(name + suffix, *row) for name, *row in self.speakers],
            [(name + suffix, *row) for name, *row in self.trials],
            self.unavailable, self.notes, {name + suffix: learned for name, learned in self.adapters.items()},
        )  # fmt: skip

    def write(self, folder: Path) -> None:
        """speakers.csv and trials.csv, also when they have no rows; adapters and models, each alone."""
        pd.DataFrame(self.speakers, columns=SPEAKERS).to_csv(folder / "speakers.csv", index=False)
        pd.DataFrame(self.trials, columns=TRIALS).to_csv(folder / "trials.csv", index=False)
        for name, learned in self.adapters.items():
            learned.write(folder / f"{name}.safetensors")
        for minutes, model in self.models.items():
            keep(model, folder, minutes)


def score(upstream: Upstream, corpus: Corpus, settings: DownstreamSettings, seed: int, device: torch.device | str | None = None) -> Scores:
    """Score an encoder, which is moved to `device` (None: a GPU where there is one) and comes out unchanged.

    All of `settings.tasks` share one extraction of the frozen hidden states; then each of `settings.fine_tune.shares` fine-tunes a copy.
    A task that the corpus has no labels for is in `unavailable`. Raises UserError for a task that does not exist.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    upstream.to(device)
    scores, labelled = Scores.empty(), {}
    for name in settings.tasks:
        task = find_task(name)
        try:
            labelled[task] = task.data(corpus, settings)
        except Unavailable as reason:
            scores.unavailable[name] = str(reason)
    if labelled:
        scores += _frozen(upstream, corpus, settings, seed, device, labelled)
    for share in settings.fine_tune.shares:
        name = _tuning(share)
        try:
            model, result = fine_tune(upstream, corpus, settings.fine_tune, share, seed, device)
        except Unavailable as reason:
            scores.unavailable[name] = str(reason)
            continue
        scores += Scores.of(result)
        if settings.fine_tune.keep:
            scores.models[share.minutes] = model
        if settings.fine_tune.method.kind != "full":
            scores.adapters[name] = Adapters.from_model(model, settings.fine_tune)
    return scores


def _tuning(share: LabelShare) -> str:
    return f"fine_tune_{share.minutes:g}min"


def _frozen(
    upstream: Upstream, corpus: Corpus, settings: DownstreamSettings, seed: int, device: torch.device, labelled: dict[Task, Labelled]
) -> Scores:
    wanted = np.concatenate([rows for data in labelled.values() for rows in (data.train, data.valid, data.test)])
    frozen = FrozenStates(upstream, corpus, wanted, device)
    scores = Scores.empty()
    if len(frozen.too_short):
        scores.notes.append(f"downstream: {len(frozen.too_short)} utterance(s) left out, too short for one frame")
    for task, data in labelled.items():
        try:
            scores += Scores.of(task.protocol(task, data.within(frozen.rows), frozen, settings, seed))
        except Unavailable as reason:
            scores.unavailable[task.name] = str(reason)
    return scores
