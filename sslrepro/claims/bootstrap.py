"""Resampled values of a cell: over seeds and, crossed with them, over test speakers.

The same resampled seeds and speakers serve every cell that has them, so contrasts of cells with the same seeds are paired. A plain
percentile bootstrap of a few units is too narrow (three seeds: their largest and smallest value, at most 75 % coverage), so each source's
deviations are scaled by sqrt(n / (n - 1)) x t(n - 1) / z: what Student's interval of a mean needs (Hesterberg 2015, "What teachers
should know about the bootstrap", section 3.2, carried from the percentiles to the draws)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.stats import norm, t

from sslrepro.draws import numpy_generator

DRAWS = 2000
BINS = 512  # of the scores in an equal error rate's resampling
Source = Literal["seeds", "speakers"]


def widening(n: int) -> float:
    """Factor on the deviations of a resampled mean of n units; 0 for a single unit, which says nothing of its spread."""
    return float(np.sqrt(n / (n - 1)) * t.ppf(0.975, n - 1) / norm.ppf(0.975)) if n > 1 else 0.0


@dataclass(frozen=True)
class SpeakerSums:
    """What each test speaker adds to a metric in each seed: `errors`, `units` `(seeds, speakers)`; the value is errors / units."""

    speakers: tuple[str, ...]
    errors: np.ndarray
    units: np.ndarray
    complement: bool  # the metric is 1 - errors / units

    def deviations(self, weights: np.ndarray) -> np.ndarray:
        """Resampled less observed value `(draws, seeds)` under speaker weights `(draws, speakers)`."""
        units = weights @ self.units.T
        observed = self.errors.sum(axis=1) / self.units.sum(axis=1)
        rates = np.divide(weights @ self.errors.T, units, out=np.broadcast_to(observed, units.shape).copy(), where=units > 0)
        return (rates - observed) * (-1 if self.complement else 1)


@dataclass(frozen=True)
class TrialScores:
    """Verification: counts of trials by seed, speaker and score bin, `(seeds, speakers, bins)`, of the same and of different speakers."""

    speakers: tuple[str, ...]
    same: np.ndarray
    different: np.ndarray

    def deviations(self, weights: np.ndarray) -> np.ndarray:
        """Resampled less observed equal error rate `(draws, seeds)`."""
        everyone = np.ones((1, weights.shape[1]))
        columns = []
        for same, different in zip(self.same, self.different, strict=True):
            observed = _eer(everyone @ same, everyone @ different)
            columns.append(_eer(weights @ same, weights @ different) - observed)
        return np.stack(columns, axis=1)


def _eer(same: np.ndarray, different: np.ndarray) -> np.ndarray:
    """Equal error rate `(draws,)` from counts `(draws, bins)` in rising order of score; a draw without both kinds of trial counts as
    the mean of the others."""
    total_same, total_different = same.sum(axis=1), different.sum(axis=1)
    fine = (total_same > 0) & (total_different > 0)
    miss = np.cumsum(same, axis=1) / np.maximum(total_same, 1e-12)[:, None]
    alarm = 1 - np.cumsum(different, axis=1) / np.maximum(total_different, 1e-12)[:, None]
    i = np.argmin(np.abs(miss - alarm), axis=1)[:, None]
    rate = (np.take_along_axis(miss, i, 1) + np.take_along_axis(alarm, i, 1))[:, 0] / 2
    return np.where(fine, rate, rate[fine].mean() if fine.any() else 0.5)


@dataclass
class Resampler:
    """Weights of resampled units, the same for everyone who asks for the same units. Draw 0 is the sample itself."""

    key: tuple[str, ...] = ("claims",)
    draws: int = DRAWS
    _weights: dict[tuple, np.ndarray] = field(default_factory=dict)

    def weights(self, source: Source, units: tuple) -> np.ndarray:
        """How often each unit is drawn, over how many there are: `(1 + draws, units)`, rows sum to 1."""
        name = (source, *units)
        if name not in self._weights:
            n = len(units)
            random = numpy_generator(*self.key, source, *map(str, units))
            counts = random.multinomial(n, np.full(n, 1 / n), size=self.draws)
            self._weights[name] = np.vstack([np.ones(n), counts]) / n
        return self._weights[name]

    def values(
        self,
        observed: np.ndarray,
        seeds: tuple[int, ...],
        clusters: SpeakerSums | TrialScores | None,
        sources: tuple[Source, ...] = ("seeds", "speakers"),
    ) -> np.ndarray:
        """The cell's mean over seeds `(1 + draws,)`, the point estimate first, from its value in each seed `(seeds,)`."""
        drawn = self.weights("seeds", seeds) if "seeds" in sources else np.full((1 + self.draws, len(seeds)), 1 / len(seeds))
        values = observed.mean() + widening(len(seeds)) * (drawn @ observed - observed.mean())
        if clusters is not None and "speakers" in sources and len(clusters.speakers) > 1:
            weights = self.weights("speakers", clusters.speakers)
            values = values + widening(len(clusters.speakers)) * (drawn * clusters.deviations(weights)).sum(axis=1)
        return values


def speaker_sums(errors: np.ndarray, units: np.ndarray, speakers: tuple[str, ...], metric: str) -> SpeakerSums:
    """Sums of one metric; an accuracy is 1 - errors / units."""
    return SpeakerSums(speakers, errors, units, metric.partition("@")[0].endswith("accuracy"))


def score_bins(score: np.ndarray) -> np.ndarray:
    """Each trial's bin, from 0, by quantiles of the run's own scores `(trials,)`: a score has no scale across models."""
    edges = np.quantile(score, np.linspace(0, 1, BINS + 1)[1:-1])
    return np.searchsorted(edges, score)


def trial_scores(seed: np.ndarray, speaker: np.ndarray, bins: list[np.ndarray], same: np.ndarray, speakers: tuple[str, ...]) -> TrialScores:
    """Counts from rows of trials.csv: `seed` as a position, `speaker` a name, the `bins` of that row's trials, `same` 0 or 1."""
    counts = np.zeros((2, int(seed.max()) + 1, len(speakers), BINS))
    who = {name: i for i, name in enumerate(speakers)}
    for s, name, row, k in zip(seed, speaker, bins, same, strict=True):
        np.add.at(counts[int(k), s, who[name]], row, 1)
    return TrialScores(speakers, counts[1], counts[0])
