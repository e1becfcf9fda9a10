"""The verdict machinery on the papers' own tables: each must come out replicated, its counter-table contradicted."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from sslrepro.claims.counter import Other, shuffled
from sslrepro.claims.ledger import Claim, PublishedSeries, ledger_dir, load_ledger
from sslrepro.claims.results import relative
from sslrepro.claims.series import Frame, Series
from sslrepro.claims.verdict import CONTRADICTED, REPLICATED, Judgement, judge
from sslrepro.config import parse
from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError

SHUFFLES = 1000


@dataclass(frozen=True)
class Line:
    """What became of one claim's published table. `ok` is None where there is no table to judge."""

    claim: str
    table: str | None = None
    effect: float | None = None
    counter: str | None = None
    counter_effect: float | None = None
    shuffles_replicated: float | None = None
    not_judged: tuple[str, ...] = ()
    reason: str = ""
    ok: bool | None = None

    def text(self) -> str:
        if self.table is None:
            return f"{self.claim:11} no published table: {self.reason}"
        rest = f"; not judged: {'; '.join(self.not_judged)}" if self.not_judged else ""
        return (
            f"{self.claim:11} {'ok   ' if self.ok else 'WRONG'} table {self.table} ({self.effect:+.3g}), "
            f"counter-table {self.counter} ({self.counter_effect:+.3g}), "
            f"replicated by {self.shuffles_replicated:.1%} of {SHUFFLES} shuffles{rest}"
        )


def verify_published(folder: Path | None = None) -> tuple[list[Line], bool]:
    """One line a claim, and whether every published table came out replicated and every counter-table contradicted."""
    lines = [judge_published(claim, folder) for study in load_ledger(folder) for claim in study.claims]
    return lines, all(line.ok for line in lines if line.ok is not None)


def judge_published(claim: Claim, folder: Path | None = None) -> Line:
    """A claim's table and counter-table on their point values, and the share of shuffles that would replicate."""
    if claim.no_table is not None or claim.counter is None:
        return Line(claim.id, reason=claim.no_table or "")
    frame = published_frame(claim.published, folder)
    table = judge(claim, frame, "published")
    other = isinstance(claim.counter, Other)
    turned = published_frame(_other(claim), folder) if other else claim.counter.turn(frame)
    counter = judge(claim, turned, "published")
    if table.margin is None or counter.margin is None:
        raise UserError(f"{claim.id}: its published table cannot be judged: {'; '.join(table.open + counter.open)}")
    random = numpy_generator("claims", "shuffles", claim.id)
    shuffles = judge(claim, shuffled(frame, claim.counter, SHUFFLES, random), "published")
    share = float((np.broadcast_to(shuffles.margin, (SHUFFLES,)) >= 0).mean()) if shuffles.margin is not None else 0.0
    first, second = _one(table), _one(counter)
    return Line(
        claim.id,
        table=first,
        effect=float(table.margin[0]) + 0.0,  # no negative zero
        counter=second,
        counter_effect=float(counter.margin[0]) + 0.0,
        shuffles_replicated=share,
        not_judged=tuple(table.open),
        ok=first == REPLICATED and second == CONTRADICTED,
    )


def _one(judgement: Judgement) -> str:
    """A one-run table is judged on its point value: no seeds, no interval."""
    return REPLICATED if judgement.margin is not None and judgement.margin[0] >= 0 else CONTRADICTED


def _other(claim: Claim) -> dict[str, PublishedSeries]:
    series = dict(claim.published)
    for name, changes in claim.counter.series.items():
        if name not in series:
            raise UserError(f"{claim.id}: its counter-table changes {name}, which is no published series")
        values = {**series[name].model_dump(exclude_unset=True), **changes}
        series[name] = parse(PublishedSeries, values, f"{claim.id}: counter.series.{name}")
    return series


def published_frame(specs: dict[str, PublishedSeries], folder: Path | None = None) -> Frame:
    """The published series of a claim, one draw each."""
    return Frame({name: published_series(name, spec, folder or ledger_dir()) for name, spec in specs.items()})


def published_series(name: str, spec: PublishedSeries, folder: Path) -> Series:
    """One published series. Raises UserError on a table without the column, or a `where` that keeps nothing."""
    if spec.table is None and spec.points is None:
        value = spec.value
        if spec.reduced_pct is not None:
            value = 1 - spec.reduced_pct / 100
        if spec.faster_pct is not None:
            value = 1 / (1 + spec.faster_pct / 100)
        return Series(name, {}, np.array([[float(value)]]))
    table = _csv(folder / "published" / spec.table) if spec.table is not None else pd.DataFrame(spec.points)
    if spec.y not in table.columns:
        raise UserError(f"{name}: the table {spec.table or 'of points'} has no column {spec.y}")
    columns = {column: _column(table[column]) for column in table.columns if column != spec.y}
    values = pd.to_numeric(table[spec.y]).to_numpy(float)
    if unknown := set(spec.where) - set(columns):
        raise UserError(f"{name}: the table {spec.table or 'of points'} has no column {', '.join(sorted(unknown))}")
    series = relative(Series(name, columns, values[None]).where(spec.where), spec.relative_to)
    # a column of mixed labels (such as `scratch` among batch sizes) is numeric once the rows are chosen
    series = Series(name, {k: _column(pd.Series(v)) for k, v in series.coordinates.items()}, series.values)
    if not len(series) or not np.isfinite(series.values).all():
        raise UserError(f"{name}: {spec.where} keeps no rows, or rows without a number in {spec.y}")
    return Series(name, series.coordinates, 1 / series.values) if spec.inverse else series


@lru_cache
def _csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such published table") from None


def _column(values: pd.Series) -> np.ndarray:
    numbers = pd.to_numeric(values, errors="coerce")
    return numbers.to_numpy(float) if numbers.notna().all() else np.array(values.astype(str).tolist())


def main(json: bool = False) -> int:
    """`sslrepro verify --published`: one line a claim; 0 only if all are right."""
    lines, ok = verify_published()
    if json:
        print(jsonlib.dumps({"ok": ok, "claims": [asdict(line) for line in lines]}, indent=1))
        return 0 if ok else 1
    for line in lines:
        print(line.text())
    judged = [line for line in lines if line.ok is not None]
    right = sum(bool(line.ok) for line in judged)
    print(f"{right} of {len(judged)} published tables right; {len(lines) - len(judged)} claims have none to judge")
    return 0 if ok else 1
