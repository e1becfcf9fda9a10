"""Hidden states of a frozen encoder, computed once and shared by all tasks of a cell."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

from sslrepro.data.batching import by_length
from sslrepro.data.corpus import Corpus
from sslrepro.errors import UserError
from sslrepro.models.upstream import Upstream

SAMPLE_RATE = 16_000
BATCH_SECONDS = {"cpu": 32.0, "cuda": 640.0}  # audio with its padding in one forward pass


class FrozenStates:
    """The hidden states of `rows` of a corpus, in half precision, frames of an utterance end to end without padding.

    Kept in memory if they fit in `limit` bytes (None: `allowed_bytes`); else each use runs the encoder again, with the same numbers up to
    the arithmetic of another batch. `stored` says which, `bytes` how much it is or would be. Rows too short for one frame are not in
    `rows` but in `too_short`.
    """

    def __init__(self, upstream: Upstream, corpus: Corpus, rows: np.ndarray, device: torch.device, limit: int | None = None) -> None:
        self.upstream, self.corpus, self.device = upstream, corpus, device
        rows = np.unique(rows)
        frames = np.array([int(upstream.frames(corpus.samples(int(row)))) for row in rows], dtype=np.int64)
        self.rows, self.too_short = rows[frames > 0], rows[frames == 0]
        if not len(self.rows):
            raise UserError("downstream: every utterance is too short for one frame of this front end")
        self._frames = frames[frames > 0]
        self._offsets = np.concatenate([[0], np.cumsum(self._frames)])
        self.hop, self.centre = frame_grid(upstream)
        _, self.layers, self.dim = self._compute(self.rows[:1])[0].shape
        self.bytes = int(self._offsets[-1]) * self.layers * self.dim * 2
        self.stored = self.bytes <= (allowed_bytes(device) if limit is None else limit)
        self._store = self._extract() if self.stored else None

    def frames(self, rows: np.ndarray) -> np.ndarray:
        """Frames of each row: (rows,)."""
        return self._frames[self._places(rows)]

    def states(self, rows: np.ndarray) -> Tensor:
        """(frames of all rows, layers, dim) half precision on the device, rows end to end in the order given."""
        places = self._places(rows)
        if self._store is None:
            return torch.cat(self._in_batches(np.asarray(rows)))
        return torch.cat([self._store[self._offsets[i] : self._offsets[i + 1]] for i in places])

    def pieces(self, rows: np.ndarray, starts: np.ndarray, samples: int) -> tuple[Tensor, np.ndarray]:
        """As `states` and `frames`, of what the encoder hears when it is given `samples` of each row alone, from `starts` (rows,) on."""
        audio = [self.corpus.audio(row, start, samples) for row, start in zip(rows.tolist(), starts.tolist(), strict=True)]
        found: dict[int, Tensor] = {}
        for batch in by_length(np.array([len(piece) for piece in audio]) / SAMPLE_RATE, BATCH_SECONDS[self.device.type]):
            found.update(zip(batch.tolist(), self._heard([audio[i] for i in batch.tolist()]), strict=True))
        states = [found[i] for i in range(len(rows))]
        return torch.cat(states), np.array([len(line) for line in states])

    def moments(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over the frames of `rows`: each (layers, dim) float32."""
        count, total, squares = 0, 0.0, 0.0
        for piece in np.array_split(rows, max(1, len(rows) // 64)):
            x = self.states(piece).float()
            count, total, squares = count + len(x), total + x.sum(0, dtype=torch.float64), squares + (x * x).sum(0, dtype=torch.float64)
        mean = total / count
        return mean.float(), (squares / count - mean**2).clamp_min(1e-12).sqrt().float()

    def _places(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.rows, rows)

    def _extract(self) -> Tensor:
        store = torch.empty((int(self._offsets[-1]), self.layers, self.dim), dtype=torch.float16, device=self.device)
        for batch in self._batches(self.rows):
            for place, states in zip(batch, self._compute(self.rows[batch]), strict=True):
                store[self._offsets[place] : self._offsets[place + 1]] = states
        return store

    def _in_batches(self, rows: np.ndarray) -> list[Tensor]:
        found: dict[int, Tensor] = {}
        for batch in self._batches(rows):
            found.update(zip(batch.tolist(), self._compute(rows[batch]), strict=True))
        return [found[i] for i in range(len(rows))]

    def _batches(self, rows: np.ndarray) -> list[np.ndarray]:
        return by_length(self.corpus.durations[rows], BATCH_SECONDS[self.device.type])

    def _compute(self, rows: np.ndarray) -> list[Tensor]:
        """[(frames, layers, dim)] half precision, one a row."""
        return self._heard([self.corpus.audio(int(row)) for row in rows])

    @torch.no_grad()
    def _heard(self, pieces: list[np.ndarray]) -> list[Tensor]:
        """The same of waveforms (samples,). Raises UserError when states are not finite or do not fit half precision."""
        lengths = torch.tensor([len(piece) for piece in pieces])
        waveforms = torch.zeros(len(pieces), int(lengths.max()))
        for line, piece in zip(waveforms, pieces, strict=True):
            line[: len(piece)] = torch.from_numpy(piece)
        was_training = self.upstream.training
        self.upstream.eval()
        output = self.upstream(waveforms.to(self.device), lengths)
        self.upstream.train(was_training)
        states = torch.stack(output.hidden_states, dim=2).half()
        kept = [line[:frames] for line, frames in zip(states, output.lengths.tolist(), strict=True)]
        if not all(torch.isfinite(line).all() for line in kept):
            raise UserError("downstream: hidden states are not finite or exceed 65504; this encoder cannot be scored")
        return kept


def frame_grid(upstream: Upstream) -> tuple[int, float]:
    """Samples from one frame to the next, and the sample in the middle of what the first frame sees."""
    hop = round(SAMPLE_RATE / upstream.frame_rate)
    low, high = 0, 1
    while upstream.frames(high) < 1:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if upstream.frames(middle) >= 1 else (middle, high)
    return hop, high / 2


def allowed_bytes(device: torch.device) -> int:
    """Half of what is free on a GPU, a quarter of a machine's memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
