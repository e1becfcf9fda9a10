"""What one cell learned: its curves beside their chance level, and its metrics as a table."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from sslrepro.config import Profile
from sslrepro.paths import cell_dir
from sslrepro.report.style import use_style

CURVES = ("loss", "accuracy", "code_perplexity")
COLOURS = {"train": "C0", "valid": "C1"}


def draw_curves(folder: Path) -> Figure:
    """Training and validation curves of all seeds of `runs/<profile>/<study>/<cell>` over the hours of audio seen, one line a seed.

    The metrics of a model that knows nothing are dashed lines. Curves that are not in the history are left out.
    """
    use_style()
    history, chance = _history(sorted(folder.glob("*/history.csv"))), chance_of(folder)
    shown = [curve for curve in CURVES if any(f"{split}.{curve}" in set(history["metric"]) for split in COLOURS)]
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


def draw_cells(profile: Profile, study: str, curve: str = "valid.loss") -> Figure:
    """One curve of every cell of a study over the hours of audio seen: mean over seeds, their range shaded. From the run folders."""
    use_style()
    figure, axis = plt.subplots(figsize=(6, 3.8), layout="constrained")
    levels: dict[float, str] = {}  # cells of one objective share a level
    for cell in profile.studies[study].cells:
        history = _history(sorted(cell_dir(profile.profile, study, cell).glob("*/history.csv")))
        over = history[history["metric"] == curve].groupby("hours_seen")["value"].agg(["mean", "min", "max"])
        (line,) = axis.plot(over.index, over["mean"], marker="o", label=cell)
        axis.fill_between(over.index, over["min"], over["max"], color=line.get_color(), alpha=0.2, linewidth=0)
        chance = chance_of(cell_dir(profile.profile, study, cell)).get(curve.rpartition(".")[2])
        if chance is not None:
            levels[chance] = line.get_color()
    for place, (chance, colour) in enumerate(levels.items()):
        axis.axhline(chance, color=colour if len(levels) > 1 else "0.4", linestyle="--", linewidth=1, label=None if place else "chance")
    axis.set(xlabel="hours of audio seen", ylabel=curve.replace(".", " "))
    axis.legend(title="cell")
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
