"""What one cell learned: its curves beside their chance level, and its metrics as a table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sslrepro.config import Profile
from sslrepro.paths import cell_dir
from sslrepro.report.style import use_style

CURVES = ("loss", "accuracy", "code_perplexity")
COLOURS = {"train": "C0", "valid": "C1"}


def draw_curves(folder: Path) -> Figure:
    """Training and validation curves of all seeds of `runs/<profile>/<study>/<cell>` over the hours of audio seen, one line a seed.

    The metrics of a model that knows nothing are dashed lines; of `regression`, whose targets follow the encoder, it is the most that
    such a model loses. Curves that are not in the history are left out.
    """
    use_style()
    history, chance = _history(sorted(folder.glob("*/history.csv"))), chance_of(folder)
    there = {metric.partition(".")[2] for metric in history["metric"] if metric.partition(".")[0] in COLOURS}
    shown = [name for curve in CURVES for name in sorted(there) if re.fullmatch(rf"{curve}(_\d+)?", name)]  # a panel a codebook
    figure, axes = plt.subplots(1, max(len(shown), 1), figsize=(4.4 * max(len(shown), 1), 3.2), squeeze=False, layout="constrained")
    for axis, curve in zip(axes[0], shown, strict=False):
        for split, colour in COLOURS.items():
            for number, (_, line) in enumerate(history[history["metric"] == f"{split}.{curve}"].groupby("run")):
                axis.plot(line["hours_seen"], line["value"], color=colour, linewidth=1.5, label=split if number == 0 else None)
        if curve in chance:
            axis.axhline(chance[curve], color="0.4", linestyle="--", linewidth=1, label="chance")
        axis.set(xlabel="hours of audio seen", ylabel=curve.replace("_", " "))
        axis.legend()
    plt.close(figure)
    return figure


def draw_cells(profile: Profile, study: str, curve: str = "loss") -> Figure:
    """Every trained cell of a study over the hours of audio seen, a panel an objective (their losses do not compare): a line a seed in
    training, points in validation. From the run folders."""
    use_style()
    panels: dict[str, list[str]] = {}
    for name, cell in profile.studies[study].cells.items():
        if cell.is_trained:
            panels.setdefault(cell.objective.name, []).append(name)
    most = max(map(len, panels.values()))
    figure, axes = plt.subplots(len(panels), 1, figsize=(8.5, sum(max(2.6, 0.19 * len(cells) + 0.8) for cells in panels.values())),
                                height_ratios=[max(2.6, 0.19 * len(cells) + 0.8) for cells in panels.values()],
                                squeeze=False, layout="constrained")  # fmt: skip
    for axis, (objective, cells) in zip(axes[:, 0], panels.items(), strict=True):
        for cell, colour in zip(cells, sns.color_palette("husl" if most > 10 else None, len(cells)), strict=True):
            folder = cell_dir(profile.profile, study, cell)
            history = _history(sorted(folder.glob("*/history.csv")))
            for split, style in (("train", "-"), ("valid", ".")):
                for number, (_, line) in enumerate(history[history["metric"] == f"{split}.{curve}"].groupby("run")):
                    label = cell if split == "train" and number == 0 else None
                    axis.plot(line["hours_seen"], line["value"], style, color=colour, linewidth=0.8, label=label)
        chance = chance_of(folder).get(curve)
        if chance is not None:
            axis.axhline(chance, color="0.4", linestyle="--", linewidth=1, label="chance")
        axis.set(title=objective.replace("_", " "), ylabel=curve.replace("_", " "))
        axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize="x-small", borderaxespad=0.0)
    axes[-1, 0].set_xlabel("hours of audio seen")
    plt.close(figure)
    return figure


def chance_of(folder: Path) -> dict[str, float]:
    """The metrics of a model that knows nothing, as the cell's runs have them; empty for a floor."""
    first = min(folder.glob("*/settings.json"))
    return json.loads(first.read_text(encoding="utf-8"))["chance"]


def metrics_table(folder: Path) -> pd.DataFrame:
    """Metrics by seed, as text, without those that time alone decides."""
    columns = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*/metrics.json"))}
    table = pd.DataFrame(columns).map(lambda value: f"{value:,.6g}" if isinstance(value, float) else value)
    return table[~table.index.isin(["cost.seconds"])].rename_axis(columns="seed")


def _history(paths: list[Path]) -> pd.DataFrame:
    return pd.concat([pd.read_csv(path).assign(run=path.parent.name) for path in paths], ignore_index=True)
