"""What the batch-size ledger reads is what its profiles' cells write; and a finished `paper` run would be judged."""

import json

import pandas as pd
import pytest

from sslrepro.claims.judging import judge_study
from sslrepro.claims.ledger import load_study
from sslrepro.claims.results import COMPLEMENT
from sslrepro.downstream.registry import TASKS
from sslrepro.pipeline.profile import expand

LEDGER = load_study("batch_size")


def written(downstream) -> set[str]:
    """Metrics of a cell with these settings, on a corpus with labels for all of it and, for text, LibriSpeech's two test folders."""
    names = {TASKS[task].metric for task in downstream.tasks}
    tune = downstream.fine_tune
    kinds = ["per"] if tune.symbols == "phones" else ["wer", "cer"]
    parts = [""] if tune.symbols == "phones" else ["", "_clean", "_other"]
    for share in tune.shares:
        for lm in ["", "_lm"] if tune.lm else [""]:
            names |= {f"fine_tune_{share.minutes:g}min.{kind}{lm}{part}" for kind in kinds for part in parts}
    return names


@pytest.mark.parametrize("profile", ["quick", "laptop", "gpu", "paper"])
def test_every_metric_of_the_ledger_is_written(profile):
    cells = {name: cell for name, cell in expand(profile).studies["batch_size"].cells.items() if name.startswith("b")}
    assert len(cells) >= 4
    wanted = {named[profile] for named in LEDGER.metrics.values()} - {None}
    downstream = {name.removeprefix(COMPLEMENT) for name in wanted if not name.startswith("pretrain.")}
    for name, cell in cells.items():
        assert downstream <= written(cell.downstream), name


def test_the_papers_fine_tunings():
    cells = expand("paper").studies["batch_size"].cells
    for name, cell in cells.items():
        tune = cell.downstream.fine_tune
        if name.startswith("lr-"):  # the rules of the rate, which the paper judges by the validation loss alone
            assert not tune.shares and not cell.downstream.tasks, name
            continue
        updates = {share.minutes: share.updates for share in tune.shares}
        assert updates == {10: 12_000, 60: 13_000, 600: 20_000, 6000: 80_000, 57600: 320_000}, name
        assert [share.minutes for share in tune.shares if share.snapshots] == [10, 6000]
        assert tune.lm is not None and (tune.learning_rate, tune.batch_seconds, tune.freeze) == (5e-5, 180.0, 5000.0)
    assert cells["scratch"].objective.name == "none"


def test_a_paper_run_would_be_judged(tmp_path):
    """Errors that fall as a power of the hours seen, by the names that the profile's cells write: no claim on them lacks a metric."""
    cells = expand("paper").studies["batch_size"].cells
    rows, runs = [], {}
    for name, cell in cells.items():
        if name == "scratch":
            continue
        batch, updates = cell.training.batch_seconds, cell.training.budget.amount
        runs[name] = {str(seed): {"status": "completed"} for seed in range(3)}
        rows += [(name, seed, "cost.updates", updates) for seed in range(3)]
        rows += [(name, seed, "cost.hours_seen", updates * batch / 3600) for seed in range(3)]
        for share, scored in [(1.0, cell.downstream)] + [(at, cell.downstream.at_snapshots()) for at in cell.training.snapshots]:
            for metric in written(scored):
                power = 0.2 if metric.startswith("fine_tune_57600min") else 0.3
                value = 0.04 * (share * batch / 2400) ** -power * (1.5 if name.startswith("smallest") else 1)
                rows += [(name, seed, metric if share == 1 else f"{metric}@{share:g}", value) for seed in range(3)]
    folder = tmp_path / "results" / "paper" / "batch_size"
    folder.mkdir(parents=True)
    pd.DataFrame(rows, columns=["cell", "seed", "metric", "value"]).assign(study="batch_size").to_csv(folder / "metrics.csv", index=False)
    (folder / "runs.json").write_text(json.dumps(runs))
    found = {row.claim: row for row in judge_study("batch_size", "paper", tmp_path)}
    judged = {f"batch-{n:02}": found[f"batch-{n:02}"].verdict for n in (1, 2, 3, 4, 5, 6, 7, 12)}
    assert judged == dict.fromkeys(judged, "replicated") | {"batch-04": "contradicted"}
    assert {part["name"].split()[4] for part in found["batch-13"].parts} >= {"asr", "phones", "verification"}
    assert "no metric stands for emotion" in found["batch-13"].reason
