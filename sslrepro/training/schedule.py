"""The learning rate over the fraction of the budget that is used, whatever the budget's unit."""

from __future__ import annotations

import math

from sslrepro.config import ScheduleSettings


def share(value: float, updates: float) -> float:
    """A share of the run: as given up to 1, else a number of updates out of the run's."""
    return value if value <= 1 else min(value / updates, 1.0)


def learning_rate(schedule: ScheduleSettings, peak: float, progress: float, updates: float) -> float:
    """The rate at `progress` in [0, 1] of a run of about `updates` updates.

    linear: up over the warm-up, then straight to 0 (fairseq's polynomial decay of power 1), where `decay_updates` end. tri_stage: up from
    peak / 100, hold, exponential decay to `final_scale` x peak (fairseq). cyclic: triangles between peak / 100 and peak (torch's
    CyclicLR, as the batch-size paper). constant: up over the warm-up, then the peak.
    """
    warmup = share(schedule.warmup, updates)
    if schedule.kind == "cyclic":
        place = progress * schedule.cycles % 1.0
        return peak * (0.01 + 0.99 * (1 - abs(2 * place - 1)))
    if progress < warmup:
        start = 0.01 if schedule.kind == "tri_stage" else 0.0
        return peak * (start + (1 - start) * progress / warmup)
    if schedule.kind == "constant":
        return peak
    if schedule.kind == "linear":
        end = 1 if schedule.decay_updates is None else schedule.decay_updates / updates
        return peak * max(0.0, (end - progress) / max(end - warmup, 1e-12))
    hold = share(schedule.hold, updates)
    decay = 1 - warmup - hold
    if progress < warmup + hold or decay <= 0:
        return peak
    done = min(1.0, (progress - warmup - hold) / decay)
    return peak * math.exp(math.log(max(schedule.final_scale, 1e-4)) * done)
