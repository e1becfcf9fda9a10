"""A class an utterance: keyword, intent, speaker. Mean over time, then linear (SUPERB: KS, IC, SID)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from sslrepro.config import DownstreamSettings
from sslrepro.downstream.features import FrozenStates
from sslrepro.downstream.metrics import by_speaker
from sslrepro.downstream.probe import train_probe
from sslrepro.downstream.task import Labelled, Task, TaskResult


def utterance_accuracy(task: Task, data: Labelled, frozen: FrozenStates, settings: DownstreamSettings, seed: int) -> TaskResult:
    """Share of test utterances whose class is picked. A class that no training row holds can only be missed.

    The mean over time and the sum over layers change places, so that the head learns from one vector a layer and utterance.
    """
    code = {name: i for i, name in enumerate(data.classes)}

    def wanted(rows: np.ndarray) -> torch.Tensor:
        return torch.tensor([code.get(data.labels[row], len(code)) for row in rows.tolist()], device=frozen.device)

    def loss(probe, rows):
        return F.cross_entropy(probe(frozen.means(rows)), wanted(rows))

    probe = train_probe(lambda: task.head(frozen.dim, len(code), settings), frozen, data.train, settings, task.name, seed, loss)
    with torch.no_grad():
        missed = (probe(frozen.means(data.test)).argmax(-1) != wanted(data.test)).cpu().numpy()
    rows = by_speaker(task.metric, frozen.corpus.utterances["speaker"].to_numpy()[data.test], missed, np.ones(len(missed)))
    return TaskResult({task.metric: 1 - float(missed.mean())}, rows)
