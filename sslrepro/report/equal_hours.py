"""Where several batches have seen the same hours: how far apart their quality is, and where the law of hours seen breaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sslrepro.report.batch_size import checkpoints, plain_ticks, published
from sslrepro.report.panels import panels

CRITERION = 0.05  # of claims batch-05 and 06: the relative spread at equal hours
LABELS = ("10 minutes of labels", "100 hours of labels")  # of the published table


def equal_hours(folder: Path, metric: str) -> pd.DataFrame:
    """Mean of the metric where several batches have seen the same hours (within 1 %), and the relative spread there."""
    means = _means(checkpoints(folder), metric)
    hours = means.groupby("group").hours_seen.mean()
    table = means.pivot_table(index="group", columns="batch_seconds", values=metric)
    table = table[table.notna().sum(axis=1) > 1]
    spread = (table.max(axis=1) - table.min(axis=1)) / table.mean(axis=1)
    table = table.rename(columns=lambda batch: f"{batch:g}").assign(**{"relative spread": spread})
    table.index = [f"{hours[group]:.3g}" for group in table.index]
    return table.rename_axis(columns="batch, seconds", index="hours seen")


def spreads(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Relative spread at equal hours, among the checkpoints of at least so many updates: one row a number of updates.

    table: batch_seconds, updates, hours_seen, the metric (several rows of one batch and number of updates are averaged).
    Returns updates, median, largest (over the groups of equal hours), groups; a number of updates that leaves none is left out.
    """
    means, rows = _means(table, metric), []
    for least in sorted(means.updates.unique()):
        kept = means[means.updates >= least].groupby("group")[metric]
        spread = ((kept.max() - kept.min()) / kept.mean())[kept.size() > 1]
        if len(spread):
            rows.append({"updates": least, "median": spread.median(), "largest": spread.max(), "groups": len(spread)})
    return pd.DataFrame(rows, columns=["updates", "median", "largest", "groups"])


def draw_spreads(folder: Path, metrics: dict[str, str]) -> Figure:
    """Spread at equal hours against the fewest updates that are let in, ours and the paper's (from 150 s upward).

    metrics: name in the tables -> label; an accuracy is drawn as its error.
    """
    figure, axes = panels(2, width=5.2)
    ours = checkpoints(folder)
    columns = {
        label: (ours.assign(**{name: 1 - ours[name] if "accuracy" in name else ours[name]}), name) for name, label in metrics.items()
    }
    paper = published("batch_size_wer_over_time").query("batch_seconds >= 150")
    theirs = {f"WER, {label}": (paper[paper.label == label], "wer_clean") for label in LABELS}
    for axis, title, curves in zip(axes, ["ours", "published"], [columns, theirs], strict=True):
        for colour, (label, (table, metric)) in zip(sns.color_palette(), curves.items(), strict=False):
            found = spreads(table, metric)
            axis.plot(found.updates, 100 * found["largest"], marker="o", color=colour, label=f"{label}: largest")
            axis.plot(found.updates, 100 * found["median"], marker=".", color=colour, ls="--", label=f"{label}: median")
        axis.axhline(100 * CRITERION, color="0.5", ls=":")
        axis.set(
            xscale="log", xlabel="checkpoints of at least so many updates", ylabel="spread at equal hours, %", title=title, ylim=(0, None)
        )
        plain_ticks(axis.xaxis, *axis.get_xlim())
        axis.legend(fontsize="x-small", handlelength=3.5)
    return figure


def _means(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row a (batch, updates), with `group`: the same where hours are the same within 1 %."""
    table = table[(table.updates > 0) & table[metric].notna()]
    means = table.groupby(["batch_seconds", "updates"])[[metric, "hours_seen"]].mean().reset_index().sort_values("hours_seen")
    return means.assign(group=np.cumsum(means.hours_seen.pct_change().fillna(1.0).to_numpy() > 0.01))
