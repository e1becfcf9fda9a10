"""The W&B mirror: one run a cell and seed, one a study. It reads the plain files, which stay the truth, after they exist.

Offline unless the user is logged in; needs no key and no network. All runs of a profile are mirrored by one process at the end, as starting
W&B costs more than logging. What was mirrored before and has not changed is left alone.
"""

from __future__ import annotations

import csv
import hashlib
import json
import netrc
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sslrepro.paths import results_dir, root
from sslrepro.report.tables import runs

PROJECT = "sslrepro"
ONLINE_WAIT = 20  # seconds for W&B's server to answer, before going offline


@dataclass
class Mirrored:
    written: int = 0
    kept: int = 0


def folder() -> Path:
    """Where W&B writes: outside every output of DVC."""
    return root() / ".cache"


def mode() -> str:
    """`WANDB_MODE` if set; online with a key in WANDB_API_KEY or ~/.netrc; else offline."""
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    try:
        return "online" if netrc.netrc().authenticators("api.wandb.ai") else "offline"
    except (OSError, netrc.NetrcParseError):
        return "offline"


def mirror(profile: str) -> Mirrored:
    """Mirror every finished run and study of a profile, and write `artifacts/<profile>/tracked.json`: run -> hash of its files."""
    known_path = folder() / "wandb" / "mirrored.json"
    known = json.loads(known_path.read_text(encoding="utf-8")) if known_path.exists() else {}
    done, tracked = Mirrored(), {}
    jobs = [
        (f"{study}/{cell}/{seed}", _cell_files(path), partial(_cell, profile, study, path)) for study, cell, seed, path in runs(profile)
    ]
    studies = sorted(path for path in results_dir(profile).glob("*") if path.is_dir())
    jobs += [(path.name, _study_files(path), partial(_study, profile, path)) for path in studies]
    for short, files, write in jobs:
        name = f"{profile}/{short}"
        tracked[name] = _digest(files)
        if known.get(name) == tracked[name]:
            done.kept += 1
            continue
        write(short)
        done.written += 1
        known[name] = tracked[name]
        known_path.parent.mkdir(parents=True, exist_ok=True)
        known_path.write_text(json.dumps(known, indent=1, sort_keys=True), encoding="utf-8")
    out = root() / "artifacts" / profile / "tracked.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(tracked, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return done


@contextmanager
def _run(profile: str, name: str, kind: str, group: str, config: dict[str, Any]) -> Iterator[Any]:
    os.environ["WANDB_ERROR_REPORTING"] = "false"  # its crash reporter dials out even when offline
    import wandb

    folder().mkdir(parents=True, exist_ok=True)
    quiet = wandb.Settings(
        silent=True, console="off", disable_git=True, disable_code=True, save_code=False, init_timeout=ONLINE_WAIT,
        x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True,
    )  # fmt: skip
    about = {"project": PROJECT, "name": name, "group": group, "job_type": kind, "tags": [profile], "config": config, "dir": folder()}
    try:
        run = wandb.init(mode=mode(), settings=quiet, **about)
    except wandb.errors.Error:  # logged in, but the server does not answer
        run = wandb.init(mode="offline", settings=quiet, **about)
    try:
        yield run
    finally:
        run.finish()


def _cell(profile: str, study: str, path: Path, name: str) -> None:
    described = json.loads((path / "settings.json").read_text(encoding="utf-8"))
    metrics = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
    config = {key: described[key] for key in ("cell", "seed", "hashes", "commit", "machine", "chance") if key in described}
    with _run(profile, name, "cell", f"{profile}/{study}", config) as run:
        for update, values in _history(path / "history.csv"):
            run.log(values, step=update)
        run.summary.update(metrics)


def _study(profile: str, path: Path, name: str) -> None:
    import wandb

    with _run(profile, name, "study", f"{profile}/{name}", {"profile": profile, "study": name}) as run:
        media: dict[str, Any] = {f"figures/{image.stem}": wandb.Image(str(image)) for image in sorted((path / "figures").glob("*.png"))}
        rows = _rows(path / "verdicts.json")
        if rows:
            columns = sorted({key for row in rows for key in row})
            data = [[_plain(row.get(column)) for column in columns] for row in rows]
            media["scoreboard"] = wandb.Table(columns=columns, data=data, allow_mixed_types=True)
        if media:
            run.log(media)
        run.summary.update({f"verdict.{row['claim']}": row["verdict"] for row in rows})


def _history(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Long form to one dict an update, in order."""
    points: dict[int, dict[str, float]] = defaultdict(dict)
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            points[int(row["update"])] |= {row["metric"]: float(row["value"]), "hours_seen": float(row["hours_seen"])}
    yield from sorted(points.items())


def _rows(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, int, float, bool)) else json.dumps(value)


def _cell_files(path: Path) -> list[Path]:
    return [path / name for name in ("settings.json", "metrics.json", "history.csv")]


def _study_files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.suffix in (".json", ".csv", ".png"))


def _digest(files: list[Path]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
