"""What `dvc metrics` and `dvc plots` show: means over seeds, one JSON a study; one curve file a cell."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from sslrepro.paths import root


def runs(profile: str) -> Iterator[tuple[str, str, str, Path]]:
    """study, cell, seed and folder of every finished run of a profile, in order of name."""
    for path in sorted((root() / "runs" / profile).glob("*/*/*/metrics.json")):
        yield path.parts[-4], path.parts[-3], path.parts[-2], path.parent


def write(profile: str) -> None:
    """`artifacts/<profile>/metrics/<study>.json` and `artifacts/<profile>/curves/<study>/<cell>.csv`, from `runs/`."""
    metrics: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    curves: dict[tuple[str, str], dict[int, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for study, cell, _, folder in runs(profile):
        for name, value in json.loads((folder / "metrics.json").read_text(encoding="utf-8")).items():
            if isinstance(value, (int, float)):
                metrics[study][cell][name].append(value)
        known = json.loads((folder / "settings.json").read_text(encoding="utf-8"))["chance"]
        chance = [known["loss"]] if "loss" in known else []  # a floor has none
        with (folder / "history.csv").open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                point = curves[study, cell][int(row["update"])]
                point["hours_seen"].append(float(row["hours_seen"]))
                point["chance_loss"] += chance
                if row["metric"] in ("train.loss", "valid.loss"):
                    point[row["metric"].replace(".", "_")].append(float(row["value"]))
    here = root() / "artifacts" / profile
    (here / "metrics").mkdir(parents=True, exist_ok=True)
    (here / "curves").mkdir(parents=True, exist_ok=True)
    for study, cells in metrics.items():
        means = {cell: {name: mean(values) for name, values in sorted(named.items())} for cell, named in cells.items()}
        (here / "metrics" / f"{study}.json").write_text(json.dumps(means, indent=1) + "\n", encoding="utf-8")
    for (study, cell), points in curves.items():
        path = here / "curves" / study / f"{cell}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as lines:
            columns = ["update", "hours_seen", "train_loss", "valid_loss", "chance_loss"]
            writer = csv.DictWriter(lines, columns, restval="", lineterminator="\n")
            writer.writeheader()
            for update, point in sorted(points.items()):
                writer.writerow({"update": update} | {name: mean(values) for name, values in point.items() if values})
