"""The points a test of a claim works on, with a first axis of draws: the point estimate first, then the resampled ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

Condition = str | float | list[str | float] | dict[str, float]
NO_CELL = "no such cell"


class Undecidable(Exception):
    """A test cannot be judged on these points; the message says why. Never an error: it becomes the row's reason."""


class Lacking(Undecidable):
    """Undecidable for want of cells of the named series: another profile may run them."""

    def __init__(self, series: str, why: str) -> None:
        super().__init__(why)
        self.series = series


@dataclass(frozen=True)
class Series:
    """Points with named coordinates `(points,)` and values `(draws, points)`. Lower values are better unless a test says otherwise."""

    name: str
    coordinates: dict[str, np.ndarray]
    values: np.ndarray

    def __len__(self) -> int:
        return self.values.shape[1]

    def take(self, index: np.ndarray) -> Series:
        """The points at `index` (positions or a boolean mask)."""
        return replace(self, coordinates={k: v[index] for k, v in self.coordinates.items()}, values=self.values[:, index])

    def where(self, conditions: Mapping[str, Condition]) -> Series:
        """The points that meet every condition on a coordinate this series has."""
        keep = np.ones(len(self), bool)
        for key, wanted in conditions.items():
            if key in self.coordinates:
                keep &= meets(self.coordinates[key], wanted)
        return self.take(keep)

    def along(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Coordinate `(points,)` and values `(draws, points)`, sorted by the coordinate."""
        x = self.coordinate(key).astype(float)
        order = np.argsort(x, kind="stable")
        return x[order], self.values[:, order]

    def coordinate(self, key: str) -> np.ndarray:
        if key not in self.coordinates:
            raise Undecidable(f"{self.name} has no coordinate {key}")
        return self.coordinates[key]

    def aligned(self, other: Series, on: str | None) -> Series:
        """`other`'s points in this series' order, matched on a coordinate; a single point serves all."""
        if len(other) == 1 and (on is None or on not in other.coordinates):
            return other.take(np.zeros(len(self), int))
        if on is None:
            raise Undecidable(f"{self.name} and {other.name} have {len(self)} and {len(other)} points and nothing to match on")
        place = {key: i for i, key in enumerate(other.coordinate(on).tolist())}
        lacking = [key for key in self.coordinate(on).tolist() if key not in place]
        if lacking:
            raise Lacking(other.name, f"{other.name} lacks {on} {', '.join(map(label, lacking))}")
        return other.take(np.array([place[key] for key in self.coordinate(on).tolist()]))


def meets(column: np.ndarray, wanted: Condition) -> np.ndarray:
    """Which entries `(points,)` equal a value, are in a list, or lie between `min` and `max` (both included;
    `min_share` is a share of the largest)."""
    if isinstance(wanted, dict):
        numbers = pd.to_numeric(pd.Series(column), errors="coerce").to_numpy(float)  # a label is in no range
        least = wanted["min_share"] * np.nanmax(numbers, initial=-np.inf) if "min_share" in wanted else wanted.get("min", -np.inf)
        return (numbers >= least) & (numbers <= wanted.get("max", np.inf))
    return np.isin(column, wanted if isinstance(wanted, list) else [wanted])


@dataclass
class Frame:
    """All series of one claim. `resampled`: the draws are of one table, so a choice (which point is the minimum) is made once, on the
    point estimate; else each draw is a table of its own (shuffles)."""

    series: dict[str, Series]
    resampled: bool = False
    absent: dict[str, str] = field(default_factory=dict)  # series without points, and why
    notes: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)  # points that series should have had and have not, and why
    undecided: list[str] = field(default_factory=list)  # groups of a test that decide nothing, and why; the others are judged

    def __getitem__(self, name: str) -> Series:
        found = self.series.get(name)
        if found is None:
            why = self.absent.get(name, "not given")
            raise Lacking(name, f"no {name}: {why}") if why.startswith(NO_CELL) else Undecidable(f"no {name}: {why}")
        if not len(found):
            raise Undecidable(f"{name} has no points")
        return found

    def where(self, conditions: Mapping[str, Condition]) -> Frame:
        return replace(self, series={k: s.where(conditions) for k, s in self.series.items()})

    def groups(self, by: list[str], names: list[str]) -> Iterator[tuple[str, Frame]]:
        """One frame a value of the coordinates `by` of the first series in `names` that has each."""
        if not by:
            yield "", self
            return
        holders = [self[name] for name in names if by[0] in self[name].coordinates]
        if not holders:
            raise Undecidable(f"no series has the coordinate {by[0]}")
        for value in dict.fromkeys(holders[0].coordinates[by[0]].tolist()):
            for holder in holders:
                if value not in holder.coordinates[by[0]]:
                    raise Lacking(holder.name, f"{holder.name} lacks {by[0]} {label(value)}")
            for rest, frame in self.where({by[0]: value}).groups(by[1:], names):
                yield " ".join(filter(None, [label(value), rest])), frame

    def choose(self, scores: np.ndarray) -> np.ndarray:
        """The index `(draws,)` of the smallest of `scores` `(draws, points)`: the point estimate's for all draws if resampled."""
        if self.resampled:
            return np.full(len(scores), int(np.argmin(scores[0])))
        return np.argmin(scores, axis=1)


def label(value: object) -> str:
    return f"{value:g}" if isinstance(value, float | int) and not isinstance(value, bool) else str(value)


def pick(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """`values[draw, index[draw]]` for each draw; a series with one draw serves every index."""
    return np.take_along_axis(np.broadcast_to(values, (len(index), values.shape[1])), index[:, None], axis=1)[:, 0]
