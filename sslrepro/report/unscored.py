"""What of a study is not there, and why: cells without results yet; labels, or parts that a cell is scored on, which the corpus has not."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from sslrepro.config import Profile


def not_run(folder: Path, profile: Profile, study: str) -> str:
    """Which cells of the profile the tables in `folder` lack, as a sentence; empty where they have all."""
    known = set(json.loads((folder / "runs.json").read_text(encoding="utf-8")))
    lacking = [cell for cell in profile.studies[study].cells if cell not in known]
    return f"Without results so far, and missing below: {', '.join(lacking)}." if lacking else ""


def unscored(folder: Path) -> pd.DataFrame:
    """One row a (task, reason) of `results/<profile>/<study>/runs.json`, with the cells that it befell."""
    runs = json.loads((folder / "runs.json").read_text(encoding="utf-8"))
    rows = [(task, why, cell) for cell, seeds in runs.items() for run in seeds.values() for task, why in run.get("unavailable", {}).items()]
    table = pd.DataFrame(rows, columns=["task", "not scored because", "cells"]).drop_duplicates()
    return table.groupby(["task", "not scored because"], sort=False)["cells"].agg(", ".join).reset_index()


def why_unscored(folder: Path) -> list[str]:
    """The same of one cell, `runs/<profile>/<study>/<cell>`, a sentence a (task, reason)."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*/settings.json"))]
    return list(dict.fromkeys(f"{task} was not scored: {why}" for run in runs for task, why in run["unavailable"].items()))
