"""Deep and narrow against shallow and wide at equal parameters and FLOPs: Slim and Small seed by seed, and the depths between."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sslrepro.config import Profile
from sslrepro.report.budget import METRICS, NAMES, names_of, results
from sslrepro.report.paired import paired, told
from sslrepro.report.panels import done, nothing, panels

PAIR = {"{objective}-slim": {"shape": "Slim"}, "{objective}-small": {"shape": "Small"}}
PER_CENT = [-50, -20, -10, -5, -2, 0, 2, 5, 10, 20, 50, 100]
DEPTHS = {"{objective}-depth{layers}": {}, "{objective}-slim": {}, "{objective}-small": {}}


def pairs(folder: Path, metric: str) -> pd.DataFrame:
    """Slim and Small of every (objective, seed) that ran both, in columns of these names."""
    table = results(folder, PAIR)
    wide = table.pivot_table(index=["objective", "seed"], columns="shape", values=metric) if metric in table else pd.DataFrame()
    return wide.dropna() if {"Slim", "Small"} <= set(wide.columns) else pd.DataFrame(columns=["Slim", "Small"])


def contrasts(folder: Path) -> pd.DataFrame:
    """Slim - Small of every objective and metric, paired by seed, with Student's 95 % intervals: as it is, and relative to Small's mean.
    Below 0 Slim is better. `better`: which of them is, beyond the interval."""
    rows, names = [], names_of(folder)
    for metric in METRICS:
        both = pairs(folder, metric)
        for objective, wide in both.groupby("objective") if len(both) else ():
            mean, low, high = paired(wide.Slim, wide.Small)
            relative = told(tuple(value / wide.Small.mean() for value in (mean, low, high)), "+.1%")
            better = "Slim" if high < 0 else "Small" if low > 0 else "not told"
            row = (f"{wide.Slim.mean():.4g}", f"{wide.Small.mean():.4g}", told((mean, low, high), "+.4f"), relative, len(wide), better)
            rows.append((NAMES.get(objective, objective), names[metric], *row))
    columns = ["objective", "metric", "Slim", "Small", "Slim - Small", "relative to Small", "seeds", "better"]
    return pd.DataFrame(rows, columns=columns).set_index("objective")


def draw_shapes(folder: Path, profile: Profile) -> Figure:
    """By how much Slim is above Small of the same objective, a pale point a seed and the mean with Student's 95 % interval, a panel a
    metric (linear to 5 %, logarithmic beyond); and what was scored of the depths at equal parameters and budget, with one standard
    deviation over seeds."""
    called = names_of(folder)
    metrics = [metric for metric in METRICS if metric in results(folder, PAIR)]
    depths = with_layers(folder, profile)
    scored = [metric for metric in METRICS if metric in depths and depths.dropna(subset=metric).layers.nunique() > 2]
    figure, axes = panels(len(metrics) + max(len(scored), 1), width=4.2, across=3)
    for axis, metric in zip(axes, metrics, strict=False):
        _ratios(axis, pairs(folder, metric), called[metric])
    if not scored:
        return nothing(figure, axes[-1], "no family of depths in this profile")
    depths = depths.assign(objective=depths.objective.replace(NAMES))
    for axis, metric in zip(axes[len(metrics) :], scored, strict=True):
        sns.lineplot(depths, x="layers", y=metric, hue="objective", marker="o", errorbar=("sd", 1), ax=axis)
        axis.set(xlabel="layers, at equal parameters and FLOPs", ylabel=called[metric], xscale="log")
        axis.set_xticks(sorted(depths.layers.unique()), [f"{layers}" for layers in sorted(depths.layers.unique())])
        axis.minorticks_off()
    return done(figure)


def _ratios(axis: Axes, wide: pd.DataFrame, name: str) -> None:
    """Slim / Small - 1 of each seed of each objective in per cent, and their mean with its interval."""
    objectives = list(wide.index.unique("objective")) if len(wide) else []
    for place, objective in enumerate(objectives):
        mine = 100 * (wide.Slim / wide.Small).loc[objective] - 100
        mean, low, high = paired(mine, 0.0 * mine)
        axis.plot([place] * len(mine), mine, "o", color=f"C{place}", alpha=0.3, markersize=4)
        if len(mine) > 1:
            axis.errorbar(place + 0.2, mean, [[mean - low], [high - mean]], fmt="o", color=f"C{place}", capsize=4)
    axis.axhline(0.0, color="0.4", linewidth=1)
    axis.set_yscale("symlog", linthresh=5.0)  # a seed of data2vec that learns little must not hide the others
    axis.set_yticks(PER_CENT, [f"{value:+g}" if value else "0" for value in PER_CENT])
    axis.minorticks_off()
    seeds = wide.groupby("objective").size() if len(wide) else {}
    ticks = [f"{NAMES.get(objective, objective)}\n({seeds[objective]} seeds)" for objective in objectives]
    axis.set_xticks(range(len(ticks)), ticks, rotation=30 if len(ticks) > 3 else 0, fontsize="small")
    axis.set(title=name, ylabel="Slim above Small, %")
    if wide.empty:
        axis.text(0.5, 0.5, "no pair in this profile", transform=axis.transAxes, ha="center")
        axis.set_axis_off()


def with_layers(folder: Path, profile: Profile) -> pd.DataFrame:
    """The runs of objectives with more than two depths at equal parameters and budget, with their number of `layers`."""
    depths = results(folder, DEPTHS)
    depths = depths.assign(layers=[profile.studies["budget"].cells[cell].model.encoder.layers for cell in depths.cell])
    families = depths.groupby("objective").layers.nunique()
    return depths[depths.objective.isin(families[families > 2].index)]


def depth_optimum(folder: Path, profile: Profile) -> str:
    """Where each family of depths is lowest, one sentence an objective and metric: at an edge, or inside, and how far its neighbours are
    above it."""
    table, names, said = with_layers(folder, profile), names_of(folder), []
    for objective, part in table.groupby("objective"):
        for metric in [name for name in METRICS if name in part]:
            wide = part.dropna(subset=metric).pivot_table(index="seed", columns="layers", values=metric)
            if wide.shape[1] < 3:
                continue
            best = wide.mean().idxmin()
            place = list(wide.columns).index(best)
            beside = [wide.columns[i] for i in (place - 1, place + 1) if 0 <= i < wide.shape[1]]
            above = "; ".join(f"{near} layers are {told(paired(wide[near], wide[best]), '+.4f')} above it" for near in beside)
            edge = {0: "the shallowest that ran, an edge", wide.shape[1] - 1: "the deepest that ran, an edge"}.get(place, "inside")
            said.append(f"{NAMES.get(objective, objective)}, {names[metric]}: lowest at depth {best}, {edge} ({above}).")
    return " ".join(said) or "This profile runs no family of depths."
