"""Figures of the on-demand study, from tables alone: error against time and against MACs, what one pre-training saves, the dial.

A point is a choice of factors (`config.Factors`); its metrics end in it, as `fine_tune_10min.per:s2-q1-k4`.
"""

from __future__ import annotations

import json
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
WORDS = "stochastic-words"  # the same model, fine-tuned to characters
TIMED = "time-b1"  # the same model: one utterance at a time, taken alone
CHOICE = r":s(?P<squeeze>\d+)-q(?P<query>\d+)-k(?P<key_value>\d+)$"
ERROR = re.compile(r"fine_tune_[\d.]+min\.(wer_clean|wer|per)")
MEASURED = r"^cost\.inference_(?P<what>seconds|macs)_(?P<length>[\d.]+)(?::|$)"
UNSCORED = "no labels in this corpus for the symbols\nthat the profile fine-tunes on"
READS = 0.9  # an error rate above which CTC reads next to nothing (claims/stochastic.yaml: `useful`)
SECONDS = 10.0  # of audio: the length that the claims' times are of
KINDS = {"stochastic": "one model, sampled", "fixed": "a model for each factor", "tuned": "one model, tuned to the factor"}
THREADS = re.compile(r"time-t(?P<threads>\d+)-b(?P<batch>\d+)|time-b(?P<gpu_batch>\d+)")


def read(folder: Path) -> pd.DataFrame:
    """metrics.csv with the columns squeeze, query, key_value (none where a metric is of no choice) and choice."""
    table = pd.read_csv(folder / "metrics.csv")
    factors = table.metric.str.extract(CHOICE)
    table["choice"] = ("s" + factors["squeeze"] + "-q" + factors["query"] + "-k" + factors.key_value).where(factors["squeeze"].notna())
    return table.assign(plain=table.metric.str.replace(CHOICE, "", regex=True), **{k: factors[k].astype(float) for k in factors})


def error_name(table: pd.DataFrame, cell: str = STUDY) -> str:
    """The error of a cell that the trade-off is drawn in: words before phones, the clean part of the test split where it has parts. Empty
    where the corpus has no labels of the symbols that it was fine-tuned on."""
    found = {name for name in table.plain[table.cell == cell] if ERROR.fullmatch(name)}
    return min(found, key=lambda name: (name.endswith(".per"), not name.endswith("_clean"), name), default="")


def unit(table: pd.DataFrame, cell: str = STUDY) -> str:
    """What the error is, for an axis."""
    return f"{'phone' if error_name(table, cell).endswith('.per') else 'word'} error rate, %"


def lengths(table: pd.DataFrame) -> list[float]:
    """Seconds of audio at which the stochastic model was timed, one utterance at a time."""
    return sorted(table[table.cell == TIMED].metric.str.extract(MEASURED).length.dropna().astype(float).unique())


def choices(folder: Path, cell: str = TIMED, scored: str = STUDY) -> pd.DataFrame:
    """One row a (seed, choice, length): squeeze, query, key_value, length (seconds of audio), seconds and gmacs of the cell, and the
    scored cell's error in per cent, of the same seed where every seed was timed (none where it has none)."""
    table = read(folder)
    named = table[(table.cell == cell) & table.choice.notna()]
    keys = ["seed", "choice", "squeeze", "query", "key_value"]
    measured = named.join(named.metric.str.extract(MEASURED)).dropna(subset="length")
    wide = measured.pivot_table(index=[*keys, "length"], columns="what", values="value").reset_index()
    wide = wide.assign(length=wide.length.astype(float), gmacs=wide.macs / 1e9).drop(columns="macs")
    own = table[(table.cell == scored) & (table.plain == error_name(table, scored))].assign(error=lambda rows: 100 * rows.value)
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


def draw_trade_off(folder: Path, scored: str = STUDY) -> Figure:
    """Error of a cell against measured time and against MACs over all choices, means over seeds; the Pareto front, with the standard errors
    of its points over seeds; fixed and tuned models of the same symbols beside."""
    table, every = read(folder), choices(folder, scored=scored)
    length = at(every)
    points = every[every.length == length].groupby(["choice", "squeeze", "query", "key_value"])
    mean = points.mean(numeric_only=True).assign(spread=_spread(table, scored)).dropna(subset="error").reset_index()
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), sharey=True, layout="constrained")
    if mean.empty:
        return nothing(figure, axes[0], UNSCORED)
    for axis, (column, scale, label) in zip(axes, (("seconds", 1e3, "time, ms"), ("gmacs", 1, "GMAC")), strict=True):
        axis.set(xlabel=f"{label}, for {length:g} s of audio", xscale="log")
        front = mean[pareto(mean[column].to_numpy(), mean.error.to_numpy())].sort_values(column)
        axis.step(scale * front[column], front.error, where="post", color="0.5", linewidth=1, label="Pareto front", zorder=1)
        axis.errorbar(scale * front[column], front.error, yerr=front.spread, fmt="none", ecolor="0.3", elinewidth=0.8, capsize=2, zorder=2)
        _points(axis, mean, column, scale)
        _references(axis, by_factor(table, scored), mean, column, scale)
        plain_ticks(axis.xaxis, *axis.get_xlim())
        _names(axis, front.choice, scale * front[column], front.error)
    axes[0].set_ylabel(unit(table, scored))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    plt.close(figure)
    return figure


def _spread(table: pd.DataFrame, cell: str) -> pd.Series:
    """The standard error, over seeds, of a cell's mean error at every choice, in per cent."""
    errors = table[(table.cell == cell) & (table.plain == error_name(table, cell))].dropna(subset="choice")
    return 100 * errors.groupby(["choice", "squeeze", "query", "key_value"]).value.sem()


def _points(axis: Axes, mean: pd.DataFrame, column: str, scale: float) -> None:
    pooled = mean["query"] * mean.key_value > 1
    for number, squeeze in enumerate(sorted(mean["squeeze"].unique())):
        for marker, some, what in (("o", ~pooled, "alone"), ("^", pooled, "with pooling")):
            rows = mean[(mean["squeeze"] == squeeze) & some]
            face = f"C{number}" if marker == "o" else "none"
            axis.scatter(scale * rows[column], rows.error, s=55, marker=marker, facecolors=face, edgecolors=f"C{number}",
                         label=f"squeeze {squeeze:g} {what}", zorder=3)  # fmt: skip


def _names(axis: Axes, names: pd.Series, x: pd.Series, y: pd.Series) -> None:
    """A name for every point, each with a line to it, at the nearest place around it where the name hides no marker and no other name."""
    marks = [m for drawn in axis.collections for m in axis.transData.transform(np.reshape(drawn.get_offsets(), (-1, 2)))]
    scale = axis.figure.dpi / 72
    width, height = 34 * scale, 8 * scale
    around = [
        (far * np.cos(turn), far * np.sin(turn)) for far in range(16, 120, 6) for turn in np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ]
    for name, point in zip(names, np.column_stack([x, y]), strict=True):
        centre = axis.transData.transform(point)
        for offset in around:
            left, low = centre + scale * np.array(offset) - (width / 2, height / 2)
            right, high = left + width, low + height
            inside = axis.bbox.x0 < left and right < axis.bbox.x1 and axis.bbox.y0 < low and high < axis.bbox.y1
            if inside and not any(left - 6 < a < right + 6 and low - 6 < b < high + 6 for a, b in marks):
                marks += [np.array([left + share * width, (low + high) / 2]) for share in np.linspace(0, 1, 5)]
                axis.annotate(name, point, xytext=offset, textcoords="offset points", fontsize=7, ha="center", va="center",
                              arrowprops={"arrowstyle": "-", "color": "0.5", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3})  # fmt: skip
                break


def _references(axis: Axes, factors: pd.DataFrame, mean: pd.DataFrame, column: str, scale: float) -> None:
    """Models of one factor cost what the sampled one costs at it."""
    costs = mean[(mean["query"] == 1) & (mean.key_value == 1)].set_index("squeeze")[column]
    for kind, marker in (("fixed", "x"), ("tuned", "+")):
        errors = factors[factors.kind == kind].groupby("squeeze").error.mean()
        errors = errors[errors.index.isin(costs.index)]
        if len(errors):
            axis.scatter(scale * costs[errors.index], errors, marker=marker, color="k", s=45, label=KINDS[kind], zorder=4)


def by_factor(table: pd.DataFrame, scored: str = STUDY) -> pd.DataFrame:
    """One row a (kind, squeeze, seed), queries, keys and values unpooled: error in per cent of the scored cell's symbols. kind: stochastic,
    fixed, tuned, floor; a floor whose name has no factor is unsqueezed."""
    rows = table[table.plain == error_name(table, scored)]
    own = rows[(rows.cell == scored) & (rows["query"] == 1) & (rows.key_value == 1)].assign(kind="stochastic")
    named = rows[rows.choice.isna()].copy()
    parts = named.cell.str.extract(r"^(fixed|tuned|floor)(?:-random|-words)?(?:-s(\d+))?(?:-words)?$")
    named = named.assign(kind=parts[0], squeeze=parts[1].astype(float).fillna(1.0))
    found = pd.concat([own, named.dropna(subset="kind")])
    return found.assign(error=100 * found.value)[["kind", "squeeze", "seed", "error"]]


def draw_by_factor(folder: Path, scored: str = STUDY) -> Figure:
    """Error by squeeze factor: one model, a model for each factor, the one model tuned to it, random weights; means, and each seed."""
    table = read(folder)
    rows = by_factor(table, scored)
    figure, axis = plt.subplots(figsize=(6.4, 4), layout="constrained")
    if rows.empty:
        return nothing(figure, axis, UNSCORED)
    for number, (kind, label) in enumerate({**KINDS, "floor": "random weights, fine-tuned at the factor"}.items()):
        mine = rows[rows.kind == kind]
        if len(mine):
            mean, (color, line) = mine.groupby("squeeze").error.mean(), ("0.4", "--") if kind == "floor" else (f"C{number}", "-")
            axis.plot(mean.index, mean, line, marker="o", color=color, label=label)
            axis.scatter(mine["squeeze"], mine.error, s=14, color=color, alpha=0.6)
    axis.set(xlabel="squeeze factor", ylabel=unit(table, scored), xticks=sorted(rows["squeeze"].unique()))
    figure.legend(loc="outside lower center", ncols=2)
    plt.close(figure)
    return figure


def draw_times(folder: Path) -> Figure:
    """Real-time factor against the length of the audio, by squeeze factor, in every setting that was timed; dotted: pooled most. Last
    panel: MACs a second of audio, which no thread or batch changes."""
    table = read(folder)
    cells = sorted((cell for cell in table.cell.unique() if THREADS.fullmatch(cell)), key=lambda cell: (cell != TIMED, cell))
    figure, axes = plt.subplots(1, len(cells) + 1, figsize=(3.6 * (len(cells) + 1) + 1, 3.6), squeeze=False, layout="constrained")
    for axis, cell in zip(axes[0], cells, strict=False):
        _by_length(axis, choices(folder, cell), "seconds", _batch(cell))
        axis.set_title(_described(cell, on_gpu(folder)))
    limits = [axis.get_ylim() for axis in axes[0, :-1]]
    for axis in axes[0, :-1]:
        axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        plain_ticks(axis.yaxis, *axis.get_ylim())
    _by_length(axes[0, -1], choices(folder), "gmacs", 1e-3)
    axes[0, -1].set(title="multiply-accumulates", ylabel="MMAC a second of audio")
    plain_ticks(axes[0, -1].yaxis, *axes[0, -1].get_ylim())
    axes[0, 0].set_ylabel("computing, s a second of audio")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    plt.close(figure)
    return figure


def _by_length(axis: Axes, timed: pd.DataFrame, column: str, unit: float) -> None:
    """Seconds or MACs a second of audio, in `unit`, against the length of the audio: a line a squeeze factor, dotted where pooled most."""
    mean = timed.groupby(["squeeze", "query", "key_value", "length"])[column].mean().reset_index()
    most = (mean["query"].max(), mean.key_value.max())
    for number, squeeze in enumerate(sorted(mean["squeeze"].unique())):
        for (query, key_value), style in {(1.0, 1.0): "-", most: ":"}.items():
            line = mean[(mean["squeeze"] == squeeze) & (mean["query"] == query) & (mean.key_value == key_value)]
            label = f"squeeze {squeeze:g}" if style == "-" else None
            axis.plot(line.length, line[column] / line.length / unit, style, marker="o", color=f"C{number}", label=label)
    axis.plot([], [], ":", color="0.4", label=f"with query pooling {most[0]:g}, key/value pooling {most[1]:g}")
    axis.set(xlabel="audio, s", xscale="log", yscale="log")
    plain_ticks(axis.xaxis, *axis.get_xlim())
    axis.set_xticks(sorted(mean.length.unique()))


def on_gpu(folder: Path) -> bool:
    """Whether the times were taken on a GPU."""
    runs = json.loads((folder / "runs.json").read_text(encoding="utf-8"))
    return any(run["machine"]["gpu"] != "none" for run in runs.get(TIMED, {}).values())


def _batch(cell: str) -> int:
    match = THREADS.fullmatch(cell)
    return 1 if match is None else int(match["batch"] or match["gpu_batch"])


def _described(cell: str, gpu: bool) -> str:
    """What of a timing its cell's name says; on a processor one thread, where it names none."""
    match = THREADS.fullmatch(cell)
    threads = int(match["threads"] or 1) if match else 1
    where = "GPU" if gpu else "one thread" if threads == 1 else f"{threads} threads"
    return f"{where}, batch {_batch(cell)}"


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


def worse_than_random(folder: Path) -> str:
    """At which factors the sampled model's mean error is above that of random weights fine-tuned at them; empty where none."""
    mean = by_factor(read(folder)).groupby(["squeeze", "kind"]).error.mean().unstack().reindex(columns=["stochastic", "floor"]).dropna()
    above = [
        f"{factor:g} ({row.stochastic:.1f} % against {row.floor:.1f} %)" for factor, row in mean.iterrows() if row.stochastic > row.floor
    ]
    return f"The sampled model is worse than random weights fine-tuned at squeeze {', '.join(above)}." if above else ""


def dial_cell(profile: Profile) -> str:
    """The cell that the dial turns: the words model where it is kept, else the phones model."""
    words = profile.studies[STUDY].cells.get(WORDS)
    return WORDS if words is not None and words.downstream.fine_tune.keep else STUDY


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


def unread(folder: Path) -> str:
    """Which of the two recipes' models have not learned to read, in a sentence: their errors then compare nothing. Empty where all have."""
    table = recipes(folder)
    errors = [name for name in table.columns if ERROR.fullmatch(name)]
    blank = [f"{cell} ({value:.0%})" for cell, value in table[errors].min(axis=1).items() if value >= READS] if errors else []
    return (
        f"CTC has not left the plateau where it reads nothing but blanks: {', '.join(blank)}; these errors compare nothing."
        if blank
        else ""
    )
