"""Are two utterances of one voice? An embedding learned by telling the training voices apart, compared by its cosine.

`verification_xvector` is SUPERB's ASV (x-vector, AM-softmax; S3PRL's sv_voxceleb1) where the settings have its projection of 512. After it,
smaller: `verification` has one frame layer in place of its five; `verification_tdnn` has the dilated ones too, as the second head that MP3S
gives each task.
"""

from __future__ import annotations

from itertools import count

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from sslrepro.config import DownstreamSettings
from sslrepro.downstream.convolutional import inside
from sslrepro.downstream.features import SAMPLE_RATE, FrozenStates
from sslrepro.downstream.metrics import equal_error_rate
from sslrepro.downstream.probe import Probe, train_probe
from sslrepro.downstream.task import Labelled, Task, TaskResult
from sslrepro.downstream.utterances import over_time
from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError

FRAME_DIM, EMBEDDING_DIM = 128, 64
DILATED = ((5, 1), (3, 2), (3, 3))  # kernel and dilation of the x-vector's context layers (Snyder et al. 2018)
MARGIN, SCALE = 0.2, 15.0  # AM-softmax (arXiv 1801.05599); its own scale of 30 is for thousands of voices
POOLED_DIM = 1500  # SUPERB's x-vector, as are the two that follow
WIDE_MARGIN, WIDE_SCALE = 0.4, 30.0


class SpeakerEmbedding(nn.Module):
    """Frame layer, mean and deviation over time, linear: (frames end to end, dim) and lengths (utterances,) -> (utterances, 64).

    `voices` (voices, 64) are the directions of the training voices.
    """

    needs = 1  # frames

    def __init__(self, dim: int, voices: int) -> None:
        super().__init__()
        self.frame, self.embed = nn.Linear(dim, FRAME_DIM), nn.Linear(2 * FRAME_DIM, EMBEDDING_DIM)
        self.voices = nn.Parameter(torch.randn(voices, EMBEDDING_DIM))

    def forward(self, x: Tensor, lengths: np.ndarray) -> Tensor:
        x = self.frames(F.relu(self.frame(x)), lengths)
        mean, square = over_time(x, lengths), over_time(x * x, lengths)
        deviation = (square - mean**2).clamp_min(0).add(1e-5).sqrt()
        return self.embed(torch.cat([mean, deviation], dim=-1))

    def frames(self, x: Tensor, lengths: np.ndarray) -> Tensor:
        """What is pooled: (frames end to end, 128) -> the same."""
        return x

    def loss(self, embeddings: Tensor, voice: Tensor) -> Tensor:
        return am_softmax(embeddings, voice, self.voices, MARGIN, SCALE)


class DilatedSpeakerEmbedding(SpeakerEmbedding):
    """The same with dilated convolutions over time before the pooling; what lies beyond an utterance's ends is zero."""

    def __init__(self, dim: int, voices: int) -> None:
        super().__init__(dim, voices)
        convs = (nn.Conv1d(FRAME_DIM, FRAME_DIM, kernel, dilation=apart, padding=kernel // 2 * apart) for kernel, apart in DILATED)
        self.context = nn.ModuleList(convs)

    def frames(self, x: Tensor, lengths: np.ndarray) -> Tensor:
        padded = pad_sequence(x.split(lengths.tolist()), batch_first=True).transpose(1, 2)
        own = inside(lengths, padded.shape[-1], x.device)
        for conv in self.context:
            padded = F.relu(conv(padded)) * own[:, None]
        return padded.transpose(1, 2)[own]


class XVector(nn.Module):
    """SUPERB's x-vector: five frame layers, of which three see CONTEXT frames, mean and deviation over time, two layers of an utterance.

    (frames end to end, dim), lengths (utterances,) each >= `needs` -> (utterances, dim): of the second of these layers in training, of the
    first in evaluation, as S3PRL. No frame beyond an utterance's ends is looked at, so it has needs - 2 fewer where they are pooled; S3PRL
    pools one more frame of utterances that are padded.
    """

    needs = 2 + sum((kernel - 1) * apart for kernel, apart in DILATED)  # frames: the deviation is of two

    def __init__(self, dim: int, voices: int) -> None:
        super().__init__()
        convs = [nn.Conv1d(dim, dim, kernel, dilation=apart) for kernel, apart in DILATED]
        convs += [nn.Conv1d(dim, dim, 1), nn.Conv1d(dim, POOLED_DIM, 1)]
        self.context = nn.Sequential(*(layer for conv in convs for layer in (conv, nn.ReLU())))
        self.first, self.second = nn.Linear(2 * POOLED_DIM, dim), nn.Linear(dim, dim)
        self.voices = nn.Parameter(nn.init.xavier_normal_(torch.empty(voices, dim)))

    def forward(self, x: Tensor, lengths: np.ndarray) -> Tensor:
        seen = self.context(pad_sequence(x.split(lengths.tolist()), batch_first=True).transpose(1, 2)).transpose(1, 2)
        lines = [line[: length - self.needs + 2] for line, length in zip(seen, lengths.tolist(), strict=True)]
        pooled = torch.stack([torch.cat([line.mean(0), line.std(0)]) for line in lines])
        embedded = F.relu(self.first(pooled))
        return F.relu(self.second(embedded)) if self.training else embedded

    def loss(self, embeddings: Tensor, voice: Tensor) -> Tensor:
        return am_softmax(embeddings, voice, self.voices, WIDE_MARGIN, WIDE_SCALE)


def am_softmax(embeddings: Tensor, voice: Tensor, voices: Tensor, margin: float, scale: float) -> Tensor:
    """Cosine of (utterances, dim) to each of `voices` (voices, dim), the right one's less a margin, scaled, then cross-entropy."""
    cosines = F.normalize(embeddings, dim=-1) @ F.normalize(voices, dim=-1).T
    return F.cross_entropy(scale * (cosines - margin * F.one_hot(voice, len(voices))), voice)


def verification_error(task: Task, data: Labelled, frozen: FrozenStates, settings: DownstreamSettings, seed: int) -> TaskResult:
    """Equal error rate over the test split's trials, whose voices are unknown; each trial is listed under its left voice.

    With settings.crop_seconds each training utterance that is longer is heard from a place drawn anew each time, for so long. Raises
    UserError for an utterance with fewer frames than the head needs.
    """
    code = {name: i for i, name in enumerate(data.classes)}
    samples = None if settings.crop_seconds is None else round(settings.crop_seconds * SAMPLE_RATE)
    crops = count()

    def heard(rows: np.ndarray) -> tuple[Tensor, np.ndarray]:
        if samples is None:
            return frozen.states(rows), frozen.frames(rows)
        room = np.array([max(0, frozen.corpus.samples(row) - samples) for row in rows.tolist()])
        generator = numpy_generator(seed, "crop", task.name, next(crops))
        return frozen.pieces(rows, generator.integers(0, room, endpoint=True), samples)

    def loss(probe, rows):
        voice = torch.tensor([code[data.labels[row]] for row in rows.tolist()], device=frozen.device)
        if samples is not None and frozen.upstream.frames(samples) < probe.head.needs:
            raise UserError(f"downstream.crop_seconds: {settings.crop_seconds} s: fewer frames than {task.name} needs, {probe.head.needs}")
        if (few := probe.head.needs - frozen.frames(rows)).max() > 0:
            raise _too_short(task, frozen, int(rows[few.argmax()]), probe.head.needs)
        return probe.head.loss(probe(*heard(rows)), voice)

    probe = train_probe(task, len(code), frozen, data.train, settings, seed, loss)
    if (few := probe.head.needs - frozen.frames(data.test)).max() > 0:
        raise _too_short(task, frozen, int(data.test[few.argmax()]), probe.head.needs)
    embedded = F.normalize(_embed(probe, frozen, data.test), dim=-1)
    left, right = (np.searchsorted(data.test, data.trials[:, side]) for side in (0, 1))
    scores = (embedded[left] * embedded[right]).sum(-1).cpu().numpy().astype(np.float64)
    same = data.trials[:, 2]
    voices = [data.labels[row] for row in data.trials[:, 0].tolist()]
    trials = [(task.metric, voice, float(s), int(y)) for voice, s, y in zip(voices, scores, same, strict=True)]
    return TaskResult({task.metric: equal_error_rate(scores, same)}, trials=trials)


def _too_short(task: Task, frozen: FrozenStates, row: int, needs: int) -> UserError:
    name, frames = frozen.corpus.name(row), int(frozen.frames(np.array([row]))[0])
    return UserError(f"{task.name}: {name} has {frames} frames, the head needs {needs}: leave it out of the manifest at data.root")


@torch.no_grad()
def _embed(probe: Probe, frozen: FrozenStates, rows: np.ndarray) -> Tensor:
    pieces = np.array_split(rows, max(1, len(rows) // 64))
    return torch.cat([probe(frozen.states(piece), frozen.frames(piece)) for piece in pieces])
