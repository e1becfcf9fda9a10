"""Figures of the on-demand study, from tables alone: error against time and against MACs, what one pre-training saves, the dial.

A point is a choice of factors (`config.Factors`); its metrics end in it, as `fine_tune_10min.per:s2-q1-k4`.
"""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sslrepro.budget.updates import flops_for
from sslrepro.config import Profile
from sslrepro.report.batch_size import plain_ticks
from sslrepro.report.panels import nothing

STUDY = "stochastic"
TIMED = "time-b1"  # the same model: one utterance at a time, taken alone
CHOICE = r":s(?P<squeeze>\d+)-q(?P<query>\d+)-k(?P<key_value>\d+)$"
ERROR = re.compile(r"fine_tune_[\d.]+min\.(wer_clean|wer|per)")
MEASURED = r"^cost\.inference_(?P<what>seconds|macs)_(?P<length>[\d.]+)(?::|$)"
UNSCORED = "no labels in this corpus for the symbols\nthat the profile fine-tunes on"
SECONDS = 10.0  # of audio: the length that the claims' times are of
KINDS = {"stochastic": "one model, sampled", "fixed": "a model for each factor", "tuned": "one model, tuned to the factor"}
THREADS = re.compile(r"time-t(?P<threads>\d+)-b(?P<batch>\d+)|time-b(?P<gpu_batch>\d+)")


def read(folder: Path) -> pd.DataFrame:
    """metrics.csv with the columns squeeze, query, key_value (none where a metric is of no choice) and choice."""
    table = pd.read_csv(folder / "metrics.csv")
    factors = table.metric.str.extract(CHOICE)
    table["choice"] = ("s" + factors["squeeze"] + "-q" + factors["query"] + "-k" + factors.key_value).where(factors["squeeze"].notna())
    return table.assign(plain=table.metric.str.replace(CHOICE, "", regex=True), **{k: factors[k].astype(float) for k in factors})


def error_name(table: pd.DataFrame) -> str:
    """The error that the trade-off is drawn in: words before phones, the clean part of the test split where it has parts. Empty where
    the corpus has no labels of the symbols that the profile fine-tunes on."""
    found = sorted(
        {name for name in table.plain if ERROR.fullmatch(name)}, key=lambda name: (name.endswith(".per"), not name.endswith("_clean"))
    )
    return found[0] if found else ""


def unit(table: pd.DataFrame) -> str:
    """What the error is, for an axis."""
    return f"{'phone' if error_name(table).endswith('.per') else 'word'} error rate, %"


def lengths(table: pd.DataFrame) -> list[float]:
    """Seconds of audio at which the stochastic model was timed, one utterance at a time."""
    return sorted(table[table.cell == TIMED].metric.str.extract(MEASURED).length.dropna().astype(float).unique())


def choices(folder: Path, cell: str = TIMED) -> pd.DataFrame:
    """One row a (seed, choice, length): squeeze, query, key_value, length (seconds of audio), seconds and gmacs of the cell, and the
    stochastic cell's error in per cent, of the same seed where every seed was timed (none where it has none)."""
    table = read(folder)
    named = table[(table.cell == cell) & table.choice.notna()]
    keys = ["seed", "choice", "squeeze", "query", "key_value"]
    measured = named.join(named.metric.str.extract(MEASURED)).dropna(subset="length")
    wide = measured.pivot_table(index=[*keys, "length"], columns="what", values="value").reset_index()
    wide = wide.assign(length=wide.length.astype(float), gmacs=wide.macs / 1e9).drop(columns="macs")
    own = table[(table.cell == STUDY) & (table.plain == error_name(table))].assign(error=lambda rows: 100 * rows.value)
    by = ["seed", "choice"] if set(own.seed) <= set(wide.seed) else ["choice"]
    return wide.merge(own.groupby(by).error.mean().reset_index(), on=by, how="left")


def at(table: pd.DataFrame) -> float:
    """The length that figures are of: the claims' where it was timed, else the longest."""
    return SECONDS if SECONDS in set(table.length) else table.length.max()


def pareto(cost: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Which points (points,) no other point beats in both, or beats in one and equals in the other."""
    cheaper = (cost[None] <= cost[:, None]) & (error[None] <= error[:, None])
    better = (cost[None] < cost[:, None]) | (error[None] < error[:, None])
    return ~(cheaper & better).any(1)


def draw_trade_off(folder: Path) -> Figure:
    """Error against measured time and against MACs over all choices, means over seeds; the Pareto front; fixed and tuned models beside."""
    table, every = read(folder), choices(folder)
    length = at(every)
    mean = (
        every[every.length == length]
        .groupby(["choice", "squeeze", "query", "key_value"])
        .mean(numeric_only=True)
        .dropna(subset="error")
        .reset_index()
    )
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), sharey=True, layout="constrained")
    if mean.empty:
        return nothing(figure, axes[0], UNSCORED)
    for axis, (column, scale, label) in zip(axes, (("seconds", 1e3, "time, ms"), ("gmacs", 1, "GMAC")), strict=True):
        axis.set(xlabel=f"{label}, for {length:g} s of audio", xscale="log")
        front = mean[pareto(mean[column].to_numpy(), mean.error.to_numpy())].sort_values(column)
        axis.step(scale * front[column], front.error, where="post", color="0.5", linewidth=1, label="Pareto front", zorder=1)
        _points(axis, mean, column, scale)
        _references(axis, table, mean, column, scale)
        plain_ticks(axis.xaxis, *axis.get_xlim())
        _names(axis, front.choice, scale * front[column], front.error)
    axes[0].set_ylabel(unit(table))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    plt.close(figure)
    return figure


def _points(axis: Axes, mean: pd.DataFrame, column: str, scale: float) -> None:
    pooled = mean["query"] * mean.key_value > 1
    for number, squeeze in enumerate(sorted(mean["squeeze"].unique())):
        for marker, some, what in (("o", ~pooled, "alone"), ("^", pooled, "with pooling")):
            rows = mean[(mean["squeeze"] == squeeze) & some]
            face = f"C{number}" if marker == "o" else "none"
            axis.scatter(scale * rows[column], rows.error, s=55, marker=marker, facecolors=face, edgecolors=f"C{number}",
                         label=f"squeeze {squeeze:g} {what}", zorder=3)  # fmt: skip


def _names(axis: Axes, names: pd.Series, x: pd.Series, y: pd.Series) -> None:
    """Names beside points, but for those that would lie on a name before."""
    taken: list[np.ndarray] = []
    for name, point in zip(names, np.column_stack([x, y]), strict=True):
        place = axis.transData.transform(point)
        if all(abs(place[0] - x) > 60 or abs(place[1] - y) > 14 for x, y in taken):
            taken.append(place)
            axis.annotate(name, point, xytext=(4, 5), textcoords="offset points", fontsize=7)


def _references(axis: Axes, table: pd.DataFrame, mean: pd.DataFrame, column: str, scale: float) -> None:
    """Models of one factor cost what the sampled one costs at it."""
    costs = mean[(mean["query"] == 1) & (mean.key_value == 1)].set_index("squeeze")[column]
    for kind, marker in (("fixed", "x"), ("tuned", "+")):
        errors = by_factor(table).query("kind == @kind").groupby("squeeze").error.mean()
        errors = errors[errors.index.isin(costs.index)]
        if len(errors):
            axis.scatter(scale * costs[errors.index], errors, marker=marker, color="k", s=45, label=KINDS[kind], zorder=4)


def by_factor(table: pd.DataFrame) -> pd.DataFrame:
    """One row a (kind, squeeze, seed), queries, keys and values unpooled: error in per cent. kind: stochastic, fixed, tuned, floor."""
    rows = table[table.plain == error_name(table)]
    own = rows[(rows.cell == STUDY) & (rows["query"] == 1) & (rows.key_value == 1)].assign(kind="stochastic")
    named = rows[rows.choice.isna()].copy()
    parts = named.cell.str.extract(r"^(fixed|tuned)-s(\d+)$")
    named = named.assign(kind=parts[0], squeeze=parts[1].astype(float))
    floor = rows[rows.cell.str.startswith("floor-") & rows.choice.isna()].assign(kind="floor")
    found = pd.concat([own, named.dropna(subset="kind"), floor])
    return found.assign(error=100 * found.value)[["kind", "squeeze", "seed", "error"]]


def draw_by_factor(folder: Path) -> Figure:
    """Error by squeeze factor: one model, a model for each factor, and the one model tuned to it; means, and each seed."""
    table = read(folder)
    rows = by_factor(table)
    figure, axis = plt.subplots(figsize=(6.4, 4), layout="constrained")
    if rows.empty:
        return nothing(figure, axis, UNSCORED)
    for number, (kind, label) in enumerate(KINDS.items()):
        mine = rows[rows.kind == kind]
        if len(mine):
            mean = mine.groupby("squeeze").error.mean()
            axis.plot(mean.index, mean, marker="o", color=f"C{number}", label=label)
            axis.scatter(mine["squeeze"], mine.error, s=14, color=f"C{number}", alpha=0.6)
    floor = rows[rows.kind == "floor"].error
    if len(floor):
        axis.axhline(floor.mean(), color="0.4", linestyle="--", linewidth=1, label="from random weights")
    axis.set(xlabel="squeeze factor", ylabel=unit(table), xticks=sorted(rows["squeeze"].dropna().unique()))
    axis.legend()
    plt.close(figure)
    return figure


def draw_times(folder: Path) -> Figure:
    """Real-time factor against the length of the audio, by squeeze factor, in every setting that was timed; dotted: pooled most."""
    table = read(folder)
    cells = sorted((cell for cell in table.cell.unique() if THREADS.fullmatch(cell)), key=lambda cell: (cell != TIMED, cell))
    figure, axes = plt.subplots(1, len(cells), figsize=(4.2 * len(cells) + 1, 3.6), sharey=True, squeeze=False, layout="constrained")
    for axis, cell in zip(axes[0], cells, strict=True):
        mean = choices(folder, cell).groupby(["squeeze", "query", "key_value", "length"]).seconds.mean().reset_index()
        batch = _batch(cell)
        most = (mean["query"].max(), mean.key_value.max())
        for number, squeeze in enumerate(sorted(mean["squeeze"].unique())):
            for (query, key_value), style in {(1.0, 1.0): "-", most: ":"}.items():
                line = mean[(mean["squeeze"] == squeeze) & (mean["query"] == query) & (mean.key_value == key_value)]
                label = f"squeeze {squeeze:g}" if style == "-" else None
                axis.plot(line.length, line.seconds / line.length / batch, style, marker="o", color=f"C{number}", label=label)
        axis.set(xlabel="audio, s", title=_described(cell), xscale="log", yscale="log")
        plain_ticks(axis.xaxis, *axis.get_xlim())
        axis.set_xticks(sorted(mean.length.unique()))
    plain_ticks(axes[0, 0].yaxis, *axes[0, 0].get_ylim())  # the panels share it
    axes[0, 0].set_ylabel("seconds of computing a second of audio")
    axes[0, 0].legend()
    plt.close(figure)
    return figure


def _batch(cell: str) -> int:
    match = THREADS.fullmatch(cell)
    return 1 if match is None else int(match["batch"] or match["gpu_batch"])


def _described(cell: str) -> str:
    match = THREADS.fullmatch(cell)
    threads = int(match["threads"] or 0) if match else 1
    said = {0: "", 1: "one thread, "}.get(threads, f"{threads} threads, ")
    return f"{said}batch {_batch(cell)}"


def compute_saved(profile: Profile) -> pd.DataFrame:
    """Training FLOPs of one stochastic pre-training, of one for each fixed factor, and of all those together, from settings alone."""
    cells = profile.studies[STUDY].cells
    trained = {name: cell for name, cell in cells.items() if cell.objective.name != "none" and (name == STUDY or name.startswith("fixed-"))}
    flops = {name: flops_for(cell, round(cell.training.budget.amount)) for name, cell in trained.items()}
    fixed = sum(value for name, value in flops.items() if name != STUDY)
    rows = flops | {"every fixed factor together": fixed}
    return pd.DataFrame(
        {"training FLOPs": rows, "against the stochastic one": {name: value / flops[STUDY] for name, value in rows.items()}}
    )


def recipes(folder: Path) -> pd.DataFrame:
    """SEW beside wav2vec 2.0: error, time and MACs at the claims' length, means over seeds; the speed-up in the last column."""
    table = read(folder)
    cells = [cell for cell in ("wav2vec2", "sew", "wav2vec2-tiny", "sew-tiny") if cell in set(table.cell)]
    rows = table[table.cell.isin(cells) & table.choice.isna()]
    names = {f"cost.inference_seconds_{SECONDS:g}": "seconds", f"cost.inference_macs_{SECONDS:g}": "macs", "cost.params": "params"}
    errors = sorted(name for name in rows.metric.unique() if ERROR.fullmatch(name))
    found = rows.pivot_table(index="cell", columns="metric", values="value").reindex(index=cells, columns=[*errors, *names])
    found = found.rename(columns=names)
    base = found.seconds.reindex([cell.replace("sew", "wav2vec2") for cell in cells]).to_numpy()
    return found.assign(speed_up=base / found.seconds)
