"""Figures of fine-tuning: what a method of few weights costs, and how well it reads."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from sslrepro.report.batch_size import plain_ticks
from sslrepro.report.panels import beside, done, half_interval, marks, nothing, panels, wide

TUNED = r"^fine_tune_(?P<minutes>[\d.]+)min\.(?P<unit>wer|per|error)$"
UNITS = {"wer": "word error rate", "per": "phone error rate", "error": "wrong keywords"}


def tunings(folder: Path, task: str = "tune") -> pd.DataFrame:
    """One row a (method, seed): trainable (share of full fine-tuning's), bytes, seconds, error (per cent) and its unit.

    task: `tune` for the recognition of phones or words, `keyword` for the classification.
    """
    table = wide(folder)
    table = (
        table[table.cell.str.startswith(f"{task}-")].assign(method=lambda t: t.cell.str.removeprefix(f"{task}-")).dropna(axis=1, how="all")
    )
    if table.empty:
        return table
    names = pd.Series(table.columns).str.extract(TUNED).set_index(table.columns).dropna()
    if names.empty:
        return table[:0]
    errors = table[names.index].bfill(axis=1).iloc[:, 0]
    full = table[table.method == "full"].set_index("seed")["cost.trainable_params"]
    return table.assign(
        trainable=100 * table["cost.trainable_params"] / table.seed.map(full),
        megabytes=table["cost.tuning_bytes"] / 1e6,
        seconds=table["cost.tuning_seconds"],
        error=100 * errors,
        unit=UNITS[names["unit"].iloc[0]],
    )[["method", "seed", "trainable", "megabytes", "seconds", "error", "unit"]]


def draw_tunings(folder: Path, task: str = "tune") -> Figure:
    """Error after fine-tuning against the share of weights that learn, the memory of a step, and the time of the run; bars are
    95 % over seeds by Student's t. Dotted: the frozen encoder, which every method should beat."""
    table = tunings(folder, task)
    if table.empty:
        figure, axes = panels(1, 4.2)
        return nothing(
            figure,
            axes[0],
            "this profile, or this corpus, fine-tunes nothing" if task == "tune" else f"this profile tunes nothing on {task}s",
        )
    figure, axes = panels(3, 4.2)
    columns = {
        "trainable": "weights that learn, % of full",
        "megabytes": "activations, gradients, optimizer, MB",
        "seconds": "time of the run, s",
    }
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        style = marks(sorted(table.method.unique()))
        for method, rows in table.groupby("method"):
            x, y = rows[column].mean(), rows["error"].mean()
            axis.errorbar(x, y, half_interval(rows["error"]), linestyle="", label=method, **style[method])
        for frozen in table[table.method == "frozen"].groupby("method")["error"].mean():
            axis.axhline(frozen, color="0.5", linestyle=":", linewidth=1)
        axis.set(xlabel=label, ylabel=f"{table.unit.iloc[0]}, %")
        axis.margins(x=0.2, y=0.15)
        if column == "trainable":
            axis.set_xscale("log")
            plain_ticks(axis.xaxis, *axis.get_xlim())
    beside(axes[-1])
    return done(figure)
