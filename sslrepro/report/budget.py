"""Figures of the compute-budget study: ours over the published sweep, each from a study's tables and the profile's settings."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sslrepro.budget.figures import OBJECTIVES
from sslrepro.budget.published import size_sweep
from sslrepro.claims.ledger import template
from sslrepro.config import CellSettings, Profile
from sslrepro.data.corpus import Corpus
from sslrepro.report.paired import paired, told
from sslrepro.report.panels import done, nothing

NAMES = OBJECTIVES | {"data2vec": "data2vec", "bestrq": "BEST-RQ", "hubert2": "HuBERT, second iteration"}
# name of a cell -> coordinates that the name itself does not carry
SWEEP = {
    "{objective}-size{size_pct}": {"budget": "full", "family": "paper's share"},
    "{objective}-slim": {"budget": "full", "size_pct": 100, "family": "paper's share"},
    "{objective}-size{size_pct}-half": {"budget": "half", "family": "paper's share"},
    "{objective}-size{size_pct}-fixed": {"budget": "full", "family": "warm-up of as many updates as Slim's"},
    "{objective}-size{size_pct}-proportional": {"budget": "full", "family": "warm-up in proportion"},
    "{objective}-free{size_pct}": {"budget": "full", "family": "free"},
}
FRONT_ENDS = {"free": "log-mels alone", "paper's share": "convolutions, the paper's share"}  # families in plain words
EDGE = {"markeredgewidth": 1.2}  # hollow markers have nothing else
# the first that a study has, and its name as an error
CONTENT = {"asr.wer": "word error rate", "phone_ctc.per": "phone error rate", "phone.accuracy": "frame error, phones"}
# ours -> published, and what both are called
METRICS = {"loss": ("valid_loss", "validation loss"), "content": ("asr_wer", "content error"), "speaker": ("asv_eer", "equal error rate")}


def coordinates(cells: list[str], templates: dict[str, dict]) -> pd.DataFrame:
    """One row for each cell that a template names: cell and the template's coordinates, sizes and hours as numbers."""
    rows = []
    for cell in cells:
        for name, given in templates.items():
            match = template(name).fullmatch(cell)
            if match:
                rows.append({"cell": cell} | match.groupdict() | given)
                break
    table = pd.DataFrame(rows, columns=sorted({"cell"} | {key for row in rows for key in row}))
    numeric = [c for c in ("size_pct", "hours") if c in table]
    return table.astype(dict.fromkeys(numeric, float))


def results(folder: Path, templates: dict[str, dict]) -> pd.DataFrame:
    """One row a run of the named cells: coordinates, a column for each metric, and loss, content and speaker (errors, lower is better;
    absent where the profile scores nothing of the kind)."""
    table = pd.read_csv(folder / "metrics.csv")
    wide = table.pivot_table(index=["cell", "seed"], columns="metric", values="value").reset_index()
    wide = coordinates(sorted(wide.cell.unique()), templates).merge(wide, on="cell")
    content = next((name for name in CONTENT if name in wide), None)
    if content is not None:
        wide["content"] = 1 - wide[content] if content.endswith("accuracy") else wide[content]
    for name, metric in (("loss", "pretrain.valid_loss"), ("speaker", "verification.eer")):
        if metric in wide:
            wide[name] = wide[metric]
    return wide


def names_of(folder: Path) -> dict[str, str]:
    """What loss, content and speaker are called, content after the metric that this study has."""
    known = set(pd.read_csv(folder / "metrics.csv").metric)
    content = next((said for name, said in CONTENT.items() if name in known), METRICS["content"][1])
    return {name: label for name, (_, label) in METRICS.items()} | {"content": content}


def with_flops(table: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """The same with the training budget in FLOPs (`flops`), of the cells whose budget is one, and with what came before (`whole`)."""
    budgets = {name: cell.training.budget for name, cell in profile.studies["budget"].cells.items()}
    flops = {name: budget.amount for name, budget in budgets.items() if budget.unit == "flops"}
    setup = table["cost.setup_flops"].fillna(0.0) if "cost.setup_flops" in table else 0.0
    return table.assign(flops=table.cell.map(flops), whole=table.cell.map(flops) + setup)


def draw_u_curves(folder: Path) -> Figure:
    """Every curve over its own best point: rows are metrics, columns objectives; ours solid, published dashed, the half budget paler."""
    every = results(folder, SWEEP)
    ours, variants = every.query('family == "paper\'s share"'), every[every.family.str.startswith("warm-up")]
    metrics = [name for name in METRICS if name in ours]
    figure, axes = plt.subplots(len(metrics), 3, figsize=(11.5, 3.1 * len(metrics)), sharex=True, squeeze=False, layout="constrained")
    for row, metric in zip(axes, metrics, strict=True):
        column, label = METRICS[metric]
        for axis, (objective, title) in zip(row, OBJECTIVES.items(), strict=True):
            for budget, strength in (("full", 1.0), ("half", 0.45)):
                mine = ours[(ours.objective == objective) & (ours.budget == budget)].dropna(subset=metric)
                mine = mine.groupby("size_pct")[metric].agg(["mean", "std"])
                if len(mine) > 1:
                    style = {"color": "C0", "alpha": strength, "label": f"ours, {budget} budget"}
                    axis.errorbar(mine.index, mine["mean"] / mine["mean"].min(), mine["std"] / mine["mean"].min(), fmt="o-", **style)
                    if budget == "full":
                        _variants(axis, variants[variants.objective == objective], metric, mine["mean"].min())
                paper = size_sweep().query(f"objective == '{objective}' and budget == '{budget}'")
                if len(paper):
                    style = {"color": "C1", "alpha": strength, "label": f"published, {budget} budget"}
                    axis.plot(paper.size_pct, paper[column] / paper[column].min(), "s--", markersize=4, **style)
            _sizes(axis)
            axis.set(title=title if metric == metrics[0] else "", ylabel=f"{label} / its best" if axis is row[0] else "")
            axis.legend(fontsize="x-small")
    for axis in axes[-1]:
        axis.set_xlabel("size, % of Slim")
    return done(figure)


def _variants(axis: Axes, variants: pd.DataFrame, metric: str, best: float) -> None:
    """Runs of one size that differ from the family in their warm-up, over the family's best."""
    for number, (name, mine) in enumerate(variants.groupby("family")):
        mean = mine.groupby("size_pct")[metric].mean().dropna()
        if len(mean):
            axis.plot(mean.index, mean / best, "*v"[number], color="k", markersize=8, linestyle="", label=f"ours, {name}")


def arms(folder: Path) -> pd.DataFrame:
    """Whether the U has both its arms at the full budget: how far the smallest and the largest size lie above the best between them, paired
    by seed, with Student's 95 % intervals. `both`: neither interval reaches zero. The best is that of the means, as in the ledger."""
    ours, names, rows = results(folder, SWEEP).query("budget == 'full' and family == \"paper's share\""), names_of(folder), []
    for objective, part in ours.groupby("objective"):
        for metric in [name for name in METRICS if name in part]:
            wide = part.pivot_table(index="seed", columns="size_pct", values=metric)
            if wide.shape[1] < 3:
                continue
            inner = wide.iloc[:, 1:-1].mean().idxmin()
            ends = [paired(wide[size], wide[inner]) for size in (wide.columns[0], wide.columns[-1])]
            relative = [tuple(value / wide[inner].mean() for value in end) for end in ends]
            both = "yes" if all(low > 0 for _, low, _ in ends) else "no"
            rows.append((NAMES[objective], names[metric], f"{inner:g} %", *(told(end, "+.1%") for end in relative), both))
    columns = ["objective", "metric", "best between", "smallest above it", "largest above it", "both"]
    return pd.DataFrame(rows, columns=columns).set_index("objective")


def draw_shares(folder: Path) -> Figure:
    """Validation loss against size where the front end keeps the paper's share of the cost, and where it is log-mels alone."""
    ours = results(folder, SWEEP).query("budget == 'full'")
    figure, axis = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
    table = ours[ours.objective.isin(ours[ours.family == "free"].objective)] if "loss" in ours else ours[:0]
    if table.empty:
        return nothing(figure, axis, "this profile runs no family on log-mels")
    best = table.groupby(["objective", "family"]).loss.transform(lambda values: values.groupby(table.size_pct).mean().min())
    table = table.assign(relative=table.loss / best)
    table = table.assign(objective=table.objective.replace(NAMES), family=table.family.map(FRONT_ENDS))
    table = table.rename(columns={"family": "front end"})
    sns.lineplot(table, x="size_pct", y="relative", hue="objective", style="front end", markers=True, errorbar=("sd", 1), ax=axis)
    _sizes(axis)
    axis.set(xlabel="size, % of Slim", ylabel="validation loss / its best")
    axis.legend(fontsize="small")
    return done(figure)


def best_by_share(folder: Path) -> pd.DataFrame:
    """Of the sizes run with either front end, the best in mean validation loss, the best of each seed that ran them all, and how far the
    smallest and the largest lie above the mean's best, paired by seed, with Student's 95 % intervals."""
    ours = results(folder, SWEEP).query("budget == 'full'")
    ours = ours[ours.objective.isin(ours[ours.family == "free"].objective)] if "loss" in ours else ours[:0]
    rows = []
    for (objective, family), part in ours[ours.family.isin(["free", "paper's share"])].groupby(["objective", "family"]):
        wide = part.pivot_table(index="seed", columns="size_pct", values="loss")
        best = wide.mean().idxmin()
        each = ", ".join(f"{size:g} %" for size in sorted(set(wide.dropna().idxmin(axis=1))))
        ends = [paired(wide[size], wide[best]) for size in (wide.columns[0], wide.columns[-1])]
        above = [told(tuple(value / wide[best].mean() for value in end), "+.1%") for end in ends]
        rows.append((NAMES[objective], FRONT_ENDS[family], f"{best:g} %", each, *above))
    columns = ["objective", "front end", "best size, of Slim", "best of the seeds", "smallest above it", "largest above it"]
    return pd.DataFrame(rows, columns=columns).set_index("objective")


def draw_shapes(folder: Path, profile: Profile) -> Figure:
    """Slim against Small of the same objective, seed by seed, and validation loss over the depths at equal parameters and budget."""
    pairs = results(folder, {"{objective}-slim": {"shape": "Slim"}, "{objective}-small": {"shape": "Small"}})
    depths = results(folder, {"{objective}-depth{layers}": {}, "{objective}-slim": {}, "{objective}-small": {}})
    metrics, called = [name for name in METRICS if name in pairs], names_of(folder)
    figure, axes = plt.subplots(1, len(metrics) + 1, figsize=(4.0 * (len(metrics) + 1), 3.4), layout="constrained")
    for axis, metric in zip(axes, metrics, strict=False):
        wide = pairs.pivot_table(index=["objective", "seed"], columns="shape", values=metric)
        wide = wide.dropna() if {"Slim", "Small"} <= set(wide.columns) else wide[:0]
        for place, (_, mine) in enumerate(wide.groupby("objective")):
            for row in mine.itertuples():
                axis.plot([place - 0.2, place + 0.2], [row.Slim, row.Small], "o-", color=f"C{place}", alpha=0.7)
        names = [NAMES.get(objective, objective) for objective in wide.index.unique("objective")]
        axis.set_xticks(range(len(names)), names)
        axis.set(xlabel="Slim (left) and Small (right), a line a seed", ylabel=called[metric])
        if wide.empty:
            nothing(figure, axis, "no pair in this profile")
    depths = depths.assign(layers=[profile.studies["budget"].cells[cell].model.encoder.layers for cell in depths.cell])
    families = depths.groupby("objective").layers.nunique()
    depths = depths[depths.objective.isin(families[families > 2].index)]
    if depths.empty:
        return nothing(figure, axes[-1], "no family of depths in this profile")
    depths = depths.assign(objective=depths.objective.replace(NAMES))
    sns.lineplot(depths, x="layers", y="loss", hue="objective", marker="o", errorbar=("sd", 1), ax=axes[-1])
    axes[-1].set(xlabel="layers, at equal parameters and FLOPs", ylabel="validation loss", xticks=sorted(depths.layers.unique()))
    return done(figure)


def draw_objectives(folder: Path, profile: Profile) -> Figure:
    """Objectives at the Slim size, and the originals of two of them: error against training FLOPs, and (hollow) with what labels and
    teachers had cost before. Dashed: a floor, where the profile scores one."""
    forms = {"{objective}-slim": {"form": ""}, "{objective}-original": {"form": ", original"}}
    table, called = with_flops(results(folder, forms), profile), names_of(folder)
    metrics = [name for name in ("content", "speaker") if name in table]
    figure, axes = plt.subplots(1, max(len(metrics), 1), figsize=(4.6 * max(len(metrics), 1), 3.4), squeeze=False, layout="constrained")
    if not metrics:  # real speech without phone times, say
        return nothing(figure, axes[0, 0], "nothing of this corpus could be scored")
    for axis, metric in zip(axes[0], metrics, strict=True):
        present = table.dropna(subset=["flops", metric])
        objectives = present.groupby(["objective", "form"])
        colours = sns.color_palette("colorblind", len(objectives))
        for place, ((objective, form), mine) in enumerate(objectives):
            mean, spread = mine[metric].mean(), mine[metric].std()
            beside = 0.03 * place * present.flops.max()  # of one budget all: so that intervals do not hide each other
            trained, whole = mine.flops.mean() + beside, mine.whole.mean() + beside
            style = {"color": colours[place], "capsize": 3}
            fmt = "^" if form else "o"
            axis.errorbar(trained, mean, 0 if np.isnan(spread) else spread, fmt=fmt, label=NAMES.get(objective, objective) + form, **style)
            if whole > trained:
                axis.plot([trained, whole], [mean, mean], ":", color=colours[place])
                axis.plot(whole, mean, fmt, markerfacecolor="white", color=colours[place], **EDGE)
        for cell, floor in results(folder, {"floor-{floor}": {}, "floor-{floor}-{size}": {}}).groupby("cell"):
            kind, _, size = cell.removeprefix("floor-").partition("-")
            style = {"linestyle": ":" if size else "--", "label": f"{kind} weights" + (f", {size}" if size else "")}
            axis.axhline(floor[metric].mean(), color="0.4", linewidth=1, **style)
        axis.set(xlabel="training FLOPs; hollow: labels too", ylabel=called[metric])
        axis.xaxis.set_major_formatter("{x:.2g}")
        if present.empty:
            nothing(figure, axis, "no budget in FLOPs in this profile")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    return done(figure)


def costs(profile: Profile, cells: list[str], seconds: float) -> pd.DataFrame:
    """Where each cell's training goes: parameters, MACs of a second, the front end's share of them, and the budget; counted on inputs of
    so many seconds, because attention's share grows with them."""
    from sslrepro.budget.count import cell_cost

    rows = {}
    for name in cells:
        cell: CellSettings = profile.studies["budget"].cells[name]
        cost = cell_cost(cell, seconds)
        share = cost.components["feature_extractor"].macs / cost.macs
        budget = f"{cell.training.budget.amount:g} {cell.training.budget.unit}"
        rows[name] = [cost.params, cost.macs / seconds / 1e6, share, cell.training.learning_rate, budget]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["parameters", "MMAC a second", "front end", "peak rate", "budget"])


def reconstructed(profile: Profile) -> str:
    """Which cells of TERA's predict MFCC at zero mean and unit variance over the utterance, and which predict them as they are."""
    objectives = {name: cell.objective for name, cell in profile.studies["budget"].cells.items()}
    told = {True: "normalised over the utterance", False: "as they are"}
    cells = {kind: [n for n, o in objectives.items() if o.name == "reconstruction" and o.normalise == kind] for kind in told}
    return "MFCC " + "; ".join(f"{told[kind]}: {', '.join(names) or 'no cell'}" for kind, names in cells.items()) + "."


def mean_seconds(profile: Profile, corpus: Corpus) -> float:
    """Mean length in seconds of the training split as the study's first cell trains on it: without the too short, the long ones cropped."""
    training = next(iter(profile.studies["budget"].cells.values())).training
    durations = corpus.durations[corpus.split("train").index]
    return float(np.minimum(durations[durations >= training.min_seconds], training.max_seconds).mean())


def updates(folder: Path, profile: Profile) -> pd.DataFrame:
    """What each size gets for its budget, means over seeds: updates, those of the warm-up, and hours seen."""
    ours = results(folder, SWEEP)
    if not {"cost.updates", "cost.hours_seen"} <= set(ours):
        return pd.DataFrame()
    mean = ours.groupby(["objective", "budget", "family", "size_pct", "cell"])[["cost.updates", "cost.hours_seen"]].mean().reset_index()
    warmup = [profile.studies["budget"].cells[cell].training.schedule.warmup for cell in mean.cell]
    mean["warm-up"] = [amount if amount > 1 else amount * run for amount, run in zip(warmup, mean["cost.updates"], strict=True)]
    mean = mean.rename(columns={"cost.updates": "updates", "cost.hours_seen": "hours seen"})
    return mean.set_index("cell")[["updates", "warm-up", "hours seen"]]


def _sizes(axis: Axes) -> None:
    axis.set_xscale("log")
    axis.set_xticks([30, 100, 473, 1582], ["30", "100", "473", "1582"])
    axis.minorticks_off()
