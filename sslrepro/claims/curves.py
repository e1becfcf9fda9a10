"""Tests of a curve's shape: valleys, minima and their places, trends. Each is a criterion's formula; docs/claims.md lists them."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from scipy.stats import rankdata

from sslrepro.claims.margins import Part, TestBase, at_least, at_most
from sslrepro.claims.series import Frame, Undecidable, label, pick


def _enough(count: int, least: int, name: str) -> None:
    if count < least:
        raise Undecidable(f"{name} has {count} point(s), this test needs {least}")


class Valley(TestBase):
    """The minimum is strictly inside and each end lies at least `excess` (relative) above it."""

    kind: Literal["valley"]
    of: str
    along: str
    excess: float = 0.0

    def judge(self, frame: Frame) -> list[Part]:
        _, y = frame[self.of].along(self.along)
        _enough(y.shape[1], 3, self.of)
        lowest = 1 + frame.choose(y[:, 1:-1])
        lowest_y = pick(y, lowest)
        return [
            at_least(f"{end} end above the inner minimum", y[:, i] / lowest_y - 1, self.excess, strict=self.excess == 0)
            for end, i in (("low", 0), ("high", -1))
        ]


class Argmin(TestBase):
    """The minimum lies between the points `low` and `high` of the axis (both included); unit: half the band's width in log."""

    kind: Literal["argmin"]
    of: str
    along: str
    low: float
    high: float

    def judge(self, frame: Frame) -> list[Part]:
        x, y = frame[self.of].along(self.along)
        _enough(len(x), 3, self.of)
        place = np.log(x[np.argmin(y, axis=1)])
        unit = (np.log(self.high) - np.log(self.low)) / 2
        margin = np.minimum(place - np.log(self.low), np.log(self.high) - place) / unit
        return [Part(f"minimum within {self.low:g} to {self.high:g}", np.exp(place), self.low, ">=", margin)]


class ArgminsWithin(TestBase):
    """The minima of two curves lie at most `steps` grid points apart."""

    kind: Literal["argmins_within"]
    series = ("of", "other")
    of: str
    other: str
    along: str
    steps: int = 1

    def judge(self, frame: Frame) -> list[Part]:
        (x, a), (z, b) = frame[self.of].along(self.along), frame[self.other].along(self.along)
        if not np.array_equal(x, z):
            raise Undecidable(f"{self.of} and {self.other} are not on the same grid")
        _enough(len(x), 3, self.of)
        apart = np.abs(np.argmin(a, axis=1) - np.argmin(b, axis=1))
        return [at_most(f"grid steps between the minima of {self.of} and {self.other}", apart, self.steps)]


class VertexShift(TestBase):
    """The vertex of the quadratic in log2(axis) moves down from `other` to `of` (in doublings), and both curves open upwards. Both are
    fitted at the places that both have: a point at one end alone would move its vertex. A vertex past the places is an extrapolation,
    and is named."""

    kind: Literal["vertex_shift"]
    series = ("of", "other")
    of: str
    other: str
    along: str

    def judge(self, frame: Frame) -> list[Part]:
        vertices, parts = [], []
        curves = {name: frame[name].along(self.along) for name in (self.of, self.other)}
        shared = np.intersect1d(*(x for x, _ in curves.values()))
        for name, (x, y) in curves.items():
            x, y = x[np.isin(x, shared)], y[:, np.isin(x, shared)]
            _enough(len(x), 3, f"{name}, where both have points,")
            constant = np.stack([np.ones_like(x), np.log2(x), np.log2(x) ** 2], axis=1)
            c = y @ np.linalg.pinv(constant).T
            bend = c[:, 2] / np.abs(y.mean(axis=1))
            parts.append(at_least(f"curvature of {name}, relative a squared doubling", bend, 0, strict=True))
            vertices.append(np.where(c[:, 2] > 0, -c[:, 1] / (2 * np.where(c[:, 2] > 0, c[:, 2], 1)), np.nan))
            if not np.log2(x[0]) < vertices[-1][0] < np.log2(x[-1]):  # a curve that opens downwards has none at all
                of = " ".join(label(frame[name].coordinates[key][0].item()) for key in self.by if key in frame[name].coordinates)
                frame.notes.append(f"the vertex of {name} {of}".rstrip() + " is not within the points that ran")
        shift = vertices[0] - vertices[1]
        return [at_most(f"shift of the vertex from {self.other} to {self.of}, doublings", shift, 0, strict=True), *parts]


class Trend(TestBase):
    """Every step along the axis goes one way. `over`: of the ratio of two series. Steps are relative to the value before."""

    kind: Literal["trend"]
    series = ("of", "over")
    of: str
    over: str | None = None
    along: str
    direction: Literal["falling", "rising"]
    strict: bool = True

    def judge(self, frame: Frame) -> list[Part]:
        of = frame[self.of]
        if self.over is not None:
            over = of.aligned(frame[self.over], self.along)
            of = type(of)(f"{self.of} / {self.over}", of.coordinates, of.values / over.values)
        x, y = of.along(self.along)
        _enough(len(x), 2, self.of)
        steps = (y[:, 1:] - y[:, :-1]) / np.abs(y[:, :-1]) * (1 if self.direction == "rising" else -1)
        i = int(np.argmin(steps[0]))
        name = f"least {self.direction} step of {of.name} ({self.along} {label(float(x[i]))} to {label(float(x[i + 1]))})"
        least = at_least(name, steps.min(axis=1), 0, strict=self.strict)
        return [replace(least, each=at_least(name, steps.T, 0, strict=self.strict).margin)]


class Spearman(TestBase):
    """The rank correlation of the values with the axis is at most `at_most` (negative)."""

    kind: Literal["spearman"]
    of: str
    along: str
    at_most: float

    def judge(self, frame: Frame) -> list[Part]:
        x, y = frame[self.of].along(self.along)
        _enough(len(x), 4, self.of)
        ranks, place = rankdata(y, axis=1), rankdata(x)
        ranks, place = ranks - ranks.mean(axis=1, keepdims=True), place - place.mean()
        size = np.sqrt((ranks**2).sum(axis=1) * (place**2).sum())
        rho = np.divide(ranks @ place, size, out=np.zeros(len(y)), where=size > 0)
        return [at_most(f"rank correlation of {self.of} with {self.along}", rho, self.at_most)]


class Saturates(TestBase):
    """The relative gain of the last step is less than `share` of the mean gain of the steps before; unit: that bound."""

    kind: Literal["saturates"]
    of: str
    along: str
    share: float

    def judge(self, frame: Frame) -> list[Part]:
        x, y = frame[self.of].along(self.along)
        _enough(len(x), 3, self.of)
        gains = 1 - y[:, 1:] / y[:, :-1]
        before = gains[:, :-1].mean(axis=1)
        if before[0] <= 0:
            raise Undecidable(
                f"{self.of} has a gain of {before[0]:+.2g} before the last step: that decides nothing, only another (longer) training would"
            )
        ratio = np.where(before > 0, gains[:, -1] / np.where(before > 0, before, 1), np.nan)
        return [at_most(f"gain of the last step over the mean gain before, {self.of}", ratio, self.share, strict=True)]


class Sooner(TestBase):
    """`of` comes down to a common value at least so many times as soon along the axis as `other`. The value is the lowest that both reach;
    both start at `start` where the axis is 0; between points curves are straight. Unit: the bound less 1."""

    kind: Literal["sooner"]
    series = ("of", "other", "start")
    of: str
    other: str
    start: str
    along: str
    at_least: float

    def judge(self, frame: Frame) -> list[Part]:
        start = frame[self.start].values[:, :1]
        curves = {name: frame[name].along(self.along) for name in (self.of, self.other)}
        common = np.maximum(*(y.min(axis=1) for _, y in curves.values()))
        if common[0] >= start[0, 0]:
            slow = max(curves, key=lambda name: curves[name][1][0].min())
            raise Undecidable(f"{slow} never gets below {self.start}: there is no common value to reach")
        times = [reached(x, y, start, common) for x, y in curves.values()]
        name = f"{self.along} of {self.other} to a common value over that of {self.of}"
        return [at_least(name, times[1] / times[0], self.at_least, unit=self.at_least - 1)]


def reached(x: np.ndarray, y: np.ndarray, start: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Where each curve `(draws, points)` first is at `value` `(draws,)`; not a number where it starts there."""
    draws = len(value)
    x, y = np.append(0.0, x), np.concatenate([np.broadcast_to(start, (draws, 1)), np.broadcast_to(y, (draws, y.shape[1]))], axis=1)
    after = np.argmax(y <= value[:, None], axis=1)
    row, before = np.arange(draws), np.maximum(after - 1, 0)
    drop = y[row, before] - y[row, after]
    part = (y[row, before] - value) / np.where(drop > 0, drop, 1)
    return np.where(after > 0, x[before] + part * (x[after] - x[before]), np.nan)


class Drops(TestBase):
    """The drop from the first to the second of three points is more than `factor` times that from the second to the third,
    both relative to the second."""

    kind: Literal["drops"]
    of: str
    along: str
    points: list[float]
    factor: float

    def judge(self, frame: Frame) -> list[Part]:
        x, y = frame[self.of].along(self.along)
        lacking = [p for p in self.points if p not in x]
        if lacking:
            raise Undecidable(f"{self.of} has no point at {self.along} {', '.join(map(label, lacking))}")
        a, b, c = (y[:, int(np.flatnonzero(x == p)[0])] for p in self.points)
        value = ((a - b) - self.factor * (b - c)) / b
        name = f"drop {self.points[0]:g} to {self.points[1]:g} less {self.factor:g} x drop to {self.points[2]:g}, relative"
        return [at_least(name, value, 0, strict=True)]
