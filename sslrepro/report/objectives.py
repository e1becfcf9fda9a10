"""Objectives at one size and budget: what they reach, what they cost, and the form of their targets."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sslrepro.config import Profile
from sslrepro.report.budget import NAMES, names_of, results, with_flops
from sslrepro.report.panels import done, nothing

FORMS = {
    "{objective}-slim": {"form": ""},
    "{objective}-original": {"form": ", original"},
    "{objective}-raw": {"form": ", coefficients as they are"},
}


def draw_objectives(folder: Path, profile: Profile) -> Figure:
    """A row an objective at the Slim size, and a row each other form of one: errors with one standard deviation over its seeds, whose
    number is in the name; beside them what they cost in FLOPs, training and (pale) what labels and teachers had cost before. Lines
    across: random weights of that size, where the profile scores them."""
    table, called = with_flops(results(folder, FORMS), profile), names_of(folder)
    metrics = [name for name in ("content", "speaker") if name in table]
    if not metrics or table.dropna(subset="flops").empty:
        figure, axis = plt.subplots(figsize=(5.0, 3.4), layout="constrained")
        return nothing(figure, axis, "no budget in FLOPs in this profile" if metrics else "nothing of this corpus could be scored")
    rows = [(name, mine.dropna(subset="flops")) for name, mine in table.groupby(["objective", "form"])]
    rows = [(f"{NAMES.get(objective, objective)}{form} ({len(mine)})", mine) for (objective, form), mine in rows if len(mine)]
    width, height = 3.6 * (len(metrics) + 1) + 2.0, 0.42 * len(rows) + 1.6
    figure, axes = plt.subplots(1, len(metrics) + 1, figsize=(width, height), sharey=True, squeeze=False, layout="constrained")
    random = results(folder, {"floor-random": {}})
    for axis, metric in zip(axes[0], metrics, strict=False):
        for place, (_, mine) in enumerate(rows):
            values = mine[metric].dropna()
            if len(values):
                axis.errorbar(values.mean(), place, xerr=0.0 if len(values) == 1 else values.std(), fmt="o", color="C0", capsize=3)
        if len(random):
            axis.axvline(random[metric].mean(), color="0.4", linewidth=1, linestyle="--", label="random weights")
        axis.set(xlabel=f"{called[metric]}, lower is better")
    trained = np.array([mine.flops.mean() for _, mine in rows])
    before = np.array([mine.whole.mean() for _, mine in rows]) - trained
    axes[0, -1].barh(range(len(rows)), trained, height=0.6, color="C0", label="training")
    axes[0, -1].barh(range(len(rows)), before, height=0.6, left=trained, color="C0", alpha=0.35, label="labels and teachers before it")
    axes[0, -1].set(xlabel="FLOPs")
    axes[0, -1].xaxis.set_major_locator(MaxNLocator(4))
    axes[0, -1].xaxis.set_major_formatter("{x:.2g}")
    axes[0, 0].set_yticks(range(len(rows)), [name for name, _ in rows])
    axes[0, 0].set_ylabel("objective (seeds)")
    axes[0, 0].invert_yaxis()
    named = {name: handle for axis in axes[0] for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named, loc="outside lower center", ncols=4, fontsize="small")
    return done(figure)


def errors(folder: Path) -> pd.DataFrame:
    """Mean content and speaker errors of every objective and form at the Slim size, best content first; those that were scored."""
    table, called = results(folder, FORMS), names_of(folder)
    metrics = [name for name in ("content", "speaker") if name in table]
    if not metrics:
        return pd.DataFrame()
    named = [f"{NAMES.get(row.objective, row.objective)}{row.form}" for row in table.itertuples()]
    means = table[metrics].groupby(pd.Index(named, name="objective")).mean()
    return means.sort_values(metrics[0]).rename(columns=called)


def reconstructed(profile: Profile) -> str:
    """Which cells of TERA's predict MFCC at zero mean and unit variance over the utterance, and which predict them as they are."""
    objectives = {name: cell.objective for name, cell in profile.studies["budget"].cells.items()}
    told = {True: "normalised over the utterance", False: "as they are"}
    cells = {kind: [n for n, o in objectives.items() if o.name == "reconstruction" and o.normalise == kind] for kind in told}
    return "MFCC " + "; ".join(f"{told[kind]}: {', '.join(names) or 'no cell'}" for kind, names in cells.items()) + "."
