"""The map of all studies: each method of a profile by error, size, MACs, measured time and training cost; what to use within limits."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student

from sslrepro.budget.count import cell_cost, count
from sslrepro.budget.front_end import SAMPLE_RATE
from sslrepro.config import NoObjective, Profile
from sslrepro.data.language import FIRST
from sslrepro.errors import UserError
from sslrepro.paths import results_dir, root

QUALITY = {"phone.accuracy": "phone error, frozen", "phone_ctc.per": "phone error rate, frozen"}
COSTS = {
    "params": "parameters of the encoder",
    "macs": "MACs a second of speech",
    "rtf": "inference of a second of speech",
    "flops": "training FLOPs, labels and teachers too",
}


def error(metric: str, value: pd.Series) -> pd.Series:
    """Lower is better, whichever the metric."""
    return 1 - value if metric.endswith("accuracy") else value


def efficiency_map(profile: Profile, metric: str = "phone.accuracy") -> pd.DataFrame:
    """One row a (study, cell, seed) that completed and has the metric: `error`, `params`, `macs` and `rtf` a second of speech
    (all without pre-training heads), `flops` (training, what was spent before it included); `rtf` is empty where a cell was not timed.

    Reads results/<profile>/*/metrics.csv. Cells that the profile no longer has are left out: what they cost is not known. So are those
    scored on another language than the corpus's first: their errors compare with none of the others'.
    """
    rows = []
    for path in sorted(results_dir(profile.profile).glob("*/metrics.csv")):
        runs = json.loads((path.parent / "runs.json").read_text(encoding="utf-8"))
        table = pd.read_csv(path).pivot_table(index=["study", "cell", "seed"], columns="metric", values="value")
        if metric not in table:
            continue
        for (study, cell, seed), values in table.dropna(subset=metric).iterrows():
            cells = profile.studies[study].cells if study in profile.studies else {}
            if cell not in cells or runs[cell][str(seed)]["status"] != "completed":
                continue
            settings = cells[cell]
            if settings.data.languages not in (None, [FIRST]):
                continue
            seconds = settings.training.max_seconds
            cost, used = cell_cost(settings, seconds), count(settings.model, NoObjective(), round(seconds * SAMPLE_RATE))
            timed = settings.measure.inference if settings.measure else []
            rtf = values.get("cost.inference_seconds", np.nan) / (timed[0] * settings.measure.batch) if len(timed) == 1 else np.nan
            trained = values.get("cost.hours_seen", 0.0) * 3600 / seconds * cost.train_flops
            rows.append(
                {
                    "study": study, "cell": cell, "seed": seed, "error": float(error(metric, values[metric])),
                    "params": used.params, "macs": used.macs / seconds, "rtf": rtf,
                    "flops": trained + np.nan_to_num(values.get("cost.setup_flops", 0.0)),
                }
            )  # fmt: skip
    return pd.DataFrame(rows, columns=["study", "cell", "seed", "error", *COSTS])


def means(table: pd.DataFrame) -> pd.DataFrame:
    """One row a (study, cell): means over seeds, and `seeds`. `front_<cost>`: no other is both better and cheaper by that cost."""
    grouped = table.groupby(["study", "cell"])
    mean = grouped[["error", *COSTS]].mean().assign(seeds=grouped.size()).reset_index()
    for cost in COSTS:
        mean[f"front_{cost}"] = on_front(mean[cost].to_numpy(float), mean["error"].to_numpy(float))
    return mean.sort_values("error", ignore_index=True)


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
    interval of the paired difference over seeds; None where there is no other, or fewer than two common seeds."""

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


def advise(
    table: pd.DataFrame, profile: str, metric: str, max_params: float | None, rtf: float | None, train_flops: float | None
) -> Advice:
    """The method of lowest mean error among those that keep every limit given.

    Raises UserError where none fits, naming the least of each cost that is on the map.
    """
    limits = {"params": max_params, "rtf": rtf, "flops": train_flops}
    mean = means(table)
    fits = mean
    for cost, most in limits.items():
        if most is not None:
            fits = fits[fits[cost] <= most]
    if fits.empty:
        least = ", ".join(f"{cost} {mean[cost].min():.3g}" for cost, most in limits.items() if most is not None)
        raise UserError(f"plan: no method of profile {profile} keeps these limits; the least on the map: {least}")
    best = fits.iloc[0]
    other = fits.iloc[1] if len(fits) > 1 else None
    ahead = low = high = None
    if other is not None:
        difference = (_by_seed(table, other) - _by_seed(table, best)).dropna()
        ahead = float(other["error"] - best["error"])
        if len(difference) > 1:
            half = float(student.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference)))
            low, high = float(difference.mean()) - half, float(difference.mean()) + half
    return Advice(
        f"{best['study']}/{best['cell']}", profile, float(best["error"]), metric, float(best["params"]), float(best["macs"]),
        None if np.isnan(best["rtf"]) else float(best["rtf"]), float(best["flops"]), int(best["seeds"]), len(fits),
        None if other is None else f"{other['study']}/{other['cell']}", ahead, low, high, _confidence(other is None, low),
    )  # fmt: skip


def _by_seed(table: pd.DataFrame, row: pd.Series) -> pd.Series:
    return table[(table.study == row["study"]) & (table.cell == row["cell"])].set_index("seed")["error"]


def _confidence(alone: bool, low: float | None) -> str:
    if alone:
        return "none: no other method on the map keeps the limits"
    if low is None:
        return "none: fewer than two seeds in common with the next best"
    return "better than the next at 95 %" if low > 0 else "not told apart from the next at 95 %"


def advise_command(name: str | None, max_params: float | None, rtf: float | None, train_flops: float | None, as_json: bool) -> int:
    """`sslrepro plan --max-params | --rtf | --train-flops`: from the results of the profile, or of the largest scale that has some."""
    from sslrepro.pipeline.profile import expand

    kept = [p for p in ("paper", "gpu", "laptop", "quick") if any(results_dir(p).glob("*/metrics.csv"))]
    if name is None and not kept:
        raise UserError(f"plan: no results in {root() / 'results'} to advise from; make repro runs a profile")
    chosen, metric = name or kept[0], "phone.accuracy"
    table = efficiency_map(expand(chosen), metric)
    if table.empty:
        raise UserError(f"plan: no results of profile {chosen} have {metric}; make repro PROFILE={chosen}")
    advice = advise(table, chosen, metric, max_params, rtf, train_flops)
    print(json.dumps(asdict(advice), indent=1) if as_json else show(advice))
    return 0


def show(advice: Advice) -> str:
    """The advice for people."""
    time = "not timed" if advice.rtf is None else f"{advice.rtf:.3g} s a second of speech"
    lines = [
        f"method      {advice.method}, the best of {advice.fitting} that keep the limits",
        f"evidence    {QUALITY[advice.metric]} {advice.error:.3f} over {advice.seeds} seed(s) of profile {advice.profile}",
        f"cost        {advice.params / 1e6:.3g} M parameters, {advice.macs / 1e9:.3g} GMAC a second, {time}; "
        f"{advice.flops:.3g} FLOPs to train",
    ]
    if advice.next is not None:
        interval = "" if advice.low is None else f" [{advice.low:.3f}, {advice.high:.3f}]"
        lines.append(f"next        {advice.next}, {advice.ahead:.3f}{interval} worse")
    lines.append(f"confidence  {advice.confidence}")
    lines.append(f"warning     at the scale of profile {advice.profile}; nothing says that the order holds at another")
    return "\n".join(lines)
