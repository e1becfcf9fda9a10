"""The survey's fourth axis, from tables alone: a score against unlabelled hours and against labels, and a second language with little data.

Intervals are Student's, 95 %, over seeds; of a difference, over the seeds that both cells have. One seed gives none.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy.stats import t as student

from sslrepro.config import CellSettings
from sslrepro.report.efficiency_map import QUALITY, error
from sslrepro.report.panels import done, nothing, panels
from sslrepro.report.tuning import TUNED, UNITS

PROBE = "phone.accuracy"
HOURS = r"^hours-(?P<hours>[\d.]+)$"
SECOND = {  # cell -> what it had learned from when it was scored on the second language
    "logmel-second": "log-mels",
    "random-second": "random weights",
    "english-second": "English, as it stands",
    "scratch-second": "a little of it, from scratch",
    "scratch-longer-second": "a little of it, from scratch, for longer",
    "continued-second": "a little of it, continued from English",
    "mono-second": "all of it",
    "bilingual-second": "all of it and as much English",
}
FIRST = {"mono-first": "English", "bilingual-first": "English and as much of the second language"}
QUESTIONS = (  # (what is asked of the first cell, it, the cell it is compared with)
    ("English as it stands against a front end alone, on the second language", "english-second", "logmel-second"),
    ("continuing from English against starting from scratch, the same updates", "continued-second", "scratch-second"),
    ("continuing from English against starting from scratch, the same compute in all", "continued-second", "scratch-longer-second"),
    ("continuing from English against English as it stands", "continued-second", "english-second"),
    ("bilingual against monolingual, on the second language", "bilingual-second", "mono-second"),
    ("bilingual against monolingual, on English", "bilingual-first", "mono-first"),
)


def efficiency(folder: Path) -> pd.DataFrame:
    """Cells hours-<h>: one row a (hours, minutes), minutes empty for the frozen probe (of phones' frames, or the first of QUALITY that was
    scored): `measure`, mean error in per cent, `low`, `high`, `seeds`."""
    table = pd.read_csv(folder / "metrics.csv")
    table = table.join(table.metric.str.extract(TUNED)).join(table.cell.str.extract(HOURS)).dropna(subset="hours")
    probe = next((metric for metric in (PROBE, *QUALITY) if (table.metric == metric).any()), PROBE)
    table = table[table.minutes.notna() | (table.metric == probe)]
    table = table.assign(
        hours=table.hours.astype(float), minutes=table.minutes.astype(float), measure=table.unit.map(UNITS).fillna(QUALITY[probe]),
        error=100 * table.value.where(table.metric != probe, error(probe, table.value)),
    )  # fmt: skip
    rows = [
        {"hours": hours, "minutes": minutes, "measure": measure} | interval(part.error)
        for (hours, minutes, measure), part in table.groupby(["hours", "minutes", "measure"], dropna=False)
    ]
    return pd.DataFrame(rows, columns=["hours", "minutes", "measure", "error", "low", "high", "seeds"])


def interval(values: pd.Series) -> dict[str, float]:
    """Mean `error`, the ends of its interval (the mean's own place where there is one seed), and `seeds`."""
    count, mean = len(values), float(values.mean())
    half = float(student.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count)) if count > 1 else 0.0
    return {"error": mean, "low": mean - half, "high": mean + half, "seeds": count}


def draw_efficiency(folder: Path) -> Figure:
    """Error of a frozen probe against the hours of unlabelled speech, and of fine-tuning against the minutes of labels, a line for each
    amount of unlabelled speech."""
    table = efficiency(folder)
    if table.empty:
        figure, axes = panels(1, 5.0)
        return nothing(figure, axes[0], "this profile varies no data")
    figure, axes = panels(2, 5.0)
    probed, tuned = table[table.minutes.isna()], table[table.minutes.notna()]
    _line(axes[0], probed[probed.hours > 0], "hours", "pre-trained")
    for row in probed[probed.hours == 0].itertuples():
        axes[0].axhspan(row.low, row.high, color="0.5", alpha=0.2, linewidth=0)
        axes[0].axhline(row.error, color="0.4", linestyle=":", linewidth=1, label="none: random weights")
    if len(probed):
        axes[0].set(xscale="log", xlabel="hours of unlabelled speech, at equal updates", ylabel=f"{probed.measure.iloc[0]}, %")
        _ticks(axes[0], probed[probed.hours > 0].hours)
        axes[0].legend(fontsize="small")
    for place, (hours, rows) in enumerate(tuned.groupby("hours")):  # side by side: intervals would hide each other
        _line(axes[1], rows.assign(minutes=rows.minutes * 1.06**place), "minutes", f"{hours:g} h" if hours else "none")
    if len(tuned):
        axes[1].set(xscale="log", xlabel="minutes of labels", ylabel=f"{tuned.measure.iloc[0]}, fine-tuned, %")
        _ticks(axes[1], tuned.minutes)
        axes[1].legend(title="unlabelled speech", fontsize="small", loc="center left", bbox_to_anchor=(1.02, 0.5))
    return done(figure)


def _line(axis: Axes, rows: pd.DataFrame, along: str, label: str) -> None:
    reach = [(rows.error - rows.low).tolist(), (rows.high - rows.error).tolist()]
    axis.errorbar(rows[along], rows.error, reach, marker="o", capsize=3, label=label)


def _ticks(axis: Axes, values: pd.Series) -> None:
    """At the values themselves, as plain numbers."""
    found = sorted(set(values))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(found, [f"{value:g}" for value in found])


def languages(folder: Path, cells: dict[str, CellSettings]) -> pd.DataFrame:
    """One row a cell that was scored on one of two languages: what it had learned from, hours heard (those of the cells that it
    starts from, too), phone error of the frozen probe in per cent with its interval, seeds."""
    table = pd.read_csv(folder / "metrics.csv")
    rows = []
    for scored, named in (("second", SECOND), ("English", FIRST)):
        for cell, learned in named.items():
            values = table[(table.cell == cell) & (table.metric == PROBE)].value
            if cell in cells and len(values):
                heard = sum(_heard(folder.parent, name) for name in _lineage(cells, cell))
                found = interval(100 * (1 - values))
                rows.append({"cell": cell, "scored on": scored, "learned from": learned, "hours heard": heard, **found})
    columns = ["cell", "scored on", "learned from", "hours heard", "error", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns).set_index("cell")


def _lineage(cells: dict[str, CellSettings], cell: str) -> list[str]:
    """A cell of the survey and those ("study/cell") that it starts from, one from another, to the first of another study."""
    found = [f"survey/{cell}"]
    while (own := found[-1].removeprefix("survey/")) in cells and cells[own].start is not None:
        found.append(cells[own].start)
    return found


def _heard(results: Path, name: str) -> float:
    study, _, cell = name.partition("/")
    path = results / study / "metrics.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["cell", "metric", "value"])
    values = table[(table.cell == cell) & (table.metric == "cost.hours_seen")].value
    return float(values.mean()) if len(values) else 0.0


def contrasts(folder: Path) -> pd.DataFrame:
    """One row a question that the profile's cells answer: by how many points the phone error falls, with the interval of the difference
    over common seeds."""
    table = pd.read_csv(folder / "metrics.csv")
    values = table[table.metric == PROBE].pivot_table(index="seed", columns="cell", values="value")
    rows = []
    for question, cell, other in QUESTIONS:
        if cell in values and other in values:
            gain = interval((100 * (values[cell] - values[other])).dropna())
            rows.append({"question": question, "points": gain.pop("error"), **gain, "reading": _reading(gain)})
    return pd.DataFrame(rows, columns=["question", "points", "low", "high", "seeds", "reading"]).set_index("question")


def _reading(gain: dict[str, float]) -> str:
    if gain["seeds"] < 2:
        return "one seed: not told apart"
    return "better" if gain["low"] > 0 else "worse" if gain["high"] < 0 else "not told apart"


def draw_languages(folder: Path, cells: dict[str, CellSettings]) -> Figure:
    """Phone error on the second language by what was learned from; the points and intervals of `languages`."""
    table = languages(folder, cells)
    table = table[table["scored on"] == "second"]
    figure, axes = panels(1, 8.5)
    if table.empty:
        return nothing(figure, axes[0], "this profile scores nothing on a second language")
    table = table.iloc[::-1]
    reach = [table.error - table.low, table.high - table.error]
    axes[0].errorbar(table.error, range(len(table)), xerr=reach, fmt="o", capsize=3)
    axes[0].set_yticks(range(len(table)), [f"{row['learned from']} ({row['hours heard']:.3g} h)" for _, row in table.iterrows()])
    axes[0].set(xlabel="phone error on the second language, %", ylabel="learned from (hours heard)")
    axes[0].grid(axis="x", alpha=0.3)
    axes[0].margins(y=0.1)
    return done(figure)


def statement(folder: Path) -> str:
    """What the contrasts say, in words made from their numbers; one line where the profile has none."""
    table = contrasts(folder)
    if table.empty:
        return "This profile compares nothing on a second language; `laptop` and `gpu` do."
    words = {"better": "**lower** phone error", "worse": "**higher** phone error"}
    lines = [
        f"- {question[0].upper()}{question[1:]}: {words.get(row.reading, row.reading)}, a gain of {row.points:+.2f} points "
        f"[{row.low:+.2f}, {row.high:+.2f}] over {row.seeds} seed(s)."
        for question, row in table.iterrows()
    ]
    return "\n".join(lines)
