"""A budget in: which size to train, on how many hours, in which batches; with the evidence, and a warning wherever it ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sslrepro.budget.fits import Vertex
from sslrepro.budget.published import METRICS, size_sweep, sweep_vertex
from sslrepro.errors import UserError

# Peak dense 16-bit tensor FLOP/s with 32-bit accumulation, from the makers' data sheets
GPUS = {
    "v100": 125e12,
    "t4": 65e12,
    "rtx3090": 71e12,
    "a6000": 155e12,
    "a100": 312e12,
    "l4": 121e12,
    "rtx4090": 165e12,
    "l40s": 362e12,
    "h100": 989e12,
    "h200": 989e12,
}
UTILISATION = 0.3  # share of the peak that training reaches: an assumption
# Batch-size paper (arXiv 2402.13723): at equal hours seen batches from 150 s to 40 min end alike; it ran 50,000 to 400,000 updates
BATCH_SECONDS = (150.0, 2400.0)
UPDATES = (50_000, 400_000)
UTTERANCE = 15.625  # seconds: the least batch
FEW, LEAST = 1000, 30  # updates: with fewer the batch is made smaller; with fewer still, at the least batch, there is no plan
SWEEP = "compute-budget paper's size sweep (arXiv 2409.16295)"


@dataclass(frozen=True)
class Plan:
    """size, low, high: parameters and their 95 % interval; model: the nearest one of the paper's family; audio_hours: speech seen, repeats
    included; batch_seconds and updates as they follow."""

    flops: float
    size: float
    low: float
    high: float
    model: str
    audio_hours: float
    batch_seconds: float
    updates: int
    evidence: list[str]
    warnings: list[str]


def gpu_flops(gpu: str, hours: float, utilisation: float = UTILISATION) -> float:
    """Training FLOPs in so many hours of one such GPU. Raises UserError for a GPU that is not known."""
    name = gpu.lower().replace(" ", "").replace("-", "").removeprefix("nvidia")
    if name not in GPUS:
        raise UserError(f"--gpu: {gpu} is not known; the GPUs are: {', '.join(GPUS)}. Or give the budget itself with --flops")
    if not 0 < hours < math.inf:
        raise UserError(f"--hours: {hours} is not a length of time; give a positive number")
    return GPUS[name] * utilisation * 3600 * hours


def plan_budget(flops: float, objective: str = "hubert", metric: str = "asr_wer") -> Plan:
    """The plan for `flops` of training, after the sweep of one objective (hubert, wav2vec2, tera) judged by one of its metrics.

    The optimum moves with the budget as a power law through the sweep's full and half budgets; wav2vec 2.0 has one budget and takes the
    power of the other two. Raises UserError for a budget, objective or metric that makes no sense, and for a budget of so few updates
    that nothing would be learned.
    """
    if not flops > 0 or not math.isfinite(flops):
        raise UserError(f"--flops: {flops:g} is not a budget; give a number of training FLOPs above 0")
    sweep = size_sweep()
    if objective not in set(sweep.objective) or metric not in METRICS:
        raise UserError(f"no sweep of {objective} by {metric}: objectives hubert, wav2vec2, tera; metrics {', '.join(METRICS)}")
    part = sweep[sweep.objective == objective]
    full = part[part.budget == "full"]
    at_full, known = sweep_vertex(objective, "full", metric), float(full.flops.median())
    powers = _powers(sweep, objective, metric)
    distance = math.log(flops / known)
    log_draws = _moved(at_full, powers, distance)
    size = at_full.size * math.exp(float(np.median(powers)) * distance)
    low, high = (float(v) for v in np.exp(np.nanpercentile(log_draws, [2.5, 97.5])))
    warnings = _range_warnings(flops, part, full, size)
    nearest = full.iloc[np.argmin(np.abs(np.log(full.params.to_numpy() / size)))]
    family = "wav2vec2" if objective == "wav2vec2" else "hubert"
    model = nearest.model if nearest.model.startswith("slim") else f"{family}-{nearest.model}"
    hours = flops / _flops_an_hour(full, size)
    if hours * 3600 < LEAST * UTTERANCE:
        enough = flops * LEAST * UTTERANCE / (hours * 3600)
        raise UserError(
            f"--flops: {flops:g} is {hours * 3600:.2g} s of speech at {model}'s cost, less than {LEAST} updates of one utterance: "
            f"nothing to plan; give about {enough:.1g} or more"
        )
    batch, updates, batch_warnings = _batch(hours)
    evidence = [
        f"{SWEEP}, {objective} by {metric}: best at {at_full.size / 1e6:.1f} M "
        f"[{at_full.low / 1e6:.1f}, {at_full.high / 1e6:.1f}] for {known:.2g} FLOPs; one run a size",
        f"the optimum grows as budget^{np.median(powers):.2f} [{np.percentile(powers, 2.5):.2f}, {np.percentile(powers, 97.5):.2f}] "
        f"from half to full budget ({'hubert and tera' if objective == 'wav2vec2' else objective})",
        f"the same by each objective: {_by_objective(flops, metric)}",
        "batch-size paper (arXiv 2402.13723): hours seen decide, batches of 150 s to 40 min end alike at equal hours",
    ]
    return Plan(flops, size, low, high, model, hours, batch, updates, evidence, warnings + batch_warnings)


def _by_objective(flops: float, metric: str) -> str:
    """The best size for this budget after the sweep of each objective, in words."""
    sweep, said = size_sweep(), []
    for objective in ("hubert", "wav2vec2", "tera"):
        known = float(sweep.query(f"objective == '{objective}' and budget == 'full'").flops.median())
        power = float(np.median(_powers(sweep, objective, metric)))
        said.append(f"{objective} {sweep_vertex(objective, 'full', metric).size * (flops / known) ** power / 1e6:.3g} M")
    return ", ".join(said)


def _powers(sweep: pd.DataFrame, objective: str, metric: str) -> np.ndarray:
    """Bootstrap draws of d log(best size) / d log(budget)."""
    draws = []
    for source in ["hubert", "tera"] if objective == "wav2vec2" else [objective]:
        flops = sweep[sweep.objective == source].groupby("budget").flops.median()
        full, half = (sweep_vertex(source, budget, metric).log_draws for budget in ("full", "half"))
        draws.append((full - half) / math.log(flops["full"] / flops["half"]))
    together = np.concatenate(draws)
    return together[np.isfinite(together)]


def _moved(vertex: Vertex, powers: np.ndarray, distance: float) -> np.ndarray:
    starts = vertex.log_draws[np.isfinite(vertex.log_draws)]
    n = max(len(starts), len(powers))
    return np.resize(starts, n) + np.resize(powers, n) * distance


def _flops_an_hour(full: pd.DataFrame, size: float) -> float:
    """Training FLOPs of an hour of 15.625-second utterances, between the family's sizes log-log; the nearest end's outside them."""
    a_run = full.sort_values("params")
    return float(np.exp(np.interp(math.log(size), np.log(a_run.params), np.log(a_run.flops / a_run.hours))))


def _range_warnings(flops: float, part: pd.DataFrame, full: pd.DataFrame, size: float) -> list[str]:
    warnings = []
    budgets = part.groupby("budget").flops.median()
    low, high = float(budgets.min()), float(budgets.max())
    if not 0.99 * low <= flops <= 1.01 * high:
        times = f"{low / flops:.3g} times below" if flops < low else f"{flops / high:.3g} times above"
        span = f"{low:.2g} to {high:.2g}" if low < high else f"{high:.2g} alone"
        warnings.append(f"the budget is {times} what the sweep covers ({span} FLOPs): the size is extrapolated along the power law")
    if not full.params.min() <= size <= full.params.max():
        warnings.append(
            f"the size lies outside the family ({full.params.min() / 1e6:.1f} to {full.params.max() / 1e6:.1f} M): "
            "cost is that of its nearest end, and a front end scaled with the model would move the optimum"
        )
    return warnings


def _batch(hours: float) -> tuple[float, int, list[str]]:
    """The smallest batch, within the paper's, that needs no more updates than the paper ran; a smaller one where updates would be few."""
    seconds = min(max(hours * 3600 / UPDATES[1], BATCH_SECONDS[0]), BATCH_SECONDS[1])
    seconds = 10.0 * round(seconds / 10)
    if hours * 3600 / seconds < FEW:
        seconds = float(max(round(hours * 3600 / FEW), UTTERANCE))
        updates = round(hours * 3600 / seconds)
        why = f"a batch of {seconds:g} s is below the batch-size paper's {BATCH_SECONDS[0]:g} s, which would be fewer updates still;"
        return seconds, updates, [f"{why} {updates:,} are fewer than its {UPDATES[0]:,} to {UPDATES[1]:,}"]
    updates = round(hours * 3600 / seconds)
    if UPDATES[0] <= updates <= 1.05 * UPDATES[1]:
        return seconds, updates, []
    where = "fewer" if updates < UPDATES[0] else "more"
    return seconds, updates, [f"{updates} updates are {where} than the batch-size paper's {UPDATES[0]:,} to {UPDATES[1]:,}"]
