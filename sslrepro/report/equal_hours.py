"""Where several batches have seen the same hours: how far apart their quality is, and where the law of hours seen breaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sslrepro.claims.laws import _fieller, _fit, together
from sslrepro.report.batch_size import checkpoints, plain_ticks, published
from sslrepro.report.panels import done, nothing, panels

CRITERION = 0.05  # of claims batch-05 and 06: the relative spread at equal hours
LABELS = ("10 minutes of labels", "100 hours of labels")  # of the published table


def equal_hours(folder: Path, metric: str) -> pd.DataFrame:
    """Mean of the metric (an accuracy as its error) where several batches have seen the same hours (within 1 %), and the spread there."""
    return _equal_hours(as_errors(checkpoints(folder), {metric: ""}), metric)


def _equal_hours(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    means = _means(table, metric)
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


def fit_law(table: pd.DataFrame, metric: str) -> dict[str, float]:
    """The least-squares fit of log metric = c - a log(batch) - b log(updates) over the mean of each batch and checkpoint.

    table: as `spreads`; the metric is an error or a loss. Returns points, a, b, a / b with its 95 % interval (`low`, `high`: Fieller's, the
    residuals taken independent; NaN: no bound), R2 of this fit and of the one in hours alone
    (a = b). NaN where batches and updates are not told apart.
    """
    means = _means(table, metric)
    batch, updates, y = (np.log(means[name].to_numpy(float)) for name in ("batch_seconds", "updates", metric))
    free = np.stack([np.ones_like(batch), -batch, -updates], axis=1)
    tied = np.stack([np.ones_like(batch), -batch - updates], axis=1)
    names = ("a", "b", "a / b", "low", "high", "R2", "R2, hours alone")
    if len(y) < 6 or np.linalg.matrix_rank(free) < 3:
        return {"points": len(y)} | dict.fromkeys(names, np.nan)
    (fitted, left), (_, left_tied) = _fit(y[None], free), _fit(y[None], tied)
    a, b, total = fitted[:, 1], fitted[:, 2], ((y - y.mean()) ** 2).sum()
    low, high = _fieller(a, b, left, np.linalg.inv(free.T @ free)[1:, 1:], len(y) - 3)
    values = (a[0], b[0], a[0] / b[0], low[0], high[0], 1 - left[0] / total, 1 - left_tied[0] / total)
    return {"points": len(y)} | dict(zip(names, values, strict=True))


def laws(folder: Path, metrics: dict[str, str], least: tuple[int, ...] = (0, 100, 200)) -> pd.DataFrame:
    """`fit_law` of ours, for each metric (name in the tables -> label; an accuracy as its error) without the smallest or the largest batch
    and among the checkpoints of at least so many updates, and of the paper's word error rates from 150 s upward."""
    ours, rows = as_errors(checkpoints(folder), metrics), {}
    ends = ours.batch_seconds.agg(["min", "max"])
    for name, label in metrics.items():
        for end, which in zip(ends, ("smallest", "largest"), strict=True):
            rows[f"ours, {label}", f"without the {which} batch, {end:g} s"] = fit_law(ours[ours.batch_seconds != end], name)
        for updates in least:
            rows[f"ours, {label}", f"from {updates} updates" if updates else "all"] = fit_law(ours[ours.updates >= updates], name)
    paper = published("batch_size_wer_over_time").query("batch_seconds >= 150")
    for label in LABELS:
        rows[f"published, WER, {label}", "all"] = fit_law(paper[paper.label == label], "wer_clean")
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(index=["quality", "checkpoints"])


def published_equal_hours(label: str) -> pd.DataFrame:
    """`equal_hours` of the paper's word error rates (per cent, test-clean, read greedily), from 150 s upward."""
    paper = published("batch_size_wer_over_time").query("batch_seconds >= 150")
    return _equal_hours(paper[paper.label == label], "wer_clean")


def as_errors(table: pd.DataFrame, metrics: dict[str, str]) -> pd.DataFrame:
    """The table with 1 - the metric in place of each accuracy."""
    return table.assign(**{name: 1 - table[name] for name in metrics if "accuracy" in name})


def draw_spreads(folder: Path, metrics: dict[str, str]) -> Figure:
    """Spread at equal hours against the fewest updates that are let in, ours and the paper's (from 150 s upward).

    metrics: name in the tables -> label; an accuracy is drawn as its error.
    """
    figure, axes = panels(2, width=5.2)
    ours = as_errors(checkpoints(folder), metrics)
    columns = {label: (ours, name) for name, label in metrics.items()}
    paper = published("batch_size_wer_over_time").query("batch_seconds >= 150")
    theirs = {f"WER, {label}": (paper[paper.label == label], "wer_clean") for label in LABELS}
    for axis, title, curves in zip(axes, ["ours", "published"], [columns, theirs], strict=True):
        found_of = {label: spreads(table, metric) for label, (table, metric) in curves.items()}
        if all(found.empty for found in found_of.values()):
            nothing(figure, axis, f"{title}: no two batches at equal hours")
            continue
        for colour, (label, found) in zip(sns.color_palette(), found_of.items(), strict=False):
            axis.plot(found.updates, 100 * found["largest"], marker="o", color=colour, label=f"{label}: largest")
            axis.plot(found.updates, 100 * found["median"], marker=".", color=colour, ls="--", label=f"{label}: median")
        axis.axhline(100 * CRITERION, color="0.5", ls=":")
        axis.set(
            xscale="log", xlabel="checkpoints of at least so many updates", ylabel="spread at equal hours, %", title=title, ylim=(0, None)
        )
        plain_ticks(axis.xaxis, *axis.get_xlim())
        axis.legend(fontsize="x-small", handlelength=3.5)
    return done(figure)


def _means(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row a (batch, updates), with `group`: the same where the verdict takes hours for equal."""
    table = table[(table.updates > 0) & table[metric].notna()]
    means = table.groupby(["batch_seconds", "updates"])[[metric, "hours_seen"]].mean().reset_index().sort_values("hours_seen")
    groups = together(means.hours_seen.to_numpy())
    return means.assign(group=np.repeat(np.arange(len(groups)), [len(group) for group in groups]))
