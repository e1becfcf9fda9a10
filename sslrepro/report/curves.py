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
from sslrepro.report.panels import panels
from sslrepro.report.style import use_style

CURVES = ("loss", "accuracy", "code_perplexity")
UNITS = {"reconstruction": "mean absolute error", "regression": "mean squared error", "cloned_regression": "mean squared error"}
NUMBER = r"(?<=[a-z])(?<!vec)(?<!hubert)\d+(\.\d+)?(?=-|$)"  # in a cell's name, the 2 of wav2vec2 not
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


def draw_cells(profile: Profile, study: str) -> Figure:
    """The loss of every trained cell of a study over the hours of audio seen, small multiples: a panel for each family of cells that differ
    in a number alone (`families`), coloured by that number; a line a seed in training, points in validation. Losses of different
    objectives do not compare. From the run folders."""
    use_style()
    trained = {name: cell.objective.name for name, cell in profile.studies[study].cells.items() if cell.is_trained}
    grouped = families(trained)
    figure, axes = panels(max(len(grouped), 1), width=3.4, across=4)
    for axis, (title, cells) in zip(axes, grouped.items(), strict=False):
        for cell, colour in zip(cells, sns.color_palette("viridis", len(cells)), strict=True):
            folder = cell_dir(profile.profile, study, cell)
            history = _history(sorted(folder.glob("*/history.csv")))
            for split, style in (("train", "-"), ("valid", ".")):
                for number, (_, line) in enumerate(history[history["metric"] == f"{split}.loss"].groupby("run")):
                    label = cell if split == "train" and number == 0 else None
                    axis.plot(line["hours_seen"], line["value"], style, color=colour, linewidth=0.8, markersize=4, label=label)
        chance = chance_of(folder).get("loss")
        if chance is not None:
            axis.axhline(chance, color="0.4", linestyle="--", linewidth=1, label="chance")
        objective = trained[cells[0]]
        axis.set(xlabel="hours of audio seen", ylabel=f"loss, {UNITS.get(objective, 'nats')}")
        axis.set_title(f"{objective.replace('_', ' ')}\n{title}", fontsize="small")
        axis.legend(fontsize="xx-small")
    plt.close(figure)
    return figure


def families(trained: dict[str, str]) -> dict[str, list[str]]:
    """Cells, of so named objectives, by what their names share but for numbers (`hubert-size # -half`), each family in rising order of its
    numbers. A cell that is alone in its family joins the others of its objective that are."""
    found: dict[tuple[str, str], list[str]] = {}
    for cell, objective in trained.items():
        found.setdefault((objective, re.sub(NUMBER, " # ", cell).strip()), []).append(cell)
    alone = [key for key, cells in found.items() if len(cells) == 1]
    for objective, name in alone:
        found.setdefault((objective, f"others, {objective.replace('_', ' ')}"), []).extend(found.pop((objective, name)))
    in_order = sorted(found.items(), key=lambda item: (list(trained.values()).index(item[0][0]), item[0][1]))
    numbers = {cell: [float(number) for number in re.findall(r"\d+\.?\d*", cell)] for cell in trained}
    return {name: sorted(cells, key=lambda cell: (numbers[cell], cell)) for (_, name), cells in in_order}


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
