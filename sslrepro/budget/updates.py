"""Budgets in FLOPs, in updates, and back."""

from __future__ import annotations

import math

from sslrepro.budget.count import cell_cost
from sslrepro.config import CellSettings

PAPER_SECONDS = 15.625  # the compute-budget paper's crop, 250,000 samples: the length at which its sizes are compared


def equal_compute_updates(reference_updates: float, reference_macs: float, macs: float) -> int:
    """How many updates a model of `macs` gets for what `reference_updates` cost the reference, batches being equal.

    This is how the compute-budget paper's update counts come out: forward MACs of one 15.625-second utterance, front end and
    quadratic attention included.
    """
    return round(reference_updates * reference_macs / macs)


def update_flops(settings: CellSettings, seconds: float | None = None) -> float:
    """FLOPs of one update: `batch_seconds` of audio in utterances of `seconds` (default: the longest the cell allows)."""
    seconds = settings.training.max_seconds if seconds is None else seconds
    return cell_cost(settings, seconds).train_flops * settings.training.batch_seconds / seconds


def updates_for(settings: CellSettings, flops: float, seconds: float | None = None) -> int:
    """Whole updates that a budget pays for; 0 when not even one."""
    return math.floor(flops / update_flops(settings, seconds) * (1 + 1e-12))


def flops_for(settings: CellSettings, updates: int, seconds: float | None = None) -> float:
    """What so many updates cost: the inverse of `updates_for`."""
    return updates * update_flops(settings, seconds)


def hours_seen(settings: CellSettings, updates: float) -> float:
    """Hours of audio in so many updates, repeats included."""
    return updates * settings.training.batch_seconds / 3600
