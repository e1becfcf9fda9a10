"""The compute-budget paper's size sweep (claims/published/size_sweep.csv), with each model's counted size and cost, and its U-curves."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd

from sslrepro.budget.count import Cost, count
from sslrepro.budget.fits import Vertex, u_curve
from sslrepro.budget.front_end import SAMPLE_RATE
from sslrepro.budget.names import HUBERT, LARGE, SHAPES, WAV2VEC2, WAV2VEC2_LARGE, named, transformer
from sslrepro.budget.ops import linear
from sslrepro.budget.updates import PAPER_SECONDS
from sslrepro.config import ModelSettings, NoObjective
from sslrepro.errors import UserError
from sslrepro.paths import root

# Derived from the epochs that the paper reports: about two buckets of 87.5 s. The Large models of HuBERT and TERA ran with half the
# bucket, which holds fewer than half the utterances: as many as make their 160,144 updates the 72,234 of wav2vec 2.0's Large.
UTTERANCES_AN_UPDATE = 12.65
UTTERANCES_IN_HALF_A_BUCKET = 5.7
METRICS = ("asr_wer", "asv_eer", "train_loss", "valid_loss")
TERA_TARGETS = 78  # two stacked frames of 39-dimensional MFCC
BASE_SHAPE, LARGE_SHAPE = (12, 768, 3072, 12), (24, 1024, 4096, 16)


def sweep_model(size_pct: float) -> tuple[str, ModelSettings]:
    """Name and settings of the sweep's model at so many percent of Slim; beyond 200 % they are the Base and Large shapes."""
    name = {30: "slim-30", 50: "slim-50", 70: "slim-70", 100: "slim-100", 200: "slim-200"}.get(int(size_pct))
    if name is None:
        return ("base", transformer(*BASE_SHAPE)) if size_pct < 1000 else ("large", LARGE)
    return name, transformer(*SHAPES[name])


def sweep_cost(objective: str, size_pct: float) -> Cost:
    """One 15.625-second utterance of a model of the sweep, its objective's heads included."""
    name, model = sweep_model(size_pct)
    samples = round(PAPER_SECONDS * SAMPLE_RATE)
    if objective == "hubert":
        return named("hubert-large").cost(PAPER_SECONDS) if name == "large" else count(model, HUBERT, samples)
    if objective == "wav2vec2":
        return count(model, WAV2VEC2_LARGE if name == "large" else WAV2VEC2, samples)
    cost = count(model, NoObjective(), samples)
    heads = {"heads": linear(cost.frames, model.encoder.width, TERA_TARGETS)}
    return Cost(cost.samples, cost.frames, cost.masked, cost.components | heads)


@lru_cache(maxsize=1)
def size_sweep() -> pd.DataFrame:
    """objective, budget, size_pct, params_m (published, in millions, or NaN), updates, the four metrics; and counted: model, params, macs,
    train_flops of an utterance, hours seen and FLOPs of the run. Raises UserError where the published table is missing."""
    path = root() / "claims" / "published" / "size_sweep.csv"
    if not path.is_file():
        raise UserError(f"{path}: the published size sweep is not here; it comes with the repository")
    table = pd.read_csv(path)
    costs = [sweep_cost(row.objective, row.size_pct) for row in table.itertuples()]
    table["model"] = [sweep_model(size)[0] for size in table.size_pct]
    for name in ("params", "macs", "train_flops"):
        table[name] = [getattr(cost, name) for cost in costs]
    half_a_bucket = (table.model == "large") & (table.objective != "wav2vec2")
    utterances = table.updates * np.where(half_a_bucket, UTTERANCES_IN_HALF_A_BUCKET, UTTERANCES_AN_UPDATE)
    table["hours"] = utterances * PAPER_SECONDS / 3600
    table["flops"] = utterances * table.train_flops
    return table


@lru_cache(maxsize=64)
def sweep_vertex(objective: str, budget: str, metric: str) -> Vertex:
    """The U-curve of one objective at one budget (full, half) by one metric."""
    sweep = size_sweep()
    part = sweep[(sweep.objective == objective) & (sweep.budget == budget)]
    return u_curve(part.params, part[metric], seed=f"{objective} {budget} {metric}")


def published_vertices() -> pd.DataFrame:
    """The U-curve of each objective, budget and metric of the sweep: objective, budget, metric, size, low, high, convex_share, inside."""
    rows = []
    for objective, budget in size_sweep()[["objective", "budget"]].drop_duplicates().itertuples(index=False):
        for metric in METRICS:
            v = sweep_vertex(objective, budget, metric)
            rows.append((objective, budget, metric, v.size, v.low, v.high, v.convex_share, v.inside))
    return pd.DataFrame(rows, columns=["objective", "budget", "metric", "size", "low", "high", "convex_share", "inside"])
