"""What one cell learned: its curves beside their chance level, and its metrics as a table."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sslrepro.config import Profile
from sslrepro.paths import cell_dir
from sslrepro.report.style import use_style

CURVES = ("loss", "accuracy", "code_perplexity")


def draw_curves(folder: Path, chance: dict[str, float]) -> Figure:
    """Training and validation curves of all seeds of `runs/<profile>/<study>/<cell>` over the hours of audio seen.

    chance: the metrics of a model that knows nothing, drawn as dashed lines. Curves that are not in the history are left out.
    """
    use_style()
    parts = [pd.read_csv(path).assign(seed=path.parent.name) for path in sorted(folder.glob("*/history.csv"))]
    history = pd.concat(parts, ignore_index=True)
    split = history["metric"].str.split(".", n=1, expand=True).set_axis(["split", "curve"], axis=1)
    history = pd.concat([history, split], axis=1)
    shown = [curve for curve in CURVES if (history["curve"] == curve).any()]
    figure, axes = plt.subplots(1, max(len(shown), 1), figsize=(4.2 * max(len(shown), 1), 3.2), squeeze=False, layout="constrained")
    for axis, curve in zip(axes[0], shown, strict=False):
        mine = history[(history["curve"] == curve) & history["split"].isin(["train", "valid"])]
        sns.lineplot(
            mine, x="hours_seen", y="value", hue="split", hue_order=["train", "valid"], style="seed", ax=axis, legend=axis is axes[0][0]
        )
        if curve in chance:
            axis.axhline(chance[curve], color="0.4", linestyle="--", linewidth=1)
            axis.annotate("chance", (1, chance[curve]), xycoords=("axes fraction", "data"), ha="right", va="bottom", color="0.4")
        axis.set(xlabel="hours of audio seen", ylabel=curve.replace("_", " "))
    plt.close(figure)
    return figure


def draw_cells(profile: Profile, study: str, curve: str = "valid.loss") -> Figure:
    """One curve of every cell of a study over the hours of audio seen, means over seeds with their range. Read from the run folders."""
    use_style()
    parts = [
        pd.read_csv(path).assign(cell=cell)
        for cell in profile.studies[study].cells
        for path in sorted(cell_dir(profile.profile, study, cell).glob("*/history.csv"))
    ]
    history = pd.concat(parts, ignore_index=True)
    history = history[history["metric"] == curve]
    figure, axis = plt.subplots(figsize=(6, 3.8), layout="constrained")
    sns.lineplot(history, x="hours_seen", y="value", hue="cell", errorbar=("pi", 100), marker="o", ax=axis)
    axis.set(xlabel="hours of audio seen", ylabel=curve.replace(".", " "))
    plt.close(figure)
    return figure


def metrics_table(folder: Path) -> pd.DataFrame:
    """Metrics by seed, without those that time alone decides."""
    columns = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*/metrics.json"))}
    table = pd.DataFrame(columns)
    return table[~table.index.isin(["cost.seconds"])].rename_axis(columns="seed")
