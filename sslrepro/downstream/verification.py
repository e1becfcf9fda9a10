"""Are two utterances of one voice? An embedding learned by telling the training voices apart, compared by its cosine.

After SUPERB's ASV (x-vector, AM-softmax). `verification` has one frame layer in place of its five; `verification_tdnn` has the dilated ones
too, as the second head that MP3S gives each task.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from sslrepro.config import DownstreamSettings
from sslrepro.downstream.features import FrozenStates
from sslrepro.downstream.metrics import equal_error_rate
from sslrepro.downstream.probe import Probe, train_probe
from sslrepro.downstream.task import Labelled, Task, TaskResult
from sslrepro.downstream.utterances import over_time

FRAME_DIM, EMBEDDING_DIM = 128, 64
DILATED = ((5, 1), (3, 2), (3, 3))  # kernel and dilation of the x-vector's context layers (Snyder et al. 2018)
MARGIN, SCALE = 0.2, 15.0  # AM-softmax (arXiv 1801.05599); its own scale of 30 is for thousands of voices


class SpeakerEmbedding(nn.Module):
    """Frame layer, mean and deviation over time, linear: (frames end to end, dim) and lengths (utterances,) -> (utterances, 64).

    `voices` (voices, 64) are the directions of the training voices.
    """

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
        """AM-softmax: cosine to each voice, the right one's less a margin, scaled, then cross-entropy."""
        cosines = F.normalize(embeddings, dim=-1) @ F.normalize(self.voices, dim=-1).T
        return F.cross_entropy(SCALE * (cosines - MARGIN * F.one_hot(voice, len(self.voices))), voice)


class DilatedSpeakerEmbedding(SpeakerEmbedding):
    """The same with dilated convolutions over time before the pooling; what lies beyond an utterance's ends is zero."""

    def __init__(self, dim: int, voices: int) -> None:
        super().__init__(dim, voices)
        convs = (nn.Conv1d(FRAME_DIM, FRAME_DIM, kernel, dilation=apart, padding=kernel // 2 * apart) for kernel, apart in DILATED)
        self.context = nn.ModuleList(convs)

    def frames(self, x: Tensor, lengths: np.ndarray) -> Tensor:
        padded = pad_sequence(x.split(lengths.tolist()), batch_first=True).transpose(1, 2)
        inside = torch.arange(padded.shape[-1], device=x.device) < torch.from_numpy(lengths).to(x.device)[:, None]
        for conv in self.context:
            padded = F.relu(conv(padded)) * inside[:, None]
        return padded.transpose(1, 2)[inside]


def verification_error(task: Task, data: Labelled, frozen: FrozenStates, settings: DownstreamSettings, seed: int) -> TaskResult:
    """Equal error rate over the test split's trials, whose voices are unknown; each trial is listed under its left voice."""
    code = {name: i for i, name in enumerate(data.classes)}

    def loss(probe, rows):
        voice = torch.tensor([code[data.labels[row]] for row in rows.tolist()], device=frozen.device)
        return probe.head.loss(probe(frozen.states(rows), frozen.frames(rows)), voice)

    probe = train_probe(lambda: task.head(frozen.dim, len(code), settings), frozen, data.train, settings, task.name, seed, loss)
    embedded = F.normalize(_embed(probe, frozen, data.test), dim=-1)
    left, right = (np.searchsorted(data.test, data.trials[:, side]) for side in (0, 1))
    scores = (embedded[left] * embedded[right]).sum(-1).cpu().numpy().astype(np.float64)
    same = data.trials[:, 2]
    voices = [data.labels[row] for row in data.trials[:, 0].tolist()]
    trials = [(task.metric, voice, float(s), int(y)) for voice, s, y in zip(voices, scores, same, strict=True)]
    return TaskResult({task.metric: equal_error_rate(scores, same)}, trials=trials)


@torch.no_grad()
def _embed(probe: Probe, frozen: FrozenStates, rows: np.ndarray) -> Tensor:
    pieces = np.array_split(rows, max(1, len(rows) // 64))
    return torch.cat([probe(frozen.states(piece), frozen.frames(piece)) for piece in pieces])
