"""Whether today's code still gives the kept results: some of their cells, run again, against `results/<profile>/<study>/metrics.csv`.

Kept results carry a hash of the code that made them, and most changes of code change no number that matters. Where cells that were run
again show it, `same_code.json` beside the tables says so, naming these cells, and the verdicts are not called stale. On the same kind of
machine and torch every number must be equal to the last bit. On another, which rounds differently, and training carries that on, each
must lie within a tenth of the standard deviation over the cell's kept seeds. Times and bytes that a machine measured are left out.
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
SHARE = 0.1  # of the standard deviation over seeds: the interval of a claim moves by less than its last shown digit
LEAST_SEEDS = 3


def same_code(profile: Profile, study: str) -> dict[str, float]:
    """Compare the runs of today's code in `runs/` with the kept results; write `same_code.json`. Returns the runs compared, each with its
    largest difference in standard deviations over the kept seeds.

    Raises UserError where nothing can be compared, and naming the first number that differs.
    """
    folder = results_dir(profile.profile) / study
    if not (folder / "runs.json").exists():
        raise UserError(f"{folder}: no kept results to compare with")
    kept = json.loads((folder / "runs.json").read_text(encoding="utf-8"))
    table = pd.read_csv(folder / "metrics.csv", dtype={"cell": str, "metric": str}, float_precision="round_trip")
    now, compared, before, machines = code_hash(), {}, set(), set()
    for cell, seeds in kept.items():
        numbers = table[table.cell == cell].pivot(index="metric", columns="seed", values="value")
        for seed, old in seeds.items():
            run = cell_dir(profile.profile, study, cell) / seed
            described = _described(run)
            if described is None or described["hashes"]["code"] != now or old["code"] == now:
                continue
            found = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
            there, here = _kind(old["machine"]), _kind(described["machine"])
            compared[f"{cell} seed {seed}"] = _compare(run, found, numbers, int(seed), 0.0 if there == here else SHARE)
            before.add(old["code"])
            machines.add((there, here))
    if not compared:
        raise UserError(f"nothing of {study} to compare: run some of its cells again with today's code (sslrepro cell), then this")
    about = {
        "code": now, "gives_the_numbers_of": sorted(before), "shown_by": compared, "commit": commit(),
        "machines": [f"{there}; again on {here}" for there, here in sorted(machines)],
    }  # fmt: skip
    (folder / "same_code.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return compared


def _described(run: Path) -> dict | None:
    path = run / "settings.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _kind(machine: dict) -> str:
    return ", ".join(str(machine.get(name)) for name in ("cpu", "gpu", "torch"))


def _compare(run: Path, found: dict[str, float], numbers: pd.DataFrame, seed: int, share: float) -> float:
    """numbers: kept, by metric and seed; share: of their standard deviation over seeds, which a difference may have; 0: none may be.
    The largest difference in standard deviations over seeds."""
    kept = numbers[seed].dropna()
    kept = kept[[name for name in kept.index if not _measured(name)]].to_dict()
    found = {name: value for name, value in found.items() if not _measured(name)}
    if differ := sorted(set(found) ^ set(kept)):
        raise UserError(f"{run}: {differ[0]} is in one of the two only")
    largest = 0.0
    for name, value in kept.items():
        seeds = numbers.loc[name].dropna()
        deviation = float(seeds.std()) if len(seeds) >= LEAST_SEEDS else 0.0
        apart = abs(found[name] - value)
        if apart > (max(share * deviation, 1e-12 * abs(value)) if share else 0.0):
            raise UserError(
                f"{run}: {name} is {found[name]!r}, in the kept results {value!r}, and {LEAST_SEEDS} or more seeds there have a standard "
                f"deviation of {deviation:.3g}: these were made by other code"
            )
        largest = max(largest, apart / deviation if deviation else 0.0)
    return largest


def _measured(name: str) -> bool:
    return name == "status" or any(word in name for word in MEASURED)
