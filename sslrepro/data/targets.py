"""Labels for masked prediction: k-means on 39-dimensional MFCC (HuBERT's first pass), on log-mels (MelHuBERT), or on a hidden layer.

A targets folder holds `labels.npy` (one code a frame, all utterances end to end in the manifest's order), `offsets.npy`,
`centroids.npy` and `targets.json` (rate, clusters, entropy, cost). One k-means serves all splits.
"""

from __future__ import annotations

import json
import os
import shutil
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from sslrepro.budget.setup import label_flops
from sslrepro.config import CellSettings, Profile, TargetSettings
from sslrepro.data.corpus import Corpus
from sslrepro.draws import key64, numpy_generator
from sslrepro.errors import UserError
from sslrepro.files import remove, writing
from sslrepro.paths import corpus_dir, targets_dir

SAMPLE_RATE = 16_000
FRAMES_A_STEP = 2_000  # of one mini-batch step of the k-means
AHEAD = 4  # utterances a core whose results may wait: enough to keep it busy, few enough for a corpus of any size
Features = Callable[[np.ndarray], np.ndarray]  # waveform (samples,) -> (frames, dim)


class Targets:
    """Labels of a targets folder, by utterance."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "targets.json").exists():
            raise UserError(f"{folder}: no targets here; `dvc repro targets` makes those of the profile in params.yaml")
        self.info = json.loads((folder / "targets.json").read_text())
        self._labels = np.load(folder / "labels.npy", mmap_mode="r")
        self._offsets = np.load(folder / "offsets.npy")

    def labels(self, index: int, start: int, frames: int, frame_step: float) -> np.ndarray:
        """Labels (frames,) of an utterance's frames at `frame_step` samples each, from sample `start` on; a fraction where the speed is
        changed.

        Labels at a higher rate are taken every so many (HuBERT takes every second of its 100 Hz labels); the last one is repeated where
        the model has a frame more than the labels.
        """
        mine = self._labels[self._offsets[index] : self._offsets[index + 1]]
        if not len(mine):
            raise UserError(f"utterance {index} has no labels: these targets are of {', '.join(self.info['languages'])} alone")
        step = self.info["step"]
        places = ((start + np.arange(frames) * frame_step) // step).astype(np.int64)
        return np.asarray(mine[np.minimum(places, len(mine) - 1)], dtype=np.int64)


def mfcc(waveform: np.ndarray) -> np.ndarray:
    """13 MFCC with first and second differences every 10 ms: (samples,) -> (frames, 39), as HuBERT's first iteration."""
    import torchaudio  # here and below: reading targets, as training does, needs neither torchaudio nor scikit-learn

    wave = torch.from_numpy(waveform)[None]
    base = torchaudio.compliance.kaldi.mfcc(wave, sample_frequency=SAMPLE_RATE, use_energy=False, dither=0.0).T
    first = torchaudio.functional.compute_deltas(base)
    return torch.cat([base, first, torchaudio.functional.compute_deltas(first)]).T.numpy()


def log_mels(waveform: np.ndarray) -> np.ndarray:
    """40 log-mel bands every 10 ms, normalised over the utterance: (samples,) -> (frames, 40), as MelHuBERT."""
    import torchaudio

    wave = torch.from_numpy(waveform)[None]
    mels = torchaudio.compliance.kaldi.fbank(wave, num_mel_bins=40, sample_frequency=SAMPLE_RATE, dither=0.0)
    return ((mels - mels.mean(0)) / (mels.std(0) + 1e-5)).numpy()


def build_targets(profile: Profile, name: str) -> Path:
    """Fit the k-means of `profile.targets[name]` on `fit_hours` of training speech of its languages, streaming, and label their utterances
    of every split. Those of other languages get no labels."""
    from sklearn.cluster import MiniBatchKMeans

    settings = profile.targets[name]
    corpus = Corpus(corpus_dir(profile.profile), settings.languages)
    features, step, teacher, teacher_flops = _source(profile, settings)
    rows = _fit_rows(corpus, settings)
    kmeans = MiniBatchKMeans(settings.clusters, n_init=5, random_state=key64("kmeans", settings.seed) % 2**32, compute_labels=False)
    fitted = 0
    with _one_thread_each() as in_order:
        for chunk in _chunks(in_order(lambda row: features(corpus.audio(row)), rows), at_least=max(FRAMES_A_STEP, settings.clusters)):
            kmeans.partial_fit(chunk)
            fitted += len(chunk)
        lengths, gathered = np.zeros(len(corpus), dtype=np.int64), array("H")
        parts = in_order(lambda row: kmeans.predict(features(corpus.audio(row))).astype(np.uint16), corpus.rows)
        for row, part in zip(corpus.rows, parts, strict=True):
            lengths[row] = len(part)
            gathered.frombytes(part.tobytes())
    labels = np.frombuffer(gathered, dtype=np.uint16)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    counts = np.bincount(labels, minlength=settings.clusters)
    share = counts[counts > 0] / counts.sum()
    info = {
        "source": settings.source,
        "clusters": settings.clusters,
        "clusters_used": int((counts > 0).sum()),
        "entropy_nats": float(-(share * np.log(share)).sum()),
        "step": step,
        "fit_frames": fitted,
        "labelled_frames": int(offsets[-1]),
        "languages": corpus.languages,
        "setup_flops": label_flops(settings, float(corpus.durations[corpus.rows].sum()) / 3600, teacher, trained_flops=teacher_flops),
    }
    if info["clusters_used"] < max(2, settings.clusters // 10):
        raise UserError(
            f"targets {name}: only {info['clusters_used']} of {settings.clusters} clusters are used; "
            "is the audio silent, or are there too many clusters for targets.fit_hours?"
        )
    folder = targets_dir(profile.profile, name)
    scratch = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    with writing(folder, "the labels"):
        scratch.mkdir(parents=True)
        np.save(scratch / "labels.npy", labels)
        np.save(scratch / "offsets.npy", offsets)
        np.save(scratch / "centroids.npy", kmeans.cluster_centers_)
        (scratch / "targets.json").write_text(json.dumps(info, indent=1, sort_keys=True))
        remove(folder)
        scratch.rename(folder)
    return folder


def _source(profile: Profile, settings: TargetSettings) -> tuple[Features, int, CellSettings | None, float]:
    """The feature function, the samples from one frame to the next, and for hidden layers their model and what its training cost."""
    if settings.source == "mfcc":
        return mfcc, SAMPLE_RATE // 100, None, 0.0
    if settings.source == "logmel":
        return log_mels, SAMPLE_RATE // 100, None, 0.0
    from sslrepro.training.runs import hidden_features  # a teacher: only then is a model needed

    return hidden_features(profile, settings)


def _fit_rows(corpus: Corpus, settings: TargetSettings) -> np.ndarray:
    """Training utterances at random until `fit_hours` are reached."""
    train = corpus.subset(None, False)
    order = numpy_generator("kmeans rows", settings.seed).permutation(train)
    hours = np.cumsum(corpus.durations[order]) / 3600
    return order[: int(np.searchsorted(hours, settings.fit_hours)) + 1]


@contextmanager
def _one_thread_each() -> Iterator[Callable[..., Iterator]]:
    """A `map` that works on one utterance a core and gives results in order: the features are many small operations."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            yield lambda work, rows: _in_order(pool, work, rows)
    finally:
        torch.set_num_threads(threads)


def _in_order(pool: ThreadPoolExecutor, work: Callable, rows: np.ndarray) -> Iterator:
    """Results in the order of the rows, of which at most AHEAD a core are begun before the first of them is taken."""
    begun: deque[Future] = deque()
    for row in rows:
        begun.append(pool.submit(work, row))
        if len(begun) == AHEAD * (os.cpu_count() or 1):
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


def _chunks(parts: Iterator[np.ndarray], at_least: int) -> Iterator[np.ndarray]:
    """Whole utterances gathered into chunks of at least so many frames; a short rest joins the last chunk."""
    held: list[np.ndarray] = []
    ready: np.ndarray | None = None
    for part in parts:
        held.append(part)
        if sum(map(len, held)) >= at_least:
            if ready is not None:
                yield ready
            ready, held = np.concatenate(held), []
    rest = [x for x in [ready, *held] if x is not None]
    if rest:
        yield np.concatenate(rest)
