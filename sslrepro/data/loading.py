"""From the corpus to micro-batches: reading, cropping, masks and labels. All of it on the host, ahead of the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from sslrepro.config import AugmentSettings, CellSettings
from sslrepro.data.augment import augment, change_speed, speed_of
from sslrepro.data.batching import UpdatePlan, by_length
from sslrepro.data.corpus import Corpus
from sslrepro.data.targets import Targets
from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError
from sslrepro.models.logmel import without_autocast
from sslrepro.objectives.base import Batch, Key, Objective

SAMPLE_RATE = 16_000
CROP_STEP = 320  # crops start on the 20 ms grid, so that labels keep their place

Draws = Callable[[Key, int], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Shapes:
    """What the loader must know of the model: frames of so many samples, the samples from one frame to the next, and the spectral
    features that its objective predicts, waveform (samples,) -> (frames, dim)."""

    frames: Callable[[int], int]
    frame_step: int
    spectra: Callable[[np.ndarray], np.ndarray] | None = None

    @classmethod
    def of(cls, objective: Objective) -> Shapes:
        """Those of an objective and its upstream."""
        return cls(objective.upstream.frames, round(SAMPLE_RATE / objective.upstream.frame_rate), objective.spectra)


@dataclass(frozen=True)
class Request:
    """One utterance as asked for: its row in the corpus, the crop, and the counter of its random choices."""

    index: int
    start: int
    samples: int
    key: Key


class TrainingData(Dataset):
    """Item i is micro-batch i % k of update i // k, for this rank.

    Raises UserError where an update's micro-batches are no multiple of the ranks: each device must do its share of every update.
    `left_out` counts the utterances shorter than training.min_seconds; `cropped` those longer than max_seconds.
    """

    def __init__(
        self, corpus: Corpus, settings: CellSettings, seed: int, draws: Draws, shapes: Shapes, targets: Targets | None,
        rank: int = 0, world: int = 1,
    ) -> None:  # fmt: skip
        t = settings.training
        subset = corpus.subset(settings.data.hours, settings.data.fixed_speakers)
        seconds = corpus.durations[subset]
        kept = seconds >= t.min_seconds
        self.left_out, self.cropped = int((~kept).sum()), int((seconds[kept] > t.max_seconds).sum())
        self.indices, self.seconds = subset[kept], np.minimum(seconds[kept], t.max_seconds)
        self.plan = UpdatePlan(self.seconds, t.batch_seconds, t.micro_batch_seconds, seed)
        if self.plan.micro_batches_per_update % world:
            raise UserError(
                f"training: an update of {t.batch_seconds:g} s is {self.plan.micro_batches_per_update} micro-batches of at most "
                f"{t.micro_batch_seconds:g} s, which {world} processes cannot share evenly: choose micro_batch_seconds, or the number of "
                f"processes, so that the micro-batches are a multiple of {world}"
            )
        self.corpus, self.seed, self.draws, self.shapes, self.targets = corpus, seed, draws, shapes, targets
        self.most_samples = round(t.max_seconds * SAMPLE_RATE)
        self.augment = settings.data.augment
        self.rank, self.world = rank, world

    @property
    def per_rank(self) -> int:
        """Micro-batches of one update on one device."""
        return self.plan.micro_batches_per_update // self.world

    def names(self, positions: np.ndarray) -> list[str]:
        """The utterances at these positions of the plan."""
        return [self.corpus.name(index) for index in self.indices[positions]]

    def __getitem__(self, item: int) -> Batch:
        update, micro = divmod(item, self.per_rank)
        pieces = self.plan.update(update)
        mine = micro * self.world + self.rank
        earlier = Counter(int(position) for piece in pieces[:mine] for position in piece)
        requests = []
        for position in pieces[mine]:
            position = int(position)
            key = (self.seed, "update", update, self.corpus.name(self.indices[position]), earlier[position])
            earlier[position] += 1  # the same utterance twice in one update is masked twice, differently
            requests.append(self._request(int(self.indices[position]), key))
        return collate(self.corpus, requests, self.draws, self.shapes, self.targets, self.augment)

    def _request(self, index: int, key: Key) -> Request:
        samples = self.corpus.samples(index)
        if samples <= self.most_samples:
            return Request(index, 0, samples, key)
        places = (samples - self.most_samples) // CROP_STEP
        start = int(numpy_generator(*key, "crop").integers(0, places + 1)) * CROP_STEP
        return Request(index, start, self.most_samples, key)

    def loader(self, first_update: int, updates: int, workers: int) -> DataLoader:
        """Micro-batches in order from `first_update` on. The number of workers changes nothing but the speed."""
        span = range(first_update * self.per_rank, (first_update + updates) * self.per_rank)
        return DataLoader(
            self, batch_size=None, sampler=span, num_workers=workers, pin_memory=torch.cuda.is_available(),
            prefetch_factor=max(2, 2 * self.per_rank) if workers else None,
        )  # fmt: skip


def evaluation_batches(
    corpus: Corpus, indices: np.ndarray, settings: CellSettings, draws: Draws, shapes: Shapes, targets: Targets | None
) -> list[Callable[[], Batch]]:
    """A split once, by length, with masks that are the same for every run and at every time. Utterances are cut at max_seconds."""
    t = settings.training
    most = round(t.max_seconds * SAMPLE_RATE)
    seconds = np.minimum(corpus.durations[indices], t.max_seconds)

    def load(piece: np.ndarray) -> Batch:
        rows = [int(indices[i]) for i in piece]
        requests = [Request(row, 0, min(corpus.samples(row), most), ("valid", corpus.name(row))) for row in rows]
        return collate(corpus, requests, draws, shapes, targets)

    return [lambda piece=piece: load(piece) for piece in by_length(seconds, t.micro_batch_seconds)]


def collate(
    corpus: Corpus, requests: list[Request], draws: Draws, shapes: Shapes, targets: Targets | None, augmented: AugmentSettings | None = None
) -> Batch:
    """Read the utterances and lay them out as one padded micro-batch (see objectives.base.Batch).

    A faster utterance takes as many samples more of the recording, and is shorter where that ends; none gets longer than asked for.
    """
    speeds = [speed_of(augmented, request.key) for request in requests]
    clean = [
        change_speed(corpus.audio(request.index, request.start, round(request.samples * speed)), speed)[: request.samples]
        for request, speed in zip(requests, speeds, strict=True)
    ]
    lengths = [len(one) for one in clean]
    waveforms = np.zeros((len(requests), max(lengths)), dtype=np.float32)
    for row, (request, one) in enumerate(zip(requests, clean, strict=True)):
        waveforms[row, : lengths[row]] = augment(one, augmented, request.key)
    frame_counts = [shapes.frames(n) for n in lengths]
    drawn = [draws(request.key, count) for request, count in zip(requests, frame_counts, strict=True)]

    mask = np.zeros((len(requests), max(frame_counts)), dtype=bool)
    places = [np.flatnonzero(d["mask"]) for d in drawn]
    counts = [len(p) for p in places]
    masked = np.zeros((len(requests), max(max(counts), 1)), dtype=np.int64)
    valid = np.zeros_like(masked, dtype=bool)
    for row, place in enumerate(places):
        mask[row, place] = True
        masked[row, : len(place)] = place
        valid[row, : len(place)] = True
    negatives = None
    if "negatives" in drawn[0]:
        negatives = np.zeros((*masked.shape, drawn[0]["negatives"].shape[1]), dtype=np.int64)
        for row, d in enumerate(drawn):
            negatives[row, : counts[row]] = d["negatives"]
    labels = None
    if targets is not None:
        labels = np.full(mask.shape, -1, dtype=np.int64)
        for row, (request, count, speed) in enumerate(zip(requests, frame_counts, speeds, strict=True)):
            labels[row, :count] = targets.labels(request.index, request.start, count, shapes.frame_step * speed)
    spectra = None
    if shapes.spectra is not None:
        with without_autocast(torch.device("cpu")):  # validation reads its batches where the model runs in 16 bits
            made = [shapes.spectra(one) for one in clean]
        spectra = _stacked([_fitted(one, count) for one, count in zip(made, frame_counts, strict=True)])
    return Batch(
        waveforms=torch.from_numpy(waveforms),
        lengths=torch.tensor(lengths),
        utterances=[corpus.name(request.index) for request in requests],
        keys=[request.key for request in requests],
        indices=torch.tensor([request.index for request in requests]),
        mask=torch.from_numpy(mask),
        masked=torch.from_numpy(masked),
        masked_valid=torch.from_numpy(valid),
        negatives=None if negatives is None else torch.from_numpy(negatives),
        labels=None if labels is None else torch.from_numpy(labels),
        spectra=spectra,
        noise=_stacked([d["noise"] for d in drawn]) if "noise" in drawn[0] else None,
        keep=_stacked([d["keep"] for d in drawn]) if "keep" in drawn[0] else None,
        host_masked_counts=counts,
        host_frames=frame_counts,
    )


def _fitted(spectra: np.ndarray, frames: int) -> np.ndarray:
    """So many frames: the last one is repeated where the model has one more than the spectra."""
    return spectra[np.minimum(np.arange(frames), len(spectra) - 1)]


def _stacked(rows: list[np.ndarray]) -> torch.Tensor:
    """Rows of different lengths as one tensor, zeros after their ends."""
    whole = np.zeros((len(rows), max(len(row) for row in rows), *rows[0].shape[1:]), dtype=np.float32)
    for place, row in enumerate(rows):
        whole[place, : len(row)] = row
    return torch.from_numpy(whole)
