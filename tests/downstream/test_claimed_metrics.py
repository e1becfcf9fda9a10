"""What the batch-size ledger reads is what its profiles' cells write; and a finished `paper` run would be judged."""

import json
import re

import pandas as pd
import pytest

from sslrepro.claims.judging import judge_study
from sslrepro.claims.ledger import CellSeries, load_study
from sslrepro.claims.results import COMPLEMENT, matched_cells
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
    cells = expand(profile).studies["batch_size"].cells
    assert len([name for name in cells if name.startswith("b")]) >= 4
    for spec in (spec for claim in LEDGER.claims for spec in claim.ours.values() if isinstance(spec, CellSeries)):
        named = {LEDGER.metrics[role][profile] for role in ([spec.y] if isinstance(spec.y, str) else spec.y)} - {None}
        downstream = {name.removeprefix(COMPLEMENT) for name in named if not name.startswith("pretrain.")}
        for name in matched_cells(spec, [name for name in cells if name.startswith(("b", "superb-"))]):
            assert downstream <= written(cells[name].downstream), name


def test_the_papers_fine_tunings():
    cells = expand("paper").studies["batch_size"].cells
    for name, cell in cells.items():
        tune = cell.downstream.fine_tune
        # the rules of the rate, which the paper judges by the validation loss, and other corpora
        if name.startswith(("lr-", "smallest87.5-constant", "superb-")):
            assert not tune.shares and bool(cell.downstream.tasks) == name.startswith("superb-"), name
            continue
        updates = {share.minutes: share.updates for share in tune.shares}
        assert updates == {10: 12_000, 60: 13_000, 600: 20_000, 6000: 80_000, 57600: 320_000}, name
        assert [share.minutes for share in tune.shares if share.snapshots] == [10, 6000]
        assert tune.lm is not None and (tune.learning_rate, tune.batch_seconds, tune.freeze) == (5e-5, 180.0, 5000.0)
    assert cells["scratch"].objective.name == "none"


def a_paper_run(top, absent: tuple[str, ...] = ()) -> dict:
    """The verdicts, by claim, of a run whose errors fall as a power of the hours seen, under the names that the profile's cells write, on a
    corpus without the parts `absent`."""
    cells = expand("paper").studies["batch_size"].cells
    rows, runs = [], {}
    for name, cell in cells.items():
        if name == "scratch":
            continue
        batch, updates = float(re.search(r"[\d.]+", name)[0]), cell.training.budget.amount
        lacking = sorted({*(cell.data.languages or [])} & {*absent})
        unavailable = dict.fromkeys(cell.downstream.tasks, f"the corpus has no language {lacking[0]!r}") if lacking else {}
        runs[name] = {str(seed): {"status": "completed", "unavailable": unavailable} for seed in range(3)}
        rows += [(name, seed, "cost.updates", updates) for seed in range(3)]
        rows += [(name, seed, "cost.hours_seen", updates * batch / 3600) for seed in range(3)]
        for share, scored in [(1.0, cell.downstream)] + [(at, cell.downstream.at_snapshots()) for at in cell.training.snapshots]:
            for metric in [] if lacking else written(scored):
                power = 0.2 if metric.startswith("fine_tune_57600min") else 0.3
                value = 0.04 * (share * batch / 2400) ** -power * (1.5 if name.startswith("smallest") else 1)
                value = 0.6 if metric == "emotion.accuracy" else value
                rows += [(name, seed, metric if share == 1 else f"{metric}@{share:g}", value) for seed in range(3)]
    folder = top / "results" / "paper" / "batch_size"
    folder.mkdir(parents=True)
    pd.DataFrame(rows, columns=["cell", "seed", "metric", "value"]).assign(study="batch_size").to_csv(folder / "metrics.csv", index=False)
    (folder / "runs.json").write_text(json.dumps(runs))
    return {row.claim: row for row in judge_study("batch_size", "paper", top)}


def test_a_paper_run_would_be_judged(tmp_path):
    """No claim on what the profile's cells score lacks a metric."""
    found = a_paper_run(tmp_path)
    judged = {f"batch-{n:02}": found[f"batch-{n:02}"].verdict for n in (1, 2, 3, 4, 5, 6, 7, 12, 13)}
    assert judged == dict.fromkeys(judged, "replicated") | {"batch-04": "contradicted"}
    parts = [part["name"] for part in found["batch-13"].parts]
    assert all(any(name in part for part in parts) for name in ("asr", "phones", "verification", "emotion")), parts


def test_a_corpus_that_is_not_there_leaves_its_part_open_and_is_named(tmp_path):
    found = a_paper_run(tmp_path, absent=("voxceleb1",))
    row = found["batch-13"]
    assert row.verdict == "inconclusive at this scale" and found["batch-01"].verdict == "replicated"
    assert re.search(
        r"no verification: cells .*superb-asv-b150.* have no verification_xvector.eer .*: the corpus has no language 'voxceleb1'",
        row.reason,
    )
    assert "emotion:" not in row.reason
