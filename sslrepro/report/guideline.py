"""What to train for a budget: the best size of every U-curve, ours and the published ones, and the parametric loss fitted to our runs."""

from __future__ import annotations

import itertools
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
from sslrepro.budget.fits import ParametricLoss, Vertex, parametric_loss, u_curve, vertex_shift
from sslrepro.budget.published import size_sweep
from sslrepro.config import Profile
from sslrepro.report.batch_size import plain_ticks
from sslrepro.report.budget import BUDGETS, EDGE, METRICS, SWEEP, results, with_flops
from sslrepro.report.panels import done

EXPONENTS = (0.01, 3.0)  # between which budget.fits holds alpha and beta
INSIDE, EDGES = "inside", ("on the bound: smallest", "on the bound: largest")
MARKERS = dict(zip(OBJECTIVES, "osD", strict=True))


def vertices(folder: Path, profile: Profile) -> pd.DataFrame:
    """The bottom of every U with at least four sizes (of ours: those that all budgets of the objective ran): whose, objective, budget,
    metric, flops, size in parameters, low, high, inside, and in words where the size lies among those that ran. A vertex that is not
    identified has no numbers."""
    return _table(_fitted(folder, profile))


def _table(fitted: list[tuple[dict, Vertex, pd.Series]]) -> pd.DataFrame:
    rows = []
    for at, vertex, means in fitted:
        said = standing(vertex, means)
        size, low, high = (vertex.size, vertex.low, vertex.high) if said == INSIDE else (math.nan,) * 3
        rows.append(at | {"size": size, "low": low, "high": high, "inside": said == INSIDE, "lies": said})
    return pd.DataFrame(rows)


def standing(vertex: Vertex, means: pd.Series) -> str:
    """Where a vertex lies among the sizes that ran, or why it is not identified. means: the metric's mean of each size that ran, by its
    parameters in rising order. The best of them and the vertex may be one step apart, as the ledger lets minima be."""
    sizes = means.index.to_numpy(float)
    said, best = lies(vertex.size, means.index.to_series()), int(np.argmin(means.to_numpy()))
    if said in (INSIDE, EDGES[0], EDGES[1]):
        nearest = int(np.argmin(np.abs(np.log(sizes / vertex.size))))
        if abs(nearest - best) > 1 or (said != INSIDE and 0 < best < len(sizes) - 1):
            where = f"at {vertex.size:.2g}" if said == INSIDE else f"past the {said.rpartition(' ')[2]}"
            return f"not identified: the fit is lowest {where}, the runs at {sizes[best]:.2g}"
    if said == INSIDE and not (vertex.low > 0 and vertex.high <= sizes.max()):
        return "not identified: the interval is open, or reaches past the sizes that ran"
    return said


def lies(size: float, sizes: pd.Series) -> str:
    """Where a size lies among those that ran: at or past either of them, other sizes could move it."""
    if math.isnan(size):
        return "no minimum"
    return EDGES[0] if size <= sizes.min() else EDGES[1] if size >= sizes.max() else INSIDE


def exponents(folder: Path, profile: Profile) -> pd.DataFrame:
    """The best size as a power of the budget, from the vertices of each objective and metric at two budgets next to one another, with a
    95 % bootstrap interval, where both vertices are identified; and where they lie."""
    found: dict[tuple[str, ...], dict[str, tuple[float, Vertex, str]]] = {}
    for at, vertex, means in _fitted(folder, profile):
        key = (at["whose"], OBJECTIVES[at["objective"]], METRICS[at["metric"]][1])
        found.setdefault(key, {})[at["budget"]] = at["flops"], vertex, standing(vertex, means)
    rows = []
    for key, budgets in found.items():
        for lower, higher in itertools.pairwise([budget for budget in BUDGETS if budget in budgets]):
            (less, smaller, of_less), (more, larger, of_more) = budgets[lower], budgets[higher]
            power, *interval = (value / math.log(less / more) for value in vertex_shift(smaller, larger))
            low, high = sorted(interval)
            said = f"{power:+.2f} [{low:+.2f}, {high:+.2f}]" if math.isfinite(low) else f"{power:+.2f}, its interval is open"
            said = said if of_less == of_more == INSIDE else "not identified"
            rows.append((*key, f"{lower} to {higher}", said, of_less, of_more))
    columns = ["whose", "objective", "metric", "budgets", "power of the budget", "lower budget's lies", "higher budget's lies"]
    return pd.DataFrame(rows, columns=columns).set_index(columns[:3])


def _fitted(folder: Path, profile: Profile) -> list[tuple[dict, Vertex, pd.Series]]:
    """Of every U: what it is of (whose, objective, budget, metric, flops), its vertex, and the metric's mean of each size that ran, by its
    parameters in rising order."""
    ours = with_flops(results(folder, SWEEP).query('family == "paper\'s share"'), profile)
    ours = ours.dropna(subset="flops")
    wide = ours.groupby(["objective", "budget"]).size_pct.transform("nunique") >= 4  # a budget of which little ran yet narrows no other
    ours = ours[wide]
    budgets = ours.groupby("objective").budget.nunique()
    ran = ours.groupby(["objective", "size_pct"]).budget.transform("nunique")
    found = []
    for (objective, budget), part in ours[ran == ours.objective.map(budgets)].groupby(["objective", "budget"]):
        for metric in METRICS:
            mine = part.dropna(subset=metric) if metric in part else part[:0]
            if mine.size_pct.nunique() >= 4:
                vertex = _in_parameters(u_curve(mine.size_pct, mine[metric], seed=f"{objective} {budget} {metric}"), mine)
                found.append((_of("ours", objective, budget, metric, part), vertex, _means(mine, "cost.params", metric)))
    for (objective, budget), part in size_sweep().groupby(["objective", "budget"]):
        for metric, (column, _) in METRICS.items():
            vertex = u_curve(part.params, part[column], seed=f"{objective} {budget} {column}")
            found.append((_of("published", objective, budget, metric, part), vertex, _means(part, "params", column)))
    return found


def _means(runs: pd.DataFrame, parameters: str, metric: str) -> pd.Series:
    """The metric's mean of each size, by its parameters in rising order."""
    means = runs.groupby("size_pct")[[parameters, metric]].mean().sort_values(parameters)
    return pd.Series(means[metric].to_numpy(), index=means[parameters].to_numpy())


def _of(whose: str, objective: str, budget: str, metric: str, runs: pd.DataFrame) -> dict:
    return {"whose": whose, "objective": objective, "budget": budget, "metric": metric, "flops": runs.flops.median()}


def _in_parameters(vertex: Vertex, runs: pd.DataFrame) -> Vertex:
    """A vertex in per cent of Slim, as parameters of the same family, between its sizes log-log and beyond them by the nearest two.

    A scaled family's front end holds most of its small members' parameters, so that a U that is even in per cent is not in parameters.
    """
    sizes = runs.groupby("size_pct")["cost.params"].mean().sort_index()
    x, y = np.log(sizes.index.to_numpy(float)), np.log(sizes.to_numpy())

    def log_parameters(log_per_cent: np.ndarray) -> np.ndarray:
        at = np.clip(np.searchsorted(x, log_per_cent), 1, len(x) - 1)
        slope = (y[at] - y[at - 1]) / (x[at] - x[at - 1])
        return y[at] + slope * (log_per_cent - x[at])

    def parameters(per_cent: float) -> float:
        open_end = per_cent in (0.0, math.inf)
        return per_cent if open_end else float(np.exp(log_parameters(np.log(per_cent))))

    ends = {name: parameters(getattr(vertex, name)) for name in ("size", "low", "high")}
    return replace(vertex, **ends, log_draws=log_parameters(vertex.log_draws))


def fitted_losses(folder: Path) -> pd.DataFrame:
    """The parametric loss E + A / parameters^alpha + B / hours^beta of each objective with at least seven runs over both budgets, with 95 %
    intervals, and the best of the sizes that ran for the full budget and where it lies among them. `power of the budget`: beta / (alpha +
    beta), that of the best size if an hour's cost were in proportion to the size. Where the runs do not tell the terms apart (an exponent
    or its interval on the fit's bounds, or no floor) nothing of the fit is identified, and none is shown."""
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
        powers = fit.draws[:, 4] / (fit.draws[:, 3] + fit.draws[:, 4])
        values["power of the budget"] = (fit.beta / (fit.alpha + fit.beta), *np.percentile(powers, [2.5, 97.5]))
        rows[objective] = {name: f"{value:.3g} [{low:.3g}, {high:.3g}]" for name, (value, low, high) in values.items()}
        rows[objective]["lies"] = lies(best, full["cost.params"])
        if why := _degenerate(fit):
            rows[objective] = dict.fromkeys(rows[objective], "not identified") | {"lies": f"not identified: {why}"}
    columns = ["floor", "alpha", "beta", "power of the budget", "best size", "lies"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _degenerate(fit: ParametricLoss) -> str:
    """Why a fit does not tell its terms apart; empty where it does."""
    low, high = 1.01 * EXPONENTS[0], 0.99 * EXPONENTS[1]
    bound = [name for name in ("alpha", "beta") if not low < getattr(fit, name) < high]
    bound += [name for name, (least, most) in fit.intervals.items() if name in ("alpha", "beta") and least <= low and most >= high]
    bound = list(dict.fromkeys(bound))
    least = fit.loss(np.array(fit.sizes), np.array(fit.hours)).min()
    return f"{' and '.join(bound)} on the bounds of the fit" if bound else "the floor is none" if fit.floor < 1e-3 * least else ""


def draw_guideline(folder: Path, profile: Profile) -> Figure:
    """The best size against the budget in FLOPs, ours and the published sweep's in one figure; dotted: through the two medians. Right: the
    published ones alone, which lie within a factor of two on both axes."""
    fitted = [(at, vertex, means) for at, vertex, means in _fitted(folder, profile) if standing(vertex, means) == INSIDE]
    closed = _table(fitted)
    figure, (axis, near) = plt.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained", width_ratios=[1.2, 1.0])
    _vertices(axis, closed, 1.02)
    _vertices(near, closed[closed.whose == "published"], 1.03)
    line = _across(fitted)
    if line is not None:
        flops, sizes, power = line
        label = f"between the medians: budget\nto the power {power[0]:.2f}"
        axis.plot(flops, sizes / 1e6, ":", color="0.4", label=label)
    handles = [plt.Line2D([], [], color=colour, marker="o", linestyle="", label=METRICS[m][1]) for m, colour in _colours().items()]
    handles += [plt.Line2D([], [], color="0.3", marker=m, linestyle="", label=OBJECTIVES[o]) for o, m in MARKERS.items()]
    handles += [plt.Line2D([], [], color="0.3", marker="o", linestyle="", label="filled: ours", **EDGE)]
    handles += [plt.Line2D([], [], color="0.3", marker="o", linestyle="", markerfacecolor="white", label="open: published", **EDGE)]
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


def _across(fitted: list[tuple[dict, Vertex, pd.Series]]) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]] | None:
    """From the median of our vertices to that of the published: FLOPs and sizes of both, and the power of the budget that joins them with
    its 95 % bootstrap interval; None where one of them is missing."""
    ends = [[(at["flops"], vertex) for at, vertex, _ in fitted if at["whose"] == whose] for whose in ("ours", "published")]
    if not all(ends):
        return None
    flops = np.array([np.median([spent for spent, _ in end]) for end in ends])
    sizes = np.array([np.median([vertex.size for _, vertex in end]) for end in ends])
    draws = [np.nanmedian([vertex.log_draws for _, vertex in end], axis=0) for end in ends]
    apart = math.log(flops[1] / flops[0])
    low, high = np.percentile((draws[1] - draws[0]) / apart, [2.5, 97.5])
    return flops, sizes, (math.log(sizes[1] / sizes[0]) / apart, low, high)


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
