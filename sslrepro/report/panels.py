"""What several studies' figures share: a row of panels, a panel that says why it is empty, the floors of a probe."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import t as student

from sslrepro.report.efficiency_map import error


def wide(folder: Path) -> pd.DataFrame:
    """One row a (cell, seed), a column for each metric."""
    table = pd.read_csv(folder / "metrics.csv")
    return table.pivot_table(index=["cell", "seed"], columns="metric", values="value").reset_index()


def panels(count: int, width: float = 4.0, across: int = 6) -> tuple[Figure, list[Axes]]:
    """So many panels, each so many inches wide, at most so many side by side."""
    across = min(count, across)
    rows = math.ceil(count / across)
    figure, axes = plt.subplots(rows, across, figsize=(width * across, 3.4 * rows), squeeze=False, layout="constrained")
    for unused in axes.flat[count:]:
        unused.set_axis_off()
    return figure, list(axes.flat[:count])


def nothing(figure: Figure, axis: Axes, why: str) -> Figure:
    """The figure, with an empty panel that says why."""
    axis.text(0.5, 0.5, why, transform=axis.transAxes, ha="center")
    axis.set_axis_off()
    return done(figure)


def done(figure: Figure) -> Figure:
    plt.close(figure)
    return figure


def marks(names: Iterable[str]) -> dict[str, dict]:
    """A colour and a hollow shape for each name: of two points in one place both are seen."""
    names = list(names)
    shapes = [shape for _, shape in zip(names, itertools.cycle("osD^v<>p"), strict=False)]
    colours = sns.color_palette("colorblind", len(names))
    hollow = {"markerfacecolor": "none", "markeredgewidth": 1.6, "markersize": 7, "capsize": 3, "capthick": 1.2, "elinewidth": 1.2}
    return {name: {"color": colour, "marker": shape, **hollow} for name, colour, shape in zip(names, colours, shapes, strict=True)}


def half_interval(values: pd.Series) -> float:
    """Half of the 95 % interval of a mean over seeds, by Student's t; 0 of one seed."""
    count = len(values)
    return float(student.ppf(0.975, count - 1) * values.std(ddof=1) / math.sqrt(count)) if count > 1 else 0.0


def beside(axis: Axes) -> None:
    """The legend at the right of a row's last panel: names beside their points run into one another."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize="small")


def floors(axis: Axes, table: pd.DataFrame, metric: str) -> None:
    """A dotted line, named, at each floor's mean error in per cent. table: `wide`'s."""
    for number, (cell, rows) in enumerate(table[table.cell.str.startswith("floor")].dropna(subset=metric).groupby("cell")):
        value = 100 * error(metric, rows[metric]).mean()
        axis.axhline(value, color="0.5", linestyle=":", linewidth=1)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # no line of the grid goes through the name
        place = {"xycoords": axis.get_yaxis_transform(), "textcoords": "offset points", "ha": "right", "va": "bottom"}
        # names side by side: two floors may be equal
        axis.annotate(cell, (0.99 - 0.3 * (number % 3), value), (0, 2), fontsize="small", color="0.4", bbox=box, **place)
