"""What a profile will cost on this machine: cells, updates, hours, FLOPs, time, disk. Nothing runs but a short matrix product."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from sslrepro.budget import cell_cost
from sslrepro.config import CellSettings, Profile

# Share of the measured matmul rate that training reaches; small models reach less, as their layers do not fill the machine.
EFFICIENCY = 0.35
CELL_OVERHEAD = 8.0  # seconds: kernel and imports
SEED_OVERHEAD = 4.0  # seconds: scoring and writing
BYTES_A_SECOND = 2 * 16_000  # PCM16 at 16 kHz


@dataclass
class CellPlan:
    """One cell with all its seeds."""

    study: str
    cell: str
    objective: str
    seeds: int
    params: float
    updates: float  # of one seed
    hours: float  # of audio seen, all seeds
    flops: float  # of training, all seeds
    seconds: float  # estimated
    megabytes: float  # weights, snapshots and checkpoints


def plan_cell(study: str, name: str, cell: CellSettings, rate: float) -> CellPlan:
    """rate: FLOP/s of this machine's matmul in the cell's precision. An utterance is taken to be as long as allowed."""
    t = cell.training
    seconds = t.max_seconds
    cost = cell_cost(cell, seconds)
    flops_an_hour = cost.train_flops / seconds * 3600
    if not cell.is_trained:
        hours = 0.0
    else:
        past_front_end = cost.train_flops_past_front_end / seconds * 3600
        an_hour = {"updates": 3600 / t.batch_seconds, "hours": 1.0, "flops": flops_an_hour, "flops_past_front_end": past_front_end}
        hours = t.budget.amount / an_hour[t.budget.unit]
    n = len(cell.seeds)
    flops = n * hours * flops_an_hour
    kept = 0 if cell.measures_alone else 1 + (len(t.snapshots) + 3 * t.keep_checkpoints) * cell.is_trained
    work = flops + n * _scoring_flops(cell, 6 * cost.macs / seconds * 3600)
    return CellPlan(
        study, name, cell.objective.name, n, float(cost.params), hours * 3600 / t.batch_seconds, n * hours, flops,
        work / (rate * EFFICIENCY) + n * SEED_OVERHEAD + CELL_OVERHEAD, n * kept * 4 * cost.params / 1e6,
    )  # fmt: skip


def _scoring_flops(cell: CellSettings, flops_an_hour: float) -> float:
    """Of one seed: the fine-tunings, and the features that frozen probes learn from and are tested on, taken to be as many again.

    Where probes learn from all of their part of the corpus, its hours are not known before there is one, and not counted.
    """
    down, states = cell.downstream, 1 + len(cell.training.snapshots)
    tuned = sum(share.updates * (states if share.snapshots else 1) for share in down.fine_tune.shares) * down.fine_tune.batch_seconds / 3600
    probed = states * len(down.tasks) * 2 * (down.train_hours or 0.0) / 3  # a forward pass is a third of an update
    return (tuned + probed) * flops_an_hour


def plan_profile(profile: Profile) -> dict[str, Any]:
    """Every cell, and the totals."""
    rates = {
        precision: matmul_rate(precision)
        for precision in {c.training.precision for s in profile.studies.values() for c in s.cells.values()}
    }
    cells = [
        plan_cell(study, name, cell, rates[cell.training.precision])
        for study, block in profile.studies.items()
        for name, cell in block.cells.items()
    ]
    spoken = [profile.data.corpus, *profile.data.corpus.languages]
    corpus = 0.0 if profile.data.root else sum(part.hours for part in spoken) * 1.25 * 3600 * BYTES_A_SECOND / 1e6
    totals = {
        "cells": len(cells),
        "updates": sum(c.updates * c.seeds for c in cells),
        "hours": sum(c.hours for c in cells),
        "flops": sum(c.flops for c in cells),
        "seconds": sum(c.seconds for c in cells),
        "megabytes": sum(c.megabytes for c in cells) + corpus,
    }
    return {"profile": profile.profile, "matmul_flops_per_second": rates, "cells": [asdict(c) for c in cells], "total": totals}


def matmul_rate(precision: str = "fp32", seconds: float = 0.3) -> float:
    """FLOP/s of a large matrix product on this machine's device, best of several."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    size = 4096 if device == "cuda" else 768
    left = torch.ones(size, size, device=device, dtype=dtype)
    best, ends = 0.0, time.monotonic() + seconds
    while best == 0.0 or time.monotonic() < ends:
        began = time.perf_counter()
        left @ left
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def show(plan: dict[str, Any]) -> str:
    """The plan as a table for people."""
    lines = [f"{'cell':32} {'objective':18} seeds {'params':>8} {'updates':>9} {'hours':>9} {'FLOPs':>9} {'time':>8} {'disk':>9}"]
    for c in plan["cells"]:
        lines.append(
            f"{c['study'] + '/' + c['cell']:32} {c['objective']:18} {c['seeds']:5} {c['params'] / 1e6:6.2f} M {c['updates']:9.0f} "
            f"{c['hours']:9.2f} {c['flops']:9.1e} {_time(c['seconds']):>8} {c['megabytes']:6.0f} MB"
        )
    t = plan["total"]
    lines.append(
        f"{'all ' + str(t['cells']) + ' cells of ' + plan['profile']:32} {'':18} {'':5} {'':8} {t['updates']:9.0f} {t['hours']:9.2f} "
        f"{t['flops']:9.1e} {_time(t['seconds']):>8} {t['megabytes']:6.0f} MB"
    )
    rates = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in plan["matmul_flops_per_second"].items())
    lines.append(f"Time: training at {EFFICIENCY:.0%} of this machine's matmul rate ({rates}), without corpus, measurements, figures.")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
