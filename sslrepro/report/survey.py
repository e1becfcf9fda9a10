"""Figures of the efficiency survey, from tables alone: students, the race of objectives, and the map of methods."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, NullLocator

from sslrepro.report.efficiency_map import COSTS, QUALITY, error, means
from sslrepro.report.panels import beside, done, floors, nothing, panels, wide

STUDENTS = r"hubert|distilhubert.*|fithubert|lighthubert|lighthubert-small|melhubert-20ms"
RACE = ("wav2vec2", "data2vec", "data2vec2")  # which reaches a score first
PROBE = "phone.accuracy"
MEASURED = {
    "cost.params": "parameters with heads",
    "cost.inference_seconds": "inference, s",
    "cost.encoder_seconds": "encoder alone, s",
    "cost.macs": "MACs",
    "phone.accuracy": "phone accuracy",
    "phone_ctc.per": "phone error rate",
    "cost.setup_flops": "FLOPs before it (teacher, labels)",
}


def students(folder: Path) -> pd.DataFrame:
    """Teacher and students: what was counted, measured and scored, means over seeds."""
    table = wide(folder)
    table = table[table.cell.str.fullmatch(STUDENTS) | table.cell.str.startswith("floor")]
    columns = [name for name in MEASURED if name in table]
    return table.groupby("cell")[columns].mean().rename(columns=MEASURED)


def draw_students(folder: Path) -> Figure:
    """Score of teacher and students against measured inference time, bars of one standard deviation over seeds; dotted: the floors of the
    same probe."""
    table = wide(folder)
    shown = [m for m in QUALITY if m in table]
    figure, axes = panels(max(len(shown), 1), 4.6)
    timed = table.dropna(subset="cost.inference_seconds") if "cost.inference_seconds" in table else table[:0]
    timed = timed[timed.cell.str.fullmatch(STUDENTS)]
    cells = timed.cell.unique()
    colours = dict(zip(cells, sns.color_palette("colorblind", len(cells)), strict=True))
    for axis, metric in zip(axes, shown, strict=False):
        floors(axis, table, metric)
        for cell, rows in timed.dropna(subset=metric).groupby("cell", sort=False):
            value, seconds = 100 * error(metric, rows[metric]), rows["cost.inference_seconds"].mean()
            axis.errorbar(1e3 * seconds, value.mean(), value.std(ddof=0), fmt="o", capsize=3, color=colours[cell], label=cell)
        axis.set(xlabel="inference of one utterance of 15 s, ms", ylabel=f"{QUALITY[metric]}, %")
        axis.margins(x=0.15, y=0.15)  # before the limit on the left, which ends all scaling by itself
        if timed.empty:
            axis.text(0.5, 0.5, "this profile times nothing", transform=axis.transAxes, ha="center")
        else:
            axis.set_xlim(left=0)
    beside(axes[-1])
    return done(figure)


def race(folder: Path) -> pd.DataFrame:
    """One row a (cell, share of the run): phone error of the probe (per cent) and its spread over seeds, seconds of training and the
    shortest and longest seed's."""
    table = pd.read_csv(folder / "metrics.csv")
    seconds = table[table.metric == "cost.seconds"].groupby("cell")["value"].agg(["mean", "min", "max"])
    scored = table[table.cell.isin(RACE)].join(table.metric.str.extract(rf"^{re.escape(PROBE)}(?:@(?P<share>[\d.]+))?$"))
    scored = scored[scored.metric.str.startswith(PROBE)].assign(
        share=lambda t: t.share.astype(float).fillna(1.0), error=lambda t: 100 * (1 - t.value)
    )
    rows = scored.groupby(["cell", "share"]).error.agg(["mean", "std"]).fillna(0.0).reset_index()
    names = {"seconds": "mean", "shortest": "min", "longest": "max"}
    return rows.assign(**{name: rows.share * rows.cell.map(seconds[of]).astype(float) for name, of in names.items()})


def draw_race(folder: Path) -> Figure:
    """Phone error of a frozen probe against seconds of training, for objectives that are scored along the way; upright bars: one standard
    deviation over seeds; level bars: from the shortest to the longest seed; dotted: the floors."""
    table, rows = wide(folder), race(folder)
    figure, axes = panels(1, 5.4)
    if rows.empty:
        return nothing(figure, axes[0], "this profile scores nothing along the way")
    for cell, points in rows.groupby("cell"):
        reach = [(points.seconds - points.shortest).tolist(), (points.longest - points.seconds).tolist()]
        axes[0].errorbar(points.seconds, points["mean"], points["std"], reach, marker="o", capsize=3, label=cell)
    floors(axes[0], table, PROBE)
    axes[0].set(xlabel="training, s", ylabel=f"{QUALITY[PROBE]}, %", xlim=(0, None))
    axes[0].legend(fontsize="small")
    return done(figure)


def update_times(folder: Path) -> pd.DataFrame:
    """Cells time-<model>: seconds of an update at real size, mean and spread of the repeats, and over the first's."""
    table = pd.read_csv(folder / "metrics.csv")
    table = table[table.cell.str.startswith("time-") & table.metric.str.startswith("cost.update_seconds")]
    times = table.groupby("cell", sort=False)["value"].agg(seconds="mean", spread="std")
    return times.assign(share=times.seconds / next(iter(times.seconds), 1.0))


def draw_map(table: pd.DataFrame, metric: str = "phone.accuracy", names: int = 6) -> Figure:
    """Every method on four costs; the line joins the Pareto front, whose first `names` points are numbered, and named
    above: names beside their points run into one another. table: efficiency_map's."""
    mean = means(table)
    studies = sorted(mean.study.unique())
    colours = dict(zip(studies, sns.color_palette("colorblind", len(studies)), strict=True))
    figure, axes = panels(len(COSTS), 4.2)
    for axis, (cost, label) in zip(axes, COSTS.items(), strict=True):
        known = mean[mean[cost].notna() & (mean[cost] > 0)]
        for study, rows in known.groupby("study"):
            axis.scatter(rows[cost], 100 * rows["error"], color=colours[study], s=22, label=study)
        front = known[known[f"front_{cost}"]].sort_values(cost)
        axis.plot(front[cost], 100 * front["error"], color="0.3", linewidth=1, drawstyle="steps-post")
        named = list(front.head(names).itertuples())
        for number, row in enumerate(named, 1):
            at = (getattr(row, cost), 100 * row.error)
            axis.annotate(str(number), at, (3, 3), textcoords="offset points", fontsize="x-small")
        if known.empty:
            axis.text(0.5, 0.5, "no cell of this profile has it", transform=axis.transAxes, ha="center")
        else:
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(FixedLocator(ticks(known[cost].min(), known[cost].max())))
            axis.xaxis.set_major_formatter(EngFormatter(unit="s" if cost == "rtf" else "", sep=""))
            axis.xaxis.set_minor_locator(NullLocator())
        axis.set(xlabel=label, ylabel=f"{QUALITY[metric]}, %" if axis is axes[0] else "")
        axis.set_title(_listed([row.cell for row in named]), fontsize="x-small", loc="left")
        axis.ticklabel_format(axis="y", useOffset=False)
        axis.margins(x=0.2, y=0.12)
    if len(studies) > 1:
        _legend(axes)
    return done(figure)


def _listed(names: list[str], columns: int = 2) -> str:
    """Numbered, so many a line."""
    numbered = [f"{number} {name}" for number, name in enumerate(names, 1)]
    return "\n".join("   ".join(numbered[i : i + columns]) for i in range(0, len(numbered), columns))


def ticks(low: float, high: float) -> list[float]:
    """Three to five round numbers on a logarithmic axis that shows `low` to `high` with a margin."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ([1.0], [1.0, 3.0], [1.0, 2.0, 5.0], [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0]):
        found = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        found = [tick for tick in found if 0.8 * low <= tick <= 1.25 * high]
        if len(found) >= 3:
            break
    return found[:: max(1, math.ceil(len(found) / 5))]


def _legend(axes: list[Axes]) -> None:
    found = {}
    for axis in axes:
        found |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    if found:
        axes[0].legend(found.values(), found.keys(), fontsize="x-small")
