"""What to train for a budget: the best size of every U-curve, ours and the published ones, and the parametric loss fitted to our runs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from sslrepro.budget.figures import OBJECTIVES
from sslrepro.budget.fits import Vertex, parametric_loss, u_curve
from sslrepro.budget.published import size_sweep
from sslrepro.config import Profile
from sslrepro.report.batch_size import plain_ticks
from sslrepro.report.budget import EDGE, METRICS, SWEEP, results, with_flops
from sslrepro.report.panels import done

MARKERS = dict(zip(OBJECTIVES, "osD", strict=True))


def vertices(folder: Path, profile: Profile) -> pd.DataFrame:
    """The bottom of every U with at least four sizes (of ours: those that all budgets of the objective ran): whose, objective, budget,
    metric, flops, size in parameters, low, high, inside."""
    rows = []
    ours = with_flops(results(folder, SWEEP).query('family == "paper\'s share"'), profile)
    ours = ours.dropna(subset="flops")
    budgets = ours.groupby("objective").budget.nunique()
    ran = ours.groupby(["objective", "size_pct"]).budget.transform("nunique")
    for (objective, budget), part in ours[ran == ours.objective.map(budgets)].groupby(["objective", "budget"]):
        for metric in METRICS:
            mine = part.dropna(subset=metric) if metric in part else part[:0]
            if mine.size_pct.nunique() >= 4:
                vertex = u_curve(mine.size_pct, mine[metric], seed=f"{objective} {budget} {metric}")
                rows.append(_vertex_row("ours", objective, budget, metric, part.flops.median(), _in_parameters(vertex, mine)))
    for (objective, budget), part in size_sweep().groupby(["objective", "budget"]):
        for metric, (column, _) in METRICS.items():
            vertex = u_curve(part.params, part[column], seed=f"{objective} {budget} {column}")
            rows.append(_vertex_row("published", objective, budget, metric, part.flops.median(), vertex))
    return pd.DataFrame(rows)


def _in_parameters(vertex: Vertex, runs: pd.DataFrame) -> Vertex:
    """A vertex in per cent of Slim, as parameters of the same family, between its sizes log-log and beyond them by the nearest two.

    A scaled family's front end holds most of its small members' parameters, so that a U that is even in per cent is not in parameters.
    """
    sizes = runs.groupby("size_pct")["cost.params"].mean().sort_index()
    x, y = np.log(sizes.index.to_numpy(float)), np.log(sizes.to_numpy())

    def parameters(per_cent: float) -> float:
        if per_cent in (0.0, math.inf):  # an open end of an interval
            return per_cent
        at = min(max(int(np.searchsorted(x, math.log(per_cent))), 1), len(x) - 1)
        slope = (y[at] - y[at - 1]) / (x[at] - x[at - 1])
        return math.exp(y[at] + slope * (math.log(per_cent) - x[at]))

    return replace(vertex, size=parameters(vertex.size), low=parameters(vertex.low), high=parameters(vertex.high))


def _vertex_row(whose: str, objective: str, budget: str, metric: str, flops: float, vertex: Vertex) -> dict:
    named = {"whose": whose, "objective": objective, "budget": budget, "metric": metric, "flops": flops}
    return named | {"size": vertex.size, "low": vertex.low, "high": vertex.high, "inside": vertex.inside}


def fitted_losses(folder: Path) -> pd.DataFrame:
    """The parametric loss E + A / parameters^alpha + B / hours^beta of each objective with at least seven runs over both budgets, with 95 %
    intervals, and the best of the sizes that ran for the full budget."""
    rows = {}
    ours = results(folder, SWEEP).query('family == "paper\'s share"')
    ours = ours.dropna(subset=["loss", "cost.hours_seen"]) if {"loss", "cost.hours_seen"} <= set(ours.columns) else ours[:0]
    for objective, part in ours.groupby("objective"):
        if len(part) < 7 or part.budget.nunique() < 2:
            continue
        fit = parametric_loss(part["cost.params"], part["cost.hours_seen"], part.loss)
        full = part[part.budget == "full"].groupby("size_pct")[["cost.params", "cost.hours_seen"]].mean()
        best, low, high = fit.best_size(full["cost.params"].to_numpy(), full["cost.hours_seen"].to_numpy())
        values = {name: (getattr(fit, name), *fit.intervals[name]) for name in ("floor", "alpha", "beta")} | {
            "best size": (best, low, high)
        }
        rows[objective] = {name: f"{value:.3g} [{low:.3g}, {high:.3g}]" for name, (value, low, high) in values.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["floor", "alpha", "beta", "best size"])


def draw_guideline(folder: Path, profile: Profile) -> Figure:
    """The best size against the budget in FLOPs, ours and the published sweep's in one figure; dotted: through the two medians. Right: the
    published ones alone, which lie within a factor of two on both axes."""
    table = vertices(folder, profile)
    closed = table[table.inside & (table.low > 0)]
    figure, (axis, near) = plt.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained", width_ratios=[1.2, 1.0])
    _vertices(axis, closed, 1.02)
    _vertices(near, closed[closed.whose == "published"], 1.03)
    medians = closed.groupby("whose")[["flops", "size"]].median()
    if len(medians) == 2:
        (low, high), (small, large) = medians["flops"].sort_values(), medians.sort_values("flops")["size"]
        power = np.log(large / small) / np.log(high / low)
        axis.plot([low, high], [small / 1e6, large / 1e6], ":", color="0.4", label=f"budget to the power {power:.2f}")
    handles = [plt.Line2D([], [], color=colour, marker="o", linestyle="", label=METRICS[m][1]) for m, colour in _colours().items()]
    handles += [plt.Line2D([], [], color="0.3", marker=m, linestyle="", label=OBJECTIVES[o]) for o, m in MARKERS.items()]
    handles += [plt.Line2D([], [], color="0.3", marker="o", linestyle="", markerfacecolor="white", label="published", **EDGE)]
    figure.legend(handles=[*handles, *axis.get_legend_handles_labels()[0]], fontsize="small", loc="outside right upper")
    axis.set(ylabel="best size, million parameters", title="what to train for a budget")
    near.set(title="the published sweep")
    for one in (axis, near):
        one.set(xscale="log", yscale="log", xlabel="training FLOPs")
        one.xaxis.set_minor_formatter(NullFormatter())
        plain_ticks(one.yaxis, *one.get_ylim())
    budgets = {f"{value:.2g}": value for value in sorted(closed.flops[closed.whose == "published"])}  # objectives differ by their heads
    near.set_xticks(list(budgets.values()), list(budgets))
    near.minorticks_off()
    return done(figure)


def _colours() -> dict[str, tuple]:
    return dict(zip(METRICS, sns.color_palette("colorblind", len(METRICS)), strict=True))


def _vertices(axis: Axes, closed: pd.DataFrame, apart: float) -> None:
    """Best sizes with their intervals, beside one another by so large a factor where budgets are equal."""
    names = [(metric, objective) for metric in METRICS for objective in OBJECTIVES]
    for row in closed.itertuples():
        bars = [[(row.size - row.low) / 1e6], [(row.high - row.size) / 1e6]]
        colour = _colours()[row.metric]
        style = {"color": colour, "markerfacecolor": colour if row.whose == "ours" else "white", **EDGE}
        place = row.flops * apart ** (names.index((row.metric, row.objective)) - len(names) // 2)
        axis.errorbar([place], [row.size / 1e6], bars, fmt=MARKERS[row.objective], **style)
