"""Parts and margins. A claim is a margin m, the minimum over its parts, each in units of its own threshold; m >= 0 exactly when the
criterion holds. `TestBase` is what every kind of test shares; the kinds are in curves.py, contrasts.py and laws.py."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from sslrepro.claims.series import Condition, Frame, Series, Undecidable, pick
from sslrepro.config import Settings


@dataclass(frozen=True)
class Part:
    """One condition of a criterion: its value and margin in every draw, `(draws,)`. NaN: this draw decides nothing. `straight`: a margin of
    the same sign without a ratio's long tails, by which the seeds that would decide are told; None: the margin itself. `each`
    `(conditions, draws)`: where the margin is the smallest of several, such as of a trend's steps, those; None: it is one condition."""

    name: str
    value: np.ndarray
    threshold: float
    sense: Literal[">=", ">", "<=", "<"]
    margin: np.ndarray
    straight: np.ndarray | None = None
    each: np.ndarray | None = None

    @property
    def conditions(self) -> list[np.ndarray]:
        """The margins `(draws,)` of its single conditions."""
        return [self.margin] if self.each is None else list(self.each)

    @property
    def shrinks(self) -> np.ndarray:
        """What shrinks about as one over the root of the seeds."""
        return self.margin if self.straight is None else self.straight

    def row(self) -> dict[str, object]:
        """The part at its point estimate."""
        value, margin = (None if not math.isfinite(x) else round(float(x), 6) for x in (self.value[0], self.margin[0]))
        return {"name": self.name, "value": value, "sense": self.sense, "threshold": self.threshold, "margin": margin}


def at_least(name: str, value: np.ndarray, threshold: float, *, strict: bool = False, unit: float | None = None) -> Part:
    """value >= threshold (or >), in units of |threshold|; a threshold of 0 has the unit 1."""
    return _part(name, value, threshold, 1.0, strict, unit)


def at_most(name: str, value: np.ndarray, threshold: float, *, strict: bool = False, unit: float | None = None) -> Part:
    """value <= threshold (or <)."""
    return _part(name, value, threshold, -1.0, strict, unit)


def _part(name: str, value: np.ndarray, threshold: float, sign: float, strict: bool, unit: float | None) -> Part:
    value = np.atleast_1d(np.asarray(value, float))
    margin = sign * (value - threshold) / (unit or abs(threshold) or 1.0)
    if strict:
        margin = np.where(margin == 0, -1e-9, margin)
    sense: dict[tuple[float, bool], Literal[">=", ">", "<=", "<"]]
    sense = {(1.0, False): ">=", (1.0, True): ">", (-1.0, False): "<=", (-1.0, True): "<"}
    return Part(name, value, threshold, sense[sign, strict], margin)


def smallest(parts: list[Part]) -> np.ndarray:
    """The claim's margin in every draw, `(draws,)`: the minimum over parts; NaN where any part decides nothing and none fails."""
    margins = np.stack(np.broadcast_arrays(*[part.margin for part in parts]))
    lowest = np.where(np.isnan(margins), np.inf, margins).min(axis=0)
    return np.where(np.isnan(margins).any(axis=0) & (lowest >= 0), np.nan, lowest)


def above_zero(gain: np.ndarray, resampled: bool) -> bool:
    """Whether a gain `(draws,)` is above zero, interval included where there is one."""
    draws = gain[1:] if resampled and len(gain) > 1 else gain[:1]
    return bool(np.quantile(draws, 0.025) > 0)


def _lowest(given: list[Series], frame: Frame) -> np.ndarray:
    """The value `(draws,)` of the best point of some series."""
    draws = max(len(series.values) for series in given)
    values = np.concatenate([np.broadcast_to(series.values, (draws, len(series))) for series in given], axis=1)
    return pick(values, frame.choose(values))


class TestBase(Settings):
    """What every test has. `where` keeps points; `by` repeats the test for each value of coordinates; `worst` lists only the part with
    the smallest margin; `scope` says whether it is for the published table, for our results, or both. `gain_over`: a series of what no
    training gives; a group (a value of `by`) of which no point lies below the best of those, interval included, decides nothing and is
    named. Published tables have no such series, and are judged without."""

    __test__: ClassVar[bool] = False  # not pytest's
    series: ClassVar[tuple[str, ...]] = ("of",)  # the fields that name a series
    where: dict[str, Condition] = Field(default_factory=dict)
    by: list[str] = Field(default_factory=list)
    worst: bool = False
    scope: Literal["both", "published", "ours"] = "both"
    gain_over: str | None = None

    def uses(self) -> list[str]:
        """The series this test reads."""
        return [name for key in self.series if (name := getattr(self, key)) is not None]

    def parts(self, frame: Frame) -> list[Part]:
        """All parts of this test. Raises Undecidable where the points do not allow it."""
        for name in self.uses():
            frame[name]
        listed: list[Part] = []
        idle: dict[str, tuple[float, float]] = {}
        for group, sub in frame.where(self.where).groups(self.by, self.uses()):
            if (bests := self.without_gain(sub)) is not None:
                idle[group] = bests
                continue
            for part in self.judge(sub):
                listed.append(replace(part, name=f"{group}: {part.name}") if group else part)
        if not listed:
            raise Undecidable(self._said(idle) if idle else "no points to judge")
        frame.undecided += [f"{self.kind}: {self._said(idle)}"] if idle else []
        if self.worst and len(listed) > 1:
            first = min(listed, key=lambda part: part.margin[0])
            named = f"{first.name} (worst of {len(listed)})"
            each = np.stack(np.broadcast_arrays(*[margin for part in listed for margin in part.conditions]))
            listed = [Part(named, first.value, first.threshold, first.sense, smallest(listed), each=each)]
        return listed

    def without_gain(self, frame: Frame) -> tuple[float, float] | None:
        """Of a group that decides nothing, its best value and the floor's; None where the first is below the second, interval included, and
        where there is no floor."""
        floor = frame.series.get(self.gain_over or "")
        if floor is None or not len(floor):
            return None
        of, least = _lowest([frame[name] for name in self.uses()], frame), _lowest([floor], frame)
        return None if above_zero(least - of, frame.resampled) else (float(of[0]), float(least[0]))

    def _said(self, idle: dict[str, tuple[float, float]]) -> str:
        """Groups that decide nothing, each by its name, with its best value and the floor's."""
        each = ", ".join(f"{group} {of:.3g} against {least:.3g}".strip() for group, (of, least) in idle.items())
        seeds = "" if any(of < least for of, least in idle.values()) else "; another training or another head would decide it, not seeds"
        return f"{' and '.join(self.uses())} without a gain over {self.gain_over} ({each} at best) decides nothing{seeds}"

    def judge(self, frame: Frame) -> list[Part]:
        """The parts for one group."""
        raise NotImplementedError
