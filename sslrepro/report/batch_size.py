"""Figures of the batch-size study: ours beside the published points (claims/published), each from tables alone."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from sslrepro.claims.ledger import Claim, load_study, template
from sslrepro.config import RateScaling, TrainingSettings
from sslrepro.paths import root
from sslrepro.report.panels import beside, done, nothing, panels

BATCH = template("b{batch_seconds}")
RULE = template("lr-{rule}-b{batch_seconds}")
SMALLEST = template("smallest{batch_seconds}-{rule}")  # the paper's 87.5 s at a rate of another rule
TUNED = r"^fine_tune_(?P<minutes>[\d.]+)min\.(?P<unit>wer|per)(?P<lm>_lm)?(?P<part>_clean)?$"
UPDATES = 400_000  # of every batch of the paper's
PAPER_CODES = 320  # of each of its two codebooks
SCRATCH = ("scratch", "floor-random")
AXIS = {"batch_seconds": "batch (seconds of audio)", "hours_seen": "hours of audio seen"}


def checkpoints(folder: Path) -> pd.DataFrame:
    """One row a (batch, seed, scored share of the run): batch_seconds, share, updates, hours_seen, and a column for each metric."""
    table = pd.read_csv(folder / "metrics.csv")
    table = table[table.cell.str.fullmatch(BATCH)]
    name = table.metric.str.split("@", n=1, expand=True).reindex(columns=[0, 1])
    table = table.assign(metric=name[0], share=name[1].fillna("1").astype(float))
    wide = table.pivot_table(index=["cell", "seed", "share"], columns="metric", values="value").reset_index()
    wide["batch_seconds"] = wide.cell.str.extract(BATCH.pattern, expand=True)["batch_seconds"].astype(float)
    for column in ("cost.updates", "cost.hours_seen"):
        whole = wide[wide.share == 1].set_index(["cell", "seed"])[column]
        wide[column.removeprefix("cost.")] = wide.set_index(["cell", "seed"]).index.map(whole).to_numpy() * wide.share
    return wide


def scored_over_time(table: pd.DataFrame) -> dict[str, str]:
    """What a table of `checkpoints` has at several shares of the run and says how good an encoder is: name in the tables -> label.

    Validation loss, phones of a frozen probe, and errors after fine-tuning, read greedily, of the part `clean` where there is one.
    """
    labels = {"phone.accuracy": "phone error", "pretrain.valid_loss": "validation loss", "phone_ctc.per": "phone error rate, frozen"}
    tuned = {name: found for name in table if (found := re.match(TUNED, str(name))) and not found["lm"]}
    parts = any(found["part"] for found in tuned.values())
    labels |= {name: f"{f['unit'].upper()}, {f['minutes']} min of labels" for name, f in tuned.items() if bool(f["part"]) == parts}
    return {name: label for name, label in labels.items() if name in table and table.share[table[name].notna()].nunique() > 1}


def published(name: str, scratch: bool = False) -> pd.DataFrame:
    """A published table, its batches as numbers; rows from scratch, which have none, are left out unless asked for."""
    table = pd.read_csv(root() / "claims" / "published" / f"{name}.csv", dtype={"batch_seconds": str})
    table["batch_seconds"] = pd.to_numeric(table.batch_seconds, errors="coerce")
    return table if scratch else table.dropna(subset="batch_seconds")


def published_final() -> pd.DataFrame:
    """The paper's errors after 400,000 updates; `withdrawn` marks its first 87.5-s run, which a corrected one replaced in August 2024."""
    table = published("batch_size_wer_final", scratch=True)
    return table.assign(withdrawn=table.batch_seconds.eq(87.5) & table.version.eq("v1"))


def load_claim(name: str) -> Claim:
    """A claim of this study's ledger."""
    return next(claim for claim in load_study("batch_size").claims if claim.id == name)


def fine_tunings(folder: Path) -> pd.DataFrame:
    """One row a (batch, seed, share of the labels, decoder): batch_seconds (none: from scratch), minutes, decoder, error (per cent), unit.

    Where the test split has a part `clean`, that part, as in the published table.
    """
    table = pd.read_csv(folder / "metrics.csv")
    table = table.join(table.metric.str.extract(TUNED)).dropna(subset="minutes")
    table = table[table.part.eq("_clean") | ~table.part.eq("_clean").any()]
    batch = table.cell.str.extract(f"^{BATCH.pattern}$")["batch_seconds"].astype(float)
    table = table[batch.notna() | table.cell.isin(SCRATCH)]
    decoder = np.where(table.lm.isna(), "greedy", "n-gram")
    return table.assign(
        batch_seconds=batch, minutes=table.minutes.astype(float), decoder=decoder, error=100 * table.value, unit=table.unit.str.upper()
    )[["batch_seconds", "seed", "minutes", "decoder", "error", "unit"]]


def published_fine_tunings() -> pd.DataFrame:
    """The paper's in the columns of `fine_tunings`, without the run that was withdrawn."""
    table = published_final().query("not withdrawn")
    table["minutes"] = table.label_hours.map(lambda hours: float(60 * Fraction(hours)))
    kinds = {"test_clean_greedy": "greedy", "test_clean_4gram": "n-gram"}
    long = table.melt(["batch_seconds", "minutes"], list(kinds), "decoder", "error")
    return long.replace({"decoder": kinds}).assign(unit="WER on test-clean")


def draw_against_batch(folder: Path, metrics: dict[str, str]) -> Figure:
    """What a larger batch gives at a fixed number of updates. metrics: name in the tables -> label. The last panel is the paper's."""
    ours = checkpoints(folder).query("share == 1")
    figure, axes = panels(len(metrics) + 1)
    for axis, (metric, label) in zip(axes, metrics.items(), strict=False):
        if metric in ours:
            sns.lineplot(ours, x="batch_seconds", y=metric, ax=axis, marker="o", errorbar=("sd", 1))
        _log(axis, "batch_seconds", label, "ours")
    paper = published_final().dropna(subset="batch_seconds")
    drawn, withdrawn = paper[~paper.withdrawn], paper[paper.withdrawn]
    sns.lineplot(drawn, x="batch_seconds", y="test_clean_greedy", hue="label_hours", ax=axes[-1], marker="o")
    axes[-1].plot(withdrawn.batch_seconds, withdrawn.test_clean_greedy, "kx", ms=5, mew=1.2, ls="", label="87.5 s as first\npublished")
    axes[-1].legend(title="hours of labels", fontsize="small")
    _log(axes[-1], "batch_seconds", "WER on test-clean, %", "published, 400,000 updates")
    return done(figure)


def draw_labels(folder: Path) -> Figure:
    """Errors after fine-tuning against the batch, read greedily, a colour for each share of the labels: a point a seed, a line through the
    medians (a run that stays where CTC reads nothing but blanks would carry a mean away); dotted: from scratch."""
    figure, axes = panels(2, width=5.2)
    for axis, title, table in zip(axes, ["ours", "published"], [fine_tunings(folder), published_fine_tunings()], strict=True):
        if table.empty:
            nothing(figure, axis, "this profile fine-tunes nothing")
            continue
        table = table[table.decoder == "greedy"]
        table, colours = table.assign(labels=_labels(table)), _label_colours(table)
        style = {"x": "batch_seconds", "y": "error", "hue": "labels", "hue_order": list(colours), "palette": colours, "ax": axis}
        drawn = table.dropna(subset="batch_seconds")
        sns.lineplot(drawn, estimator="median", errorbar=None, **style)
        sns.scatterplot(drawn, legend=False, s=14, **style)
        for labels, level in table[table.batch_seconds.isna()].groupby("labels").error.median().items():
            axis.axhline(level, color=colours[labels], linestyle=":", linewidth=1)
        axis.set_yscale("log")
        said = f"; up to {table.seed.nunique()} seeds" if "seed" in table else ""
        _log(axis, "batch_seconds", f"{table.unit.iloc[0]}, %", title + said)
        plain_ticks(axis.yaxis, *axis.get_ylim())
        axis.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    return done(figure)


def decoders(folder: Path) -> pd.DataFrame:
    """Fine-tuned runs that were read both ways, from scratch too: seed, minutes, greedy and n-gram (errors in per cent), unit."""
    return _both_ways(fine_tunings(folder).fillna({"batch_seconds": 0.0}), ["batch_seconds", "seed", "minutes", "unit"])


def _both_ways(table: pd.DataFrame, index: list[str]) -> pd.DataFrame:
    both = table.pivot_table(index=index, columns="decoder", values="error").reindex(columns=["greedy", "n-gram"])
    return both.dropna().reset_index()


def draw_decoders(folder: Path) -> Figure:
    """Errors with an n-gram language model beside the same model's read greedily, a point a run, a colour for each share of the labels.
    Runs that were read greedily alone are left out."""
    theirs = _both_ways(published_fine_tunings().fillna({"batch_seconds": 0.0}), ["batch_seconds", "minutes", "unit"])
    figure, axes = panels(2, width=5.2)
    for axis, whose, table in zip(axes, ["ours", "published"], [decoders(folder), theirs], strict=True):
        if table.empty:
            nothing(figure, axis, "no run was read with a language model")
            continue
        colours = _label_colours(table)
        for labels, rows in table.sort_values("minutes").groupby(_labels(table), sort=False):
            axis.plot(rows.greedy, rows["n-gram"], "o", mec="white", color=colours[labels], label=labels)
        ends = [table[["greedy", "n-gram"]].min().min(), table[["greedy", "n-gram"]].max().max()]
        axis.plot(ends, ends, "k--", linewidth=1, label="as without")
        said = f"{whose}: {table.unit.iloc[0]}"
        if "seed" in table:
            seeds = table.groupby(["batch_seconds", "minutes"]).seed.nunique()
            said += f" (seeds: {' to '.join(f'{n}' for n in sorted({seeds.min(), seeds.max()}))})"
        axis.set(xscale="log", yscale="log", xlabel="read greedily, %", ylabel="with an n-gram, %", title=said)
        for side, limits in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, axis.get_ylim())):
            plain_ticks(side, *limits)
        axis.legend(title="labels", fontsize="small")
    return done(figure)


def _labels(table: pd.DataFrame) -> pd.Series:
    return table.minutes.map(lambda minutes: f"{minutes:g} min" if minutes < 60 else f"{minutes / 60:g} h")


def _label_colours(table: pd.DataFrame) -> dict[str, tuple]:
    """A colour for each share of the labels, in their order."""
    shares = list(dict.fromkeys(_labels(table.sort_values("minutes"))))
    return dict(zip(shares, sns.color_palette("viridis", len(shares)), strict=True))


def draw_against_hours(folder: Path, metrics: dict[str, str]) -> Figure:
    """Every batch and checkpoint over the hours seen, those of a batch and checkpoint in their mean: one curve, if quality follows hours.
    Left ours (name in the tables -> label), hollow the ends of the other learning-rate rules; then the paper's; right its 87.5-s batch,
    first and corrected, and the line batch-07 judges it by."""
    figure, axes = panels(len(metrics) + 2, width=4.6)
    table = checkpoints(folder).query("share > 0")
    for axis, (metric, label) in zip(axes, metrics.items(), strict=False):
        ours = table.dropna(subset=metric)
        ours = ours.assign(hours_seen=ours.groupby(["batch_seconds", "share"]).hours_seen.transform("mean"))
        _by_batch(ours, metric, axis)
        for marker, (rule, ends) in zip("sD^", _rule_ends(folder, metric).groupby("rule"), strict=False):
            axis.plot(ends.hours_seen, ends[metric], marker, mfc="none", mew=1.3, mec="0.2", ls="", label=f"{rule} rate, end")
        axis.legend(title="batch, s", fontsize="x-small")
        _log(axis, "hours_seen", label, "ours")
    paper = published("batch_size_wer_over_time").query("label == '100 hours of labels'")
    _by_batch(paper, "wer_clean", axes[-2])
    axes[-2].set_yscale("log")
    _log(axes[-2], "hours_seen", "WER on test-clean, %", "published, 100 hours of labels")
    plain_ticks(axes[-2].yaxis, *axes[-2].get_ylim())
    _draw_smallest(axes[-1])
    return done(figure)


def _rule_ends(folder: Path, metric: str) -> pd.DataFrame:
    """rule, hours_seen and the metric of every cell of another learning-rate rule, a mean over seeds."""
    table = pd.read_csv(folder / "metrics.csv")
    table = table[_of_rule(table.cell)["rule"].notna() & table.metric.isin([metric, "cost.hours_seen"])]
    wide = table.pivot_table(index="cell", columns="metric", values="value").reindex(columns=["cost.hours_seen", metric]).reset_index()
    wide["rule"] = _of_rule(wide.cell.astype(str))["rule"]
    return wide.rename(columns={"cost.hours_seen": "hours_seen"}).dropna()


def _of_rule(cells: pd.Series) -> pd.DataFrame:
    """rule and batch_seconds of every cell of another learning-rate rule; nothing for the others."""
    found, smallest = (cells.str.extract(f"^{pattern.pattern}$")[["rule", "batch_seconds"]] for pattern in (RULE, SMALLEST))
    return found.fillna(smallest)


def _draw_smallest(axis: Axes) -> None:
    """WER with 10 h of labels after 400,000 updates against hours seen; the log-log line through the three smallest batches from 150 s."""
    table = published("batch_size_wer_final").query("label_hours == '10'").sort_values("batch_seconds")
    table = table.assign(hours=table.batch_seconds * UPDATES / 3600)
    others, smallest = table.query("batch_seconds >= 150 and version == 'v1'"), table.query("batch_seconds < 150")
    axis.plot(others.hours, others.test_clean_greedy, "o-", label="150 s to 80 min")
    for marker, row in zip("sD", smallest.sort_values("version", ascending=False).itertuples(), strict=True):
        axis.plot(row.hours, row.test_clean_greedy, marker, mfc="none", mew=1.5, ls="", label=f"87.5 s, {row.version}")
    near = np.log(others[["hours", "test_clean_greedy"]].to_numpy(float)[:3])
    x = np.array([smallest.hours.min(), others.hours.iloc[2]])
    axis.plot(x, np.exp(np.polyval(np.polyfit(*near.T, 1), np.log(x))), "k--", lw=1, label="line of batch-07")
    axis.set_yscale("log")
    _log(axis, "hours_seen", "WER on test-clean, %", "published, 10 hours of labels")
    plain_ticks(axis.yaxis, *axis.get_ylim())
    axis.legend(fontsize="x-small")


def draw_dispersion(folder: Path) -> Figure:
    """Spread of the gradient against the batch, relative to its mean over batches, ours and published in the same axes."""
    ours = (
        checkpoints(folder)[["batch_seconds", "share", "pretrain.gradient_dispersion"]].dropna().set_axis(["batch", "at", "spread"], axis=1)
    )
    paper = published("batch_size_gradient_dispersion").query("batch_seconds >= 150").set_axis(["batch", "at", "spread"], axis=1)
    paper["at"] /= UPDATES
    figure, axes = panels(2)
    for axis, (title, start) in zip(axes, [("at the start", True), ("at the end", False)], strict=True):
        for who, table in (("ours", ours), ("published", paper)):
            mine = table[table["at"] == (0.0 if start else 1.0)].groupby("batch").spread.mean()
            if len(mine) > 1:
                relative = mine / np.exp(np.log(mine).mean())
                axis.plot(mine.index / np.exp(np.log(mine.index.to_numpy()).mean()), relative, "o-", label=who)
        x = np.array([0.15, 6.0])
        if start:
            axis.plot(x, x**-0.5, "k--", linewidth=1, label="1 / square root")
        axis.set(xscale="log", yscale="log", xlabel="batch, relative", ylabel="gradient dispersion, relative", title=title)
        plain_ticks(axis.xaxis, *axis.get_xlim())
        plain_ticks(axis.yaxis, *axis.get_ylim())
        axis.legend(fontsize="small")
    return done(figure)


def draw_codes(folder: Path, codes: int) -> Figure:
    """Contrastive accuracy, use of each codebook, and how far its entries have moved, against the batch; published where it is.

    codes: of one of our codebooks; the paper's have 320.
    """
    ours = checkpoints(folder).query("share == 1")
    used = [name for name in ours if name.startswith("pretrain.valid_code_perplexity")]
    ours = ours.assign(**{name: ours[name] / codes for name in used})
    shown = {
        "pretrain.valid_accuracy": "contrastive accuracy",
        "pretrain.valid_code_perplexity": "perplexity of a codebook / its codes",
        "pretrain.codeword_cosine": "mean cosine of codewords",
    }
    figure, axes = panels(len(shown), 4.4)
    for axis, (metric, label) in zip(axes, shown.items(), strict=True):
        books = [name for name in ours if re.fullmatch(rf"{re.escape(metric)}(_\d+)?", name)]
        for marker, name in zip("ov^", books, strict=False):
            book = name.removeprefix(metric).replace("_", ", codebook ")
            sns.lineplot(ours, x="batch_seconds", y=name, ax=axis, marker=marker, errorbar=("sd", 1), label=f"ours{book}")
        _log(axis, "batch_seconds", label, "")
    paper = published("batch_size_val_accuracy").query("update == 400000").sort_values("batch_seconds")
    axes[0].plot(paper.batch_seconds, paper.accuracy, "ks--", mfc="none", mew=1.2, label="published")
    cosine = load_claim("batch-10").published["cosine"]
    axes[2].plot(cosine.points["batch_seconds"], cosine.points[cosine.y], "ks--", mfc="none", mew=1.2, label="published, codebook 1")
    axes[2].axhline(0.75, color="0.4", linestyle=":", linewidth=1)
    perplexities = [fact.value for fact in load_claim("batch-10").facts if fact.name.startswith("perplexity")]
    for book, (marker, values) in enumerate(zip("s^", perplexities, strict=True), start=1):
        style = {"mfc": "none", "mew": 1.2, "label": f"published, codebook {book}"}
        axes[1].plot(paper.batch_seconds, np.array(values) / PAPER_CODES, f"k{marker}--", **style)
    axes[1].set_ylim(0, 1)
    for axis in axes:
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize="small")
        plain_ticks(axis.xaxis, *axis.get_xlim())
    return done(figure)


def draw_trajectories(folder: Path) -> Figure:
    """Contrastive accuracy on validation data and spread of the gradient over the run, a colour for each batch; ours above the paper's."""
    ours = checkpoints(folder)
    shown = {
        "pretrain.valid_accuracy": ("accuracy", "contrastive accuracy"),
        "pretrain.gradient_dispersion": ("dispersion", "gradient dispersion"),
    }
    figure, axes = plt.subplots(2, len(shown), figsize=(11.0, 6.6), layout="constrained")
    for (above, below), (metric, (column, label)) in zip(axes.T, shown.items(), strict=True):
        table = published(f"batch_size_{'val_accuracy' if column == 'accuracy' else 'gradient_dispersion'}")
        table = table.assign(share=table["update"] / UPDATES)
        for axis, whose, points, y, marker in ((above, "ours", ours, metric, "o"), (below, "published", table, column, None)):
            points = points.dropna(subset=y) if y in points else points[:0]
            if points.empty:
                nothing(figure, axis, "this profile measures nothing of the kind along the way")
                continue
            _by_batch(points, y, axis, x="share", marker=marker)
            axis.legend(title="batch, s", fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
            axis.set(xlabel="share of the run", ylabel=label, title=whose, xlim=(-0.04, 1.04))
    return done(figure)


def draw_monitored(folder: Path) -> Figure:
    """What is watched in training, over the run, a colour for each batch: the parts of the loss on validation data (contrastive; the soft
    perplexity that the diversity term raises; the feature penalty), the use of the first codebook and how alike its entries are. Ours; the
    paper's text has these at the end alone."""
    shown = {
        "pretrain.valid_loss": "contrastive loss, nats", "pretrain.valid_soft_perplexity_1": "soft perplexity, codebook 1",
        "pretrain.valid_feature_penalty": "feature penalty, unweighted", "pretrain.valid_code_perplexity_1": "perplexity, codebook 1",
        "pretrain.codeword_cosine_1": "mean cosine, codebook 1",
    }  # fmt: skip
    ours = checkpoints(folder)
    figure, axes = panels(len(shown), 4.2, across=3)
    for axis, (metric, label) in zip(axes, shown.items(), strict=True):
        points = ours.dropna(subset=metric) if metric in ours else ours[:0]
        if points.empty:
            nothing(figure, axis, f"no {label} along the way")
            continue
        _by_batch(points, metric, axis, x="share")
        axis.set(xlabel="share of the run", ylabel=label, xlim=(-0.04, 1.04))
        if axis is not axes[0]:
            axis.get_legend().remove()
    return done(figure)


def draw_rules(folder: Path) -> Figure:
    """Validation loss against the batch under the three learning-rate rules; the main cells follow the square root, or the constant rate
    where another cell has the root. Right the paper's: the peak rate of each rule, and the one that its authors found best."""
    table = pd.read_csv(folder / "metrics.csv").query("metric == 'pretrain.valid_loss'")
    rule = _of_rule(table.cell)
    main = table.cell.str.extract(f"^{BATCH.pattern}$")["batch_seconds"]
    seconds = rule["batch_seconds"].fillna(main).astype(float)
    rooted = set(rule.batch_seconds[rule["rule"] == "sqrt"].astype(float))  # the paper's 40 minutes run at the constant rate
    others = seconds.isin(rooted).map({True: "constant", False: "sqrt"})
    table = table.assign(rule=rule["rule"].fillna(others), batch_seconds=seconds).dropna(subset="batch_seconds")
    table = table[table.batch_seconds.isin(rule["batch_seconds"].dropna().astype(float)) | table.rule.ne("sqrt")]
    figure, axes = panels(2, width=5.4)
    if table.rule.nunique() < 2:
        axes[0].text(0.5, 0.5, "this profile runs one rule alone", transform=axes[0].transAxes, ha="center")
    else:
        sns.lineplot(table, x="batch_seconds", y="value", hue="rule", style="rule", markers=True, ax=axes[0], errorbar=("sd", 1))
        beside(axes[0])
    _log(axes[0], "batch_seconds", "validation loss, nats", "ours, peak rate by rule")
    batches = sorted(published("batch_size_val_accuracy").query("batch_seconds >= 150").batch_seconds.unique())
    for rule in ("square_root", "linear", "constant"):
        scaling = RateScaling(rule=rule)  # reference and rate are the paper's
        rates = [TrainingSettings(batch_seconds=batch, rate_scaling=scaling).peak_rate for batch in batches]
        axes[1].plot(batches, rates, "-", label=rule.replace("_", " "))
    best = next(fact for fact in load_claim("batch-11").facts if fact.name.startswith("best learning rate"))
    axes[1].plot(batches, best.value, "ks", mfc="none", mew=1.3, ms=9, label="best (80 min: used)")
    axes[1].set_yscale("log")
    _log(axes[1], "batch_seconds", "peak learning rate", "published")
    beside(axes[1])
    return done(figure)


def _by_batch(table: pd.DataFrame, y: str, axis: Axes, x: str = "hours_seen", marker: str | None = "o") -> None:
    names = [f"{batch:g}" for batch in sorted(table.batch_seconds.unique())]
    colours = dict(zip(names, sns.color_palette("viridis", len(names)), strict=True))
    table = table.assign(batch=table.batch_seconds.map("{:g}".format))
    sns.lineplot(table, x=x, y=y, hue="batch", hue_order=names, palette=colours, marker=marker, ax=axis, errorbar=("sd", 1))
    axis.legend(title="batch, s", fontsize="small")


def _log(axis: Axes, x: str, y: str, title: str) -> None:
    axis.set(xscale="log", xlabel=AXIS[x], ylabel=y, title=title)
    plain_ticks(axis.xaxis, *axis.get_xlim())


def plain_ticks(side: Axis, low: float, high: float) -> None:
    """1, 2, 5 on a logarithmic axis of up to two decades, more between on one of less than one, powers of ten beyond; as plain numbers."""
    between = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0) if high < 8 * low else (1.0, 2.0, 5.0) if high < 200 * low else (1.0,)
    side.set_major_locator(LogLocator(subs=between, numticks=10) if high > 1.6 * low else MaxNLocator(4))
    side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    side.set_minor_locator(NullLocator())
