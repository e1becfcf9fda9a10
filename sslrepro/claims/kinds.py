"""The vocabulary of tests that a claim can name."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from sslrepro.claims.contrasts import Close, CountBest, EndsRatio, Kept, PairDifferences, Pareto, Ratio
from sslrepro.claims.curves import Argmin, ArgminsWithin, Drops, Saturates, Sooner, Spearman, Trend, Valley, VertexShift
from sslrepro.claims.laws import AboveLine, Law, Slope, Spread, Variance
from sslrepro.claims.margins import Part, TestBase, smallest
from sslrepro.claims.series import Frame


class AnyOf(TestBase):
    """At least one of these tests holds: the margin of the best of them."""

    kind: Literal["any"]
    series = ()
    tests: Annotated[list[Test], Field(min_length=2)]

    def uses(self) -> list[str]:
        return [name for test in self.tests for name in test.uses()]

    def judge(self, frame: Frame) -> list[Part]:
        each = [test.parts(frame) for test in self.tests]
        margins = np.stack(np.broadcast_arrays(*[smallest(parts) for parts in each]))
        best = each[int(np.argmax(np.where(np.isnan(margins[:, 0]), -np.inf, margins[:, 0])))]
        first = min(best, key=lambda part: part.margin[0])
        margin = np.where(np.isnan(margins), -np.inf, margins).max(axis=0)
        return [Part(f"{first.name} (best of {len(each)} ways)", first.value, first.threshold, first.sense, margin)]


Test = Annotated[
    Valley
    | Argmin
    | ArgminsWithin
    | VertexShift
    | Trend
    | Spearman
    | Saturates
    | Drops
    | Sooner
    | Ratio
    | Close
    | EndsRatio
    | Kept
    | Pareto
    | CountBest
    | PairDifferences
    | Slope
    | Law
    | Spread
    | Variance
    | AboveLine
    | AnyOf,
    Field(discriminator="kind"),
]
AnyOf.model_rebuild()
