"""The map of all studies: each method of a profile by quality, size, MACs, measured time and training cost; what to use within limits.

Times are those of `report.model_times`: every shape once, all on one machine.

Quality on the map is the share of a gain, so that tasks can stand on one axis: 0 is the better floor of the method's own study by its
metric, 1 the least error that any method of the profile has by that metric. Shares of different metrics do not compare closely, so each
metric has a front of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student

from sslrepro.budget.count import count
from sslrepro.budget.front_end import SAMPLE_RATE
from sslrepro.budget.updates import PAPER_SECONDS
from sslrepro.claims.results import CHOICE
from sslrepro.config import CellSettings, Factors, ModelSettings, NoObjective, Profile, TuningMethod
from sslrepro.data.language import FIRST
from sslrepro.errors import UserError
from sslrepro.paths import results_dir, root
from sslrepro.report import model_times

QUALITY = {  # of frozen encoders; a method that has several is on the map by the first of them
    "asr.wer": "word error rate, frozen",
    "phone_ctc.per": "phone error rate, frozen",
    "phone.accuracy": "phone error, frozen",
}
TUNED = re.compile(r"fine_tune_(?P<minutes>[\d.]+)min\.(wer|per|error)")  # as the whole name, of a method without a frozen score
FLOORS = re.compile(r"floor-.*|random-nonorm|.*-frozen")
COSTS = {
    "params": "parameters of the encoder",
    "macs": f"MACs a second of speech, of {PAPER_SECONDS:g} s",
    "rtf": "inference of a second of speech",
    "flops": "pre-training FLOPs, labels and teachers too; no fine-tuning, no probe",
}
UNTRAINED = "initial"  # of an encoder whose weights are what its seed draws
FRONTS = [f"front_{cost}" for cost in COSTS]
MAP = ["study", "cell", "metric", "kept", "told", "error", "floor", "seeds", "frozen", *COSTS, "timed_on", *FRONTS]
COLUMNS = ["study", "cell", "seed", "metric", "error", *COSTS, "timed_on", "frozen", "norm", "encoder", "copy"]


def error(metric: str, value: pd.Series) -> pd.Series:
    """Lower is better, whichever the metric."""
    return 1 - value if metric.endswith("accuracy") else value


def methods(profile: Profile) -> pd.DataFrame:
    """One row a (study, cell, seed, metric) that completed and is scored by one of QUALITY or by fine-tuning on its most labels: `error`;
    `params`, `macs` and `rtf` a second of speech (all without pre-training heads); `flops` (the cell's training and what was spent before
    it, not the probe's or the fine-tuning's). Each choice of compression factors that was scored is a method of its own, `cell:s2-q1-k1`.

    Training is the budget where that is in FLOPs; else the hours that were heard, at the cost of the longest utterances. `rtf` is that of
    the shape in results/<profile>/times.csv, empty where it has none; `timed_on`: on what machine. What adapters and ladders add is in
    `params`, `macs` and `rtf`; low-rank updates merge into the weights. MACs are those of an utterance of PAPER_SECONDS, over its length.
    `encoder` says what was scored: the same weights have the same, whichever cells they are scored in; `copy`: the cell begins with
    another's of its study. `norm`: whether its front end has one, as a floor of it must.

    Reads results/<profile>/*/metrics.csv. Cells that the profile no longer has are left out: what they cost is not known. So are those
    scored on another language than the corpus's first: their errors compare with none of the others'.
    """
    times = model_times.kept(profile.profile)
    found = [row | times.get(model_times.name(*shape), {"rtf": np.nan, "timed_on": ""}) for row, shape in _scored_shapes(profile)]
    return pd.DataFrame(found, columns=COLUMNS)


def shapes(profile: Profile) -> list[model_times.Shape]:
    """Of every method on the map."""
    return [shape for _, shape in _scored_shapes(profile)]


def _scored_shapes(profile: Profile) -> Iterator[tuple[dict, model_times.Shape]]:
    """The rows of `methods` without their times, and what would be timed."""
    for path in sorted(results_dir(profile.profile).glob("*/metrics.csv")):
        runs = json.loads((path.parent / "runs.json").read_text(encoding="utf-8"))
        table = pd.read_csv(path).pivot_table(index=["study", "cell", "seed"], columns="metric", values="value")
        for (study, cell, seed), values in table.iterrows():
            settings = _settings(profile, f"{study}/{cell}")
            if settings is None or runs[cell][str(seed)]["status"] != "completed" or settings.data.languages not in (None, [FIRST]):
                continue
            for metric, choice, tuned in _scored(values.dropna()):
                model = settings.model.at(Factors(*map(int, CHOICE.fullmatch(choice).groups()))) if choice else settings.model
                used = count(model, NoObjective(), round(PAPER_SECONDS * SAMPLE_RATE))
                method = settings.downstream.fine_tune.method if tuned else None
                more, work = added(model, method) if method else (0, 0.0)
                encoder = f"{_encoder(profile, f'{study}/{cell}')} {model.model_dump_json()}"
                if tuned:
                    encoder += settings.downstream.fine_tune.model_dump_json(exclude={"shares", "keep"})
                row = {
                    "study": study, "cell": cell + choice, "seed": seed, "metric": metric,
                    "error": float(error(metric, values[metric + choice])), "params": used.params + more,
                    "macs": used.macs / PAPER_SECONDS + work,
                    "flops": _trained(settings, values) + np.nan_to_num(values.get("cost.setup_flops", 0.0)),
                    "frozen": not tuned, "norm": settings.model.feature_norm, "encoder": encoder,
                    "copy": (settings.start or "").startswith(f"{study}/"),
                }  # fmt: skip
                yield row, model_times.Shape(model, method)


def timed(table: pd.DataFrame) -> str:
    """How many methods have a time, and on what. table: of `methods` or `efficiency_map`."""
    each, known = (len(rows.drop_duplicates(["study", "cell"])) for rows in (table, table[table.rtf.notna()]))
    return f"{known} of {each} timed" + (f", on {table[table.rtf.notna()].timed_on.iloc[0]}" if known else "")


def added(model: ModelSettings, method: TuningMethod) -> tuple[int, float]:
    """Weights that a tuning method leaves beside the encoder's, and the MACs of its linears a second of speech: adapters and ladders."""
    if not model_times.adds(model, method):
        return 0, 0.0
    import torch  # only here is it needed

    from sslrepro.downstream.parameter_efficient import learned

    with torch.device("meta"):
        tuned = model_times.tuned(model, method)
    beside = {name: p for name, p in learned(tuned).items() if not name.startswith("out.")}
    linear = sum(p.numel() for name, p in beside.items() if p.ndim == 2)
    return sum(p.numel() for p in beside.values()), linear * float(tuned.upstream.frame_rate)


def _settings(profile: Profile, name: str) -> CellSettings | None:
    study, _, cell = name.partition("/")
    return profile.studies[study].cells.get(cell) if study in profile.studies else None


def _encoder(profile: Profile, name: str) -> str:
    """What a cell's scores are of: its own training; without one that of the cell whose weights it takes, or what its seed draws."""
    settings = _settings(profile, name)
    if settings is None or not isinstance(settings.objective, NoObjective):
        return name
    return _encoder(profile, settings.start) if settings.start else UNTRAINED


def _scored(values: pd.Series) -> Iterator[tuple[str, str, bool]]:
    """Metric, choice of factors (empty: those of the settings) and whether it is fine-tuned, of each score of a run."""
    yield from ((metric, "", False) for metric in QUALITY if metric in values)
    named = [(metric, match["minutes"]) for metric in values.index if (match := TUNED.fullmatch(metric))]
    if named:
        metric, _ = max(named, key=lambda pair: float(pair[1]))
        choices = [name.removeprefix(metric) for name in values.index if CHOICE.fullmatch(name.removeprefix(metric))]
        yield from ((metric, choice, True) for choice in ["", *choices])


def _trained(settings: CellSettings, values: pd.Series) -> float:
    """FLOPs of the cell's own training."""
    if settings.training.budget.unit == "flops" and values.get("cost.hours_seen", 0.0) > 0:
        return settings.training.budget.amount
    return values.get("cost.hours_seen", 0.0) * 3600 / settings.training.max_seconds * values.get("cost.train_flops", 0.0)


def means(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row a method of `methods` that has the metric, best first: means over seeds, and `seeds`. The same weights are there once."""
    table = table[table.metric == metric]
    grouped = table.groupby(["study", "cell", "metric", "frozen", "norm", "encoder", "copy"])
    mean = grouped[["error", *COSTS]].mean().assign(seeds=grouped.size()).reset_index()
    return mean.sort_values(["error", "copy"], kind="stable").drop_duplicates("encoder", ignore_index=True)


def efficiency_map(profile: Profile) -> pd.DataFrame:
    """One row a method, best first: `metric`, mean `error`, the `floor` that it is seen above, `kept` (the module's share of the gain), the
    costs, and `front_<cost>`. `told`: its error is below the floor's at 95 %, by Student's t of the difference over their common seeds.
    A method that has several metrics is there by the first of QUALITY, as the ledger reads them.

    The floor is the better of its study's floors by that metric whose front end is alike. What has none is left out; so are floors.
    """
    table, order = methods(profile), {metric: place for place, metric in enumerate(QUALITY)}
    placed = [part for metric in table.metric.unique() if len(part := _placed(table, metric))]
    if not placed:
        return pd.DataFrame(columns=MAP)
    every = pd.concat(placed)
    every = every.assign(rank=every.metric.map(order).fillna(len(order))).sort_values(["rank", "copy"], kind="stable")
    mean = every.drop_duplicates(["study", "cell"]).drop_duplicates("encoder")
    return with_fronts(mean.sort_values("kept", ascending=False, ignore_index=True))[MAP]


def with_fronts(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `front_<cost>`, of each metric on its own: better than its floor, and no other method of the table that is scored by
    the same metric is both better and cheaper by that cost. So of a part of the map it is that part's front."""
    table = table.copy()
    for cost in COSTS:
        table[f"front_{cost}"] = False
        for _, rows in table.groupby("metric"):
            costs = rows[cost].where((rows[cost] > 0) & (rows.kept > 0)).to_numpy(float)
            table.loc[rows.index, f"front_{cost}"] = on_front(costs, -rows["kept"].to_numpy(float))
    return table


def _placed(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The methods of a metric that have a floor, with `floor` and `kept`, one of each name and not yet one of each encoder."""
    mean = table[table.metric == metric].groupby(["study", "cell", "metric", "frozen", "norm", "encoder", "copy"])
    mean = mean[["error", *COSTS]].mean().assign(seeds=mean.size(), timed_on=mean.timed_on.max()).reset_index()
    floors = mean[mean.cell.str.fullmatch(FLOORS.pattern)]
    lowest = floors.groupby(["study", "norm"]).error.min().rename("floor")
    found = mean.drop(floors.index).merge(lowest, on=["study", "norm"])
    found = found[~found.encoder.isin(floors.encoder)]
    found["told"] = [_told(table, metric, row, floors) for _, row in found.iterrows()]
    gain = found.floor - found.error.min()
    return found.assign(kept=(found.floor - found.error) / gain.where(gain > 0)).dropna(subset="kept")


def _told(table: pd.DataFrame, metric: str, row: pd.Series, floors: pd.DataFrame) -> bool:
    """Whether a method's error is below its floor's at 95 %, over common seeds."""
    mine = floors[(floors.study == row["study"]) & (floors.norm == row["norm"])]
    gain = (_by_seed(table, metric, mine.loc[mine.error.idxmin()]) - _by_seed(table, metric, row)).dropna()
    return len(gain) > 1 and bool(gain.mean() > _half(gain))


def _half(values: pd.Series) -> float:
    """Half of the 95 % interval of a mean, by Student's t."""
    return float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def on_front(cost: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Which points (n,) no other one beats: at most as costly and as wrong, and less of one. A point without a cost is on no front."""
    known = np.isfinite(cost)
    beaten = np.zeros(len(cost), dtype=bool)
    for i in range(len(cost)):
        others = known & (cost <= cost[i]) & (error <= error[i]) & ((cost < cost[i]) | (error < error[i]))
        beaten[i] = others.any()
    return known & ~beaten


@dataclass(frozen=True)
class Advice:
    """What to use within limits. ahead, low, high: by how much its error is lower than that of the next best that fits, with the 95 %
    interval of the paired difference over seeds; None where there is no other, or fewer than two common seeds. fitting: of how many that
    keep the limits it is the best. timed: how many of all have a time, and on what."""

    method: str
    profile: str
    error: float
    metric: str
    params: float
    macs: float
    rtf: float | None
    flops: float
    seeds: int
    fitting: int
    next: str | None
    ahead: float | None
    low: float | None
    high: float | None
    confidence: str
    timed: str


def advise(
    table: pd.DataFrame, profile: str, metric: str, max_params: float | None, rtf: float | None, train_flops: float | None
) -> Advice:
    """The method of lowest mean error by a metric among the pre-trained that keep every limit given. table: of `methods`.

    Raises UserError where none fits, naming the least of each cost that is on the map, and floors and untrained models that do fit.
    """
    limits = {"params": max_params, "rtf": rtf, "flops": train_flops}
    every = means(table, metric)
    untrained = every.cell.str.fullmatch(FLOORS.pattern) | every.encoder.str.startswith(UNTRAINED)
    mean, fits = every[~untrained], every
    for cost, most in limits.items():
        if most is not None:
            fits = fits[fits[cost] <= most]
    others, fits = fits[untrained[fits.index]], fits[~untrained[fits.index]]
    if fits.empty and len(others):
        named = ", ".join(f"{row.study}/{row.cell}" for row in others.head(3).itertuples())
        raise UserError(
            f"plan: of profile {profile} with {metric} only floors and untrained models keep these limits ({named}): nothing to recommend"
        )
    if fits.empty:
        least = ", ".join(f"{cost} {mean[cost].min():.3g}" for cost, most in limits.items() if most is not None)
        raise UserError(f"plan: no method of profile {profile} with {metric} keeps these limits; the least on the map: {least}")
    best = fits.iloc[0]
    other = fits.iloc[1] if len(fits) > 1 else None
    ahead = low = high = None
    if other is not None:
        difference = (_by_seed(table, metric, other) - _by_seed(table, metric, best)).dropna()
        ahead = float(other["error"] - best["error"])
        if len(difference) > 1:
            half = _half(difference)
            low, high = float(difference.mean()) - half, float(difference.mean()) + half
    return Advice(
        f"{best['study']}/{best['cell']}", profile, float(best["error"]), metric, float(best["params"]), float(best["macs"]),
        None if np.isnan(best["rtf"]) else float(best["rtf"]), float(best["flops"]), int(best["seeds"]), len(fits),
        None if other is None else f"{other['study']}/{other['cell']}", ahead, low, high, _confidence(other is None, low),
        timed(table),
    )  # fmt: skip


def _by_seed(table: pd.DataFrame, metric: str, row: pd.Series) -> pd.Series:
    return table[(table.metric == metric) & (table.study == row["study"]) & (table.cell == row["cell"])].set_index("seed")["error"]


def _confidence(alone: bool, low: float | None) -> str:
    if alone:
        return "none: no other method on the map keeps the limits"
    if low is None:
        return "none: fewer than two seeds in common with the next best"
    return "better than the next at 95 %" if low > 0 else "not told apart from the next at 95 %"


def advise_command(name: str | None, max_params: float | None, rtf: float | None, train_flops: float | None, as_json: bool) -> int:
    """`sslrepro plan --max-params | --rtf | --train-flops`: from the results of the profile, or of the largest scale that has some; an
    answer for each metric of frozen encoders that they have. Raises UserError where no metric has a method within the limits."""
    from sslrepro.pipeline.profile import expand

    kept = [p for p in ("paper", "gpu", "laptop", "quick") if any(results_dir(p).glob("*/metrics.csv"))]
    if name is None and not kept:
        raise UserError(f"plan: no results in {root() / 'results'} to advise from; make repro runs a profile")
    chosen = name or kept[0]
    table = methods(expand(chosen))
    metrics = [metric for metric in QUALITY if (table.metric == metric).any()]
    if not metrics:
        raise UserError(f"plan: no results of profile {chosen} have {', '.join(QUALITY)}; make repro PROFILE={chosen}")
    found, refused = [], []
    for metric in metrics:
        try:
            found.append(advise(table, chosen, metric, max_params, rtf, train_flops))
        except UserError as reason:
            refused.append(reason)
    if not found:
        raise refused[0]
    print(json.dumps([asdict(advice) for advice in found], indent=1) if as_json else "\n\n".join(map(show, found)))
    return 0


def show(advice: Advice) -> str:
    """The advice for people."""
    time = "not timed" if advice.rtf is None else f"{advice.rtf:.3g} s a second of speech"
    lines = [
        f"method      {advice.method}, picked as the best of {advice.fitting} pre-trained candidates that keep the limits",
        f"evidence    {QUALITY[advice.metric]} {advice.error:.3f} over {advice.seeds} seed(s) of profile {advice.profile}",
        f"cost        {advice.params / 1e6:.3g} M parameters, {advice.macs / 1e9:.3g} GMAC a second ({PAPER_SECONDS:g} s counted), "
        f"{time}; {advice.flops:.3g} FLOPs to pre-train, labels and teachers included",
        f"times       {advice.timed}",
    ]
    if advice.next is not None:
        interval = "" if advice.low is None else f" [{advice.low:.3f}, {advice.high:.3f}]"
        lines.append(f"next        {advice.next}, {advice.ahead:.3f}{interval} worse")
    lines.append(f"confidence  {advice.confidence}")
    if advice.fitting > 1:
        lines.append("warning     the error of the best of several is lower than what it would show again, the more of them the lower")
    lines.append("warning     probes of frozen encoders alone are compared, no fine-tuning")
    lines.append(f"warning     at the scale of profile {advice.profile}; nothing says that the order holds at another")
    return "\n".join(lines)
