"""One study's rows: every claim judged on results/<profile>/<study>/, or why not."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sslrepro.claims.bootstrap import Source
from sslrepro.claims.contrasts import Kept
from sslrepro.claims.elsewhere import run_elsewhere
from sslrepro.claims.ledger import CellSeries, Claim, CountSeries, ProfileName, StudyClaims, ledger_dir, load_study
from sslrepro.claims.margins import Part
from sslrepro.claims.published import published_series
from sslrepro.claims.results import Counts, Results, cell_series, count_series, load_results, matched_cells
from sslrepro.claims.series import NO_CELL, Frame, Series
from sslrepro.claims.verdict import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_RUN,
    REPLICATED,
    Bounds,
    Judgement,
    bounds,
    conditions,
    judge,
    parts_to_decide,
    to_decide,
    verdict,
)
from sslrepro.paths import root

BOTH: tuple[Source, ...] = ("seeds", "speakers")


@dataclass(frozen=True)
class Row:
    """One claim at one profile. `effect` is the margin m, `low` and `high` its 95 % interval (null: none, or without bounds).
    `stale`: some run was made by other code than today's, and today's was not shown to give the same numbers; null: not known."""

    claim: str
    study: str
    profile: str
    metric: str
    verdict: str
    criterion: str
    statement: str
    paper: dict[str, Any] | None  # its published series with tag and source; null: none was seen, never a guess
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    parts: list[dict[str, Any]] = field(default_factory=list)
    seeds: int = 0
    reason: str = ""
    stale: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge_study(study: str, profile: str, top: Path | None = None, counts: Counts | None = None, code: str | None = None) -> list[Row]:
    """All claims of a study.

    `top` is the folder that holds `results/` (the project's), `counts` gives exact numbers by name, `code` is the hash of today's code
    (training.identity.code_hash). Raises UserError on tables that contradict each other.
    """
    top = top or root()
    claims = load_study(study)
    results = load_results(top / "results" / profile / study)
    return [_Judge(claim, claims, profile, results, counts, code).row() for claim in claims.claims]


@dataclass
class _Judge:
    claim: Claim
    study: StudyClaims
    profile: ProfileName
    results: Results | None
    counts: Counts | None
    code: str | None

    def row(self) -> Row:
        claim = self.claim
        blank = Row(claim.id, self.study.study, self.profile, self._metric(), NOT_RUN, claim.criterion, claim.statement, self._paper())
        if claim.profiles is not None and self.profile not in claim.profiles:
            return replace(blank, reason=f"only {', '.join(claim.profiles)} can judge it")
        frame = self._frame(BOTH)
        seeds = self._seeds(frame)
        judged = judge(claim, frame, "ours")
        named = [*self._elsewhere(judged.lacking), *self._excluded(), *dict.fromkeys(frame.notes), *self._no_floor(frame)]
        named += self._gains_to_come(frame, seeds) if judged.open else []
        if judged.margin is None:
            outcome = INCONCLUSIVE if set(frame.series) >= self._needed() else NOT_RUN
            said = [self._said()] if outcome == INCONCLUSIVE else []
            return replace(blank, verdict=outcome, seeds=seeds, reason=_join(judged.open + said + named), stale=self._stale())
        done = replace(
            blank,
            effect=_finite(judged.margin[0]),
            parts=[part.row() for part in judged.parts],
            seeds=seeds,
            stale=self._stale(),
        )
        return self._decided(done, judged, named)

    def _decided(self, row: Row, judged: Judgement, named: list[str]) -> Row:
        """Verdict, interval and reason, by the rules of docs/claims.md."""
        margin, unjudged = judged.margin, judged.open
        reasons = [f"not judged: {'; '.join(unjudged)}"] if unjudged else []
        point = float(margin[0])
        if not any(len(part.margin) > 1 for part in judged.parts):  # counts alone: exact
            outcome = CONTRADICTED if point < 0 else INCONCLUSIVE if unjudged else REPLICATED
            return replace(row, verdict=outcome, reason=_join(reasons + named))
        found = bounds(judged.parts, row.seeds)
        low, high = found.low, found.high
        outcome = verdict(low, high)
        if row.seeds < self.claim.min_seeds:
            what = ("repeat" if self.claim.evidence == "measured" else "seed") + ("" if row.seeds == 1 else "s")
            only = f" at {self.profile}, the only profile that can judge it" if self.claim.profiles == [self.profile] else ""
            paper = ": like the papers' own, its cells are of one run" if self.profile == "paper" and row.seeds == 1 else ""
            reasons.append(f"{row.seeds} {what}, deciding needs at least {self.claim.min_seeds}{only}{paper}")
            outcome = INCONCLUSIVE
        elif outcome == REPLICATED and unjudged:
            outcome = INCONCLUSIVE
        elif outcome == CONTRADICTED:
            reasons += [f"contradicted by {found.part.name}"] if found.rivals > 1 else []
        elif outcome == INCONCLUSIVE and unjudged and point >= 0:
            reasons.append("what is not judged must be judged first: more seeds alone cannot decide it")
        elif outcome == INCONCLUSIVE and not self._said():
            reasons.append(f"would be decided by {self._to_decide(judged, found, row.seeds)}")
        if outcome == INCONCLUSIVE:
            reasons.append(self._said())
        if row.seeds == 1:
            low, high = math.nan, math.nan  # one seed says nothing of the spread of seeds
        return replace(row, verdict=outcome, low=_finite(low), high=_finite(high), reason=_join(reasons + named))

    def _said(self) -> str:
        """What the ledger says would decide the claim at this profile, where more seeds would not."""
        given = self.claim.would_decide.get(self.profile)
        return f"would be decided by {given}" if given else ""

    def _to_decide(self, judged: Judgement, found: Bounds, seeds: int) -> str:
        @cache
        def under(sources: tuple[Source, ...]) -> Judgement:
            return judge(self.claim, self._frame(sources), "ours")

        def margin_under(sources: tuple[Source, ...]) -> np.ndarray:
            margin = under(sources).margin
            return np.repeat(judged.margin[:1], 2) if margin is None or len(margin) == 1 else margin

        def part_under(sources: tuple[Source, ...], part: Part) -> np.ndarray:  # one that these sources alone leave open: as under both
            return next((other.shrinks for other in under(sources).parts if other.name == part.name), part.shrinks)

        all_of_them, point = conditions(judged.parts), float(judged.margin[0])

        def condition_under(sources: tuple[Source, ...]) -> np.ndarray:
            others = conditions(under(sources).parts)
            return others[found.place] if len(others) == len(all_of_them) else all_of_them[found.place]

        failing = float(all_of_them[found.place][0])
        if failing < 0:  # as far as the condition that is nearest to failing for sure
            what = f"margin of {found.part.name}" if found.rivals > 1 else "effect"
            return f"{to_decide(failing, seeds, condition_under, found.rivals).words}, if the {what} stays {failing:+.2g}"
        need = parts_to_decide(judged.parts, seeds, part_under)
        return f"{(need or to_decide(point, seeds, margin_under)).words}, if the effect stays {point:+.2g}"

    def _gains_to_come(self, frame: Frame, seeds: int) -> list[str]:
        """For each reference whose gain over the floor is not told from none, so that it decides nothing: what would tell it."""
        found = []
        for test in self.claim.tests:
            if not isinstance(test, Kept) or test.scope == "published" or not set(test.uses()) <= set(frame.series):
                continue
            for name, (gain, is_one) in test.gains(frame).items():
                point = float(gain[0])
                if is_one or len(gain) == 1:
                    continue
                if point > 0:
                    enough = to_decide(point, seeds, lambda sources, test=test, name=name: test.gains(self._frame(sources))[name][0]).words
                    found.append(f"{name}: {enough} would tell its gain from none, if it stays {point:+.2g}")
                else:
                    found.append(f"{name}: its gain of {point:+.2g} is none that more seeds could show, only another training")
        return found

    def _frame(self, sources: tuple[Source, ...]) -> Frame:
        series: dict[str, Series] = {}
        absent: dict[str, str] = {}
        notes: list[str] = []
        if self.results is not None:
            self.results.used.clear()
            self.results.notes.clear()
            self.results.lacking.clear()
        for name, spec in self.claim.ours.items():
            if isinstance(spec, CellSeries):
                metrics = {role: by.get(self.profile) for role, by in self.study.metrics.items()}
                found = "no results" if self.results is None else cell_series(name, spec, metrics, self.results, sources)
            elif isinstance(spec, CountSeries):
                found = count_series(name, spec, self.counts)
            else:
                found = published_series(name, self.claim.published[spec.published], ledger_dir())
            if isinstance(found, str):
                absent[name] = found
            else:
                series[name] = found
        if self.results is not None:
            notes = list(self.results.notes)
        return Frame(series, resampled=True, absent=absent, notes=notes, lacking=list(self.results.lacking) if self.results else [])

    def _seeds(self, frame: Frame) -> int:
        """The seeds that the verdict rests on: the least of any cell that it reads; a floor is not what is compared."""
        floors = {cell for name in self._floors() & set(frame.series) for cell in frame.series[name].coordinates["cell"].tolist()}
        return min((seeds for (cell, _), seeds in self.results.used.items() if cell not in floors), default=0) if self.results else 0

    def _no_floor(self, frame: Frame) -> list[str]:
        """Floors that the profile does not run: then tests that name one are judged without it."""
        lacking = [name for name in sorted(self._floors()) if frame.absent.get(name, "").startswith(NO_CELL)] if self.results else []
        return [f"this profile has no {name}: whether training gains anything over it is not known here" for name in lacking]

    def _floors(self) -> set[str]:
        return {test.gain_over for test in self.claim.tests if test.gain_over is not None} - self._needed()

    def _needed(self) -> set[str]:
        return {name for test in self.claim.tests if test.scope != "published" for name in test.uses()}

    def _cells(self) -> list[str]:
        if self.results is None:
            return []
        specs = [spec for spec in self.claim.ours.values() if isinstance(spec, CellSeries)]
        return sorted({cell for spec in specs for cell in matched_cells(spec, self.results.names())})

    def _elsewhere(self, lacking: list[str]) -> list[str]:
        """Which profiles would run the cells that are lacking; none where there are no results at all: then everything is."""
        specs = [spec for name in lacking if isinstance(spec := self.claim.ours.get(name), CellSeries)] if self.results else []
        present = self.results.names() if self.results else []
        return [said for spec in specs for said in run_elsewhere(self.study.study, self.profile, spec, present)]

    def _excluded(self) -> list[str]:
        left_out = self.results.excluded(self._cells()) if self.results else []
        return [f"left out: {', '.join(left_out)}"] if left_out else []

    def _stale(self) -> bool | None:
        if self.results is None or self.code is None or not self.results.used:
            return None
        cells = {cell for cell, _ in self.results.used}
        hashes = {run.get("code") for cell in cells for run in self.results.runs[cell].values()}
        return None if None in hashes else not hashes <= {self.code} | self.results.same_code.get(self.code, frozenset())

    def _metric(self) -> str:
        names: list[str] = []
        for spec in self.claim.ours.values():
            if isinstance(spec, CellSeries):
                for role in [spec.y] if isinstance(spec.y, str) else spec.y:
                    names.append(self.study.metrics[role].get(self.profile) or f"{role}: none at this profile")
            elif isinstance(spec, CountSeries):
                names.append(spec.count)
        return ", ".join(dict.fromkeys(names))

    def _paper(self) -> dict[str, Any] | None:
        if not self.claim.published:
            return None
        return {name: _shown(name, self.claim) for name in self.claim.published}


def _shown(name: str, claim: Claim) -> dict[str, Any]:
    spec = claim.published[name]
    series = published_series(name, spec, ledger_dir())
    shown: dict[str, Any] = {"tag": spec.tag, "source": spec.source}
    if len(series) <= 16:  # longer tables are read where they lie
        coordinates = {k: v.tolist() for k, v in series.coordinates.items() if len(set(v.tolist())) > 1}
        shown |= {**coordinates, "values": [float(f"{v:.6g}") for v in series.values[0]]}
    else:
        shown |= {"table": spec.table, "points": len(series)}
    return shown


def _finite(x: float) -> float | None:
    return round(float(x), 6) + 0.0 if math.isfinite(x) else None


def _join(reasons: list[str]) -> str:
    return "; ".join(dict.fromkeys(filter(None, reasons)))
