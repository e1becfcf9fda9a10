"""Exact numbers by name, for claims: `quantity:model@seconds`, such as `params:lighthubert-base` or `macs:slim-100@15.625`."""

from __future__ import annotations

import re

from sslrepro.budget.names import NAMED
from sslrepro.budget.updates import PAPER_SECONDS

QUANTITIES = ("params", "upstream_params", "macs", "train_flops")
NAME = re.compile(r"(?P<quantity>[a-z_]+):(?P<model>[\w./-]+?)(?:@(?P<seconds>[\d.]+))?")

# The cells that the ledger's counts speak of (`study/cell`), and the published model that each trains
CELLS = {
    "budget/hubert-size30": "slim-30",
    "budget/hubert-size50": "slim-50",
    "budget/hubert-size70": "slim-70",
    "budget/hubert-size100": "slim-100",
    "budget/hubert-size200": "slim-200",
    "budget/hubert-size473": "hubert-base",
    "summarymixing/wav2vec2-summarymixing": "summarymixing-w2v2",
    "survey/hubert": "hubert-base",
    "survey/distilhubert": "distilhubert",
    "survey/fithubert": "fithubert",
    "survey/lighthubert-640": "lighthubert-base",
    "survey/melhubert-20ms": "melhubert-20ms",
}


def counted(name: str) -> float | None:
    """The number, of a named model or of a cell that trains one; None where the name is not known. Without `@seconds` the utterance is
    15.625 s long, which parameters do not depend on."""
    match = NAME.fullmatch(name)
    if match is None or match["quantity"] not in QUANTITIES:
        return None
    model = CELLS.get(match["model"], match["model"])
    if model not in NAMED:
        return None
    cost = NAMED[model].cost(float(match["seconds"] or PAPER_SECONDS))
    return float(getattr(cost, match["quantity"]))
