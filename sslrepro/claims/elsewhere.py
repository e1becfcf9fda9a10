"""Where cells are run that a claim lacks at a profile, from profiles/*.yaml: so an open verdict says what would decide it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np

from sslrepro.claims.ledger import CellSeries, ProfileName
from sslrepro.claims.results import matches
from sslrepro.claims.series import meets
from sslrepro.config.base import read_yaml
from sslrepro.paths import root


def run_elsewhere(study: str, profile: str, spec: CellSeries, present: list[str]) -> list[str]:
    """Which cells of a series other profiles run and this one has no results of, in words, one sentence for each set of cells."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name in get_args(ProfileName):
        if name != profile and (lacking := tuple(c for c in _cells(root(), name, study) if c not in present and _wanted(c, spec))):
            found.setdefault(lacking, []).append(name)
    return [f"{', '.join(names)} would run {', '.join(cells)}" for cells, names in found.items()]


def _wanted(cell: str, spec: CellSeries) -> bool:
    """Whether the series takes a cell of this name."""
    return any(
        all(meets(np.array([found[key]]), wanted)[0] for key, wanted in spec.where.items() if key in found)
        for found in matches(cell, spec.templates())
    )


@cache
def _cells(top: Path, profile: str, study: str) -> tuple[str, ...]:
    path = top / "profiles" / f"{profile}.yaml"
    block = read_yaml(path).get("studies", {}).get(study) if path.is_file() else None
    return tuple(block["cells"]) if block else ()
