"""Tests that compare cells or series: ratios, agreement, quality kept, Pareto membership, which setting wins."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import model_validator

from sslrepro.claims.margins import Part, TestBase, above_zero, at_least, at_most
from sslrepro.claims.series import Frame, Series, Undecidable, label, pick


class Ratio(TestBase):
    """of / over (matched on a coordinate), or `of` alone, at least and/or at most a bound. Unit: the bound's distance from 1 where
    `over` is given and the bound is not 1, else the bound. `useful`: error rates of which none is below it are of models that have not
    learned to read, and decide nothing."""

    kind: Literal["ratio"]
    series = ("of", "over")
    of: str
    over: str | None = None
    match: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    strict: bool = False
    useful: float | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Ratio:
        if self.at_least is None and self.at_most is None:
            raise ValueError("needs at_least, at_most or both")
        if self.useful is not None and self.over is None:
            raise ValueError("useful compares two error rates: it needs over")
        return self

    def judge(self, frame: Frame) -> list[Part]:
        of = frame[self.of]
        values, name = of.values, self.of
        if self.over is not None:
            over = of.aligned(frame[self.over], self.match).values
            if self.useful is not None and min(of.values[0].min(), over[0].min()) >= self.useful:
                raise Undecidable(
                    f"neither {self.of} nor {self.over} is below {self.useful:g}: that decides nothing, longer training would"
                )
            values, name = of.values / over, f"{self.of} / {self.over}"
        parts = []
        for i in range(len(of)):
            point = f"{name} at {self.match} {label(of.coordinate(self.match)[i].item())}" if self.match else name
            for bound, make in ((self.at_least, at_least), (self.at_most, at_most)):
                if bound is not None:
                    unit = abs(bound - 1) if self.over is not None and bound != 1 else None
                    parts.append(make(point, values[:, i], bound, strict=self.strict, unit=unit))
        return parts


class Close(TestBase):
    """Each point of `of` agrees with `to` within a relative difference."""

    kind: Literal["close"]
    series = ("of", "to")
    of: str
    to: str
    match: str
    within: float

    def judge(self, frame: Frame) -> list[Part]:
        of, parts = frame[self.of], []
        apart = of.values / of.aligned(frame[self.to], self.match).values - 1
        for i, key in enumerate(of.coordinate(self.match).tolist()):
            name, signed = f"relative difference at {self.match} {label(key)}", np.stack([apart[:, i], -apart[:, i]])
            part = at_most(name, np.abs(apart[:, i]), self.within)
            parts.append(replace(part, each=at_most(name, signed, self.within).margin))
        return parts


class EndsRatio(TestBase):
    """The first point over the last is smaller for `of` than for `other`: the gap shrinks."""

    kind: Literal["ends_ratio"]
    series = ("of", "other")
    of: str
    other: str
    along: str

    def judge(self, frame: Frame) -> list[Part]:
        ends = []
        for name in (self.of, self.other):
            x, y = frame[name].along(self.along)
            if len(x) < 2:
                raise Undecidable(f"{name} has {len(x)} point(s), this test needs 2")
            ends.append(y[:, 0] / y[:, -1])
        return [at_most(f"first / last of {self.of} over that of {self.other}", ends[0] / ends[1], 1, strict=True)]


class Kept(TestBase):
    """Quality kept: (floor - of) / (floor - reference) >= share. The floor is the better of its points (log-mels, random
    initialisation). A reference whose own gain over the floor is not above zero, interval included, decides nothing and is named.
    `most`: the share of the points that must keep it (m is then the margin of the last one needed)."""

    kind: Literal["kept"]
    series = ("of", "reference", "floor")
    of: str
    reference: str
    floor: str
    share: float
    match: str | None = None
    most: float = 1.0

    def judge(self, frame: Frame) -> list[Part]:
        parts: list[Part] = []
        for key, gain, whole in self._gains(frame):
            if not above_zero(whole, frame.resampled):
                frame.notes.append(f"{self._named(key)}: no gain of its own over {self.floor}, decides nothing")
                continue
            kept = np.where(whole > 0, gain / np.where(whole > 0, whole, 1), np.nan)
            part = at_least(f"share of {self.reference}'s gain kept by {self.of} {key}".strip(), kept, self.share)
            parts.append(replace(part, straight=(gain - self.share * whole) / (self.share * whole[0])))
        if not parts:
            raise Undecidable(f"{self.reference} has no gain of its own over {self.floor}: that decides nothing")
        return parts if self.most == 1 else [self._last_needed(parts)]

    def gains(self, frame: Frame) -> dict[str, tuple[np.ndarray, bool]]:
        """The reference's gain over the floor `(draws,)` at each point, and whether it is one by the rule above."""
        found = {}
        for group, sub in frame.where(self.where).groups(self.by, self.uses()):
            with suppress(Undecidable):  # a point without a floor has no gain
                gains = self._gains(sub)
                found |= {f"{self._named(key)} {group}".strip(): (whole, above_zero(whole, frame.resampled)) for key, _, whole in gains}
        return found

    def _named(self, key: str) -> str:
        return f"{self.reference} {key}".strip()

    def _gains(self, frame: Frame) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """Each point's name, and the gains over the floor of `of` and of the reference, `(draws,)`."""
        of = frame[self.of]
        reference = of.aligned(frame[self.reference], self.match)
        found = []
        for i in range(len(of)):
            key = label(of.coordinate(self.match)[i].item()) if self.match else ""
            floor = self._floor(frame, of, i)
            found.append((key, floor - of.values[:, i], floor - reference.values[:, i]))
        return found

    def _floor(self, frame: Frame, of: Series, i: int) -> np.ndarray:
        floor = frame[self.floor]
        if self.match is not None and self.match in floor.coordinates:
            floor = floor.where({self.match: of.coordinate(self.match)[i].item()})
        if not len(floor):
            raise Undecidable(f"no {self.floor} for {self.match} {of.coordinate(self.match or '')[i]}")
        return pick(floor.values, frame.choose(floor.values))

    def _last_needed(self, parts: list[Part]) -> Part:
        needed = math.ceil(self.most * len(parts))
        margins = np.stack(np.broadcast_arrays(*[part.margin for part in parts]))
        margin = -np.sort(-np.where(np.isnan(margins), -np.inf, margins), axis=0)[needed - 1]
        kept = (margins >= 0).mean(axis=0)
        return Part(f"share of {len(parts)} points that keep {self.share:g}", kept, self.most, ">=", margin)


class Pareto(TestBase):
    """At least one point of `of` is on the Pareto front of (cost, quality), both lower-better, of all points. A point's margin is the
    least, over the others, of its larger relative advantage; the best point is chosen on the point estimate."""

    kind: Literal["pareto"]
    series = ("of", "others", "cost_of", "cost_others")
    of: str
    others: str
    cost_of: str
    cost_others: str
    match: str = "cell"

    def judge(self, frame: Frame) -> list[Part]:
        of, others = frame[self.of], frame[self.others]
        quality = np.concatenate(_same(of.values, others.values), axis=1)
        costs = _same(of.aligned(frame[self.cost_of], self.match).values, others.aligned(frame[self.cost_others], self.match).values)
        cost = np.concatenate(costs, axis=1)
        ahead = []
        for p in range(len(of)):
            over = np.maximum(cost / cost[:, p : p + 1] - 1, quality / quality[:, p : p + 1] - 1)
            ahead.append(np.delete(over, p, axis=1))
        best = np.stack([over.min(axis=1) for over in ahead], axis=1)
        chosen = frame.choose(-best)
        name = f"least advantage of {label(of.coordinate(self.match)[int(chosen[0])].item())} over every other point"
        return [replace(at_least(name, pick(best, chosen), 0), each=at_least(name, ahead[int(chosen[0])].T, 0).margin)]


def _same(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with as many draws, `(draws, points)` each."""
    draws = max(len(a), len(b))
    return np.broadcast_to(a, (draws, a.shape[1])), np.broadcast_to(b, (draws, b.shape[1]))


class CountBest(TestBase):
    """`which` has the lowest value among the levels of `among`, for at least so many of the levels of `per`; a level of `per` without
    all levels of `among` is no contest."""

    kind: Literal["count_best"]
    of: str
    among: str
    which: str
    per: str
    at_least: int

    def judge(self, frame: Frame) -> list[Part]:
        of = frame[self.of]
        wins, contests = np.zeros(len(of.values)), 0
        entrants = set(of.coordinate(self.among).tolist())
        for level in dict.fromkeys(of.coordinate(self.per).tolist()):
            group = of.where({self.per: level})
            names = group.coordinate(self.among)
            if self.which not in names:
                raise Undecidable(f"at {self.per} {label(level)} there is no {self.which} to compare with others")
            if len(entrants) > 1 and set(names.tolist()) == entrants:
                wins += names[np.argmin(group.values, axis=1)] == self.which
                contests += 1
        if contests < self.at_least:
            raise Undecidable(f"{self.which} is compared with all others at {contests} levels of {self.per}, {self.at_least} are needed")
        return [at_least(f"levels of {self.per} at which {self.which} is best", wins, self.at_least)]


class PairDifferences(TestBase):
    """The mean absolute difference between pairs of points of `of` is less than the mean difference of `of` and `other`, whichever is the
    larger, both relative to the mean of `of`. Signs are those of the point estimate: noise alone makes neither large."""

    kind: Literal["pair_differences"]
    series = ("of", "other")
    of: str
    other: str
    match: str

    def judge(self, frame: Frame) -> list[Part]:
        of = frame[self.of]
        if len(of) < 2:
            raise Undecidable(f"{self.of} has no two points to compare")
        other = of.aligned(frame[self.other], self.match).values
        i, j = np.triu_indices(len(of), 1)
        level = of.values.mean(axis=1)
        differences = of.values[:, i] - of.values[:, j]
        apart = (other - of.values).mean(axis=1) / level
        apart = apart * np.sign(apart[0])
        name = f"mean difference between {self.match}s less that of {self.other} and {self.of}, relative"
        whole = at_most(name, np.abs(differences).mean(axis=1) / level - apart, 0, strict=True)
        signed = (differences * np.sign(differences[0])).mean(axis=1) / level  # noise makes an absolute difference larger, this one not
        return [replace(whole, each=at_most(name, signed - apart, 0, strict=True).margin[None])]
