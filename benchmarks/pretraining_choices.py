"""Learning rates of pre-training, training from scratch and some probes, chosen on the validation split; held-out data select nothing.

    python benchmarks/pretraining_choices.py budget stochastic summarymixing      # needs the corpus and the targets of profile laptop

Trains cells of the laptop profile at several rates under a seed that no study uses, some for a part of the budget, and notes their loss on
the validation split, or where no loss is trained their error on it in the place of the test split. One JSON a study in
benchmarks/results/, to which each run adds a row; runs that are in it are not made again. The settings that follow say so in profiles/.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.choices import SEED
from sslrepro import objectives
from sslrepro.config import CellSettings
from sslrepro.data.corpus import Validation
from sslrepro.data.targets import Targets, build_targets
from sslrepro.downstream import fine_tune, score
from sslrepro.draws import key64
from sslrepro.models.upstream import Upstream
from sslrepro.paths import corpus_dir, targets_dir
from sslrepro.pipeline.profile import expand
from sslrepro.training.identity import commit
from sslrepro.training.loop import train
from sslrepro.training.meter import Progress

PROFILE = "laptop"
# cell, its rates, and what of its own budget (of pre-training, else of the fine-tuning's updates) each run gets
RUNS: dict[str, list[tuple[str, tuple[float, ...], float]]] = {
    "budget": [
        ("hubert-size50", (4.2e-3, 8.5e-3, 1.7e-2), 1.0),
        ("hubert-size1582", (1.75e-3, 3.5e-3, 7.0e-3), 1.0),
        # the sizes between and below at the rule's rate: whether both ends are worse
        ("hubert-size30", (1.2e-2,), 1.0),
        ("hubert-slim", (6.9e-3,), 1.0),
        ("hubert-size473", (4.2e-3,), 1.0),
        ("wav2vec2-size1582", (3.5e-3, 7.0e-3, 1.4e-2), 1.0),
        ("wav2vec2-slim", (6.9e-3, 1.4e-2), 1.0),
        ("wav2vec2-size473", (4.2e-3,), 1.0),
        ("wav2vec2-size50", (8.5e-3, 1.7e-2), 1.0),
        ("wav2vec2-size30", (1.2e-2, 2.4e-2), 1.0),
        # TERA at both ends of the rule
        ("tera-size50", (4.2e-3, 8.5e-3, 1.7e-2), 1.0),
        ("tera-size1582", (1.75e-3, 3.5e-3, 7.0e-3), 1.0),
        # and the other objectives at the size at which they are compared
        ("data2vec-slim", (3.45e-3, 6.9e-3, 1.4e-2), 1.0),
        ("bestrq-slim", (3.45e-3, 6.9e-3, 1.4e-2), 1.0),
    ],
    "survey": [(racer, (1.75e-3, 3.5e-3, 7.0e-3), 1.0) for racer in ("wav2vec2", "data2vec", "data2vec2")],
    "stochastic": [("stochastic", (3.5e-3, 7.0e-3, 2.0e-3), 0.5), ("fixed-s1", (3.5e-3,), 0.5)],
    "summarymixing": [
        ("wav2vec2-summarymixing", (3.5e-3, 1.75e-3), 0.4),
        ("wav2vec2-attention", (3.5e-3, 1.75e-3), 0.4),
        ("supervised-conformer-summarymixing", (3.0e-3, 1.0e-3), 0.5),
        ("supervised-conformer-summarymixing", (3.0e-3,), 1.0),
        ("supervised-conformer-attention", (3.0e-3, 1.0e-3), 0.5),
        # the probes whose rate no other study chose, on a random initialisation, which favours no mixer
        ("floor-heads-random", (3.0e-3, 1.0e-2), 1.5),
    ],
}


def main(studies: list[str]) -> None:
    profile = expand(PROFILE)
    corpus = Validation(corpus_dir(PROFILE))
    if "budget" in studies and not (targets_dir(PROFILE, "mfcc") / "targets.json").exists():
        build_targets(profile, "mfcc")
    for study in studies:
        rows = json.loads(_table(study).read_text())["rows"] if _table(study).exists() else []
        for row in _runs(study, profile.studies[study].cells, corpus, {(row["cell"], row["rate"], row["share"]) for row in rows}):
            rows.append(row)
            print(row, flush=True)
            _write(study, rows)


def _table(study: str) -> Path:
    return Path(__file__).parent / "results" / f"{study}_choices.json"


def _runs(study: str, cells: dict[str, CellSettings], corpus: Validation, done: set[tuple]) -> Iterator[dict[str, Any]]:
    for name, rates, share in RUNS[study]:
        cell = cells[name]
        run = _pre_trained if cell.is_trained else _from_scratch if cell.downstream.fine_tune.shares else _probed
        for rate in rates:
            if (name, rate, share) in done:
                continue
            began = time.process_time()
            found = run(cell, corpus, rate, share)
            yield {"cell": name, "rate": rate, "share": share, **found, "cpu_seconds": round(time.process_time() - began, 1)}


def _pre_trained(cell: CellSettings, corpus: Validation, rate: float, share: float) -> dict[str, Any]:
    budget = cell.training.budget.model_copy(update={"amount": cell.training.budget.amount * share})
    changes = {"learning_rate": rate, "budget": budget, "valid_every": 0.0, "snapshots": [], "dispersion_batches": 0}
    cell = cell.model_copy(update={"training": cell.training.model_copy(update=changes)})
    named = getattr(cell.objective, "targets", None)
    torch.manual_seed(key64(SEED, "init"))
    module = objectives.build(cell)
    with tempfile.TemporaryDirectory() as folder:
        targets = Targets(targets_dir(PROFILE, named)) if named else None
        state = train(module, corpus, targets, cell, SEED, Path(folder), Progress("choices", None))
    valid = {name.removeprefix("valid."): value for _, _, name, value in state.history if name.startswith("valid.")}
    names = [name for name in valid if name in ("loss", "accuracy") or name.startswith("code_perplexity")]
    spent = {"budget": budget.amount, "unit": budget.unit, "updates": state.update, "status": state.status}
    return spent | {name: valid[name] for name in names}


def _probed(cell: CellSettings, corpus: Validation, rate: float, share: float) -> dict[str, Any]:
    changes = {"learning_rate": rate, "learning_rates": {}, "updates": round(cell.downstream.updates * share)}
    downstream = cell.downstream.model_copy(update=changes)
    return {"updates": downstream.updates, **score(_untrained(cell), corpus, downstream, SEED).metrics}


def _untrained(cell: CellSettings) -> Upstream:
    torch.manual_seed(key64(SEED, "init"))
    module = objectives.build(cell)
    return (module if isinstance(module, Upstream) else module.upstream).eval()


def _from_scratch(cell: CellSettings, corpus: Validation, rate: float, share: float) -> dict[str, Any]:
    tuning = cell.downstream.fine_tune.model_copy(update={"learning_rate": rate})
    labels = tuning.shares[0].model_copy(update={"updates": round(tuning.shares[0].updates * share)})
    _, result = fine_tune(_untrained(cell), corpus, tuning, labels, SEED, "cpu")
    return {"updates": labels.updates, "per": result.metrics[f"fine_tune_{labels.minutes:g}min.per"]}


def _write(study: str, rows: list[dict[str, Any]]) -> None:
    table = {
        "command": f"python benchmarks/pretraining_choices.py {study}",
        "split": "validation",
        "profile": PROFILE,
        "seed": SEED,
        "commit": commit(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "rows": rows,
    }
    _table(study).write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:] or list(RUNS))
