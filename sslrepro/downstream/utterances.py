"""A class an utterance: speaker, emotion by the mean over time (SUPERB); keyword, intent by what is heard somewhere, or by a mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_sequence, unpack_sequence

from sslrepro.config import DownstreamSettings
from sslrepro.downstream.features import FrozenStates
from sslrepro.downstream.metrics import by_speaker
from sslrepro.downstream.probe import train_probe
from sslrepro.downstream.task import Labelled, Protocol, Task, TaskResult
from sslrepro.draws import key64

KERNEL, STRIDE, CHANNELS = 9, 3, 64  # frames, frames, detectors
LEARNED = 0.8  # of the folds that are not tested; the rest is for validation


class MeanLinear(nn.Module):
    """Mean over time, then linear (SUPERB: KS, IC, SID, ER): (frames end to end, dim), lengths (utterances,) -> (utterances, classes)."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.out = nn.Linear(dim, classes)

    def forward(self, x: Tensor, lengths: np.ndarray) -> Tensor:
        return self.out(over_time(x, lengths))


class MeanRecurrent(nn.Module):
    """Two layers of BiLSTM, each way `width` cells, linear, mean over time, linear (MP3S: SLURP's second head). Shapes as MeanLinear."""

    def __init__(self, dim: int, classes: int, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, width, num_layers=2, bidirectional=True)
        self.narrow, self.out = nn.Linear(2 * width, width), MeanLinear(width, classes)

    def forward(self, x: Tensor, lengths: np.ndarray) -> Tensor:
        heard = self.lstm(pack_sequence(x.split(lengths.tolist()), enforce_sorted=False))[0]
        return self.out(self.narrow(torch.cat(unpack_sequence(heard))), lengths)


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
    """Share of test utterances whose class is picked. A class that no training row holds can only be missed.

    Of a label of several slots (a tuple) each has classes of its own; the loss is the sum over slots of their cross-entropies, and all of
    them must be right (SUPERB's IC).
    """
    slots = {row: label if isinstance(label, tuple) else (label,) for row, label in data.labels.items()}
    values = [sorted(column) for column in map(set, zip(*(slots[row] for row in data.train.tolist()), strict=True))]
    codes = [{name: i for i, name in enumerate(column)} for column in values]
    sizes = [len(column) for column in values]

    def wanted(rows: np.ndarray) -> Tensor:
        """(rows, slots)"""
        found = [[code.get(name, len(code)) for code, name in zip(codes, slots[row], strict=True)] for row in rows.tolist()]
        return torch.tensor(found, device=frozen.device)

    def loss(probe, rows):
        scores = probe(frozen.states(rows), frozen.frames(rows)).split(sizes, dim=-1)
        return sum(F.cross_entropy(part, right) for part, right in zip(scores, wanted(rows).T, strict=True))

    @torch.no_grad()
    def missed(probe, rows):
        """(rows,) bool"""
        found = []
        for piece in np.array_split(rows, max(1, len(rows) // 32)):
            scores = probe(frozen.states(piece), frozen.frames(piece)).split(sizes, dim=-1)
            picked = torch.stack([part.argmax(-1) for part in scores], dim=-1)
            found.append((picked != wanted(piece)).any(-1).cpu().numpy())
        return np.concatenate(found)

    probe = train_probe(task, sum(sizes), frozen, data.train, settings, seed, loss, lambda probe: float(missed(probe, data.valid).mean()))
    errors = missed(probe, data.test)
    rows = by_speaker(task.metric, frozen.corpus.utterances["speaker"].to_numpy()[data.test], errors, np.ones(len(errors)))
    return TaskResult({task.metric: 1 - float(errors.mean())}, rows)


def over_folds(protocol: Protocol) -> Protocol:
    """The protocol for each fold of the labels in turn, or as it is where there are none: metrics are the mean over folds.

    A fold is tested by a head that learns from four fifths of the other folds and is selected by the rest of them, drawn by their names
    (SUPERB's ER, which draws it too). In the rows of speakers every fold weighs the same, as in that mean.
    """

    def averaged(task: Task, data: Labelled, frozen: FrozenStates, settings: DownstreamSettings, seed: int) -> TaskResult:
        if data.folds is None:
            return protocol(task, data, frozen, settings, seed)
        fold = np.array([data.folds[row] for row in data.train.tolist()])
        found = []
        for name in sorted(set(fold)):
            others = data.train[fold != name]
            others = others[np.argsort([key64("fold validation", frozen.corpus.name(row)) for row in others.tolist()])]
            train, valid = np.split(others, [int(LEARNED * len(others))])
            part = replace(data, train=np.sort(train), valid=np.sort(valid), test=data.train[fold == name], folds=None)
            found.append(protocol(task, part, frozen, settings, seed))
        metrics = {metric: float(np.mean([result.metrics[metric] for result in found])) for metric in found[0].metrics}
        units = [sum(row[3] for row in result.speakers) for result in found]
        weights = [sum(units) / len(units) / count for count in units]
        rows = [(m, s, e * w, n * w) for result, w in zip(found, weights, strict=True) for m, s, e, n in result.speakers]
        return TaskResult(metrics, rows, notes=[note for result in found for note in result.notes])

    return averaged
