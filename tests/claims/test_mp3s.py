"""sm-03 by MP3S's protocol: what the ledger reads is what each profile's cells score, two heads a task; a `paper` run would be judged."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from sslrepro.claims.judging import judge_study
from sslrepro.claims.ledger import load_study
from sslrepro.claims.results import COMPLEMENT, matched_cells
from sslrepro.downstream.registry import TASKS
from sslrepro.pipeline.profile import expand
from sslrepro.report import summarymixing

LEDGER = load_study("summarymixing")
CLAIM = next(claim for claim in LEDGER.claims if claim.id == "sm-03")
PARTS = {"cy", "eu", "slurp", "voxceleb1", "iemocap"}


def read(profile: str, name: str) -> dict[str, set[str]]:
    """By cell, the metrics that a series of sm-03 has of it at a profile."""
    spec, cells = CLAIM.ours[name], expand(profile).studies["summarymixing"].cells
    wanted = {metric.removeprefix(COMPLEMENT) for role in spec.y if (metric := LEDGER.metrics[role][profile])}
    scored = {cell: {TASKS[task].metric for task in cells[cell].downstream.tasks} for cell in matched_cells(spec, list(cells))}
    return {cell: metrics & wanted for cell, metrics in scored.items() if metrics & wanted}


@pytest.mark.parametrize("profile", ["laptop", "gpu", "paper"])
def test_every_metric_of_the_ledger_is_scored_once(profile):
    """By SummaryMixing's model, by attention's and by both floors, and nothing that these cells score is left unread."""
    cells = expand(profile).studies["summarymixing"].cells
    for of, floors in (("mixing", "floor"), ("mixing_second", "floor_second")):
        named = {LEDGER.metrics[role][profile] for role in CLAIM.ours[of].y} - {None}
        for name, many in ((of, 1), (of.replace("mixing", "attention"), 1), (floors, 2)):
            found = read(profile, name)
            languages = {tuple(cells[cell].data.languages or ()) for cell in found} if of.endswith("second") else {()}
            scored = sorted(metric for metrics in found.values() for metric in metrics)
            assert scored == sorted([metric.removeprefix(COMPLEMENT) for metric in named] * many * len(languages)), name
            assert all(found[cell] == {TASKS[task].metric for task in cells[cell].downstream.tasks} for cell in found), name


def test_mp3s_tasks_and_heads():
    """Its table: two heads a task, the rates of head and layers, updates that are so many epochs (of the corpora's training utterances)."""
    cells = expand("paper").studies["summarymixing"].cells
    table = {  # cell -> part, heads, rates of head and layers, epochs x utterances / batch
        "wav2vec2": (None, ["asr", "asr_conv"], 2e-4, 1e-2, 20 * 28_539 / 4),
        "second-cy": ("cy", ["asr", "asr_linear"], 4e-4, 2e-2, 20 * 7_726 / 4),
        "second-eu": ("eu", ["asr", "asr_linear"], 5e-4, 2.5e-2, 20 * 10_832 / 4),
        "intent": ("slurp", ["intent_lstm", "intent_mean"], 2e-4, 1e-2, 20 * 50_628 / 2),
        "verification": ("voxceleb1", ["verification_ecapa", "verification_xvector"], 1e-3, 1e-2, 15 * 148_642 / 8),
        "emotion": ("iemocap", ["emotion", "emotion_ecapa"], 2e-4, 1e-2, 30 * 4_290 / 2),
    }
    for kind, (part, heads, rate, layers, updates) in table.items():
        floors = [f"floor-{kind}-{floor}".replace("-wav2vec2", "") for floor in ("logmel", "random")]
        for name in [f"{kind}-summarymixing", f"{kind}-attention", *floors]:
            cell, scoring = cells[name], cells[name].downstream
            assert (cell.data.languages, scoring.tasks) == ([part] if part else None, heads), name
            assert (scoring.learning_rate, scoring.mix_learning_rate, scoring.learning_rates) == (rate, layers, {}), name
            assert scoring.updates == pytest.approx(updates, rel=0.01) and scoring.train_hours is None, name
            epochs = {"verification": 15, "emotion": 30}.get(kind, 20)
            assert scoring.select_every is None if kind == "verification" else round(scoring.updates / scoring.select_every) == epochs, name
            assert scoring.folders.model_dump(exclude_none=True) == ({} if part else {"train": ["train-clean-100"], "valid": ["dev-clean"]})
            assert scoring.crop_seconds == (3.0 if kind == "verification" else None), name
            assert (scoring.standardise, scoring.conv_width, scoring.lstm_width) == (False, 512, 768 if kind == "intent" else 1024), name
            if part and not name.startswith("floor"):
                first = name.replace(kind, "wav2vec2")
                assert (cell.start, cell.model, cell.objective.name) == (f"summarymixing/{first}", cells[first].model, "none")


def a_paper_run(top, absent: frozenset[str] = frozenset(), worse: str = "") -> tuple:
    """sm-03's row after a run at `paper` in which both models halve the floors' errors, on a corpus without the parts `absent`."""
    cells, rows, runs = expand("paper").studies["summarymixing"].cells, [], {}
    for name, cell in cells.items():
        lacking = {*(cell.data.languages or [])} & absent
        unavailable = dict.fromkeys(cell.downstream.tasks, f"the corpus has no language {min(lacking)!r}") if lacking else {}
        runs[name] = {str(seed): {"status": "completed", "unavailable": unavailable} for seed in range(3)}
        for task in [] if lacking else cell.downstream.tasks:
            metric, wrong = TASKS[task].metric, 0.8 if name.startswith("floor") else 0.7 if name == worse else 0.4
            rows += [(name, seed, metric, (1 - wrong if metric.endswith("accuracy") else wrong) + seed / 1000) for seed in range(3)]
    folder = top / "results" / "paper" / "summarymixing"
    folder.mkdir(parents=True)
    table = pd.DataFrame(rows, columns=["cell", "seed", "metric", "value"]).assign(study="summarymixing")
    table.to_csv(folder / "metrics.csv", index=False)
    (folder / "runs.json").write_text(json.dumps(runs))
    return next(row for row in judge_study("summarymixing", "paper", top) if row.claim == "sm-03"), folder


def test_a_paper_run_would_be_judged_and_shown(tmp_path):
    """Eight scores of four tasks on 80 % of which the gain is kept, and both languages with both heads; the page's table has all twelve,
    the other mixers' two of LibriSpeech, and two of each at equal compute."""
    row, folder = a_paper_run(tmp_path)
    assert row.verdict == "replicated"
    names = [part["name"] for part in row.parts]
    assert names[0] == "share of 8 points that keep 0.9" and len(names) == 5
    assert [name.partition(":")[0] for name in names[1:]] == ["cy", "cy", "eu", "eu"]
    shown = summarymixing.kept(folder, {name: task for name, (_, task) in summarymixing.SCORES.items()})
    assert shown["share kept"].to_list() == pytest.approx([1.0] * 26)
    counts = shown.index.get_level_values("compared").value_counts().to_dict()
    assert counts == {"at equal data": 14, "at equal compute": 8, "in Welsh": 2, "in Basque": 2}


def test_one_language_that_is_lost_contradicts(tmp_path):
    row, _ = a_paper_run(tmp_path, worse="second-eu-summarymixing")
    assert row.verdict == "contradicted" and "eu: share of attention_second's gain" in row.reason


def test_a_part_that_is_not_there_scores_nothing_and_is_named(tmp_path):
    row, folder = a_paper_run(tmp_path, absent=frozenset({"iemocap", "cy"}))
    assert [part["name"].partition(":")[0] for part in row.parts] == ["share of 6 points that keep 0.9", "eu", "eu"]
    assert row.verdict == "inconclusive at this scale"
    floors = "floor-emotion-logmel, floor-emotion-random"
    for cells, part in (("emotion-summarymixing", "iemocap"), ("second-cy-attention", "cy"), (floors, "iemocap")):
        assert f"lacks {cells}: the corpus has no language '{part}'" in row.reason
    assert "in Welsh" not in summarymixing.kept(folder, {"asr.wer": "words"}).index.get_level_values("compared")
