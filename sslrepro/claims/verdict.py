"""From a claim's margin in every draw to its verdict, its interval and what would decide it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import t

from sslrepro.claims.bootstrap import Source
from sslrepro.claims.ledger import Claim
from sslrepro.claims.margins import Part, smallest
from sslrepro.claims.series import Frame, Lacking, Undecidable

REPLICATED, CONTRADICTED = "replicated", "contradicted"
INCONCLUSIVE, NOT_RUN = "inconclusive at this scale", "not run"
MOST_SEEDS = 200


@dataclass(frozen=True)
class Judgement:
    """All parts that could be judged, the claim's margin over them `(draws,)`, the tests and points that could not, each with its
    reason, and the series that they lack cells of."""

    parts: list[Part]
    margin: np.ndarray | None
    open: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)


def judge(claim: Claim, frame: Frame, scope: str) -> Judgement:
    """Every test of this scope on the frame's series."""
    parts: list[Part] = []
    unjudged: list[str] = []
    lacking: list[str] = []
    frame.undecided.clear()
    for test in claim.tests:
        if test.scope not in ("both", scope):
            continue
        try:
            parts += test.parts(frame)
        except Undecidable as reason:
            unjudged.append(f"{test.kind}: {reason}")
            lacking += [reason.series] if isinstance(reason, Lacking) else []
    unjudged += frame.undecided + frame.lacking
    return Judgement(parts, smallest(parts) if parts else None, unjudged, lacking)


def interval(margin: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of one condition's margin from its draws (the first is the point estimate). A draw that decides nothing (NaN)
    counts as the worst at the low end and as the best at the high end."""
    draws, point = margin[1:], margin[0]
    low = np.quantile(np.where(np.isnan(draws), -np.inf, draws), 0.025, method="lower")
    high = np.quantile(np.where(np.isnan(draws), np.inf, draws), 0.975, method="higher")
    return float(np.fmin(low, point)), float(np.fmax(high, point))


@dataclass(frozen=True)
class Bounds:
    """A claim's interval, and what sets its upper end: which of its conditions (as `conditions` lists them), and the part that has it.
    `rivals`: how many conditions it was chosen from."""

    low: float
    high: float
    part: Part
    place: int
    rivals: int


def conditions(parts: list[Part]) -> list[np.ndarray]:
    """The margins `(draws,)` of all single conditions."""
    return [margin for part in parts for margin in part.conditions]


def bounds(parts: list[Part], seeds: int) -> Bounds:
    """The interval of a claim's margin, the smallest of its conditions.

    The smallest of noisy numbers lies below the smallest of the true ones, so draws of the minimum would contradict a true claim of many
    conditions by noise alone. A claim fails when some one condition does: the upper end is the lowest of the conditions' own, each at
    1 - 0.025 / k of Student's distribution over the seeds, k being how many there are (Bonferroni). The lower end, where all must hold,
    is that of the minimum: noise makes it lower, never higher.
    """
    listed, owners = conditions(parts), [part for part in parts for _ in part.conditions]
    k = sum(len(margin) > 1 for margin in listed)
    highs = []
    for margin in listed:
        high = interval(margin)[1] if len(margin) > 1 else margin[0]
        wide = float(margin[0] + (high - margin[0]) * stricter(k, seeds))
        highs.append(math.inf if math.isnan(wide) else wide)
    place = int(np.argmin(highs))
    return Bounds(interval(smallest(parts))[0], highs[place], owners[place], place, k)


def stricter(rivals: int, seeds: int) -> float:
    """How much wider a condition's upper side is for being one of so many."""
    return float(t.ppf(1 - 0.025 / max(rivals, 1), max(seeds, 2) - 1) / t.ppf(0.975, max(seeds, 2) - 1))


def verdict(low: float, high: float) -> str:
    """Replicated if the whole interval is at or above zero, contradicted if it is below, else inconclusive."""
    return REPLICATED if low >= 0 else CONTRADICTED if high < 0 else INCONCLUSIVE


@dataclass(frozen=True, order=True)
class Need:
    """What would decide a margin: `much` orders needs from small to large, `words` says it."""

    much: float
    words: str


def to_decide(point: float, seeds: int, margin_under: Callable[[tuple[Source, ...]], np.ndarray], rivals: int = 1) -> Need:
    """How many seeds, or how much more test speech, would bring the interval to one side of zero, if the effect stays what it is.

    The distance from the effect to the interval's end at zero is split into what seeds and what speakers alone give; with n seeds the
    first shrinks as t(n - 1) / sqrt(n), with k times the speakers the second as 1 / sqrt(k). rivals: of how many conditions this one
    would contradict the claim (`bounds`).
    """
    too_many = Need(MOST_SEEDS * 1e4, f"more than {MOST_SEEDS} seeds")
    if not math.isfinite(point) or point == 0:
        return too_many
    ends = []
    for source in ("seeds", "speakers"):
        low, high = interval(margin_under((source,)))
        ends.append(max(point - low if point > 0 else (high - point) * stricter(rivals, seeds), 0.0))
    by_seeds, by_speakers = ends
    room = abs(point)
    if not math.isfinite(by_seeds) or not math.isfinite(by_speakers):
        return Need(math.inf, f"more than {MOST_SEEDS} seeds or a larger effect")
    left = room**2 - by_speakers**2
    if left > 0:
        for n in range(max(seeds + 1, 3), MOST_SEEDS + 1):
            if by_seeds * _half(n, rivals) / _half(seeds, rivals) <= math.sqrt(left):
                return Need(n, f"about {n} seeds")
    if by_speakers**2 > room**2 / 2:
        times = math.ceil(2 * by_speakers**2 / room**2)
        if times >= 1000:
            return Need(math.inf, "a larger effect")
        return Need(MOST_SEEDS * times, f"about {times} times the hours of test speech (speakers), and more seeds")
    return too_many


def parts_to_decide(parts: list[Part], seeds: int, under: Callable[[tuple[Source, ...], Part], np.ndarray]) -> Need | None:
    """The same for a claim that holds so far and has several parts, each with its own room: all that reach below zero must rise above it.
    None where no part alone is open, or one is below zero."""
    if any(part.margin[0] < 0 for part in parts):
        return None
    still_open = [part for part in parts if len(part.margin) > 1 and interval(part.margin)[0] < 0]
    needs = [to_decide(float(part.shrinks[0]), seeds, lambda sources, part=part: under(sources, part)) for part in still_open]
    return max(needs, default=None)


def _half(n: int, rivals: int) -> float:
    """Half the width of Student's interval of a mean of n, one of so many conditions, in standard deviations."""
    return float(t.ppf(1 - 0.025 / rivals, n - 1) / math.sqrt(n))
