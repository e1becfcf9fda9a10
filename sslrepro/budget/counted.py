"""Exact numbers by name, for claims: `quantity:model@seconds`, such as `params:lighthubert-base` or `macs:slim-100@15.625`."""

from __future__ import annotations

import re

from sslrepro.budget.count import Cost, cell_cost
from sslrepro.budget.names import NAMED
from sslrepro.budget.updates import PAPER_SECONDS
from sslrepro.config import Profile

QUANTITIES = ("params", "upstream_params", "macs", "train_flops")
NAME = re.compile(r"(?P<quantity>[a-z_]+):(?P<model>[\w./-]+?)(?:@(?P<seconds>[\d.]+))?")


def counted(name: str, profile: Profile | None = None) -> float | None:
    """The number, or None where the name is not known.

    The model is a named one, one of the published size sweep (`sweep/hubert-30`: objective and percent of Slim), or with a profile one of
    its cells (`study/cell`). Without `@seconds` the utterance is 15.625 s long, which parameters do not depend on.
    """
    match = NAME.fullmatch(name)
    if match is None or match["quantity"] not in QUANTITIES:
        return None
    cost = _cost(match["model"], float(match["seconds"] or PAPER_SECONDS), profile)
    return None if cost is None else float(getattr(cost, match["quantity"]))


def _cost(model: str, seconds: float, profile: Profile | None) -> Cost | None:
    if model in NAMED:
        return NAMED[model].cost(seconds)
    study, _, cell = model.partition("/")
    if study == "sweep" and seconds == PAPER_SECONDS:
        return _of_the_sweep(cell)
    if profile is not None and study in profile.studies and cell in profile.studies[study].cells:
        return cell_cost(profile.studies[study].cells[cell], seconds)
    return None


def _of_the_sweep(cell: str) -> Cost | None:
    from sslrepro.budget.published import size_sweep, sweep_cost  # here: names alone need no pandas

    objective, _, size = cell.partition("-")
    sweep = size_sweep()
    known = sweep[(sweep.objective == objective) & (sweep.size_pct.astype(str) == size)]
    return sweep_cost(objective, float(size)) if len(known) else None
