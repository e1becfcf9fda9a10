"""Kept results of other code: today's gives the same numbers, or one differs and is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sslrepro.claims.judging import judge_study
from sslrepro.config import Profile
from sslrepro.errors import UserError
from sslrepro.pipeline.same_code import same_code
from sslrepro.training.identity import code_hash

HERE = {"cpu": "one", "gpu": "none", "torch": "2"}
CELLS = ("b16", "b32")
SAME = {"phone.accuracy": 0.1, "cost.params": 7.0, "cost.seconds": 5.0}


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Results of two cells and three seeds by code `before`; one run was made again by today's."""
    monkeypatch.setenv("SSLREPRO_ROOT", str(tmp_path))
    (tmp_path / "claims").symlink_to(Path(__file__).parents[2] / "claims")
    folder = tmp_path / "results" / "laptop" / "batch_size"
    folder.mkdir(parents=True)
    rows = ["study,cell,seed,metric,value"]
    for cell in CELLS:
        for seed in range(3):  # a standard deviation of 0.01
            values = {"phone.accuracy": 0.1 + 0.01 * seed, "cost.params": 7.0, "cost.seconds": 9.0}
            rows += [f"batch_size,{cell},{seed},{name},{value}" for name, value in values.items()]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    run = {"status": "completed", "code": "before", "commit": "c", "machine": HERE}
    (folder / "runs.json").write_text(json.dumps({cell: {str(seed): run for seed in range(3)} for cell in CELLS}))
    again = tmp_path / "runs" / "laptop" / "batch_size" / "b16" / "0"
    again.mkdir(parents=True)
    (again / "settings.json").write_text(json.dumps({"hashes": {"code": code_hash()}, "machine": HERE | {"cpu": "other"}}))
    (again / "metrics.json").write_text(json.dumps({"status": "completed"} | SAME))
    return folder, again


def stale(folder):
    rows = judge_study("batch_size", "laptop", folder.parents[2], code=code_hash())
    return {row.stale for row in rows} - {None}


PROFILE = Profile.model_validate({"profile": "laptop", "studies": {}})


@pytest.mark.parametrize("accuracy, deviations", [(0.1, 0.0), (0.1009, 0.09)])
def test_numbers_as_near_as_rounding_leaves_them_are_not_stale(kept, accuracy, deviations):
    folder, again = kept
    (again / "metrics.json").write_text(json.dumps({"status": "completed"} | SAME | {"phone.accuracy": accuracy}))
    assert stale(folder) == {True}
    assert same_code(PROFILE, "batch_size") == {"b16 seed 0": pytest.approx(deviations)}
    shown = json.loads((folder / "same_code.json").read_text())
    assert shown["gives_the_numbers_of"] == ["before"] and shown["code"] == code_hash()
    assert shown["machines"] == ["one, none, 2; again on other, none, 2"]
    assert stale(folder) == {False}
    (folder / "same_code.json").write_text(json.dumps(shown | {"code": "another"}))  # said of other code than today's
    assert stale(folder) == {True}


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (SAME | {"phone.accuracy": 0.1011}, "phone.accuracy is 0.1011"),
        (SAME | {"cost.params": 7.0000001}, "cost.params is 7.0000001"),  # all seeds have the same: there is no deviation
        ({"cost.seconds": 5.0, "cost.params": 7.0}, "phone.accuracy is in one of the two only"),
    ],
)
def test_one_number_that_differs_is_named(kept, metrics, said):
    folder, again = kept
    (again / "metrics.json").write_text(json.dumps({"status": "completed"} | metrics))
    with pytest.raises(UserError, match=said):
        same_code(PROFILE, "batch_size")
    assert not (folder / "same_code.json").exists() and stale(folder) == {True}


def test_on_the_same_machine_the_last_bit_counts(kept):
    folder, again = kept
    (again / "settings.json").write_text(json.dumps({"hashes": {"code": code_hash()}, "machine": HERE}))
    assert same_code(PROFILE, "batch_size") == {"b16 seed 0": 0.0}
    (folder / "same_code.json").unlink()
    (again / "metrics.json").write_text(json.dumps({"status": "completed"} | SAME | {"phone.accuracy": 0.10000000000000002}))
    with pytest.raises(UserError, match=r"phone\.accuracy is 0\.1"):
        same_code(PROFILE, "batch_size")
    assert not (folder / "same_code.json").exists()


def test_nothing_run_again_says_what_to_do(kept):
    _, again = kept
    (again / "settings.json").unlink()
    with pytest.raises(UserError, match="run some of its cells again"):
        same_code(PROFILE, "batch_size")
