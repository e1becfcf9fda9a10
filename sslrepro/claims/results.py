"""Our own results as series: results/<profile>/<study>/ (docs/schemas.md), runs that did not complete left out by rule and named."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from sslrepro.claims.bootstrap import Resampler, Source, SpeakerSums, TrialScores, speaker_sums, trial_scores
from sslrepro.claims.ledger import CellSeries, CountSeries, template
from sslrepro.claims.series import NO_CELL, Series
from sslrepro.errors import UserError

CHOICE = re.compile(r":s(\d+)-q(\d+)-k(\d+)")  # as config.Factors writes itself
COMPLEMENT = "1 - "  # a metric named "1 - phone.accuracy" is the error of that accuracy


class Counts(Protocol):
    """Exact numbers by name, such as `params:lighthubert-640` or `macs:slim-100@15.625`; None where the name is not known."""

    def __call__(self, name: str) -> float | None: ...


@dataclass
class Results:
    """The tables of one study at one profile."""

    metrics: pd.DataFrame  # cell, seed, metric, value
    speakers: pd.DataFrame  # cell, seed, metric, speaker, errors, units
    trials: pd.DataFrame  # cell, seed, metric, speaker, same, bins
    runs: dict[str, dict[str, dict]]  # by cell, by seed
    resampler: Resampler
    same_code: dict[str, frozenset[str]] = field(default_factory=dict)  # code's hash: others shown to give its numbers (pipeline.same_code)
    used: dict[tuple[str, str], int] = field(default_factory=dict)  # (cell, metric) read since last cleared: its number of seeds
    notes: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)  # which cells of a series that has others were not scored, and why; cleared likewise
    _values: dict[tuple, np.ndarray | None] = field(default_factory=dict)

    def excluded(self, cells: list[str]) -> list[str]:
        """Runs of these cells that did not complete, each with its status."""
        return [
            f"{cell} seed {seed} {run['status']}"
            for cell in cells
            for seed, run in sorted(self.runs.get(cell, {}).items())
            if run["status"] != "completed"
        ]

    def unscored(self, cells: list[str], metrics: list[str]) -> list[str]:
        """Why runs of these cells were not scored on the tasks of these metrics, each reason once."""
        tasks = {metric.removeprefix(COMPLEMENT).partition(".")[0] for metric in metrics}
        given = [run.get("unavailable", {}) for cell in cells for run in self.runs.get(cell, {}).values()]
        return list(dict.fromkeys(reason for run in given for task, reason in run.items() if task in tasks))

    def names(self) -> list[str]:
        return sorted(self.runs)

    def values(
        self, cell: str, metric: str, sources: tuple[Source, ...] = ("seeds", "speakers"), partner: str | None = None
    ) -> np.ndarray | None:
        """A cell's resampled mean over its completed seeds `(1 + draws,)`, of those that `partner` has, too; None where no seed has the
        metric."""
        name = (cell, metric, sources, partner)
        if name not in self._values:
            self._values[name] = self._resampled(cell, metric, sources, partner)
        return self._values[name]

    def seeds(self, cell: str, metric: str, partner: str | None = None) -> tuple[int, ...]:
        """The completed seeds that have the metric, those of a partner among them."""
        found = set(self._rows(self.metrics, cell, metric.removeprefix(COMPLEMENT)).seed.tolist())
        return tuple(sorted(found if partner is None else found & set(self.seeds(partner, metric))))

    def _resampled(self, cell: str, metric: str, sources: tuple[Source, ...], partner: str | None) -> np.ndarray | None:
        plain = metric.removeprefix(COMPLEMENT)
        rows = self._rows(self.metrics, cell, plain).sort_values("seed")
        rows = rows[rows.seed.isin(self.seeds(cell, metric, partner))]
        if rows.empty:
            return None
        seeds, observed = tuple(rows.seed.tolist()), rows.value.to_numpy(float)
        if len(set(seeds)) < len(seeds):
            raise UserError(f"metrics.csv: {cell} has {plain} more than once for a seed")
        clusters = self._clusters(cell, plain, seeds, observed)
        if clusters is None and plain.partition(".")[0] not in ("pretrain", "cost", "train"):
            self.notes.append(f"{plain.partition('@')[0]}: interval over seeds alone, no test speakers given")
        values = self.resampler.values(observed, seeds, clusters, sources)
        return 1 - values if metric.startswith(COMPLEMENT) else values

    def _rows(self, table: pd.DataFrame, cell: str, metric: str) -> pd.DataFrame:
        rows = table[(table.cell == cell) & (table.metric == metric)]
        done = {int(seed) for seed, run in self.runs.get(cell, {}).items() if run["status"] == "completed"}
        return rows[rows.seed.isin(done)]

    def _clusters(self, cell: str, metric: str, seeds: tuple[int, ...], observed: np.ndarray) -> SpeakerSums | TrialScores | None:
        trials = self._rows(self.trials, cell, metric)
        trials = trials[trials.seed.isin(seeds)]
        if set(trials.seed) == set(seeds):
            place = trials.seed.map({s: i for i, s in enumerate(seeds)}).to_numpy()
            names = tuple(sorted(set(trials.speaker)))
            bins = [np.array(row.split(), int) for row in trials.bins]
            return trial_scores(place, trials.speaker.to_numpy(), bins, trials.same.to_numpy(), names)
        rows = self._rows(self.speakers, cell, metric)
        rows = rows[rows.seed.isin(seeds)]
        if set(rows.seed) != set(seeds):
            return None
        errors, units = (
            rows.pivot(index="seed", columns="speaker", values=column).sort_index().fillna(0.0) for column in ("errors", "units")
        )
        sums = speaker_sums(errors.to_numpy(float), units.to_numpy(float), tuple(errors.columns), metric)
        whole = sums.errors.sum(axis=1) / sums.units.sum(axis=1)
        whole = 1 - whole if sums.complement else whole
        if not np.allclose(whole, observed, rtol=1e-3, atol=1e-4):
            i = int(np.argmax(np.abs(whole - observed)))
            raise UserError(
                f"{cell} seed {seeds[i]}: {metric} is {observed[i]:.6g} in metrics.csv and {whole[i]:.6g} in speakers.csv; "
                "both must come from the same run: collect the study's results again"
            )
        return sums


def load_results(folder: Path, resampler: Resampler | None = None) -> Results | None:
    """The tables in `results/<profile>/<study>`; None where there are none. Raises UserError on a table without its columns."""
    if not (folder / "metrics.csv").exists() or not (folder / "runs.json").exists():
        return None
    runs = json.loads((folder / "runs.json").read_text(encoding="utf-8"))
    for cell, seeds in runs.items():
        for seed, run in seeds.items():
            if "status" not in run:
                raise UserError(f"{folder / 'runs.json'}: {cell} seed {seed} has no status")
    return Results(
        metrics=_table(folder / "metrics.csv", ["cell", "seed", "metric", "value"]),
        speakers=_table(folder / "speakers.csv", ["cell", "seed", "metric", "speaker", "errors", "units"]),
        trials=_table(folder / "trials.csv", ["cell", "seed", "metric", "speaker", "same", "bins"]),
        runs=runs,
        resampler=resampler or Resampler(),
        same_code=_same_code(folder / "same_code.json"),
    )


def _same_code(path: Path) -> dict[str, frozenset[str]]:
    if not path.exists():
        return {}
    shown = json.loads(path.read_text(encoding="utf-8"))
    return {shown["code"]: frozenset(shown["gives_the_numbers_of"])}


def _table(path: Path, columns: list[str]) -> pd.DataFrame:
    if not path.exists():
        return pd.DataFrame({name: [] for name in columns})
    table = pd.read_csv(path, dtype={"cell": str, "metric": str, "speaker": str, "bins": str})
    if lacking := [name for name in columns if name not in table.columns]:
        raise UserError(f"{path}: no column {', '.join(lacking)}")
    return table


def cell_series(name: str, spec: CellSeries, metrics: dict[str, str | None], results: Results, sources: tuple[Source, ...]) -> Series | str:
    """The points of a cell series, or why there are none."""
    roles = [spec.y] if isinstance(spec.y, str) else spec.y
    named = {role: metric for role in roles if (metric := metrics.get(role)) is not None}
    if not named:
        return f"no metric stands for {', '.join(roles)} at this profile"
    points: list[dict[str, str | float]] = []
    values: list[np.ndarray] = []
    read: list[tuple[str, str, str | None]] = []
    wanted = spec.templates()
    matched = [(cell, found) for cell in results.names() for found in matches(cell, wanted)]
    for cell, captured in matched:
        partner = spec.paired_with and spec.paired_with.format(**captured)
        partner = partner if partner in results.runs else None  # a partner that has not run is missed by the test itself
        for role, metric in named.items():
            for share, length, full in _points(results, cell, metric, spec):
                value = results.values(cell, full, sources, partner)
                extra = {key: results.values(cell, m, sources) for key, m in spec.coordinates.items()}
                if value is None or any(v is None for v in extra.values()):
                    continue
                point = {"cell": cell, "metric": role, "share": share, **captured, **length}
                for key, m in spec.coordinates.items():
                    grows = share if m in ("cost.updates", "cost.hours_seen", "cost.seconds") else 1.0
                    point[key] = float(f"{extra[key][0] * grows:.12g}")  # cells of 5 and of 6 seeds may have their mean's last bit apart
                points.append(point)
                values.append(value)
                read.append((cell, full, partner))
    if not points:
        known = f"cells {', '.join(c for c, _ in matched)} have no {', '.join(named.values())}" if matched else NO_CELL
        why = results.unscored([cell for cell, _ in matched], list(named.values()))
        return f"{known} ({' or '.join(wanted)})" + "".join(f": {reason}" for reason in why)
    coordinates = {key: np.array([p[key] for p in points]) for key in points[0]}
    series = Series(name, coordinates, np.stack(values, axis=1)).where(spec.where)
    kept = set(series.coordinates["cell"])  # a cell that only the name's pattern fits has no say, nor the number of its seeds
    results.used |= {(cell, full): len(results.seeds(cell, full, partner)) for cell, full, partner in read if cell in kept}
    for reason in results.unscored([cell for cell, _ in matched], list(named.values())):
        cells = [cell for cell, _ in matched if reason in results.unscored([cell], list(named.values()))]
        results.lacking.append(f"{name} lacks {', '.join(cells)}: {reason}")
    return series


def matched_cells(spec: CellSeries, names: list[str]) -> list[str]:
    """The cells a series means, whether or not they completed."""
    return [cell for cell in names if any(template(w).fullmatch(cell) for w in spec.templates())]


def matches(cell: str, wanted: dict[str, dict[str, str | float]]) -> Iterator[dict[str, str | float]]:
    """The coordinates that the first template to fit a cell's name gives it; nothing where none fits."""
    for text, given in wanted.items():
        found = template(text).fullmatch(cell)
        if found:
            yield {key: _number(value) for key, value in found.groupdict().items()} | given
            return


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _shares(results: Results, cell: str, metric: str, snapshots: bool) -> list[tuple[float, str]]:
    """The shares of the run at which the metric was taken, each with the metric's full name; the end has none in its name."""
    if not snapshots:
        return [(1.0, metric)]
    plain = metric.removeprefix(COMPLEMENT)
    names = set(results.metrics.metric[results.metrics.cell == cell])
    taken = sorted((float(n.rpartition("@")[2]), n) for n in names if n.startswith(plain + "@"))
    prefix = metric[: len(metric) - len(plain)]
    end = [] if any(share == 1 for share, _ in taken) else [(1.0, metric)]
    return [(share, prefix + n) for share, n in taken] + end


def _choices(results: Results, cell: str, metric: str) -> list[tuple[float, dict[str, str | float], str]]:
    """As `_points`, of the choices of compression factors at which the metric was taken."""
    chosen = []
    for name in sorted(set(results.metrics.metric[results.metrics.cell == cell])):
        match = CHOICE.fullmatch(name.removeprefix(metric)) if name.startswith(metric) else None
        if match:
            squeeze, query, key_value = map(float, match.groups())
            factors = {"squeeze": squeeze, "query": query, "key_value": key_value, "pooling": query * key_value}
            chosen.append((1.0, {"factors": match[0].removeprefix(":"), **factors}, name))
    return chosen


def _points(results: Results, cell: str, metric: str, spec: CellSeries) -> list[tuple[float, dict[str, str | float], str]]:
    """Share of the run, measured length or factors where they are asked for, and the metric's full name, of every point of a cell."""
    if spec.factors:
        return _choices(results, cell, metric)
    if spec.lengths is None:
        return [(share, {}, full) for share, full in _shares(results, cell, metric, spec.snapshots)]
    names = results.metrics.metric[results.metrics.cell == cell]
    ends = {name: name.removeprefix(metric + "_") for name in names if name.startswith(metric + "_")}
    found = sorted((float(end), name) for name, end in ends.items() if end.replace(".", "", 1).isdigit())
    return [(1.0, {spec.lengths: length}, name) for length, name in dict(found).items()]


def count_series(name: str, spec: CountSeries, counts: Counts | None) -> Series | str:
    """The points of a count series, or why there are none."""
    keys = list(spec.over)
    grid = list(itertools.product(*spec.over.values()))
    values = []
    for level in grid:
        quantity = spec.count.format(**dict(zip(keys, level, strict=True)))
        value = counts(quantity) if counts is not None else None
        if value is None:
            return f"no count named {quantity}"
        values.append(float(value))
    coordinates = {key: np.array([level[i] for level in grid]) for i, key in enumerate(keys)}
    return relative(Series(name, coordinates, np.array([values])), spec.relative_to)


def relative(series: Series, to: dict[str, float | int | str] | None) -> Series:
    """Values over the value at one point."""
    if to is None:
        return series
    one = series.where(to)
    if len(one) != 1:
        raise UserError(f"{series.name}: relative_to {to} names {len(one)} points, it must name one")
    return Series(series.name, series.coordinates, series.values / one.values)
