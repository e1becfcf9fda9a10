"""The ledger: claims/*.yaml, one file a study. The numbers are the authors', the criterion is this project's; they stand apart.

A number that was seen in no source cannot be written as the paper's: `Missing` has no value, and `PublishedSeries` takes only the
evidence tags C (authors' repository), A (abstract or opening) and D (arithmetic on C and A)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from sslrepro.claims.counter import Counter
from sslrepro.claims.kinds import Test
from sslrepro.claims.series import Condition
from sslrepro.config import Settings, parse, read_yaml
from sslrepro.errors import UserError
from sslrepro.paths import root

STUDIES = ("budget", "batch_size", "stochastic", "summarymixing", "survey")
ProfileName = Literal["quick", "laptop", "gpu", "paper"]
Evidence = Literal["C", "A", "D"]
_TABLES = "published"
FACTORS = {"factors", "squeeze", "query", "key_value", "pooling"}  # coordinates of a choice of compression factors


class PublishedSeries(Settings):
    """Points that a paper or its authors published: rows of a CSV in claims/published, `points` written here, one `value`, or the
    value left of 1 after a reduction or a speed-up given in per cent."""

    tag: Evidence
    source: str
    table: str | None = None
    where: dict[str, Condition] = Field(default_factory=dict)
    points: dict[str, list[float | int | str]] | None = None
    y: str | None = None  # the column of values in a table or in points
    value: float | None = None
    reduced_pct: float | None = None  # x % less than 1
    faster_pct: float | None = None  # time left by x % more speed
    relative_to: dict[str, float | int | str] | None = None  # values over the value at this point
    inverse: bool = False  # 1 / value, after relative_to

    @model_validator(mode="after")
    def _one_origin(self) -> PublishedSeries:
        given = [k for k in ("table", "points", "value", "reduced_pct", "faster_pct") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of table, points, value, reduced_pct, faster_pct; has {given or 'none'}")
        if given[0] in ("table", "points") and self.y is None:
            raise ValueError("y must name the column of values")
        return self


class CellSeries(Settings):
    """Our own points: cells of the study by a name template. `"b{batch}"` matches b150 and gives the coordinate batch = 150; every point
    also has the coordinate `cell`. `also`: further templates, each with coordinates that its names do not carry. `coordinates` adds the
    cell's own metrics (`hours: cost.hours_seen`). `snapshots`: one point for every share s of the run that was scored (`metric@s` and the
    end), with cost.updates, cost.hours_seen and cost.seconds in proportion. `lengths`: a coordinate's name; one point for every length x
    that the cell measured (`metric_x`). `factors`: one point for every choice of compression factors at which the cell was scored
    (`metric:s2-q1-k4`), with the coordinates `factors` (the name), `squeeze`, `query`, `key_value` and `pooling`, the product of the
    last two. `paired_with`: a template, filled with the cell's coordinates, of the cell whose seeds alone count here."""

    cells: str | list[str]
    also: dict[str, dict[str, str | float]] = Field(default_factory=dict)
    y: str | list[str]  # names in the study's `metrics`; several give the coordinate `metric`
    where: dict[str, Condition] = Field(default_factory=dict)
    coordinates: dict[str, str] = Field(default_factory=dict)
    snapshots: bool = False
    lengths: str | None = None
    factors: bool = False
    paired_with: str | None = None

    def templates(self) -> dict[str, dict[str, str | float]]:
        """Every name template with the coordinates it gives besides its own."""
        return {name: {} for name in ([self.cells] if isinstance(self.cells, str) else self.cells)} | self.also


class CountSeries(Settings):
    """Exact numbers that need no training, by name from the counter (`macs:slim-{size}@15.625`), one for each level of `over`."""

    count: str
    over: dict[str, list[float | int | str]] = Field(default_factory=dict)
    relative_to: dict[str, float | int | str] | None = None


class SamePublished(Settings):
    """The published series of another name, as a reference for our own points."""

    published: str


def _origin(value: Any) -> str:
    keys = value if isinstance(value, dict) else type(value).model_fields
    return next((key for key in ("cells", "count", "published") if key in keys), "cells")


OwnSeries = Annotated[
    Annotated[CellSeries, Tag("cells")] | Annotated[CountSeries, Tag("count")] | Annotated[SamePublished, Tag("published")],
    Discriminator(_origin),
]


class Missing(Settings):
    """What a reader would look for and no source shows: UNVERIFIED, or S (a secondary digest, never taken for the paper). No value."""

    what: str
    evidence: Literal["UNVERIFIED", "S"]
    note: str = ""


class Fact(Settings):
    """A further number of the paper's that the criterion does not use."""

    name: str
    value: float | int | str | list[float] | list[int]
    tag: Evidence
    source: str


class Claim(Settings):
    """One claim. `criterion` is this project's, in words; `tests` is the same in numbers. `evidence` says what our verdict rests on:
    training (at least 3 seeds to decide), measured (time or memory; at least 3 repeats, given as seeds) or counted (exact)."""

    id: str
    statement: str
    criterion: str
    evidence: Literal["training", "measured", "counted"] = "training"
    tests: Annotated[list[Test], Field(min_length=1)]
    published: dict[str, PublishedSeries] = Field(default_factory=dict)
    no_table: str | None = None  # why no published table can be judged
    counter: Counter | None = None
    ours: dict[str, OwnSeries] = Field(default_factory=dict)
    profiles: list[ProfileName] | None = None  # only these can judge it; null: all
    min_seeds: Annotated[int, Field(ge=3)] = 3
    would_decide: dict[ProfileName, str] = Field(default_factory=dict)  # what would decide it there, where it is not seeds
    missing: list[Missing] = Field(default_factory=list)
    facts: list[Fact] = Field(default_factory=list)

    @model_validator(mode="after")
    def _whole(self) -> Claim:
        if bool(self.published) != (self.counter is not None):
            raise ValueError("a published table and a counter-table come together")
        if bool(self.published) == (self.no_table is not None):
            raise ValueError("give published series, or say in no_table why there are none")
        for scope, given in (("published", set(self.published)), ("ours", set(self.ours))):
            known = set(self.published) | set(self.ours)
            for test in self.tests:
                named = {*test.uses(), *([] if test.gain_over is None or scope == "published" else [test.gain_over])}
                if unknown := named - known:
                    raise ValueError(f"a {test.kind} test reads {sorted(unknown)}, which no series defines")
            if given and not any(test.scope in ("both", scope) and set(test.uses()) <= given for test in self.tests):
                raise ValueError(f"no test can be judged on the {scope} series")
        for test in self.tests:
            if test.scope != "published":
                _check_coordinates(test, self.ours)
        return self


def _check_coordinates(test: Test, ours: dict[str, OwnSeries]) -> None:
    """A test's coordinates must be some that its series of our own will have; found now rather than after the training."""
    known = [_coordinates(ours[name]) for name in test.uses() if name in ours]
    if not known or None in known:
        return
    keys = [getattr(test, key, None) for key in ("along", "match", "batch", "updates", "at", "among", "per", "less", "more")]
    wanted = {key for key in keys if key is not None} | set(test.by) | set(test.where)
    if lacking := wanted - set().union(*known):
        raise ValueError(f"a {test.kind} test uses the coordinate {sorted(lacking)}, which none of its series under `ours` has")


def _coordinates(spec: OwnSeries) -> set[str] | None:
    if isinstance(spec, SamePublished):
        return None
    if isinstance(spec, CountSeries):
        return set(spec.over)
    own = ({spec.lengths} if spec.lengths else set()) | (FACTORS if spec.factors else set())
    return {"cell", "metric", "share", *spec.coordinates, *own}.union(*(template(name).groupindex for name in spec.templates()))


class StudyClaims(Settings):
    """One file of the ledger. `metrics`: what each name stands for at each profile; null: nothing stands for it there."""

    study: Literal["budget", "batch_size", "stochastic", "summarymixing", "survey"]
    paper: str
    metrics: dict[str, dict[ProfileName, str | None]]
    claims: list[Claim]

    @model_validator(mode="after")
    def _consistent(self) -> StudyClaims:
        ids = [claim.id for claim in self.claims]
        if len(set(ids)) != len(ids):
            raise ValueError(f"a claim's id occurs twice: {sorted({i for i in ids if ids.count(i) > 1})}")
        for claim in self.claims:
            for series in claim.ours.values():
                names = [] if not isinstance(series, CellSeries) else [series.y] if isinstance(series.y, str) else series.y
                if unknown := set(names) - set(self.metrics):
                    raise ValueError(f"{claim.id}: no metric named {sorted(unknown)}")
        return self


def ledger_dir() -> Path:
    return root() / "claims"


def load_study(study: str, folder: Path | None = None) -> StudyClaims:
    """One study's claims. Raises UserError naming file and key."""
    if study not in STUDIES:
        raise UserError(f"{study}: no such study in the ledger; there are {', '.join(STUDIES)}")
    path = (folder or ledger_dir()) / f"{study}.yaml"
    claims = parse(StudyClaims, read_yaml(path), str(path))
    for claim in claims.claims:
        for name, series in claim.published.items():
            if series.table is not None and not (path.parent / _TABLES / series.table).is_file():
                raise UserError(f"{path}: {claim.id}: published.{name}: no table {_TABLES}/{series.table}")
    return claims


def load_ledger(folder: Path | None = None) -> list[StudyClaims]:
    """Every study's claims, in the papers' order."""
    return [load_study(study, folder) for study in STUDIES]


def template(name: str) -> re.Pattern[str]:
    """A cell-name template as a pattern with named groups: `{size}` takes what has no hyphen; `"{of}"`-free text is literal."""
    parts = re.split(r"\{(\w+)\}", name)
    return re.compile("".join(f"(?P<{p}>[^-]+)" if i % 2 else re.escape(p) for i, p in enumerate(parts)))
