"""Figures of the efficiency survey, from tables alone: students, parameter-efficient fine-tuning, and the map of methods."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from sslrepro.report.efficiency_map import COSTS, QUALITY, error, means

STUDENTS = ("hubert", "distilhubert", "fithubert", "distilhubert-squeeze2", "lighthubert", "lighthubert-small", "melhubert-20ms")
TUNED = r"^fine_tune_(?P<minutes>[\d.]+)min\.(?P<unit>wer|per)$"
MEASURED = {
    "cost.params": "parameters with heads",
    "cost.inference_seconds": "inference, s",
    "cost.encoder_seconds": "encoder alone, s",
    "cost.macs": "MACs",
    "phone.accuracy": "phone accuracy",
    "phone_ctc.per": "phone error rate",
}


def wide(folder: Path) -> pd.DataFrame:
    """One row a (cell, seed), a column for each metric."""
    table = pd.read_csv(folder / "metrics.csv")
    return table.pivot_table(index=["cell", "seed"], columns="metric", values="value").reset_index()


def students(folder: Path) -> pd.DataFrame:
    """Teacher and students: what was counted, measured and scored, means over seeds."""
    table = wide(folder)
    table = table[table.cell.isin(STUDENTS) | table.cell.str.startswith("floor")]
    columns = [name for name in MEASURED if name in table]
    return table.groupby("cell")[columns].mean().rename(columns=MEASURED)


def tunings(folder: Path) -> pd.DataFrame:
    """One row a (method, seed): trainable (share of full fine-tuning's), bytes, seconds, error (per cent) and its unit."""
    table = wide(folder)
    table = table[table.cell.str.startswith("tune-")].assign(method=lambda t: t.cell.str.removeprefix("tune-"))
    if table.empty:
        return table
    names = pd.Series(table.columns).str.extract(TUNED).set_index(table.columns).dropna()
    errors = table[names.index].bfill(axis=1).iloc[:, 0]
    full = table[table.method == "full"].set_index("seed")["cost.trainable_params"]
    return table.assign(
        trainable=100 * table["cost.trainable_params"] / table.seed.map(full),
        megabytes=table["cost.tuning_bytes"] / 1e6,
        seconds=table["cost.tuning_seconds"],
        error=100 * errors,
        unit=names["unit"].iloc[0].upper(),
    )[["method", "seed", "trainable", "megabytes", "seconds", "error", "unit"]]


def draw_students(folder: Path) -> Figure:
    """Score of teacher and students against measured inference time; dotted: the floors of the same probe."""
    table = wide(folder)
    shown = [m for m in QUALITY if m in table]
    figure, axes = _panels(max(len(shown), 1), 4.6)
    for axis, metric in zip(axes, shown, strict=False):
        for cell, rows in table.dropna(subset=metric).groupby("cell"):
            value = 100 * error(metric, rows[metric])
            if cell.startswith("floor"):
                axis.axhline(value.mean(), color="0.5", linestyle=":", linewidth=1)
                axis.text(
                    0.99, value.mean(), cell, transform=axis.get_yaxis_transform(), fontsize="small", color="0.4", ha="right", va="bottom"
                )
            elif cell in STUDENTS and "cost.inference_seconds" in rows and rows["cost.inference_seconds"].notna().any():
                axis.errorbar(1e3 * rows["cost.inference_seconds"].mean(), value.mean(), value.std(ddof=0), fmt="o", capsize=3)
                axis.annotate(
                    cell, (1e3 * rows["cost.inference_seconds"].mean(), value.mean()), (5, 4), textcoords="offset points", fontsize="small"
                )
        axis.set(xlabel="inference of one utterance, ms", ylabel=f"{QUALITY[metric]}, %")
        if "cost.inference_seconds" in table:
            axis.set_xlim(left=0)
        else:
            axis.text(0.5, 0.5, "this profile times nothing", transform=axis.transAxes, ha="center")
        axis.margins(x=0.25, y=0.15)
    return _done(figure)


def draw_tunings(folder: Path) -> Figure:
    """Error after fine-tuning against the share of weights that learn, the memory of a step, and the time of the run."""
    table = tunings(folder)
    if table.empty:
        figure, axes = _panels(1, 4.2)
        axes[0].text(0.5, 0.5, "this profile fine-tunes nothing", transform=axes[0].transAxes, ha="center")
        axes[0].set_axis_off()
        return _done(figure)
    figure, axes = _panels(3, 4.2)
    columns = {
        "trainable": "weights that learn, % of full",
        "megabytes": "activations, gradients, optimizer, MB",
        "seconds": "time of the run, s",
    }
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        for method, rows in table.groupby("method"):
            x, y = rows[column].mean(), rows["error"].mean()
            axis.errorbar(x, y, rows["error"].std(ddof=0), fmt="o", capsize=3)
            axis.annotate(method, (x, y), (5, 4), textcoords="offset points", fontsize="small")
        axis.set(xlabel=label, ylabel=f"{table.unit.iloc[0]}, %")
        axis.set_xscale("log" if column == "trainable" else "linear")
        axis.margins(x=0.2, y=0.15)
    return _done(figure)


def draw_data(folder: Path) -> Figure:
    """Error after fine-tuning against the labels, a line for each amount of unlabelled speech (cells hours-<h>)."""
    table = pd.read_csv(folder / "metrics.csv")
    table = (
        table.join(table.metric.str.extract(TUNED))
        .join(table.cell.str.extract(r"^hours-(?P<hours>[\d.]+)$"))
        .dropna(subset=["minutes", "hours"])
    )
    figure, axes = _panels(1, 5.0)
    if table.empty:
        axes[0].text(0.5, 0.5, "this profile varies no data", transform=axes[0].transAxes, ha="center")
        axes[0].set_axis_off()
        return _done(figure)
    table = table.assign(minutes=table.minutes.astype(float), hours=table.hours.astype(float), error=100 * table.value)
    for hours, rows in table.groupby("hours"):
        mean = rows.groupby("minutes").error.agg(["mean", "std"]).fillna(0.0)
        axes[0].errorbar(mean.index, mean["mean"], mean["std"], marker="o", capsize=3, label=f"{hours:g} h")
    axes[0].set(xscale="log", xlabel="minutes of labels", ylabel=f"{table.unit.iloc[0].upper()}, %")
    axes[0].legend(title="unlabelled", fontsize="small")
    return _done(figure)


def draw_map(table: pd.DataFrame, metric: str = "phone.accuracy", names: int = 6) -> Figure:
    """Every method on four costs; the line joins the Pareto front, whose first `names` points are named. table: efficiency_map's."""
    mean = means(table)
    studies = sorted(mean.study.unique())
    colours = dict(zip(studies, sns.color_palette("colorblind", len(studies)), strict=True))
    figure, axes = _panels(len(COSTS), 3.9)
    for axis, (cost, label) in zip(axes, COSTS.items(), strict=True):
        known = mean[mean[cost].notna() & (mean[cost] > 0)]
        for study, rows in known.groupby("study"):
            axis.scatter(rows[cost], 100 * rows["error"], color=colours[study], s=22, label=study)
        front = known[known[f"front_{cost}"]].sort_values(cost)
        axis.plot(front[cost], 100 * front["error"], color="0.3", linewidth=1, drawstyle="steps-post")
        for place, row in enumerate(front.head(names).itertuples()):
            axis.annotate(
                row.cell,
                (getattr(row, cost), 100 * row.error),
                (4, 4 if place % 2 else -11),
                textcoords="offset points",
                fontsize="x-small",
            )
        if known.empty:
            axis.text(0.5, 0.5, "no cell of this profile has it", transform=axis.transAxes, ha="center")
        else:
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
            axis.xaxis.set_minor_locator(NullLocator())
        axis.set(xlabel=label, ylabel=f"{QUALITY[metric]}, %" if axis is axes[0] else "")
        axis.ticklabel_format(axis="y", useOffset=False)
        axis.margins(x=0.2, y=0.12)
    _legend(axes)
    return _done(figure)


def _legend(axes: list[Axes]) -> None:
    found = {}
    for axis in axes:
        found |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    if found:
        axes[0].legend(found.values(), found.keys(), fontsize="x-small")


def _panels(count: int, width: float) -> tuple[Figure, list[Axes]]:
    figure, axes = plt.subplots(1, count, figsize=(width * count, 3.4), squeeze=False, layout="constrained")
    return figure, list(axes[0])


def _done(figure: Figure) -> Figure:
    plt.close(figure)
    return figure
