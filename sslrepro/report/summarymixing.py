"""Figures of the SummaryMixing study: cost against the length of the input, and quality against cost, from tables and settings."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy.stats import t as student

from sslrepro.budget.count import count
from sslrepro.budget.front_end import SAMPLE_RATE
from sslrepro.budget.memory import weight_memory
from sslrepro.config import CellSettings, NoObjective
from sslrepro.report.batch_size import plain_ticks
from sslrepro.report.efficiency_map import error
from sslrepro.report.panels import done, nothing, panels, wide

MEASURED = r"^cost\.(?P<what>update_seconds|peak_bytes|mixer_seconds|inference_seconds|inference_peak_bytes)_(?P<length>[\d.]+)$"
REFERENCES = ("unfused", "attention")  # attention as of the papers' day, and as fused kernels have it
NAMES = {
    "summarymixing": "SummaryMixing", "unfused": "attention, unfused", "attention": "attention, fused", "sumformer": "Sumformer",
    "unfused-same-params": "attention, unfused, equal parameters", "attention-same-params": "attention, fused, equal parameters",
    "fnet": "FNet", "hyena": "Hyena",
}  # fmt: skip
# claims -> the linear mixer, attention in the conditions of the papers' day, and today's kernel where that is measured
CONDITIONS = {
    "sm-01: pre-training": ("cost-summarymixing", "cost-unfused", "cost-attention"),
    "sm-01, at equal parameters": ("cost-summarymixing", "cost-unfused-same-params", "cost-attention-same-params"),
    "sm-02: pre-training, a batch at once": ("memory-summarymixing", "memory-unfused", "memory-attention"),
    "sm-06: supervised": ("time-conformer-summarymixing", "time-conformer-attention", "time-conformer-fused"),
    "sm-08: BEST-RQ": ("bestrq-summarymixing", "bestrq-attention", "bestrq-fused"),
    "sm-08, with Sumformer": ("bestrq-sumformer", "bestrq-attention", "bestrq-fused"),
}
# what is compared -> the mixer's cell, attention's, and the floors' names
COMPARED = (
    ("at equal data", "wav2vec2-{mixer}", "wav2vec2-attention", "floor-(logmel|random)"),
    *(
        ("at equal data", f"{kind}-{{mixer}}", f"{kind}-attention", f"floor-{kind}-(logmel|random)")
        for kind in ("heads", "intent", "verification", "emotion")
    ),
    ("at equal compute", "wav2vec2-{mixer}-equal-compute", "wav2vec2-attention", "floor-(logmel|random)"),
    *(
        (what, f"{kind}-{{mixer}}", f"{kind}-attention", f"floor-{kind}-(logmel|random)")
        for kind, what in (("second", "in a second language"), ("second-cy", "in Welsh"), ("second-eu", "in Basque"))
    ),
)
LINEAR = ("summarymixing", "sumformer", "fnet", "hyena")
# name in the tables -> the error that it is drawn as, and task and head
SCORES = {
    "phone_ctc.per": ("phone error rate, %", "phones, linear head"),
    "phone_lstm.per": ("phone error rate, BiLSTM, %", "phones, BiLSTM"),
    "asr.wer": ("word error rate, BiLSTM, %", "words, BiLSTM"),
    "asr_conv.wer": ("word error rate, ContextNet, %", "words, ContextNet"),
    "asr_linear.wer": ("word error rate, one hidden layer, %", "words, one hidden layer"),
    "intent.accuracy": ("intent errors, convolution, %", "intents, convolution"),
    "intent_mean.accuracy": ("intent errors, mean over time, %", "intents, mean over time"),
    "intent_lstm.accuracy": ("intent errors, BiLSTM, %", "intents, BiLSTM"),
    "emotion.accuracy": ("emotion errors, mean over time, %", "emotions, mean over time"),
    "emotion_ecapa.accuracy": ("emotion errors, ECAPA-TDNN, %", "emotions, ECAPA-TDNN"),
    "verification.eer": ("equal error rate, %", "speaker verification"),
    "verification_tdnn.eer": ("equal error rate, dilated, %", "speaker verification, dilated"),
    "verification_xvector.eer": ("equal error rate, x-vector, %", "speaker verification, x-vector"),
    "verification_ecapa.eer": ("equal error rate, ECAPA-TDNN, %", "speaker verification, ECAPA-TDNN"),
}
# cells that score an encoder: of the same seeds' first cell, or (second) on another language
SCORED = r"^(?:wav2vec2|heads|intent|verification|emotion|(?P<second>second(?:-cy|-eu)?))-(?P<mixer>.+)$"
SECOND = {"second": "second language", "second-cy": "Welsh", "second-eu": "Basque"}
COLOURS = dict(zip(NAMES, sns.color_palette("colorblind", len(NAMES)), strict=True))


def measurements(folder: Path, kind: str) -> pd.DataFrame:
    """One row a (mixer, seed, length) of the cells `<kind>-<mixer>`: mixer, seed, what (update_seconds, peak_bytes, mixer_seconds),
    length (seconds of audio, frames for a mixer alone), value."""
    table = pd.read_csv(folder / "metrics.csv")
    table = table[table.cell.str.startswith(f"{kind}-")]
    found = table.metric.str.extract(MEASURED)
    table = table.assign(what=found.what, length=found.length.astype(float), mixer=table.cell.str.removeprefix(f"{kind}-"))
    return table.dropna(subset="what")[["mixer", "seed", "what", "length", "value"]]


def slopes(folder: Path, kind: str, least: float) -> pd.DataFrame:
    """Log-log slope over lengths of at least `least` of what each cell `<kind>-<mixer>` takes: mean over seeds, and its 95 % Student
    interval (none with one seed)."""
    table = measurements(folder, kind).query("length >= @least")
    by_seed = {
        key: np.polyfit(np.log(group.length), np.log(group.value), 1)[0]
        for key, group in table.groupby(["what", "mixer", "seed"])
        if group.length.nunique() > 1
    }
    rows = {}
    for (what, mixer), found in pd.Series(by_seed, dtype=float).groupby(level=[0, 1]) if by_seed else ():
        half = student.ppf(0.975, len(found) - 1) * found.std() / np.sqrt(len(found))
        rows[what, NAMES.get(mixer, mixer)] = [found.mean(), found.mean() - half, found.mean() + half]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["slope", "low", "high"]).set_axis(
        pd.MultiIndex.from_tuples(list(rows), names=["of", "mixer"]) if rows else pd.Index([])
    )


def crossover(folder: Path, kind: str, what: str) -> pd.DataFrame:
    """The length from which each mixer costs less than each kind of attention, read off the lines between measured lengths.

    "< 2": at all measured lengths, of which 2 is the least; "> 80": at none up to 80, the longest that both were measured at; "until 19":
    below that, and no longer. A line that crosses more than once is read at its last crossing.
    """
    means = measurements(folder, kind).query("what == @what").groupby(["mixer", "length"]).value.mean().unstack("length")
    rows, references = {}, [name for name in NAMES if name.startswith(REFERENCES) and name in means.index]
    for mixer in means.index.difference(references):
        ratios = {NAMES[name]: np.log(means.loc[mixer] / means.loc[name]).dropna() for name in references}
        rows[NAMES.get(mixer, mixer)] = {name: _last_crossing(ratio) for name, ratio in ratios.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def _last_crossing(ratio: pd.Series) -> str:
    """ratio: log of cost over the reference's, by length."""
    y, x = ratio.to_numpy(), np.log(ratio.index.to_numpy(float))
    if (y < 0).all():
        return f"< {ratio.index[0]:g}"
    if (y >= 0).all():
        return f"> {ratio.index[-1]:g}"
    until = y[-1] >= 0
    i = int(np.flatnonzero((y < 0) if until else (y >= 0))[-1])
    return f"{'until ' if until else ''}{np.exp(x[i] + (x[i + 1] - x[i]) * y[i] / (y[i] - y[i + 1])):.3g}"


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
        for reference, day in zip(references, ("of the papers' day", "today"), strict=False):
            if not {mixing, reference} <= set(values.columns):
                continue
            ratios = (values[mixing] / values[reference]).dropna().groupby(["what", "seconds"]).agg(["mean", "min", "max"])
            for (what, seconds), (mean, low, high) in ratios.iterrows():
                column = f"{'time' if what == 'update_seconds' else 'memory'}, over attention {day}"
                rows.setdefault((claim, seconds), {})[column] = f"{mean:.2f} [{low:.2f}, {high:.2f}]"
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index = pd.MultiIndex.from_tuples(list(rows), names=["claim", "seconds"]) if rows else frame.index
    return frame.sort_index(key=lambda level: pd.to_numeric(level) if level.name == "seconds" else level).sort_index(axis=1).fillna("")


def inference(folder: Path, cells: dict[str, CellSettings]) -> pd.DataFrame:
    """The forward of one batch of the cells cost-<mixer>, by seconds of audio: `seconds taken` (mean over repeats) with the lowest and
    highest, peak memory in GB, GMAC of one utterance without pre-training heads, and time and GMAC over the first cell's. Empty
    where none is timed."""
    table = wide(folder)
    rows: dict[tuple[float, str], list[float]] = {}
    for name, cell in cells.items():
        lengths = cell.measure.inference if cell.measure and name.startswith("cost-") else []
        for seconds in lengths:
            ending = f"_{seconds:g}" if len(lengths) > 1 else ""
            times, peaks = (
                table.loc[table.cell == name].get(f"cost.inference_{what}{ending}", pd.Series(dtype=float)).dropna()
                for what in ("seconds", "peak_bytes")
            )
            if len(times):
                macs = count(cell.model, NoObjective(), round(seconds * SAMPLE_RATE)).macs
                mixer = name.removeprefix("cost-")
                rows[seconds, NAMES.get(mixer, mixer)] = [times.mean(), times.min(), times.max(), peaks.mean() / 1e9, macs / 1e9]
    found = pd.DataFrame.from_dict(rows, orient="index", columns=["seconds taken", "lowest", "highest", "memory, GB", "GMAC"])
    if not rows:
        return found
    found.index = pd.MultiIndex.from_tuples(list(rows), names=["seconds of audio", "mixer"])
    found = found.sort_index(level=0, sort_remaining=False, kind="stable")
    first = found.groupby(level=0).transform("first")
    return found.assign(**{f"{what}, first = 1": found[what] / first[what] for what in ("seconds taken", "GMAC")})


def measured_with(cells: dict[str, CellSettings], kind: str) -> str:
    """What the numbers of the cells `<kind>-…` were measured with, as the profile sets it: dropout, utterances, threads."""
    timed = [(cell.model.encoder, cell.measure) for name, cell in cells.items() if name.startswith(f"{kind}-") and cell.measure]
    found = {
        f"dropout {encoder.dropout:g}, attention's {encoder.attention_dropout:g}; utterances side by side: {measure.batch}; "
        f"threads of a processor: {measure.threads}"
        for encoder, measure in timed
    }
    return " or ".join(sorted(found)) or "nothing is measured"


def macs(cells: dict[str, CellSettings], lengths: tuple[float, ...] = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 300.0)) -> pd.DataFrame:
    """GMAC of one utterance by its seconds, pre-training heads included, of the cells cost-<mixer>: of its forward, and of an update, whose
    backward is exact; counted, on any machine. The fused kernel does unfused attention's work."""
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for name, cell in cells.items():
        if name.startswith("cost-") and "-attention" not in name:
            counted = {f"{s:g} s": count(cell.model, cell.objective, round(s * SAMPLE_RATE)) for s in lengths}
            known, million = NAMES.get(name.removeprefix("cost-"), name), counted[f"{lengths[0]:g} s"].params / 1e6
            rows["forward", known] = {"M parameters": million} | {s: c.macs / 1e9 for s, c in counted.items()}
            rows["update", known] = {"M parameters": million} | {s: c.train_flops / 2e9 for s, c in counted.items()}
    found = pd.DataFrame.from_dict(rows, orient="index").rename_axis(index=["of", "mixer"] if rows else None)
    return found.sort_index(level=0, sort_remaining=False, kind="stable")


def activations(folder: Path) -> pd.DataFrame:
    """What an update keeps for its backward alone, over unfused attention's, by seconds of audio: the share of memory that is left to save
    when a batch is so large that weights, gradients and the optimizer's state weigh nothing. Of processors, where memory is exact."""
    table = wide(folder)
    runs = json.loads((folder / "runs.json").read_text(encoding="utf-8")) if (folder / "runs.json").exists() else {}
    table = table[[any(run["machine"].get("gpu") == "none" for run in runs.get(cell, {}).values()) for cell in table.cell]]
    names = [c for c in table.columns if c.startswith("cost.peak_bytes_") and table[table.cell.str.startswith("cost-")][c].notna().any()]
    means = table[table.cell.str.startswith("cost-")].groupby("cell")[["cost.params", *names]].mean()
    if "cost-unfused" not in means.index:
        return pd.DataFrame()
    kept = means[names].sub(means["cost.params"].map(lambda params: sum(weight_memory(int(params)))), axis=0)
    found = kept.div(kept.loc["cost-unfused"]).rename(columns=lambda name: f"{name.rpartition('_')[2]} s", index=lambda cell: cell[5:])
    order = sorted(found.columns, key=lambda name: float(name.split()[0]))
    return found[order].rename(index=NAMES)


def draw_cost(folder: Path, cells: dict[str, CellSettings], of: str = "update") -> Figure:
    """Time and memory of an update or (`of="inference"`) of a forward against the input's length; below, each over unfused attention's."""
    names = {"update": ("update_seconds", "peak_bytes"), "inference": ("inference_seconds", "inference_peak_bytes")}[of]
    table = measurements(folder, "cost")
    table = table[table.what.isin(names)]
    if table.empty:
        figure, axis = plt.subplots(figsize=(6.4, 2.0))
        return nothing(figure, axis, f"this profile measures no {of} at several lengths")
    figure, axes = plt.subplots(2, 2, figsize=(9.6, 6.4), sharex=True, layout="constrained")
    figure.suptitle(measured_with(cells, "cost"), fontsize="small")
    for (above, below), what in zip(axes.T, names, strict=True):
        kind, unit = ("time", 1.0) if what.endswith("seconds") else ("memory", 1e9)
        part = table[table.what == what].assign(value=lambda t, unit=unit: t.value / unit)
        _lines(above, part, f"seconds, {of}" if unit == 1.0 else f"memory, {of}, GB")
        reference = part[part.mixer == "unfused"].groupby("length").value.mean()
        over = part.assign(value=part.value / part.length.map(reference).to_numpy())
        _lines(below, over, f"{kind}, unfused attention's = 1", log=False)
        below.axhline(1.0, color="0.4", linestyle=":", linewidth=1)
        below.set_xlabel("seconds of audio")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return done(figure)


def draw_mixers(folder: Path, cells: dict[str, CellSettings]) -> Figure:
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
        end = (x[1], start * (x[1] / x[0]) ** power)
        axis.annotate("$T^2$" if power > 1 else "$T$", end, (6, -3), textcoords="offset points", fontsize=8, color="0.4")
    axis.legend(fontsize="small")
    axis.set_xlabel("frames")
    axis.set_title(measured_with(cells, "mixer"), fontsize="small")
    return done(figure)


def draw_quality(folder: Path, metrics: dict[str, tuple[str, float]]) -> Figure:
    """Each pre-trained model's error over the MACs of its forward, bars of one standard deviation over seeds; dotted: the floors.
    A second language has panels of its own. metrics: name in the tables -> label, and what its values are multiplied by."""
    table = wide(folder)
    table = table.join(table.cell.str.extract(SCORED))  # a second head's cell starts from the first's encoder
    scored = table[table.mixer.notna()].fillna({"second": ""})
    names = [(second, name) for second in ("", *SECOND) for name in metrics if name in table]
    present = [(second, name) for second, name in names if scored[scored.second == second][name].notna().any()]
    present = present or [("", name) for name in list(metrics)[:1]]
    figure, axes = panels(len(present), 4.2, across=3)
    for axis, (second, name) in zip(axes, present, strict=True):
        if name not in table or scored.empty:
            nothing(figure, axis, "this profile scores nothing")
            continue
        label, unit = metrics[name]
        axis.set(xlabel="GMAC of one utterance", ylabel=f"{SECOND[second]}:\n{label}" if second else label)
        for mixer, group in scored[scored.second == second].dropna(subset=name).groupby("mixer"):
            known = mixer.removesuffix("-equal-compute")
            named = NAMES.get(known, known) + (f", equal compute: {group['cost.updates'].mean():.0f} updates" if known != mixer else "")
            x, y, colour = group["cost.macs"].mean() / 1e9, unit * error(name, group[name]), COLOURS.get(known)
            style = {"color": colour, "markerfacecolor": colour if known == mixer else "white", "markeredgewidth": 1.2}
            axis.errorbar(x, y.mean(), yerr=y.std() if len(y) > 1 else None, fmt="o", label=named, **style)
        pattern = f"floor-{second}-(logmel|random)" if second else "floor-((heads|intent|verification|emotion)-)?(logmel|random)"
        floors = table[table.cell.str.fullmatch(pattern)].dropna(subset=name).set_index("cell")[name]
        for cell, level in error(name, floors).groupby("cell").mean().items():
            axis.axhline(unit * level, color="0.4", linestyle=":", linewidth=1)
            axis.annotate(cell, (0.5, unit * level), xycoords=("axes fraction", "data"), fontsize=7, va="bottom", ha="center")
        axis.margins(x=0.2)
    mixers = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}  # no panel has all
    if mixers:
        figure.legend(mixers.values(), mixers.keys(), loc="outside lower center", ncols=3, fontsize="small")
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
    """Errors of the better floor, of attention and of each mixer in its place, means over seeds in per cent, and the share of attention's
    gain that is kept: at equal data, at equal compute, and in a second language. metrics: name in the tables -> label."""
    table = wide(folder)
    rows = {}
    for what, mixing, attention, floors in COMPARED:
        for name, label in metrics.items():
            if name not in table:
                continue
            means = (100 * error(name, table[name])).groupby(table.cell).mean()
            floor, one = means[means.index.str.fullmatch(floors)].min(), means.get(attention, np.nan)
            for mixer in LINEAR:
                other = means.get(mixing.format(mixer=mixer), np.nan)
                if not np.isnan([floor, one, other]).any():
                    rows[what, label, NAMES[mixer]] = [floor, one, other, (floor - other) / (floor - one) if one < floor else np.nan]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["floor", "attention", "in its place", "share kept"])
    return table.set_axis(pd.MultiIndex.from_tuples(table.index, names=["compared", "task", "mixer"]) if rows else table.index)
