"""Size at a fixed budget: our curves over the published sweep, from a study's tables and the profile's settings, and what every figure of
the study reads."""

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
    "{objective}-size{size_pct}-fourfold": {"budget": "fourfold", "family": "paper's share"},
    "{objective}-size{size_pct}-fixed": {"budget": "full", "family": "warm-up of as many updates as Slim's"},
    "{objective}-size{size_pct}-proportional": {"budget": "full", "family": "warm-up in proportion"},
    "{objective}-logmel{size_pct}": {"budget": "full", "family": "log-mels"},
    "{objective}-free{size_pct}": {"budget": "full", "family": "free"},
}
# families in plain words
FRONT_ENDS = {"paper's share": "convolutions, the paper's share", "log-mels": "log-mels, paid for", "free": "log-mels, not counted"}
FLOORS = {"floor-random": {"size_pct": 100}, "floor-random-size{size_pct}": {}}
BUDGETS = {"half": "#8fb8de", "full": "C0", "fourfold": "#08306b"}  # of training FLOPs, the least first, with their colours
SHAPE = "the paper's shape, % of Slim"  # below paper a size is the one whose encoder costs as many times its front end as that shape's does
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
    """Every curve over its own best point: rows are metrics, columns objectives. Ours are solid, a darker line a larger budget, the
    published dashed; bars are one standard deviation over seeds. Crosses: random weights of the shapes that were scored, over the best of
    the full budget."""
    every, floors = results(folder, SWEEP), results(folder, FLOORS)
    ours, variants = every.query('family == "paper\'s share"'), every[every.family.str.startswith("warm-up")]
    metrics = [name for name in METRICS if name in ours]
    figure, axes = plt.subplots(len(metrics), 3, figsize=(11.5, 3.1 * len(metrics)), sharex=True, squeeze=False, layout="constrained")
    for row, metric in zip(axes, metrics, strict=True):
        column, label = METRICS[metric]
        for axis, (objective, title) in zip(row, OBJECTIVES.items(), strict=True):
            for budget, colour in BUDGETS.items():
                mine = ours[(ours.objective == objective) & (ours.budget == budget)].dropna(subset=metric)
                mine = mine.groupby("size_pct")[metric].agg(["mean", "std"])
                if len(mine) > 1:
                    best = mine["mean"].min()
                    style = {"fmt": "o-", "color": colour, "label": f"ours, {budget} budget"}
                    axis.errorbar(mine.index, mine["mean"] / best, mine["std"] / best, **style)
                    if budget == "full":
                        _variants(axis, variants[variants.objective == objective], metric, best)
                        _floors(axis, floors, metric, best)
                paper = size_sweep().query(f"objective == '{objective}' and budget == '{budget}'")
                if len(paper):
                    style = {"color": "C1", "alpha": 1.0 if budget == "full" else 0.45, "label": f"published, {budget} budget"}
                    axis.plot(paper.size_pct, paper[column] / paper[column].min(), "s--", markersize=4, **style)
            _sizes(axis)
            axis.set(title=title if metric == metrics[0] else "", ylabel=f"{label} / its best" if axis is row[0] else "")
    for axis in axes[-1]:
        axis.set_xlabel(SHAPE)
    named = {name: handle for axis in axes.flat for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named, loc="outside lower center", ncols=4, fontsize="small")
    return done(figure)


def _variants(axis: Axes, variants: pd.DataFrame, metric: str, best: float) -> None:
    """Runs of one size that differ from the family in their warm-up, over the family's best."""
    for number, (name, mine) in enumerate(variants.groupby("family")):
        mine = mine.dropna(subset=metric).groupby("size_pct")[metric].agg(["mean", "std"])
        if len(mine):
            style = {"fmt": "*v"[number], "color": "k", "markersize": 8, "capsize": 3, "label": f"ours, {name}"}
            axis.errorbar(mine.index, mine["mean"] / best, mine["std"].fillna(0.0) / best, **style)


def _floors(axis: Axes, floors: pd.DataFrame, metric: str, best: float) -> None:
    """Random weights of the sizes that the profile scores, over the family's best: no training gives as much."""
    mine = floors.dropna(subset=metric) if metric in floors else floors[:0]
    if len(mine):
        mine = mine.groupby("size_pct")[metric].mean()
        axis.plot(mine.index, mine / best, "x:", color="0.3", markersize=7, markeredgewidth=1.6, label="random weights of this shape")


def arms(folder: Path) -> pd.DataFrame:
    """Whether the U has both its arms: how far the smallest and the largest size lie above the best between them, paired by seed, with
    Student's 95 % intervals, at each budget. `both`: neither interval reaches zero; a curve whose best is no better than random weights
    says nothing of training. The best is that of the means, as in the ledger."""
    ours, names, rows = results(folder, SWEEP).query('family == "paper\'s share"'), names_of(folder), []
    random = results(folder, FLOORS)
    for (objective, budget), part in ours.groupby(["objective", "budget"]):
        for metric in [name for name in METRICS if name in part]:
            wide = part.pivot_table(index="seed", columns="size_pct", values=metric)
            if wide.shape[1] < 3:
                continue
            inner = wide.iloc[:, 1:-1].mean().idxmin()
            ends = [paired(wide[size], wide[inner]) for size in (wide.columns[0], wide.columns[-1])]
            relative = [tuple(value / wide[inner].mean() for value in end) for end in ends]
            both = "yes" if all(low > 0 for _, low, _ in ends) else "no"
            if len(random) and metric in random and random.groupby("size_pct")[metric].mean().min() <= wide.mean().min():
                both = "no gain over random weights"
            rows.append((NAMES[objective], budget, names[metric], f"{inner:g} %", *(told(end, "+.1%") for end in relative), both))
    rows.sort(key=lambda row: (list(BUDGETS).index(row[1]) != 1, list(BUDGETS).index(row[1])))  # the full budget, then the others
    columns = ["objective", "budget", "metric", "best between", "smallest above it", "largest above it", "both"]
    return pd.DataFrame(rows, columns=columns).set_index("objective")


def gains(folder: Path) -> pd.DataFrame:
    """How far the error of each size at the full budget lies below that of random weights of its own shape, paired by seed, with Student's
    95 % intervals: a linear probe reads more from wider states, trained or not, and what training gives is this difference."""
    ours = results(folder, SWEEP).query("family == \"paper's share\" and budget == 'full'")
    random, names, rows = results(folder, FLOORS), names_of(folder), {}
    for metric in [name for name in ("content", "speaker") if len(random) and name in ours and name in random]:
        floors = random.pivot_table(index="seed", columns="size_pct", values=metric)
        for objective, part in ours.groupby("objective"):
            wide = part.pivot_table(index="seed", columns="size_pct", values=metric)
            sizes = [size for size in wide if size in floors]
            rows[names[metric], NAMES[objective]] = {f"{size:g} %": told(paired(floors[size], wide[size])) for size in sizes}
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["metric", "objective"])
    return table[sorted(table, key=lambda size: float(size.removesuffix(" %")))]


def draw_shares(folder: Path) -> Figure:
    """Validation loss against size where the front end keeps the paper's share of the cost, where it is log-mels, and where it is free."""
    ours = _families(folder)
    figure, axis = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
    if ours.empty:
        return nothing(figure, axis, "this profile runs no family on log-mels")
    best = ours.groupby(["objective", "family"], observed=True).loss.transform(lambda values: values.groupby(ours.size_pct).mean().min())
    table = ours.assign(relative=ours.loss / best, objective=ours.objective.replace(NAMES), family=ours.family.map(FRONT_ENDS))
    table = table.rename(columns={"family": "front end"})
    sns.lineplot(table, x="size_pct", y="relative", hue="objective", style="front end", markers=True, errorbar=("sd", 1), ax=axis)
    _sizes(axis)
    axis.set(xlabel=SHAPE, ylabel="validation loss / its best")
    axis.legend(fontsize="small")
    return done(figure)


def best_by_share(folder: Path) -> pd.DataFrame:
    """Of the sizes run with each front end, the best in mean validation loss, the best of each seed that ran them all, and how far the
    smallest and the largest lie above the mean's best, paired by seed, with Student's 95 % intervals."""
    ours, rows = _families(folder), []
    for (objective, family), part in ours.groupby(["objective", "family"], observed=True):
        wide = part.pivot_table(index="seed", columns="size_pct", values="loss")
        best = wide.mean().idxmin()
        each = ", ".join(f"{size:g} %" for size in sorted(set(wide.dropna().idxmin(axis=1))))
        ends = [paired(wide[size], wide[best]) for size in (wide.columns[0], wide.columns[-1])]
        above = [told(tuple(value / wide[best].mean() for value in end), "+.1%") for end in ends]
        rows.append((NAMES[objective], FRONT_ENDS[family], f"{best:g} %", each, *above))
    columns = ["objective", "front end", "best size, of Slim", "best of the seeds", "smallest above it", "largest above it"]
    return pd.DataFrame(rows, columns=columns).set_index("objective")


def _families(folder: Path) -> pd.DataFrame:
    """The runs for the full budget of the objectives that ran with several front ends, in FRONT_ENDS' order."""
    ours = results(folder, SWEEP).query("budget == 'full'")
    ours = ours[ours.family.isin(FRONT_ENDS)] if "loss" in ours else ours[:0]
    ours = ours[ours.groupby("objective").family.transform("nunique") > 1]
    return ours.assign(family=pd.Categorical(ours.family, list(FRONT_ENDS)))


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
    axis.set_xticks([30, 50, 100, 200, 473, 1582], ["30", "50", "100", "200", "473", "1582"])
    axis.minorticks_off()
