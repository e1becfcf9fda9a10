"""Figures of the SummaryMixing study: cost against the length of the input, and quality against cost, each from tables alone."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from sslrepro.report.batch_size import plain_ticks
from sslrepro.report.efficiency_map import error
from sslrepro.report.panels import done, nothing, panels, wide

MEASURED = r"^cost\.(?P<what>update_seconds|peak_bytes|mixer_seconds)_(?P<length>[\d.]+)$"
REFERENCES = ("unfused", "attention")  # attention as of the papers' day, and as fused kernels have it
NAMES = {
    "summarymixing": "SummaryMixing", "unfused": "attention, unfused", "attention": "attention, fused", "sumformer": "Sumformer",
    "unfused-same-params": "attention, unfused, equal parameters", "fnet": "FNet", "hyena": "Hyena",
}  # fmt: skip
# claims -> SummaryMixing, attention in the conditions of the papers' day, and today's kernel
CONDITIONS = {
    "sm-01, sm-02: pre-training": ("cost-summarymixing", "cost-unfused", "cost-attention"),
    "sm-06: supervised": ("supervised-conformer-summarymixing", "supervised-conformer-attention", "supervised-conformer-fused"),
    "sm-08: BEST-RQ": ("bestrq-summarymixing", "bestrq-attention", "bestrq-fused"),
}
# what is compared -> SummaryMixing, attention, and the floors' names
COMPARED = (
    ("at equal data", "wav2vec2-summarymixing", "wav2vec2-attention", "floor-(logmel|random)"),
    ("at equal data", "heads-summarymixing", "heads-attention", "floor-heads-(logmel|random)"),
    ("at equal compute", "wav2vec2-summarymixing-equal-compute", "wav2vec2-attention", "floor-(logmel|random)"),
    ("in a second language", "second-summarymixing", "second-attention", "floor-second-(logmel|random)"),
)
COLOURS = dict(zip(NAMES, sns.color_palette("colorblind", len(NAMES)), strict=True))


def measurements(folder: Path, kind: str) -> pd.DataFrame:
    """One row a (mixer, seed, length) of the cells `<kind>-<mixer>`: mixer, seed, what (update_seconds, peak_bytes, mixer_seconds),
    length (seconds of audio, frames for a mixer alone), value."""
    table = pd.read_csv(folder / "metrics.csv")
    table = table[table.cell.str.startswith(f"{kind}-")]
    found = table.metric.str.extract(MEASURED)
    table = table.assign(what=found.what, length=found.length.astype(float), mixer=table.cell.str.removeprefix(f"{kind}-"))
    return table.dropna(subset="what")[["mixer", "seed", "what", "length", "value"]]


def slopes(folder: Path, least: float) -> pd.DataFrame:
    """Log-log slope of each mixer's time over lengths of at least `least` frames: mean over seeds, and the lowest and highest seed."""
    table = measurements(folder, "mixer").query("length >= @least")
    by_seed = {
        key: np.polyfit(np.log(group.length), np.log(group.value), 1)[0]
        for key, group in table.groupby(["mixer", "seed"])
        if group.length.nunique() > 1
    }
    if not by_seed:
        return pd.DataFrame(columns=["slope", "low", "high"])
    found = pd.Series(by_seed).groupby(level=0)
    return pd.DataFrame({"slope": found.mean(), "low": found.min(), "high": found.max()}).rename(index=NAMES)


def crossover(folder: Path, kind: str, what: str) -> pd.DataFrame:
    """The length from which each mixer costs less than each kind of attention, read off the lines between measured lengths.

    "always" and "never" within the measured lengths; a line that crosses more than once is read at its last crossing.
    """
    means = measurements(folder, kind).query("what == @what").groupby(["mixer", "length"]).value.mean().unstack("length")
    rows = {}
    for mixer in means.index.difference([name for name in means.index if name.startswith(REFERENCES)]):
        ratios = {NAMES[name]: np.log(means.loc[mixer] / means.loc[name]).dropna() for name in REFERENCES if name in means.index}
        rows[NAMES[mixer]] = {name: _last_crossing(ratio) for name, ratio in ratios.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def _last_crossing(ratio: pd.Series) -> str:
    """ratio: log of cost over the reference's, by length."""
    y, x = ratio.to_numpy(), np.log(ratio.index.to_numpy(float))
    if (y < 0).all():
        return "always"
    if y[-1] >= 0:
        return "never"
    i = int(np.flatnonzero(y >= 0)[-1])
    return f"{np.exp(x[i] + (x[i + 1] - x[i]) * y[i] / (y[i] - y[i + 1])):.3g}"


def conditions(folder: Path) -> pd.DataFrame:
    """Time and memory of an update over attention's, as of the papers' day and today, by length: mean over paired seeds, and their range.

    A profile that measures one length alone has no length in the metric's name: then `seconds` is empty.
    """
    table = pd.read_csv(folder / "metrics.csv")
    found = table.metric.str.extract(r"^cost\.(?P<what>update_seconds|peak_bytes)(?:_(?P<seconds>[\d.]+))?$")
    table = table.join(found).dropna(subset="what").assign(seconds=lambda t: t.seconds.fillna(""))
    values = table.pivot_table(index=["what", "seconds", "seed"], columns="cell", values="value")
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for claim, (mixing, *references) in CONDITIONS.items():
        for reference, day in zip(references, ("of the papers' day", "today"), strict=True):
            if not {mixing, reference} <= set(values.columns):
                continue
            ratios = (values[mixing] / values[reference]).dropna().groupby(["what", "seconds"]).agg(["mean", "min", "max"])
            for (what, seconds), (mean, low, high) in ratios.iterrows():
                column = f"{'time' if what == 'update_seconds' else 'memory'}, over attention {day}"
                rows.setdefault((claim, seconds), {})[column] = f"{mean:.2f} [{low:.2f}, {high:.2f}]"
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index = pd.MultiIndex.from_tuples(list(rows), names=["claim", "seconds"]) if rows else frame.index
    return frame.sort_index(key=lambda level: pd.to_numeric(level) if level.name == "seconds" else level).sort_index(axis=1).fillna("")


def draw_cost(folder: Path) -> Figure:
    """Time and memory of an update against the input's length; below, each over that of unfused attention."""
    table = measurements(folder, "cost")
    figure, axes = plt.subplots(2, 2, figsize=(9.6, 6.4), sharex=True, layout="constrained")
    shown = {"update_seconds": ("seconds an update", 1.0), "peak_bytes": ("memory of an update, GB", 1e9)}
    for (above, below), (what, (label, unit)) in zip(axes.T, shown.items(), strict=True):
        part = table[table.what == what].assign(value=lambda t, unit=unit: t.value / unit)
        _lines(above, part, label)
        reference = part[part.mixer == "unfused"].groupby("length").value.mean()
        over = part.assign(value=part.value / part.length.map(reference).to_numpy())
        _lines(below, over, f"over unfused attention's, {'time' if unit == 1.0 else 'memory'}", log=False)
        below.axhline(1.0, color="0.4", linestyle=":", linewidth=1)
        below.set_xlabel("seconds of audio")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return done(figure)


def draw_mixers(folder: Path) -> Figure:
    """Time of one mixer alone, forward and backward, against frames; dotted lines rise with the frames and with their square."""
    table = measurements(folder, "mixer")
    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    if table.empty:
        return nothing(figure, axis, "this profile times no mixer alone")
    _lines(axis, table.assign(value=1e3 * table.value), "milliseconds, forward and backward")
    x = np.array([table.length.min(), table.length.max()])
    start = 1e3 * table[table.length == x[0]].value.min()
    for power in (1, 2):
        axis.plot(x, start * (x / x[0]) ** power, ":", color="0.5", linewidth=1)
        axis.annotate(f"T^{power}" if power > 1 else "T", (x[1], start * (x[1] / x[0]) ** power), fontsize=8, color="0.4")
    axis.legend(fontsize="small")
    axis.set_xlabel("frames")
    return done(figure)


def draw_quality(folder: Path, metrics: dict[str, str]) -> Figure:
    """Each pre-trained model's error over the MACs of its forward; dotted: the floors. metrics: name in the tables -> label."""
    table = wide(folder)
    table["mixer"] = table.cell.str.extract("^wav2vec2-(.+)$")[0]
    present = [name for name in metrics if name in table and table[table.mixer.notna()][name].notna().any()] or list(metrics)[:1]
    figure, axes = panels(len(present), width=4.2)
    for axis, name in zip(axes, present, strict=True):
        if name not in table or table[table.mixer.notna()].empty:
            nothing(figure, axis, "this profile scores nothing")
            continue
        axis.set(xlabel="GMAC of one utterance", ylabel=metrics[name])
        for mixer, group in table.dropna(subset=["mixer", name]).groupby("mixer"):
            known = mixer.removesuffix("-equal-compute")
            label = NAMES.get(known, known) + (", equal compute" if known != mixer else "")
            x, y, colour = group["cost.macs"].mean() / 1e9, group[name], COLOURS.get(known)
            style = {"color": colour, "markerfacecolor": colour if known == mixer else "white", "markeredgewidth": 1.2}
            axis.errorbar(x, y.mean(), yerr=y.std() if len(y) > 1 else None, fmt="o", label=label, **style)
        for cell, level in table[table.cell.str.fullmatch("floor-(logmel|random)")].groupby("cell")[name].mean().items():
            axis.axhline(level, color="0.4", linestyle=":", linewidth=1)
            axis.annotate(cell, (0.02, level), xycoords=("axes fraction", "data"), fontsize=7, va="bottom")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize="small")
    return done(figure)


def _lines(axis: Axes, table: pd.DataFrame, label: str, log: bool = True) -> None:
    """A line a mixer, its seeds' range as a band."""
    for mixer in [name for name in NAMES if name in set(table.mixer)]:
        by_length = table[table.mixer == mixer].groupby("length").value
        axis.plot(by_length.mean(), "o-", color=COLOURS[mixer], label=NAMES[mixer], markersize=4)
        axis.fill_between(by_length.mean().index, by_length.min(), by_length.max(), color=COLOURS[mixer], alpha=0.2, linewidth=0)
    axis.set(xscale="log", yscale="log" if log else "linear", ylabel=label)
    lengths = sorted(table.length.unique())
    axis.set_xticks(lengths, [f"{length:g}" for length in lengths])
    axis.xaxis.set_minor_locator(NullLocator())
    if log and len(table):
        plain_ticks(axis.yaxis, *axis.get_ylim())


def kept(folder: Path, metrics: dict[str, str]) -> pd.DataFrame:
    """Errors of the better floor, of attention and of SummaryMixing, means over seeds in per cent, and the share of attention's gain
    that is kept: at equal data, at equal compute, and with little speech of a second language. metrics: name in the tables -> label."""
    table = wide(folder)
    rows = {}
    for what, mixing, attention, floors in COMPARED:
        for name, label in metrics.items():
            if name not in table:
                continue
            means = (100 * error(name, table[name])).groupby(table.cell).mean()
            floor, one, other = means[means.index.str.fullmatch(floors)].min(), means.get(attention, np.nan), means.get(mixing, np.nan)
            if not np.isnan([floor, one, other]).any():
                rows[what, label] = [floor, one, other, (floor - other) / (floor - one) if one < floor else np.nan]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["floor", "attention", "SummaryMixing", "share kept"])
    return table.set_axis(pd.MultiIndex.from_tuples(table.index, names=["compared", "task"]) if rows else table.index)
