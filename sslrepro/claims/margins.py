"""Parts and margins. A claim is a margin m, the minimum over its parts, each in units of its own threshold; m >= 0 exactly when the
criterion holds. `TestBase` is what every kind of test shares; the kinds are in curves.py, contrasts.py and laws.py."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from sslrepro.claims.series import Condition, Frame, Undecidable
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


class TestBase(Settings):
    """What every test has. `where` keeps points; `by` repeats the test for each value of coordinates; `worst` lists only the part with
    the smallest margin; `scope` says whether it is for the published table, for our results, or both."""

    __test__: ClassVar[bool] = False  # not pytest's
    series: ClassVar[tuple[str, ...]] = ("of",)  # the fields that name a series
    where: dict[str, Condition] = Field(default_factory=dict)
    by: list[str] = Field(default_factory=list)
    worst: bool = False
    scope: Literal["both", "published", "ours"] = "both"

    def uses(self) -> list[str]:
        """The series this test reads."""
        return [name for key in self.series if (name := getattr(self, key)) is not None]

    def parts(self, frame: Frame) -> list[Part]:
        """All parts of this test. Raises Undecidable where the points do not allow it."""
        for name in self.uses():
            frame[name]
        listed: list[Part] = []
        for group, sub in frame.where(self.where).groups(self.by, self.uses()):
            for part in self.judge(sub):
                listed.append(replace(part, name=f"{group}: {part.name}") if group else part)
        if not listed:
            raise Undecidable("no points to judge")
        if self.worst and len(listed) > 1:
            first = min(listed, key=lambda part: part.margin[0])
            named = f"{first.name} (worst of {len(listed)})"
            each = np.stack(np.broadcast_arrays(*[margin for part in listed for margin in part.conditions]))
            listed = [Part(named, first.value, first.threshold, first.sense, smallest(listed), each=each)]
        return listed

    def judge(self, frame: Frame) -> list[Part]:
        """The parts for one group."""
        raise NotImplementedError
