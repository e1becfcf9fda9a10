"""A class a frame: phone accuracy by a linear probe."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from sslrepro.config import DownstreamSettings
from sslrepro.downstream.features import FrozenStates
from sslrepro.downstream.labels import Intervals
from sslrepro.downstream.metrics import by_speaker
from sslrepro.downstream.probe import train_probe
from sslrepro.downstream.task import Labelled, Task, TaskResult


def frame_accuracy(task: Task, data: Labelled, frozen: FrozenStates, settings: DownstreamSettings, seed: int) -> TaskResult:
    """Share of the test split's frames whose phone is picked. A phone that no training row holds can only be missed."""
    code = {name: i for i, name in enumerate(data.classes)}

    def labels(row: int) -> torch.Tensor:
        return torch.from_numpy(frame_labels(data.labels[row], code, int(frozen.frames(np.array([row]))[0]), frozen.hop, frozen.centre))

    known = {row: labels(row) for row in np.concatenate([data.train, data.valid, data.test]).tolist()}

    def loss(probe, rows):
        wanted = torch.cat([known[row] for row in rows.tolist()]).to(frozen.device)
        return F.cross_entropy(probe(frozen.states(rows)), wanted, ignore_index=-1)

    @torch.no_grad()
    def counts(probe, rows):
        errors, units = [], []
        for row in rows.tolist():
            wanted = known[row].to(frozen.device)
            picked = probe(frozen.states(np.array([row]))).argmax(-1)
            errors.append(int(((picked != wanted) & (wanted >= 0)).sum()))
            units.append(int((wanted >= 0).sum()))
        return errors, units

    def error(probe):
        errors, units = counts(probe, data.valid)
        return sum(errors) / sum(units)

    probe = train_probe(task, len(code), frozen, data.train, settings, seed, loss, error)
    errors, units = counts(probe, data.test)
    rows = by_speaker(task.metric, frozen.corpus.utterances["speaker"].to_numpy()[data.test], np.array(errors), np.array(units))
    return TaskResult({task.metric: 1 - sum(errors) / sum(units)}, rows)


def frame_labels(phones: Intervals, code: dict[str, int], frames: int, hop: int, centre: float) -> np.ndarray:
    """The class at the middle of each frame (frames,): -1 where no phone is, len(code) where it is one that `code` does not know."""
    middles = centre + hop * np.arange(frames)
    places = np.searchsorted(phones.starts, middles, side="right") - 1
    inside = (places >= 0) & (middles < phones.ends[np.maximum(places, 0)])
    codes = np.array([code.get(str(name), len(code)) for name in phones.names], dtype=np.int64)
    return np.where(inside, codes[np.maximum(places, 0)], -1)
