"""Figures of the efficiency survey, from tables alone: students, the race of objectives, and the map of methods."""

from __future__ import annotations

import math
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedLocator, NullLocator

from sslrepro.claims.curves import reached
from sslrepro.config import Profile
from sslrepro.paths import results_dir
from sslrepro.report import model_times
from sslrepro.report.batch_size import plain_ticks
from sslrepro.report.efficiency_map import COSTS, FRONTS, QUALITY, efficiency_map, error, shapes, timed
from sslrepro.report.panels import beside, done, floors, half_interval, marks, nothing, panels, wide
from sslrepro.report.style import write
from sslrepro.report.tuning import UNITS

STUDENTS = r"hubert|distilhubert.*|fithubert|lighthubert(?!.*first).*|melhubert.*"
RACE = {"wav2vec2": "wav2vec 2.0", "data2vec": "data2vec", "data2vec2": "data2vec 2.0"}  # which reaches a score first
RIVALS, RACER = ("wav2vec2", "data2vec"), "data2vec2"
CONTINUOUS = r"^(?P<continuous>distilhubert-continuous)(?:-r(?P<rate>[\d.]+))?$"
OWN_RATE = 2.0  # of distilhubert-continuous and distilhubert-variable, in their settings
LEAST = -25.0  # per cent of a gain: the lower edge of the map
MEASURED = {
    "cost.params": "parameters with heads",
    "cost.inference_seconds": "inference, s",
    "cost.encoder_seconds": "encoder alone, s",
    "cost.macs": "MACs",
    "phone.accuracy": "phone accuracy",
    "phone_ctc.per": "phone error rate",
    "asr.wer": "word error rate",
    "cost.setup_flops": "FLOPs before it (teacher, labels)",
}


def students(folder: Path) -> pd.DataFrame:
    """Teacher and students: what was counted, measured and scored, means over seeds; and of each score the share of the teacher's gain over
    the better floor that a student keeps. MelHuBERT is no student, and has floors of its own."""
    table = wide(folder)
    table = table[table.cell.str.fullmatch(STUDENTS) | table.cell.str.startswith("floor")]
    columns = [name for name in MEASURED if name in table]
    mean = table.groupby("cell")[columns].mean()
    of_students = ~mean.index.str.startswith(("floor", "melhubert"))
    kept = {}
    for metric in [name for name in columns if name in QUALITY]:
        wrong = error(metric, mean[metric])
        floor = wrong[mean.index.str.startswith("floor")].min()
        if "hubert" in mean.index and floor > wrong["hubert"]:
            kept[f"gain kept, {MEASURED[metric]}"] = ((floor - wrong) / (floor - wrong["hubert"])).where(of_students)
    return mean.rename(columns=MEASURED).assign(**kept)


def draw_students(folder: Path) -> Figure:
    """Score of teacher and students against measured inference time, bars of 95 % over seeds by Student's t; dotted: the floors
    of the same probe."""
    table = wide(folder)
    shown = [m for m in QUALITY if m in table]
    figure, axes = panels(max(len(shown), 1), 4.6)
    timed = table.dropna(subset="cost.inference_seconds") if "cost.inference_seconds" in table else table[:0]
    timed = timed[timed.cell.str.fullmatch(STUDENTS)]
    style = marks(timed.cell.unique())
    for axis, metric in zip(axes, shown, strict=False):
        floors(axis, table, metric)
        for cell, rows in timed.dropna(subset=metric).groupby("cell", sort=False):
            value, seconds = 100 * error(metric, rows[metric]), rows["cost.inference_seconds"].mean()
            axis.errorbar(1e3 * seconds, value.mean(), half_interval(value), linestyle="", label=cell, **style[cell])
        axis.set(xlabel="inference of one utterance of 15 s, ms", ylabel=f"{QUALITY[metric]}, %")
        axis.margins(x=0.15, y=0.15)
        if timed.empty:
            axis.text(0.5, 0.5, "this profile times nothing", transform=axis.transAxes, ha="center")
        else:
            axis.set_xscale("log")
            plain_ticks(axis.xaxis, *axis.get_xlim())
    beside(axes[-1])
    return done(figure)


def race(folder: Path) -> pd.DataFrame:
    """One row a (cell, share of the run): error (per cent) and `half` of its 95 % interval over seeds by `metric`, the first of QUALITY
    that was scored along the way; seconds of training and the shortest and longest seed's."""
    table = pd.read_csv(folder / "metrics.csv")
    seconds = table[table.metric == "cost.seconds"].groupby("cell")["value"].agg(["mean", "min", "max"])
    runs = table[table.cell.isin(RACE)]
    probe = next((metric for metric in QUALITY if runs.metric.str.startswith(f"{metric}@").any()), None)
    columns = ["cell", "share", "mean", "half", "metric", "seconds", "shortest", "longest"]
    if probe is None:
        return pd.DataFrame(columns=columns)
    scored = runs.join(runs.metric.str.extract(rf"^{re.escape(probe)}(?:@(?P<share>[\d.]+))?$"))
    scored = scored[scored.metric.str.fullmatch(rf"{re.escape(probe)}(@[\d.]+)?")]
    scored = scored.assign(share=scored.share.astype(float).fillna(1.0), error=100 * error(probe, scored.value))
    rows = scored.groupby(["cell", "share"]).error.agg(["mean", ("half", half_interval)]).reset_index().assign(metric=probe)
    names = {"seconds": "mean", "shortest": "min", "longest": "max"}
    return rows.assign(**{name: rows.share * rows.cell.map(seconds[of]).astype(float) for name, of in names.items()})[columns]


def equal_scores(folder: Path) -> pd.DataFrame:
    """One row a rival of data2vec 2.0's: the lowest mean error (per cent) that both reach, the seconds at which each first does, their
    ratio, and that of the training FLOPs until then. As the claim has it (claims.curves.Sooner): straight between points, from the random
    floor at time 0; none, where neither gets below that floor."""
    rows, table = race(folder), wide(folder)
    found, at_start = [], table[table.cell == "floor-random"]
    ends = rows[rows.share == 1].set_index("cell").seconds
    flops = table.groupby("cell")["cost.train_flops"].mean() if "cost.train_flops" in table else pd.Series(dtype=float)
    for rival in RIVALS:
        curves = {cell: rows[rows.cell == cell].sort_values("seconds") for cell in (RACER, rival)}
        if any(curve.empty for curve in curves.values()) or at_start.get(metric := rows.metric.iloc[0], pd.Series()).dropna().empty:
            continue
        start = np.array([[100 * error(metric, at_start[metric]).mean()]])
        common = np.array([max(curve["mean"].min() for curve in curves.values())])
        if common[0] >= start[0, 0]:
            continue
        own, other = (reached(c.seconds.to_numpy(), c["mean"].to_numpy()[None], start, common)[0] for c in curves.values())
        spent = [seconds / ends[cell] * flops.get(cell, np.nan) for cell, seconds in ((RACER, own), (rival, other))]
        row = {"rival": rival, "error": common[0], RACER: own, "the rival": other, "times as soon": other / own}
        found.append({**row, "rival's FLOPs over its own": spent[1] / spent[0]})
    columns = ["rival", "error", RACER, "the rival", "times as soon", "rival's FLOPs over its own"]
    return pd.DataFrame(found, columns=columns).set_index("rival")


def draw_race(folder: Path) -> Figure:
    """Error of a frozen probe against seconds of training, for objectives that are scored along the way; upright bars: 95 % over
    seeds; level bars: from the shortest to the longest seed; dotted: the floors."""
    table, rows = wide(folder), race(folder)
    figure, axes = panels(1, 5.4)
    if rows.empty:
        return nothing(figure, axes[0], "this profile scores nothing along the way")
    style = marks(RACE)
    for cell, points in rows.groupby("cell"):
        bars = {"fmt": "none", "color": style[cell]["color"], "alpha": 0.5, "elinewidth": 1.0, "capthick": 1.0}
        reach = [(points.seconds - points.shortest).tolist(), (points.longest - points.seconds).tolist()]
        axes[0].errorbar(points.seconds, points["mean"], xerr=reach, capsize=2, **bars)
        axes[0].errorbar(points.seconds, points["mean"], points["half"], label=RACE[cell], **style[cell])
    probe = rows.metric.iloc[0]
    if probe in table:
        floors(axes[0], table, probe)
    axes[0].set(xlabel="training, s", ylabel=f"{QUALITY[probe]}, %", xlim=(0, None))
    axes[0].margins(y=0.08)
    beside(axes[0])
    return done(figure)


def rates(folder: Path) -> pd.DataFrame:
    """The student of any mean segment length at each length that it was scored at: one row a (metric, rate), its mean error in per cent and
    `half` of its 95 % interval over seeds."""
    table = wide(folder)
    table = table.join(table.cell.str.extract(CONTINUOUS)).dropna(subset="continuous")
    parts = []
    for metric in [name for name in QUALITY if name in table and table[name].notna().any()]:
        scored = table.dropna(subset=metric)
        scored = scored.assign(rate=scored.rate.astype(float).fillna(OWN_RATE), error=100 * error(metric, scored[metric]))
        parts.append(scored.groupby("rate").error.agg(["mean", ("half", half_interval)]).reset_index().assign(metric=metric))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["rate", "mean", "half", "metric"])


def draw_rates(folder: Path) -> Figure:
    """`rates`, and a little aside a student that was trained at its one rate alone; bars are 95 % over seeds; dotted: the floors."""
    table, rows = wide(folder), rates(folder)
    shown = list(dict.fromkeys(rows.metric))
    figure, axes = panels(max(len(shown), 1), 4.6)
    if rows.empty:
        return nothing(figure, axes[0], "this profile has no student of any rate")
    for axis, metric in zip(axes, shown, strict=True):
        points = rows[rows.metric == metric]
        axis.errorbar(points.rate, points["mean"], points["half"], marker="o", capsize=3, label="one student, any rate")
        alone = 100 * error(metric, table[table.cell == "distilhubert-variable"][metric].dropna())
        if len(alone):
            axis.errorbar(OWN_RATE * 1.03, alone.mean(), half_interval(alone), fmt="s", capsize=3, label=f"trained at {OWN_RATE:g} alone")
        floors(axis, table, metric)
        axis.set(xlabel="frames a segment, on average", ylabel=f"{QUALITY[metric]}, %")
        axis.set(xticks=sorted(set(points.rate)), xlim=(points.rate.min() - 0.4, points.rate.max() + 0.4))
    beside(axes[-1])
    return done(figure)


def update_times(folder: Path) -> pd.DataFrame:
    """Cells time-<model>: seconds of an update at real size, mean and spread of the repeats, and over the first's."""
    table = pd.read_csv(folder / "metrics.csv")
    table = table[table.cell.str.startswith("time-") & table.metric.str.startswith("cost.update_seconds")]
    times = table.groupby("cell", sort=False)["value"].agg(seconds="mean", spread="std")
    return times.assign(share=times.seconds / next(iter(times.seconds), 1.0))


def draw_map(table: pd.DataFrame) -> Figure:
    """Every method on four costs: a colour a metric, each with the line of its own Pareto front, which holds on to the right; a shape a
    study; hollow where the error is not told from the floor's. Members of a front are numbered, and named at the right; points in one
    place share a label. What is worse than its floor by more than LEAST is a cross on the lower edge. table: efficiency_map's."""
    metrics, studies = list(dict.fromkeys(table.metric)), sorted(table.study.unique())
    colours = dict(zip(metrics, sns.color_palette("colorblind", len(metrics)), strict=True))
    shapes = dict(zip(studies, "osD^v<>p", strict=False))
    members = table[table[FRONTS].any(axis=1)]
    numbers = {(row.study, row.cell): number for number, row in enumerate(members.itertuples(), 1)}
    figure, grid = plt.subplots(2, 2, figsize=(15.0, 10.0), layout="constrained")
    for axis, (cost, label) in zip(grid.flat, COSTS.items(), strict=True):
        known = table[table[cost].notna() & (table[cost] > 0)]
        for (study, metric, told), rows in known[100 * known.kept >= LEAST].groupby(["study", "metric", "told"]):
            face = {"facecolors": colours[metric] if told else "none", "edgecolors": colours[metric]}
            axis.scatter(rows[cost], 100 * rows.kept, s=26, marker=shapes[study], linewidths=1.1, alpha=0.85, **face)
        below = known[100 * known.kept < LEAST]
        axis.scatter(below[cost], [LEAST] * len(below), s=26, marker="x", linewidths=1.1, color=below.metric.map(colours))
        front = known[known[f"front_{cost}"].astype(bool)].sort_values(cost)
        _labels(axis, front, cost, numbers)
        if known.empty:
            axis.text(0.5, 0.5, "no method of this profile has it, and a floor", transform=axis.transAxes, ha="center")
        else:
            axis.set_xscale("log")
            axis.margins(x=0.1)
            axis.autoscale_view()
            for metric, rows in front.groupby("metric"):
                places, heights = [*rows[cost], axis.get_xlim()[1]], [*(100 * rows.kept), 100 * rows.kept.iloc[-1]]
                axis.plot(places, heights, color=colours[metric], linewidth=1, alpha=0.7, drawstyle="steps-post", scalex=False)
            axis.xaxis.set_major_locator(FixedLocator(ticks(known[cost].min(), known[cost].max())))
            axis.xaxis.set_major_formatter(EngFormatter(unit="s" if cost == "rtf" else "", sep=""))
            axis.xaxis.set_minor_locator(NullLocator())
        axis.axhline(0, color="0.5", linestyle=":", linewidth=1)
        axis.set(xlabel=label, ylabel="gain above the study's floor, % of the metric's largest", ylim=(LEAST - 5, 112))
        axis.set_title(timed(table) if cost == "rtf" else _absent(table, known, cost), fontsize="small", loc="left")
    marks = [Line2D([], [], color=colours[m], marker="o", label=_words(m)) for m in metrics]
    marks += [Line2D([], [], color="0.3", marker=shapes[study], linestyle="", label=study) for study in studies]
    marks.append(
        Line2D([], [], color="0.3", marker="o", linestyle="", markerfacecolor="none", markeredgewidth=1.2, label="not told from its floor")
    )
    marks.append(Line2D([], [], color="0.3", marker="x", linestyle="", markeredgewidth=1.2, label=f"below {LEAST:g} %"))
    figure.legend(handles=marks, loc="outside lower center", ncols=5, fontsize="small")
    names = [Line2D([], [], linestyle="", label=f"{number}  {study}/{cell}") for (study, cell), number in numbers.items()]
    if names:
        figure.legend(handles=names, loc="outside right upper", fontsize="small", handlelength=0, title="on a front")
    return done(figure)


def _labels(axis: Axes, front: pd.DataFrame, cost: str, numbers: dict[tuple[str, str], int]) -> None:
    """The numbers of a front's members, those of points nearer than they could be told apart (2 % of a cost, 2 points) in one label."""
    places: dict[tuple[float, float], list[int]] = {}
    for row in front.itertuples():
        x, y = getattr(row, cost), 100 * row.kept
        near = next((at for at in places if abs(math.log(x / at[0])) < 0.02 and abs(y - at[1]) < 2), (x, y))
        places.setdefault(near, []).append(numbers[row.study, row.cell])
    for at, found in places.items():
        axis.annotate(", ".join(map(str, sorted(found))), at, (0, 5), textcoords="offset points", fontsize="small", ha="center")


def _absent(table: pd.DataFrame, known: pd.DataFrame, cost: str) -> str:
    """How many methods a panel shows, and why not the others."""
    rest = len(table) - len(known)
    why = f";\n{rest} supervised from random weights are not here: they have no pre-training" if cost == "flops" and rest else ""
    return f"{len(known)} of {len(table)} methods{why}"


def _words(metric: str) -> str:
    if metric in QUALITY:
        return QUALITY[metric]
    minutes, unit = re.fullmatch(r"fine_tune_([\d.]+)min\.(\w+)", metric).groups()
    return f"{UNITS[unit]}, fine-tuned on {minutes} min"


def write_map(profile: Profile) -> tuple[pd.DataFrame, Figure]:
    """`results/<profile>/map.csv`, `.svg` and `.png`: the map of all studies, and `times.csv`: what it takes to run their models."""
    model_times.write(profile.profile, shapes(profile))
    table, place = efficiency_map(profile), results_dir(profile.profile)
    table.to_csv(place / "map.csv", index=False, float_format="%.6g", lineterminator="\n")
    return table, write(draw_map(table), place, "map")


def ticks(low: float, high: float) -> list[float]:
    """Three to five round numbers on a logarithmic axis that shows `low` to `high` with a margin."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ([1.0], [1.0, 3.0], [1.0, 2.0, 5.0], [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0]):
        found = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        found = [tick for tick in found if 0.8 * low <= tick <= 1.25 * high]
        if len(found) >= 3:
            break
    return found[:: max(1, math.ceil(len(found) / 5))]
