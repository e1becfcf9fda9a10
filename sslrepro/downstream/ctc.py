"""Symbols in order, by CTC: phones and characters on a frozen encoder; decoding and counting, which fine-tuning shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from sslrepro.config import DownstreamSettings
from sslrepro.config.downstream import BUCKET
from sslrepro.downstream.features import FrozenStates
from sslrepro.downstream.metrics import by_speaker, edit_errors
from sslrepro.downstream.probe import train_probe
from sslrepro.downstream.task import Labelled, Protocol, Task, TaskResult, Unavailable

BLANK = 0  # the symbols are 1, 2, ... in the order of Labelled.classes
LSTM_DROPOUT = 0.2  # SUPERB's ASR head
END = "</s>"  # closes the training targets of S3PRL's recipes; when read it is nothing
LONG = 300_000  # samples: s3prl_ctc halves a bucket whose first utterance is longer

# of each utterance its log-probabilities (frames, 1 + symbols); symbols -> the symbols read from each
Decode = Callable[[Sequence[np.ndarray], Sequence[str]], list[list[str]]]


class BiLSTM(nn.Module):
    """Two layers, each way `width` cells, then linear: (batch, frames, dim), lengths (batch,) on the host -> (batch, frames, classes)."""

    def __init__(self, dim: int, classes: int, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, width, num_layers=2, bidirectional=True, batch_first=True, dropout=LSTM_DROPOUT)
        self.out = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.out(pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0])


class SuperbBiLSTM(nn.Module):
    """SUPERB's: as BiLSTM, with dropout after both layers, and where `projected` then a linear layer with tanh after each (its OOD-ASR)."""

    def __init__(self, dim: int, classes: int, width: int, projected: bool) -> None:
        super().__init__()
        self.lstms = nn.ModuleList(nn.LSTM(size, width, bidirectional=True, batch_first=True) for size in (dim, 2 * width))
        self.dropout = nn.Dropout(LSTM_DROPOUT)
        after = (nn.Sequential(nn.Linear(2 * width, 2 * width), nn.Tanh()) if projected else nn.Identity() for _ in self.lstms)
        self.after = nn.ModuleList(after)
        self.out = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        for lstm, after in zip(self.lstms, self.after, strict=True):
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            x = after(self.dropout(pad_packed_sequence(lstm(packed)[0], batch_first=True)[0]))
        return self.out(x)


class Framewise(nn.Module):
    """Linear on every frame (SUPERB's PR): (batch, frames, dim), lengths unused -> (batch, frames, classes)."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.out = nn.Linear(dim, classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.out(x)


class OneHidden(nn.Module):
    """Linear, sigmoid, linear on every frame (what MP3S calls linear on Common Voice). Shapes as Framewise."""

    def __init__(self, dim: int, classes: int, width: int) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(dim, width), nn.Linear(width, classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.out(self.hidden(x).sigmoid())


class Padded(nn.Module):
    """A head on padded sequences, fed frames end to end.

    (all frames, dim), lengths (batch,) -> log-probabilities (batch, frames, classes).
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor, lengths: np.ndarray) -> Tensor:
        padded = pad_sequence(x.split(lengths.tolist()), batch_first=True)
        return self.head(padded, torch.from_numpy(lengths)).float().log_softmax(-1)


def ctc_loss(log_probs: Tensor, lengths: Tensor, references: Sequence[Sequence[str]], code: dict[str, int]) -> Tensor:
    """The sum over utterances of CTC's negative log-likelihood per reference symbol (torch's own weighting).

    log_probs (batch, frames, 1 + symbols). Utterances with too few frames must be left out before (`too_few_frames`).
    """
    sizes = torch.tensor([len(symbols) for symbols in references])
    targets = torch.tensor([code[symbol] for symbols in references for symbol in symbols]).to(log_probs.device)
    losses = F.ctc_loss(log_probs.transpose(0, 1), targets, lengths, sizes, BLANK, reduction="none")
    return (losses / sizes.to(losses.device)).sum()


def too_few_frames(frames: int, symbols: Sequence[str]) -> bool:
    """CTC needs a frame a symbol, and a blank between two of the same."""
    return frames < len(symbols) + sum(a == b for a, b in pairwise(symbols))


def greedy(lines: Sequence[np.ndarray], symbols: Sequence[str]) -> list[list[str]]:
    """A `Decode`: the best symbol of each frame, repetitions merged, blanks dropped."""
    read = []
    for log_probs in lines:
        best = log_probs.argmax(-1)
        starts = np.concatenate([[True], best[1:] != best[:-1]])
        read.append([symbols[i - 1] for i in best[starts] if i != BLANK])
    return read


def count_phones(task: str, references: list[list[str]], read: list[list[str]], speakers: Sequence[str]) -> TaskResult:
    """`<task>.per`."""
    return _counted({f"{task}.per": (references, read)}, speakers)


def count_classes(task: str, references: list[list[str]], read: list[list[str]], speakers: Sequence[str]) -> TaskResult:
    """`<task>.error` of one class an utterance."""
    return _counted({f"{task}.error": (references, read)}, speakers)


def count_text(task: str, references: list[list[str]], read: list[list[str]], speakers: Sequence[str]) -> TaskResult:
    """`<task>.wer` and `<task>.cer` of characters; spaces at either end, and doubled ones, of what was read do not count."""
    said, heard = ["".join(line).split() for line in references], ["".join(line).split() for line in read]
    letters = [" ".join(words) for words in said], [" ".join(words) for words in heard]
    return _counted({f"{task}.wer": (said, heard), f"{task}.cer": letters}, speakers)


def _counted(pairs: dict[str, tuple[Sequence, Sequence]], speakers: Sequence[str]) -> TaskResult:
    metrics, rows = {}, []
    for metric, (references, read) in pairs.items():
        errors, units = edit_errors(references, read), np.array([len(symbols) for symbols in references])
        metrics[metric] = float(errors.sum() / units.sum())
        rows += by_speaker(metric, speakers, errors, units)
    return TaskResult(metrics, rows)


def symbol_errors(count: Callable[..., TaskResult]) -> Protocol:
    """The protocol of a CTC head on frozen states, read greedily; `count` is count_phones or count_text.

    With ctc_recipe, S3PRL's: targets end in END, of s3prl_asr after a space; batches are made of BUCKET utterances that are next to each
    other in order of length, see `_buckets`; of s3prl_ctc a symbol right after the same one is not read, though a blank be between.
    """

    def protocol(task: Task, data: Labelled, frozen: FrozenStates, settings: DownstreamSettings, seed: int) -> TaskResult:
        closing = {"plain": [], "s3prl_asr": [" ", END], "s3prl_ctc": [END]}[settings.ctc_recipe]
        symbols = [*data.classes, *(symbol for symbol in closing if symbol not in data.classes)]
        code = {name: 1 + i for i, name in enumerate(symbols)}
        targets = {row: data.labels[row] + closing for row in data.train.tolist()}
        fits = [not too_few_frames(*pair) for pair in zip(frozen.frames(data.train), targets.values(), strict=True)]
        train = data.train[np.array(fits)]
        if not len(train):
            raise Unavailable("every training utterance has fewer frames than CTC needs for its symbols")

        def loss(probe, rows):
            lengths = frozen.frames(rows)
            references = [targets[row] for row in rows.tolist()]
            return ctc_loss(probe(frozen.states(rows), lengths), torch.from_numpy(lengths), references, code) / len(rows)

        def tested(probe, rows) -> TaskResult:
            read: list[list[str]] = []
            for piece in np.array_split(rows, max(1, len(rows) // 32)):
                lengths = frozen.frames(piece)
                with torch.no_grad():
                    log_probs = probe(frozen.states(piece), lengths).cpu().numpy()
                read += greedy([line[:frames] for line, frames in zip(log_probs, lengths, strict=True)], symbols)
            read = [[symbol for symbol in line if symbol != END] for line in read]
            if settings.ctc_recipe == "s3prl_ctc":
                read = [[symbol for symbol, _ in groupby(line)] for line in read]
            references = [data.labels[row] for row in rows.tolist()]
            return count(task.name, references, read, frozen.corpus.utterances["speaker"].to_numpy()[rows])

        def error(probe) -> float:
            """Of words where S3PRL's recipe is that of words, else of symbols: WER for asr, CER for ctc on text."""
            found = tested(probe, data.valid).metrics
            return found[f"{task.name}.cer"] if settings.ctc_recipe == "s3prl_ctc" and count is count_text else found[task.metric]

        buckets = None
        if settings.ctc_recipe != "plain":
            lengths = np.array([frozen.corpus.samples(row) for row in train.tolist()])
            sizes = np.array([len(targets[row]) for row in train.tolist()]) if count is count_phones else lengths
            buckets = _buckets(train, sizes, lengths, overlapping=settings.ctc_recipe == "s3prl_ctc")
        probe = train_probe(task, 1 + len(code), frozen, train, settings, seed, loss, error, Padded, buckets)
        return replace(tested(probe, data.test), notes=too_few_note(len(fits) - len(train), task.name))

    return protocol


def _buckets(rows: np.ndarray, sizes: np.ndarray, samples: np.ndarray, overlapping: bool) -> list[np.ndarray]:
    """Rows from the largest size to the smallest, in pieces of BUCKET (all of them, where there are fewer).

    One after the other, what is left of twice as many being the last (S3PRL's asr halves its pieces, but not that one); or overlapping,
    one from each row on and the last where a whole one still fits, of which a bucket whose first utterance has more than LONG samples keeps
    its first half (S3PRL's ctc).
    """
    order = np.argsort(-sizes, kind="stable")
    if not overlapping:
        whole = len(order) - len(order) % (2 * BUCKET)
        pieces = [*np.split(order[:whole], whole // BUCKET), order[whole:]] if whole else [order]
        return [rows[piece] for piece in pieces if len(piece)]
    last = max(0, len(order) - BUCKET)
    pieces = [order[min(start, last) :][:BUCKET] for start in range(len(order))]
    return [rows[piece[: len(piece) // 2] if samples[piece[0]] > LONG and len(piece) > 1 else piece] for piece in pieces]


def too_few_note(count: int, task: str) -> list[str]:
    return [f"{task}: {count} training utterance(s) left out, with fewer frames than CTC needs for their symbols"] if count else []
