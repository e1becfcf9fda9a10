"""Tests of quantitative laws: power-law slopes, the hours-seen law, equal-hours spread, variance explained, distance from a line."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import model_validator
from scipy.stats import t as student

from sslrepro.claims.margins import Part, TestBase, at_least, at_most
from sslrepro.claims.series import Frame, Series, Undecidable, label


def _log(values: np.ndarray) -> np.ndarray:
    """Logarithm; a resampled value at or below zero counts as a millionth of the series' largest point estimate."""
    return np.log(np.maximum(values, 1e-6 * np.abs(values[0]).max()))


class Slope(TestBase):
    """The log-log slope along the axis (least squares) lies at or above `low` and at or below `high`."""

    kind: Literal["slope"]
    of: str
    along: str
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Slope:
        if self.low is None and self.high is None:
            raise ValueError("needs low, high or both")
        return self

    def judge(self, frame: Frame) -> list[Part]:
        x, y = frame[self.of].along(self.along)
        if len(x) < 3:
            raise Undecidable(f"{self.of} has {len(x)} point(s), a slope needs 3")
        centred = np.log(x) - np.log(x).mean()
        slope = _log(y) @ centred / (centred @ centred)
        name = f"log-log slope of {self.of} in {self.along}"
        parts = [] if self.low is None else [at_least(name, slope, self.low)]
        return parts if self.high is None else [*parts, at_most(name, slope, self.high)]


class Law(TestBase):
    """log y = c - a log(batch) - b log(updates): a / b inside [low, high], and the fit with a = b loses less than `r2_loss` of R2.
    With resampled draws the interval of a / b is theirs; a one-run table has the fit's own (Fieller, residuals taken independent)."""

    kind: Literal["law"]
    of: str
    batch: str
    updates: str
    low: float
    high: float
    r2_loss: float

    def judge(self, frame: Frame) -> list[Part]:
        of = frame[self.of]
        batch, updates = (np.log(of.coordinate(key).astype(float)) for key in (self.batch, self.updates))
        free = np.stack([np.ones_like(batch), -batch, -updates], axis=1)
        tied = np.stack([np.ones_like(batch), -batch - updates], axis=1)
        if len(batch) < 6 or np.linalg.matrix_rank(free) < 3:
            raise Undecidable(f"{self.of} has {len(batch)} point(s) that do not separate {self.batch} from {self.updates}")
        y = _log(of.values)
        total = ((y - y.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
        coefficients, left = _fit(y, free)
        _, left_tied = _fit(y, tied)
        a, b = coefficients[:, 1], coefficients[:, 2]
        if frame.resampled:
            lower = upper = np.where(b != 0, a / np.where(b != 0, b, 1), np.nan)
        else:
            lower, upper = _fieller(a, b, left, np.linalg.inv(free.T @ free)[1:, 1:], len(batch) - 3)
        name = "a / b"
        if frame.resampled and len(lower) > 1:
            name += " (95 %: {:.3g} to {:.3g})".format(*np.nanquantile(lower, [0.025, 0.975]))
        parts = [at_least(f"{name}, lower end", lower, self.low), at_most(f"{name}, upper end", upper, self.high)]
        # an interval without bounds is no evidence that the ratio lies inside
        parts = [Part(p.name, p.value, p.threshold, p.sense, np.where(np.isnan(p.margin), -np.inf, p.margin)) for p in parts]
        return [*parts, at_most("R2 lost by the fit in hours alone", (left_tied - left) / total, self.r2_loss, strict=True)]


def _fit(y: np.ndarray, design: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of each draw `(draws, points)`: coefficients `(draws, terms)` and sums of squared residuals `(draws,)`."""
    coefficients = y @ np.linalg.pinv(design).T
    return coefficients, ((y - coefficients @ design.T) ** 2).sum(axis=1)


def _fieller(a: np.ndarray, b: np.ndarray, left: np.ndarray, shape: np.ndarray, freedom: int) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of a / b `(draws,)` each end (Fieller 1954); NaN where it has no bounds."""
    scale = student.ppf(0.975, freedom) ** 2 * left / freedom
    square = b**2 - scale * shape[1, 1]
    half = a * b - scale * shape[0, 1]
    root = half**2 - square * (a**2 - scale * shape[0, 0])
    bounded = (square > 0) & (root >= 0)
    square, root = np.where(bounded, square, 1), np.sqrt(np.where(bounded, root, 0))
    return tuple(np.where(bounded, (half + sign * root) / square, np.nan) for sign in (-1, 1))


class Spread(TestBase):
    """(max - min) / mean, or max - min if `absolute`, is at most a bound. `at`: among points at the same value of a coordinate: the
    `median` over such groups, or each of the groups with most points (`largest`)."""

    kind: Literal["spread"]
    of: str
    at_most: float
    absolute: bool = False
    strict: bool = False
    at: str | None = None
    pick: Literal["median", "largest"] = "median"

    def judge(self, frame: Frame) -> list[Part]:
        of = frame[self.of]
        if self.at is None:
            groups = [np.arange(len(of))]
        else:
            groups = [g for g in together(of.coordinate(self.at).astype(float)) if len(g) > 1]
            if self.pick == "largest":
                groups = [g for g in groups if len(g) == max(map(len, groups))]
        if not groups or len(groups[0]) < 2:
            raise Undecidable(f"{self.of} has no two points to compare" + (f" at equal {self.at}" if self.at else ""))
        if self.at is not None and self.pick == "median":
            return [self._part(of, groups, f" at equal {self.at} (median: {len(groups)} group(s))")]
        where = [f" at equal {self.at} (largest: {label(float(of.coordinate(self.at)[g[0]]))})" if self.at else "" for g in groups]
        return [self._part(of, [g], said) for g, said in zip(groups, where, strict=True)]

    def _part(self, of: Series, groups: list[np.ndarray], said: str) -> Part:
        name = f"{'range' if self.absolute else 'relative spread'} of {self.of}{said}"
        levels = [1.0 if self.absolute else np.abs(of.values[:, g].mean(axis=1)) for g in groups]
        spreads = np.stack([np.ptp(of.values[:, g], axis=1) / level for g, level in zip(groups, levels, strict=True)])
        if len(groups) == 1:  # noise makes a range larger, a difference of two given points not
            i, j = np.nonzero(~np.eye(len(groups[0]), dtype=bool))
            points = of.values[:, groups[0]].T
            each = (points[i] - points[j]) / levels[0]
        else:
            ends = [(g[of.values[0, g].argmax()], g[of.values[0, g].argmin()]) for g in groups]
            signed = [(of.values[:, top] - of.values[:, low]) / level for (top, low), level in zip(ends, levels, strict=True)]
            each = np.median(signed, axis=0)[None]
        whole = at_most(name, np.median(spreads, axis=0), self.at_most, strict=self.strict)
        return replace(whole, each=at_most(name, each, self.at_most, strict=self.strict).margin)


def together(x: np.ndarray, within: float = 0.03) -> list[np.ndarray]:
    """Groups of positions whose values lie within a share of the group's smallest, in rising order. Hours seen are not nominal ones:
    batches hold whole utterances, and runs of one nominal number lie within 2 % of each other."""
    order = np.argsort(x, kind="stable")
    starts: list[list[int]] = []
    for i in order:
        if starts and x[i] <= (1 + within) * x[starts[-1][0]]:
            starts[-1].append(int(i))
        else:
            starts.append([int(i)])
    return [np.array(group) for group in starts]


class Variance(TestBase):
    """In a full grid, the share of variance between the levels of `less` is below that between the levels of `more`. The levels of
    `more` are ranked within each level of `less` (a family's sizes need not be equal numbers)."""

    kind: Literal["variance"]
    of: str
    less: str
    more: str

    def judge(self, frame: Frame) -> list[Part]:
        of = frame[self.of]
        rows = [of.where({self.less: level}).along(self.more)[1] for level in dict.fromkeys(of.coordinate(self.less).tolist())]
        if len(rows) < 2 or len({row.shape for row in rows}) > 1 or rows[0].shape[1] < 2:
            raise Undecidable(f"{self.of} is no full grid of {self.less} by {self.more}")
        grid = np.stack(rows, axis=1)  # (draws, less, more)
        total = grid.reshape(len(grid), -1).var(axis=1)
        shares = [grid.mean(axis=axis).var(axis=1) / total for axis in (2, 1)]
        name = f"variance explained by {self.less} ({shares[0][0]:.3f}) less by {self.more} ({shares[1][0]:.3f})"
        return [at_most(name, shares[0] - shares[1], 0, strict=True)]


class AboveLine(TestBase):
    """The lowest point of `of` on the axis lies at least `factor` times above the log-log line through the `nearest` points of `line`."""

    kind: Literal["above_line"]
    series = ("of", "line")
    of: str
    line: str
    along: str
    nearest: int = 3
    factor: float

    def judge(self, frame: Frame) -> list[Part]:
        of = frame[self.of]
        of = of.take(np.argsort(of.coordinate(self.along).astype(float), kind="stable")[:1])
        x, y = frame[self.line].along(self.along)
        if len(x) < self.nearest:
            raise Undecidable(f"{self.line} has {len(x)} point(s), its line needs {self.nearest}")
        parts = []
        for i, place in enumerate(np.log(of.coordinate(self.along).astype(float))):
            near = np.sort(np.argsort(np.abs(np.log(x) - place), kind="stable")[: self.nearest])
            design = np.stack([np.ones(self.nearest), np.log(x[near])], axis=1)
            fit = _log(y[:, near]) @ np.linalg.pinv(design).T
            expected = np.exp(fit @ np.array([1.0, place]))
            parts.append(at_least(f"{self.of} over the line of {self.line}", of.values[:, i] / expected, self.factor))
        return parts
