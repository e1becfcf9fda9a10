"""Results that are in git: every verdict follows from the metrics beside it, and the scoreboard is the verdicts of all studies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sslrepro.claims.judging import judge_study
from sslrepro.claims.ledger import STUDIES
from sslrepro.paths import root
from sslrepro.pipeline.scores import paper_count
from sslrepro.report.readme import KEPT

FOLDERS = [folder for profile in KEPT for study in STUDIES if (folder := root() / "results" / profile / study).is_dir()]


def _read(path: Path) -> list[dict]:
    """Rows without `stale`, which tells of today's code and not of the results."""
    return [{key: value for key, value in row.items() if key != "stale"} for row in json.loads(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_verdicts_follow_from_the_metrics(folder):
    rows = [json.loads(json.dumps(row.as_dict())) for row in judge_study(folder.name, folder.parent.name, counts=paper_count)]
    again = [{key: value for key, value in row.items() if key != "stale"} for row in rows]
    assert again == _read(folder / "verdicts.json")
    board = _read(folder.parent / "scoreboard.json")
    assert [row for row in board if row["study"] == folder.name] == again


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_runs_say_what_made_them(folder):
    runs = json.loads((folder / "runs.json").read_text(encoding="utf-8"))
    for seeds in runs.values():
        for run in seeds.values():
            assert {"status", "settings", "code", "commit", "machine"} <= run.keys()
            assert "+" not in run["commit"] and run["commit"] != "unknown", "made by code that is in no commit"
