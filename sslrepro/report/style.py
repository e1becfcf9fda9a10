"""One look for all figures, and files that are the same bytes for the same data."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure


def use_style() -> None:
    """Seaborn's white grid, colours that colour-blind readers can tell apart (as matplotlib ships it: a cell need not wait for seaborn),
    and tables whose texts are not cut."""
    pd.set_option("display.max_colwidth", None)
    plt.style.use(["seaborn-v0_8-notebook", "seaborn-v0_8-whitegrid", "seaborn-v0_8-colorblind"])
    mpl.rcParams |= {
        "font.size": 10,
        "figure.dpi": 110,
        "savefig.dpi": 160,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "svg.hashsalt": "sslrepro",  # SVG names its parts at random otherwise
        "svg.fonttype": "none",
    }


def save(figure: Figure, folder: Path, name: str) -> Figure:
    """Write `<folder>/figures/<name>.svg` and `.png`, without dates; returns the figure."""
    return write(figure, folder / "figures", name)


def write(figure: Figure, place: Path, name: str) -> Figure:
    """Write `<place>/<name>.svg` and `.png`, without dates; returns the figure."""
    place.mkdir(parents=True, exist_ok=True)
    figure.savefig(place / f"{name}.svg", metadata={"Date": None})
    figure.savefig(place / f"{name}.png", metadata={"Software": None})
    return figure
