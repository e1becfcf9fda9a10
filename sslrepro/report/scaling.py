"""docs/scaling.md: what each study cost where it ran, and what it will cost at every profile, `paper` in GPU-hours and disk.

`python -m sslrepro.report.scaling` writes the tables anew (as does `python -m sslrepro.report.readme`), a test holds the page to them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pandas as pd

from sslrepro.budget.plan import GPUS, UTILISATION
from sslrepro.budget.table import markdown
from sslrepro.paths import results_dir, root
from sslrepro.pipeline.plan import EFFICIENCY, CellPlan, plan_cell
from sslrepro.pipeline.profile import expand

KEPT = ("laptop", "gpu")  # the profiles whose results are in git
PROFILES = ("quick", "laptop", "gpu", "paper")
CARDS = ("a100", "h200")
BEGIN, END = "<!-- begin: python -m sslrepro.report.scaling -->", "<!-- end -->"


def measured() -> str:
    """Wall time of training in the kept results, by study: `cost.seconds` and `cost.hours_seen` of every run."""
    rows = []
    for profile in KEPT:
        for path in sorted(results_dir(profile).glob("*/metrics.csv")):
            table = pd.read_csv(path, dtype={"cell": str})
            runs = table.pivot_table(index=["cell", "seed"], columns="metric", values="value")
            runs = runs[runs["cost.seconds"] > 0]
            hours, seconds = runs["cost.hours_seen"].sum(), runs["cost.seconds"].sum()
            cells = runs.index.get_level_values("cell").nunique()
            rows.append(
                [profile, path.parent.name, f"{cells}", f"{len(runs)}", f"{runs['cost.updates'].sum():,.0f}", f"{hours:,.1f}",
                 f"{seconds / 3600:.2f}", f"{3600 * hours / seconds:,.0f}"]
            )  # fmt: skip
    header = ["profile", "study", "trained cells", "runs", "updates", "hours of speech seen", "hours of training", "speech a second, s"]
    return markdown(header, rows)


def quick() -> str:
    """Seconds of `quick`'s cells, all seeds, by study, of the one run that was kept."""
    kept = json.loads((root() / "benchmarks" / "results" / "quick.json").read_text(encoding="utf-8"))
    return markdown(["study", "cells, s"], [[study, f"{sum(cells.values())}"] for study, cells in sorted(kept["seconds_of_cells"].items())])


def planned() -> str:
    """What each study's cells take at every profile, by count; FLOPs, updates and hours of all seeds."""
    rows = []
    for profile in PROFILES:
        for study, cells in _plans(profile, rate=1.0).items():
            updates, hours, flops = (sum(values) for values in zip(*((c.updates * c.seeds, c.hours, c.flops) for c in cells), strict=True))
            rows.append(
                [profile, study, f"{len(cells)}", f"{sum(c.seeds for c in cells)}", f"{max(c.params for c in cells) / 1e6:.1f} M",
                 f"{updates:,.0f}", f"{hours:,.1f}", f"{flops:.1e}", _size(cells)]
            )  # fmt: skip
    header = ["profile", "study", "cells", "runs", "largest model", "updates", "hours of speech seen", "FLOPs", "disk"]
    return markdown(header, rows)


def gpu_hours() -> str:
    """`paper` on one GPU after the other: training, fine-tunings and the features of probes."""
    totals = {card: defaultdict(float) for card in CARDS}
    for card in CARDS:
        for study, cells in _plans("paper", rate=GPUS[card] * UTILISATION / EFFICIENCY).items():
            totals[card][study] = sum(c.seconds for c in cells) / 3600
    disk = {study: cells for study, cells in _plans("paper", rate=1.0).items()}
    rows = [[study, *(f"{totals[card][study]:,.0f}" for card in CARDS), _size(cells)] for study, cells in disk.items()]
    everything = [cell for cells in disk.values() for cell in cells]
    rows.append(["all", *(f"{sum(totals[card].values()):,.0f}" for card in CARDS), _size(everything)])
    return markdown(["study", *(f"hours of one {card.upper()}" for card in CARDS), "disk"], rows)


def _plans(profile: str, rate: float) -> dict[str, list[CellPlan]]:
    """The cells of every study that has some, planned for a machine of this matmul rate in FLOP/s."""
    experiment = expand(profile)
    return {
        study: [plan_cell(study, name, cell, rate) for name, cell in experiment.studies[study].cells.items()]
        for study in experiment.with_cells
    }


def _size(cells: list[CellPlan]) -> str:
    megabytes = sum(cell.megabytes for cell in cells)
    return f"{megabytes / 1000:,.1f} GB" if megabytes >= 100 else f"{megabytes:.1f} MB"


SECTIONS = {"measured": measured, "quick": quick, "planned": planned, "gpu-hours": gpu_hours}


def page() -> Path:
    return root() / "docs" / "scaling.md"


def refreshed(text: str) -> str:
    """The page with its tables anew: each stands between marks, the first of which names it."""
    for name, table in SECTIONS.items():
        begin = BEGIN.replace(" -->", f" {name} -->")
        before, found, rest = text.partition(begin)
        assert found, f"{page()} has no {begin}"
        text = f"{before}{begin}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"
    return text


def write() -> None:
    page().write_text(refreshed(page().read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write()
