"""Whether today's code still gives the kept results: some of their cells, run again, against `results/<profile>/<study>/metrics.csv`.

Kept results carry a hash of the code that made them, and most changes of code change no number. Where cells that were run again give
every number to the last bit, `same_code.json` beside the tables says so, naming these cells, and the verdicts are not called stale.
Times and bytes that a machine measured are left out, and only runs of one kind of machine and one torch can be compared.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from sslrepro.config import Profile
from sslrepro.errors import UserError
from sslrepro.paths import cell_dir, results_dir
from sslrepro.training.identity import code_hash, commit

MEASURED = ("seconds", "peak_bytes")


def same_code(profile: Profile, study: str) -> list[str]:
    """Compare the runs of today's code in `runs/` with the kept results; write `same_code.json`; returns the runs compared.

    Raises UserError where nothing can be compared, and naming the first number that differs.
    """
    folder = results_dir(profile.profile) / study
    if not (folder / "runs.json").exists():
        raise UserError(f"{folder}: no kept results to compare with")
    kept = json.loads((folder / "runs.json").read_text(encoding="utf-8"))
    numbers = pd.read_csv(folder / "metrics.csv", dtype={"cell": str, "metric": str}, float_precision="round_trip")
    now, compared, before = code_hash(), [], set()
    for cell, seeds in kept.items():
        for seed, old in seeds.items():
            run = cell_dir(profile.profile, study, cell) / seed
            described = _described(run)
            if described is None or described["hashes"]["code"] != now or old["code"] == now:
                continue
            if (here := _kind(described["machine"])) != (there := _kind(old["machine"])):
                raise UserError(f"{run}: made on {here}, the kept results on {there}: last bits may differ between machines")
            mine = numbers[(numbers.cell == cell) & (numbers.seed == int(seed))]
            _compare(run, dict(zip(mine.metric, mine.value, strict=True)))
            compared.append(f"{cell} seed {seed}")
            before.add(old["code"])
    if not compared:
        raise UserError(f"nothing of {study} to compare: run some of its cells again with today's code (sslrepro cell), then this")
    about = {"code": now, "gives_the_numbers_of": sorted(before), "shown_by": compared, "commit": commit()}
    (folder / "same_code.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return compared


def _described(run: Path) -> dict | None:
    path = run / "settings.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _kind(machine: dict) -> str:
    return ", ".join(str(machine.get(name)) for name in ("cpu", "gpu", "torch"))


def _compare(run: Path, kept: dict[str, float]) -> None:
    found = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    found, kept = ({name: value for name, value in numbers.items() if not _measured(name)} for numbers in (found, kept))
    if differ := sorted(set(found) ^ set(kept)):
        raise UserError(f"{run}: {differ[0]} is in one of the two only")
    for name, value in kept.items():
        if found[name] != value:
            raise UserError(f"{run}: {name} is {found[name]!r}, in the kept results {value!r}: these were made by other code")


def _measured(name: str) -> bool:
    return name == "status" or any(word in name for word in MEASURED)
