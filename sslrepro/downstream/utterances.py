"""A class an utterance: speaker, emotion by the mean over time (SUPERB); keyword, intent by what is heard somewhere, or by the mean."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from sslrepro.config import DownstreamSettings
from sslrepro.downstream.features import FrozenStates
from sslrepro.downstream.metrics import by_speaker
from sslrepro.downstream.probe import train_probe
from sslrepro.downstream.task import Labelled, Task, TaskResult

KERNEL, STRIDE, CHANNELS = 9, 3, 64  # frames, frames, detectors


class MeanLinear(nn.Module):
    """Mean over time, then linear (SUPERB: KS, IC, SID, ER): (frames end to end, dim), lengths (utterances,) -> (utterances, classes)."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.out = nn.Linear(dim, classes)

    def forward(self, x: Tensor, lengths: np.ndarray) -> Tensor:
        return self.out(over_time(x, lengths))


class Detectors(nn.Module):
    """One convolution over nine frames, the maximum of each channel over time, then linear. Shapes as MeanLinear.

    A word is heard at one place, which the mean over a sentence drowns: on log-mels normalised over the utterance it is zero.
    """

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, CHANNELS, KERNEL, stride=STRIDE, padding=KERNEL // 2)
        self.out = nn.Linear(CHANNELS, classes)

    def forward(self, x: Tensor, lengths: np.ndarray) -> Tensor:
        padded = pad_sequence(x.split(lengths.tolist()), batch_first=True)
        heard = F.relu(self.conv(padded.transpose(1, 2)))
        places = STRIDE * torch.arange(heard.shape[-1], device=x.device)
        inside = places < torch.from_numpy(lengths).to(x.device)[:, None]
        return self.out((heard * inside[:, None]).amax(-1))


def over_time(x: Tensor, lengths: np.ndarray) -> Tensor:
    """Mean over each utterance's frames: (frames end to end, dim) -> (utterances, dim)."""
    sizes = torch.from_numpy(lengths).to(x.device)
    return torch.segment_reduce(x, "sum", lengths=sizes) / sizes[:, None]


def utterance_accuracy(task: Task, data: Labelled, frozen: FrozenStates, settings: DownstreamSettings, seed: int) -> TaskResult:
    """Share of test utterances whose class is picked. A class that no training row holds can only be missed."""
    code = {name: i for i, name in enumerate(data.classes)}

    def wanted(rows: np.ndarray) -> Tensor:
        return torch.tensor([code.get(data.labels[row], len(code)) for row in rows.tolist()], device=frozen.device)

    def loss(probe, rows):
        return F.cross_entropy(probe(frozen.states(rows), frozen.frames(rows)), wanted(rows))

    probe = train_probe(lambda: task.head(frozen.dim, len(code), settings), frozen, data.train, settings, task.name, seed, loss)
    missed = []
    for rows in np.array_split(data.test, max(1, len(data.test) // 32)):
        with torch.no_grad():
            picked = probe(frozen.states(rows), frozen.frames(rows)).argmax(-1)
        missed.append((picked != wanted(rows)).cpu().numpy())
    errors = np.concatenate(missed)
    rows = by_speaker(task.metric, frozen.corpus.utterances["speaker"].to_numpy()[data.test], errors, np.ones(len(errors)))
    return TaskResult({task.metric: 1 - float(errors.mean())}, rows)
