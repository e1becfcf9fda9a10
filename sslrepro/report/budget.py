"""Figures of the compute-budget study: ours over the published sweep, each from a study's tables and the profile's settings."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from sslrepro.budget.figures import OBJECTIVES
from sslrepro.budget.fits import Vertex, parametric_loss, u_curve
from sslrepro.budget.published import size_sweep
from sslrepro.claims.ledger import template
from sslrepro.config import CellSettings, Profile
from sslrepro.data.corpus import Corpus
from sslrepro.report.batch_size import plain_ticks
from sslrepro.report.panels import done, nothing

NAMES = OBJECTIVES | {"data2vec": "data2vec", "bestrq": "BEST-RQ"}
# name of a cell -> coordinates that the name itself does not carry
SWEEP = {
    "{objective}-size{size_pct}": {"budget": "full", "family": "paper's share"},
    "{objective}-slim": {"budget": "full", "size_pct": 100, "family": "paper's share"},
    "{objective}-size{size_pct}-half": {"budget": "half", "family": "paper's share"},
    "{objective}-free{size_pct}": {"budget": "full", "family": "free"},
}
UNIQUE = {
    "unique{hours}": {"variant": "speakers one after another"},
    "unique{hours}-fixed": {"variant": "every speaker, fewer sentences"},
    "unique{hours}-augmented": {"variant": "audio augmented"},
}
EDGE = {"markeredgewidth": 1.2}  # hollow markers have nothing else
CONTENT = ("asr.wer", "phone_ctc.per", "phone.accuracy")  # the first that a study has
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


def with_flops(table: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """The same with the training budget in FLOPs (`flops`), of the cells whose budget is one, and with what came before (`whole`)."""
    budgets = {name: cell.training.budget for name, cell in profile.studies["budget"].cells.items()}
    flops = {name: budget.amount for name, budget in budgets.items() if budget.unit == "flops"}
    setup = table["cost.setup_flops"].fillna(0.0) if "cost.setup_flops" in table else 0.0
    return table.assign(flops=table.cell.map(flops), whole=table.cell.map(flops) + setup)


def draw_u_curves(folder: Path) -> Figure:
    """Every curve over its own best point: rows are metrics, columns objectives; ours solid, published dashed, the half budget paler."""
    ours = results(folder, SWEEP).query('family == "paper\'s share"')
    metrics = [name for name in METRICS if name in ours]
    figure, axes = plt.subplots(len(metrics), 3, figsize=(11.5, 3.1 * len(metrics)), sharex=True, squeeze=False, layout="constrained")
    for row, metric in zip(axes, metrics, strict=True):
        column, label = METRICS[metric]
        for axis, (objective, title) in zip(row, OBJECTIVES.items(), strict=True):
            for budget, strength in (("full", 1.0), ("half", 0.45)):
                mine = ours[(ours.objective == objective) & (ours.budget == budget)].groupby("size_pct")[metric].agg(["mean", "std"])
                if len(mine) > 1:
                    style = {"color": "C0", "alpha": strength, "label": f"ours, {budget} budget"}
                    axis.errorbar(mine.index, mine["mean"] / mine["mean"].min(), mine["std"] / mine["mean"].min(), fmt="o-", **style)
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


def draw_shares(folder: Path) -> Figure:
    """Validation loss against size where the front end keeps the paper's share of the cost, and where it is free."""
    ours = results(folder, SWEEP).query("budget == 'full'")
    figure, axis = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
    table = ours[ours.objective.isin(ours[ours.family == "free"].objective)] if "loss" in ours else ours[:0]
    if table.empty:
        return nothing(figure, axis, "this profile runs no family with a free front end")
    best = table.groupby(["objective", "family"]).loss.transform(lambda values: values.groupby(table.size_pct).mean().min())
    table = table.assign(relative=table.loss / best)
    table = table.assign(
        objective=table.objective.replace(NAMES), family=table.family.map({"free": "free", "paper's share": "the paper's share"})
    )
    table = table.rename(columns={"family": "front end"})
    sns.lineplot(table, x="size_pct", y="relative", hue="objective", style="front end", markers=True, errorbar=("sd", 1), ax=axis)
    _sizes(axis)
    axis.set(xlabel="size, % of Slim", ylabel="validation loss / its best")
    axis.legend(fontsize="small")
    return done(figure)


def best_by_share(folder: Path) -> pd.DataFrame:
    """Of the sizes run with either front end, the best in validation loss, and how much worse the smallest and the largest are."""
    ours = results(folder, SWEEP).query("budget == 'full'")
    ours = ours[ours.objective.isin(ours[ours.family == "free"].objective)] if "loss" in ours else ours[:0]
    rows = []
    for (objective, family), part in ours.groupby(["objective", "family"]):
        loss = part.groupby("size_pct").loss.mean()
        above = loss / loss.min() - 1
        rows.append((NAMES[objective], family, f"{loss.idxmin():g} %", f"{above.iloc[0]:.1%}", f"{above.iloc[-1]:.1%}"))
    return pd.DataFrame(rows, columns=["objective", "front end", "best size, of Slim", "smallest above it", "largest above it"]).set_index(
        "objective"
    )


def vertices(folder: Path, profile: Profile) -> pd.DataFrame:
    """The bottom of every U with at least four sizes: whose, objective, budget, metric, flops, size in parameters, low, high, inside."""
    rows = []
    ours = with_flops(results(folder, SWEEP).query('family == "paper\'s share"'), profile)
    for (objective, budget), part in ours.dropna(subset="flops").groupby(["objective", "budget"]):
        for metric in METRICS:
            mine = part.dropna(subset=metric) if metric in part else part[:0]
            if mine.size_pct.nunique() >= 4:
                vertex = u_curve(mine.size_pct, mine[metric], seed=f"{objective} {budget} {metric}")
                rows.append(_vertex_row("ours", objective, budget, metric, part.flops.median(), _in_parameters(vertex, mine)))
    for (objective, budget), part in size_sweep().groupby(["objective", "budget"]):
        for metric, (column, _) in METRICS.items():
            vertex = u_curve(part.params, part[column], seed=f"{objective} {budget} {column}")
            rows.append(_vertex_row("published", objective, budget, metric, part.flops.median(), vertex))
    return pd.DataFrame(rows)


def _in_parameters(vertex: Vertex, runs: pd.DataFrame) -> Vertex:
    """A vertex in per cent of Slim, as parameters of the same family, between its sizes log-log and beyond them by the nearest two.

    A scaled family's front end holds most of its small members' parameters, so that a U that is even in per cent is not in parameters.
    """
    sizes = runs.groupby("size_pct")["cost.params"].mean().sort_index()
    x, y = np.log(sizes.index.to_numpy(float)), np.log(sizes.to_numpy())

    def parameters(per_cent: float) -> float:
        if per_cent in (0.0, math.inf):  # an open end of an interval
            return per_cent
        at = min(max(int(np.searchsorted(x, math.log(per_cent))), 1), len(x) - 1)
        slope = (y[at] - y[at - 1]) / (x[at] - x[at - 1])
        return math.exp(y[at] + slope * (math.log(per_cent) - x[at]))

    return replace(vertex, size=parameters(vertex.size), low=parameters(vertex.low), high=parameters(vertex.high))


def _vertex_row(whose: str, objective: str, budget: str, metric: str, flops: float, vertex: Vertex) -> dict:
    named = {"whose": whose, "objective": objective, "budget": budget, "metric": metric, "flops": flops}
    return named | {"size": vertex.size, "low": vertex.low, "high": vertex.high, "inside": vertex.inside}


def fitted_losses(folder: Path) -> pd.DataFrame:
    """The parametric loss E + A / parameters^alpha + B / hours^beta of each objective with at least seven runs over both budgets, with 95 %
    intervals, and the best of the sizes that ran for the full budget."""
    rows = {}
    ours = results(folder, SWEEP).query('family == "paper\'s share"')
    ours = ours.dropna(subset=["loss", "cost.hours_seen"]) if {"loss", "cost.hours_seen"} <= set(ours.columns) else ours[:0]
    for objective, part in ours.groupby("objective"):
        if len(part) < 7 or part.budget.nunique() < 2:
            continue
        fit = parametric_loss(part["cost.params"], part["cost.hours_seen"], part.loss)
        full = part[part.budget == "full"].groupby("size_pct")[["cost.params", "cost.hours_seen"]].mean()
        best, low, high = fit.best_size(full["cost.params"].to_numpy(), full["cost.hours_seen"].to_numpy())
        values = {name: (getattr(fit, name), *fit.intervals[name]) for name in ("floor", "alpha", "beta")} | {
            "best size": (best, low, high)
        }
        rows[objective] = {name: f"{value:.3g} [{low:.3g}, {high:.3g}]" for name, (value, low, high) in values.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["floor", "alpha", "beta", "best size"])


def draw_guideline(folder: Path, profile: Profile) -> Figure:
    """The best size against the budget in FLOPs, ours and the published sweep's in one figure; dotted: through the two medians."""
    table = vertices(folder, profile)
    closed = table[table.inside & (table.low > 0)]
    figure, axis = plt.subplots(figsize=(7.0, 4.4), layout="constrained")
    colours = dict(zip(METRICS, sns.color_palette("colorblind", len(METRICS)), strict=True))
    markers = dict(zip(OBJECTIVES, "osD", strict=True))
    shift = {metric: 1.06 ** (i - 1) for i, metric in enumerate(METRICS)}  # so that intervals do not hide each other
    for row in closed.itertuples():
        bars = [[(row.size - row.low) / 1e6], [(row.high - row.size) / 1e6]]
        style = {"color": colours[row.metric], "markerfacecolor": colours[row.metric] if row.whose == "ours" else "white", **EDGE}
        axis.errorbar([row.flops * shift[row.metric]], [row.size / 1e6], bars, fmt=markers[row.objective], **style)
    medians = closed.groupby("whose")[["flops", "size"]].median()
    if len(medians) == 2:
        (low, high), (small, large) = medians["flops"].sort_values(), medians.sort_values("flops")["size"]
        power = np.log(large / small) / np.log(high / low)
        axis.plot([low, high], [small / 1e6, large / 1e6], ":", color="0.4", label=f"budget to the power {power:.2f}")
    handles = [plt.Line2D([], [], color=colours[m], marker="o", linestyle="", label=METRICS[m][1]) for m in METRICS]
    handles += [plt.Line2D([], [], color="0.3", marker=markers[o], linestyle="", label=OBJECTIVES[o]) for o in OBJECTIVES]
    handles += [plt.Line2D([], [], color="0.3", marker="o", linestyle="", markerfacecolor="white", label="published", **EDGE)]
    axis.legend(handles=[*handles, *axis.get_legend_handles_labels()[0]], fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    axis.set(
        xscale="log", yscale="log", xlabel="training FLOPs", ylabel="best size, million parameters", title="what to train for a budget"
    )
    axis.xaxis.set_minor_formatter(NullFormatter())
    plain_ticks(axis.yaxis, *axis.get_ylim())
    return done(figure)


def draw_shapes(folder: Path, profile: Profile) -> Figure:
    """Slim against Small of the same objective, seed by seed, and validation loss over the depths at equal parameters and budget."""
    pairs = results(folder, {"{objective}-slim": {"shape": "Slim"}, "{objective}-small": {"shape": "Small"}})
    depths = results(folder, {"{objective}-depth{layers}": {}, "{objective}-slim": {}, "{objective}-small": {}})
    metrics = [name for name in METRICS if name in pairs]
    figure, axes = plt.subplots(1, len(metrics) + 1, figsize=(4.0 * (len(metrics) + 1), 3.4), layout="constrained")
    for axis, metric in zip(axes, metrics, strict=False):
        wide = pairs.pivot_table(index=["objective", "seed"], columns="shape", values=metric)
        wide = wide.dropna() if {"Slim", "Small"} <= set(wide.columns) else wide[:0]
        for place, (_, mine) in enumerate(wide.groupby("objective")):
            for row in mine.itertuples():
                axis.plot([place - 0.2, place + 0.2], [row.Slim, row.Small], "o-", color=f"C{place}", alpha=0.7)
        names = [NAMES.get(objective, objective) for objective in wide.index.unique("objective")]
        axis.set_xticks(range(len(names)), names)
        axis.set(xlabel="Slim (left) and Small (right), a line a seed", ylabel=METRICS[metric][1])
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


def draw_unique(folder: Path) -> Figure:
    """What fewer unique hours cost at a fixed number of updates; x is the share of the corpus, as hours of 960."""
    table = results(folder, UNIQUE)
    metrics = [name for name in METRICS if name in table and table[name].notna().any()]
    figure, axes = plt.subplots(1, max(len(metrics), 1), figsize=(4.2 * max(len(metrics), 1), 3.4), squeeze=False, layout="constrained")
    if table.empty:
        return nothing(figure, axes[0, 0], "this profile varies no hours")
    for axis, metric in zip(axes[0], metrics, strict=True):
        sns.lineplot(table, x="hours", y=metric, hue="variant", style="variant", markers=True, errorbar=("sd", 1), ax=axis)
        axis.set(xscale="log", xlabel="unique hours, of 960", ylabel=METRICS[metric][1])
        plain_ticks(axis.xaxis, *axis.get_xlim())
        axis.legend(fontsize="x-small")
    return done(figure)


def subsets(profile: Profile, corpus: Corpus) -> pd.DataFrame:
    """Hours, utterances, speakers and different sentences of the training data of each cell that varies them."""
    rows = {}
    for cell in coordinates(list(profile.studies["budget"].cells), UNIQUE).cell:
        data = profile.studies["budget"].cells[cell].data
        index = corpus.subset(data.hours, data.fixed_speakers)
        part = corpus.utterances.loc[index]
        rows[cell] = [corpus.durations[index].sum() / 3600, len(index), part.speaker.nunique(), part.text.nunique()]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["hours", "utterances", "speakers", "sentences"])
    return table.astype({"utterances": int, "speakers": int, "sentences": int})


def draw_objectives(folder: Path, profile: Profile) -> Figure:
    """Objectives at the Slim size: error against training FLOPs, and (hollow) with what labels and teachers had cost before."""
    table = with_flops(results(folder, {"{objective}-slim": {}}), profile)
    metrics = [name for name in ("content", "speaker") if name in table]
    figure, axes = plt.subplots(1, max(len(metrics), 1), figsize=(4.6 * max(len(metrics), 1), 3.4), squeeze=False, layout="constrained")
    if not metrics:  # real speech without phone times, say
        return nothing(figure, axes[0, 0], "nothing of this corpus could be scored")
    for axis, metric in zip(axes[0], metrics, strict=True):
        present = table.dropna(subset=["flops", metric])
        for place, (objective, mine) in enumerate(present.groupby("objective")):
            mean, spread = mine[metric].mean(), mine[metric].std()
            beside = 0.03 * place * present.flops.max()  # of one budget all: so that intervals do not hide each other
            trained, whole = mine.flops.mean() + beside, mine.whole.mean() + beside
            style = {"color": f"C{place}", "capsize": 3}
            axis.errorbar(trained, mean, 0 if np.isnan(spread) else spread, fmt="o", label=NAMES.get(objective, objective), **style)
            if whole > trained:
                axis.plot([trained, whole], [mean, mean], ":", color=f"C{place}")
                axis.plot(whole, mean, "o", markerfacecolor="white", color=f"C{place}", **EDGE)
        axis.set(xlabel="training FLOPs; hollow: labels too", ylabel=METRICS[metric][1])
        axis.xaxis.set_major_formatter("{x:.2g}")
        if present.empty:
            nothing(figure, axis, "no budget in FLOPs in this profile")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    return done(figure)


def costs(profile: Profile, cells: list[str]) -> pd.DataFrame:
    """Where each cell's training goes: parameters, MACs of a second, the front end's share of them, and the budget."""
    from sslrepro.budget.count import cell_cost

    rows = {}
    for name in cells:
        cell: CellSettings = profile.studies["budget"].cells[name]
        seconds = cell.training.max_seconds
        cost = cell_cost(cell, seconds)
        share = cost.components["feature_extractor"].macs / cost.macs
        budget = f"{cell.training.budget.amount:g} {cell.training.budget.unit}"
        rows[name] = [cost.params, cost.macs / seconds / 1e6, share, cell.training.learning_rate, budget]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["parameters", "MMAC a second", "front end", "peak rate", "budget"])


def _sizes(axis: Axes) -> None:
    axis.set_xscale("log")
    axis.set_xticks([30, 100, 473, 1582], ["30", "100", "473", "1582"])
    axis.minorticks_off()
