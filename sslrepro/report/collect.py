"""From run folders to a study's tables in `results/<profile>/<study>` (docs/schemas.md). Figures and verdicts read these alone."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from sslrepro.claims.bootstrap import score_bins
from sslrepro.config import Profile
from sslrepro.errors import UserError
from sslrepro.paths import cell_dir, results_dir

TABLES = {
    "metrics.csv": ["study", "cell", "seed", "metric", "value"],
    "speakers.csv": ["study", "cell", "seed", "metric", "speaker", "errors", "units"],
    "trials.csv": ["study", "cell", "seed", "metric", "speaker", "same", "bins"],
}


def collect(profile: Profile, study: str) -> Path:
    """Write the study's tables and `runs.json` from the cells of the profile, all of them or none; returns their folder.

    Raises UserError for a study that the profile does not run and for a cell that is not there.
    """
    if study not in profile.with_cells:
        raise UserError(f"study {study!r} has no cells in profile {profile.profile}; these have: {', '.join(profile.with_cells)}")
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    runs: dict[str, dict[str, dict]] = {}
    for cell, settings in profile.studies[study].cells.items():
        for seed in settings.seeds:
            run = cell_dir(profile.profile, study, cell) / str(seed)
            runs.setdefault(cell, {})[str(seed)] = _about(run, profile.profile)
            for name, table in _tables(run).items():
                parts[name].append(table.assign(study=study, cell=cell, seed=seed)[TABLES[name]])
    folder = results_dir(profile.profile) / study
    folder.mkdir(parents=True, exist_ok=True)
    for name, columns in TABLES.items():
        whole = [part for part in parts[name] if len(part)]
        table = pd.concat(whole, ignore_index=True) if whole else pd.DataFrame(columns=columns)
        table.to_csv(folder / name, index=False, lineterminator="\n")
    (folder / "runs.json").write_text(json.dumps(runs, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return folder


def _about(run: Path, profile: str) -> dict:
    if not (run / "metrics.json").exists():
        cell = f"{run.parent.parent.name} {run.parent.name}"
        raise UserError(f"{run}: not run yet; `sslrepro cell {cell} --profile {profile}` or `dvc repro` runs it")
    described = json.loads((run / "settings.json").read_text(encoding="utf-8"))
    status = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["status"]
    unscored = {"unavailable": described["unavailable"]} if described.get("unavailable") else {}
    return {"status": status, **described["hashes"], "commit": described["commit"], "machine": described["machine"], **unscored}


def _tables(run: Path) -> dict[str, pd.DataFrame]:
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    rows = [(name, value) for name, value in metrics.items() if name != "status"]
    tables = {"metrics.csv": pd.DataFrame(rows, columns=["metric", "value"])}
    for name in ("speakers.csv", "trials.csv"):
        if (run / name).exists():
            tables[name] = pd.read_csv(run / name, dtype={"speaker": str})
    if "trials.csv" in tables:
        tables["trials.csv"] = _binned(tables["trials.csv"])
    return tables


def _binned(trials: pd.DataFrame) -> pd.DataFrame:
    """A row for each metric, speaker and kind of trial, with the bins of its scores: what intervals need, at a twentieth of the size."""
    if trials.empty:
        return pd.DataFrame(columns=TABLES["trials.csv"])
    trials = trials.assign(bins=trials.groupby("metric")["score"].transform(lambda score: score_bins(score.to_numpy())))
    rows = trials.groupby(["metric", "speaker", "same"])["bins"]
    return rows.agg(lambda bins: " ".join(str(b) for b in sorted(bins))).reset_index()
