"""Counter-tables: the same table turned so that its claim must come out contradicted; and shuffles, which know nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from sslrepro.claims.series import Frame, Series
from sslrepro.config import Settings


class _Turned(Settings):
    series: list[str] = Field(default_factory=list)  # the series that are turned; none named: all
    by: list[str] = Field(default_factory=list)  # turned within each value of these coordinates

    def turn(self, frame: Frame) -> Frame:
        """The counter-table of a one-run table."""
        turned = {name: self._turned(s, frame) for name, s in frame.series.items() if not self.series or name in self.series}
        return replace(frame, series={**frame.series, **turned})

    def _turned(self, series: Series, frame: Frame) -> Series:
        values = series.values.copy()
        for group in _groups(series, self.by):
            values[:, group] = self._values(series.take(group), frame)
        return replace(series, values=values)

    def _values(self, series: Series, frame: Frame) -> np.ndarray:
        raise NotImplementedError


class Reverse(_Turned):
    """For a trend: the order along an axis is reversed."""

    kind: Literal["reverse"]
    along: str

    def _values(self, series: Series, frame: Frame) -> np.ndarray:
        order = np.argsort(series.coordinate(self.along).astype(float), kind="stable")
        values = series.values.copy()
        values[:, order] = series.values[:, order[::-1]]
        return values


class Mirror(_Turned):
    """For a U: mirrored about the mean."""

    kind: Literal["mirror"]

    def _values(self, series: Series, frame: Frame) -> np.ndarray:
        return 2 * series.values.mean(axis=1, keepdims=True) - series.values


class Widen(_Turned):
    """For an equality: differences from the mean, from another series (`about`, matched `on`) or between the means of groups
    (`between`) times three."""

    kind: Literal["widen"]
    about: str | None = None
    match: str | None = None
    between: str | None = None

    def _values(self, series: Series, frame: Frame) -> np.ndarray:
        if self.about is not None:
            centre = series.aligned(frame[self.about], self.match).values
        else:
            centre = np.broadcast_to(series.values.mean(axis=1, keepdims=True), series.values.shape)
        if self.between is None:
            return centre + 3 * (series.values - centre)
        values = series.values.copy()
        for group in _groups(series, [self.between]):
            values[:, group] += 2 * (series.values[:, group].mean(axis=1, keepdims=True) - centre[:, group])
        return values


class GoOn(_Turned):
    """For an end of a trend: the last point goes on by the mean relative step of the points before."""

    kind: Literal["go_on"]
    along: str

    def _values(self, series: Series, frame: Frame) -> np.ndarray:
        order = np.argsort(series.coordinate(self.along).astype(float), kind="stable")
        values = series.values.copy()
        before = values[:, order[:-1]]
        values[:, order[-1]] = before[:, -1] * (before[:, 1:] / before[:, :-1]).mean(axis=1)
        return values


class Swap(Settings):
    """For A < B: the roles are swapped, in pairs of series."""

    kind: Literal["swap"]
    pairs: Annotated[list[Annotated[list[str], Field(min_length=2, max_length=2)]], Field(min_length=1)]

    def turn(self, frame: Frame) -> Frame:
        series = dict(frame.series)
        for a, b in self.pairs:
            x, y = frame.series[a], frame.series[b]
            series[a], series[b] = replace(y, name=x.name), replace(x, name=y.name)
        return replace(frame, series=series)


class Other(Settings):
    """A table of its own: fields that replace those of published series, as another `where`. `together`: series whose values are
    shuffled as one."""

    kind: Literal["other"]
    series: dict[str, dict[str, Any]]
    together: list[list[str]] = Field(default_factory=list)


Counter = Annotated[Reverse | Mirror | Widen | GoOn | Swap | Other, Field(discriminator="kind")]


def shuffled(frame: Frame, counter: Counter, draws: int, random: np.random.Generator) -> Frame:
    """As many shuffles of a one-run table, along the draws: roles swapped at random where the counter swaps roles (point by point), else
    the values of each series permuted over its points. What has one point alone and no counterpart cannot be shuffled and stays."""
    series = {}
    pooled = counter.together if isinstance(counter, Other) else []
    paired = {name for pair in counter.pairs for name in pair} if isinstance(counter, Swap) else set()
    for name, s in frame.series.items():
        if name in paired or len(s) == 1:
            series[name] = replace(s, values=np.repeat(s.values, draws, axis=0))
        else:
            series[name] = replace(s, values=random.permuted(np.repeat(s.values, draws, axis=0), axis=1))
    for names in pooled:
        every = np.repeat(np.concatenate([frame.series[name].values for name in names], axis=1), draws, axis=0)
        ends = np.cumsum([len(frame.series[name]) for name in names])[:-1]
        for name, values in zip(names, np.split(random.permuted(every, axis=1), ends, axis=1), strict=True):
            series[name] = replace(series[name], values=values)
    if isinstance(counter, Swap):
        for a, b in counter.pairs:
            x, y = series[a].values, series[b].values
            flip = random.random(x.shape) < 0.5
            series[a], series[b] = (replace(series[k], values=np.where(flip, *v)) for k, v in ((a, (y, x)), (b, (x, y))))
    return replace(frame, series=series)


def _groups(series: Series, by: list[str]) -> list[np.ndarray]:
    """Positions of the points in each combination of the coordinates' values that the series has."""
    keys = list(zip(*[series.coordinates[key].tolist() for key in by if key in series.coordinates], strict=True))
    if not keys:
        return [np.arange(len(series))]
    return [np.flatnonzero([key == wanted for key in keys]) for wanted in dict.fromkeys(keys)]
