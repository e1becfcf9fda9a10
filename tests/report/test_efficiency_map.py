"""The map from metrics alone, its front by hand, and the advice that is read from it."""

import json

import numpy as np
import pandas as pd
import pytest

from sslrepro import cli
from sslrepro.budget.count import cell_cost
from sslrepro.config import Profile
from sslrepro.errors import UserError
from sslrepro.report import efficiency_map as maps
from sslrepro.report.survey import draw_map

MODEL = {"front_end": {"kind": "logmel"}, "encoder": {"layers": 2, "width": 32, "ffn": 64, "heads": 4}}
SMALL = {**MODEL, "encoder": {**MODEL["encoder"], "layers": 1}}
MASKED = {"name": "masked_prediction", "classes": 8}
CELLS = {
    "teacher": {"model": MODEL, "objective": MASKED, "training": {"max_seconds": 8.0}, "measure": {"inference": [15.0]}},
    "student": {"model": SMALL, "objective": {"name": "none"}, "training": {"max_seconds": 8.0}},
}
ACCURACY = {"teacher": [0.70, 0.74, 0.72], "student": [0.66, 0.69, 0.68]}


@pytest.fixture
def profile(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLREPRO_ROOT", str(tmp_path))
    folder = tmp_path / "results" / "quick" / "survey"
    folder.mkdir(parents=True)
    rows, runs = [], {}
    for cell, values in ACCURACY.items():
        runs[cell] = {str(seed): {"status": "completed"} for seed in range(4)}
        runs[cell]["3"]["status"] = "diverged"
        metrics = {"cost.hours_seen": 2.0, "cost.setup_flops": 1e9, "cost.inference_seconds": 0.03}
        if cell == "student":
            metrics = {"cost.hours_seen": 0.0}
        for seed in range(4):
            accuracy = {"phone.accuracy": [*values, 0.99][seed]}
            rows += [("survey", cell, seed, name, value) for name, value in (metrics | accuracy).items()]
    pd.DataFrame(rows, columns=["study", "cell", "seed", "metric", "value"]).to_csv(folder / "metrics.csv", index=False)
    (folder / "runs.json").write_text(json.dumps(runs))
    return Profile.model_validate({"profile": "quick", "studies": {"survey": {"cells": CELLS}}})


def test_a_score_in_another_language_is_not_on_the_map(profile):
    cells = {"teacher": CELLS["teacher"], "student": CELLS["student"] | {"data": {"languages": ["de"]}}}
    other = Profile.model_validate({"profile": "quick", "studies": {"survey": {"cells": cells}}})
    assert set(maps.efficiency_map(other).cell) == {"teacher"} < set(maps.efficiency_map(profile).cell)


def test_the_map_holds_what_was_counted_measured_and_spent(profile):
    table = maps.efficiency_map(profile)
    assert len(table) == 6  # the runs that diverged are left out
    teacher = table[table.cell == "teacher"].iloc[0]
    cost = cell_cost(profile.studies["survey"].cells["teacher"], 8.0)
    heads = cost.components["heads"]
    assert teacher["params"] == cost.params - heads.params and teacher["macs"] == (cost.macs - heads.macs) / 8
    assert teacher["rtf"] == pytest.approx(0.002)
    assert teacher["flops"] == pytest.approx(2 * 3600 / 8 * cost.train_flops + 1e9)
    mean = maps.means(table).set_index("cell")
    assert mean.loc["teacher", "error"] == pytest.approx(0.28) and mean["seeds"].tolist() == [3, 3]
    assert mean["front_params"].all() and not mean.loc["student", "front_rtf"]
    titles = [axis.get_title(loc="left") for axis in draw_map(table).axes]
    assert titles == ["1 student   2 teacher", "1 student   2 teacher", "1 teacher", "1 teacher"]  # the student was trained by nothing


def test_front_by_hand():
    """A point equal to another is on the front with it; one as costly and worse is not; one without a cost is on none."""
    cost, error = np.array([1.0, 2.0, 2.0, 3.0, np.nan, 1.0]), np.array([5.0, 4.0, 4.5, 4.0, 0.0, 5.0])
    assert maps.on_front(cost, error).tolist() == [True, True, False, False, False, True]


def test_advice(profile, capsys):
    table = maps.efficiency_map(profile)
    best = maps.advise(table, "quick", "phone.accuracy", None, None, 1e18)
    assert (best.method, best.fitting, best.next) == ("survey/teacher", 2, "survey/student")
    difference = np.array([0.04, 0.05, 0.04])
    half = 4.302653 * difference.std(ddof=1) / 3**0.5
    assert (best.low, best.high) == pytest.approx((difference.mean() - half, difference.mean() + half), rel=1e-4)
    assert best.confidence == "better than the next at 95 %"
    small = maps.advise(table, "quick", "phone.accuracy", cell_cost(profile.studies["survey"].cells["student"], 8.0).params, None, None)
    assert small.method == "survey/student" and small.confidence.startswith("none: no other")
    assert "not timed" in maps.show(small)
    with pytest.raises(UserError, match="the least on the map: params"):
        maps.advise(table, "quick", "phone.accuracy", 10.0, None, None)


def test_limits_and_budgets_do_not_mix(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("SSLREPRO_ROOT", str(tmp_path))
    assert cli.main(["plan", "--max-params", "1e6", "--flops", "1e15"]) == 2
    assert cli.main(["plan"]) == 2
    assert cli.main(["plan", "--max-params", "1e6"]) == 2
    assert "no results" in capsys.readouterr().err
