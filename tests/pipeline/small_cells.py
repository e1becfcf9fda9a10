"""What the tests of sweeps and jobs run: cells that train for seconds, in the study `budget` of the profile `tiny`."""

from __future__ import annotations

import time
from collections.abc import Callable

from sslrepro.config import Profile, parse


def cell(updates: int, **training: float) -> dict:
    """Settings of one cell that scores nothing; `training`: settings beside the budget."""
    return {
        "seeds": [0],
        "input": "artifacts/tiny/corpus",
        "model": {
            "front_end": {"kind": "logmel", "mels": 20, "stack": 4},
            "encoder": {"layers": 1, "width": 16, "ffn": 16, "heads": 2, "position": {"kernel": 4, "groups": 2}},
        },
        "objective": {"name": "contrastive", "negatives": 4, "final_dim": 8, "quantizer": {"codes": 4, "dim": 8, "anneal_share": 0.5}},
        "training": {
            "budget": {"unit": "updates", "amount": updates}, "batch_seconds": 8.0, "micro_batch_seconds": 8.0, "min_seconds": 0.5,
        } | training,
        "downstream": {"tasks": []},
    }  # fmt: skip


def values(**cells: dict) -> dict:
    """The content of a profile that has these cells."""
    data = {"corpus": {"hours": 0.03, "voices": 6, "words": 100}}
    return {"profile": "tiny", "data": data, "studies": {"budget": {"cells": cells}}, "with_cells": ["budget"]}


def profile_of(**cells: dict) -> Profile:
    return parse(Profile, values(**cells), "test")


def until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Waits; an assertion that says `what` did not come."""
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, f"no {what} after {seconds:g} s"
        time.sleep(0.05)
