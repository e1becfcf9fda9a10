"""The map from metrics alone, its front by hand, and the advice that is read from it."""

import json

import numpy as np
import pandas as pd
import pytest

from sslrepro import cli
from sslrepro.budget.count import cell_cost
from sslrepro.config import AdapterTuning, FullTuning, LadderTuning, LoRATuning, Profile
from sslrepro.errors import UserError
from sslrepro.report import efficiency_map as maps
from sslrepro.report import model_times
from sslrepro.report.survey import write_map

MODEL = {"front_end": {"kind": "logmel"}, "encoder": {"layers": 2, "width": 32, "ffn": 64, "heads": 4}}
SMALL = {**MODEL, "encoder": {**MODEL["encoder"], "layers": 1}}
MASKED = {"name": "masked_prediction", "classes": 8}
CELLS = {
    "teacher": {"model": MODEL, "objective": MASKED, "training": {"max_seconds": 8.0}},
    "student": {"model": SMALL, "objective": MASKED, "training": {"max_seconds": 8.0}},
}
OTHERS = {
    # the teacher's weights once more, a floor, and the teacher fine-tuned
    "copy": {"start": "survey/teacher", "model": MODEL, "objective": {"name": "none"}},
    "floor-random": {"model": MODEL, "objective": {"name": "none"}},
    "tune-full": {"start": "survey/teacher", "model": MODEL, "objective": {"name": "none"}},
    "tune-frozen": {
        "start": "survey/teacher",
        "model": MODEL,
        "objective": {"name": "none"},
        "downstream": {"fine_tune": {"method": {"kind": "frozen"}}},
    },
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
        metrics = {"cost.hours_seen": 2.0, "cost.setup_flops": 1e9}
        if cell == "student":
            metrics = {"cost.hours_seen": 0.0}
        for seed in range(4):
            accuracy = {"phone.accuracy": [*values, 0.99][seed]}
            rows += [("survey", cell, seed, name, value) for name, value in (metrics | accuracy).items()]
    pd.DataFrame(rows, columns=["study", "cell", "seed", "metric", "value"]).to_csv(folder / "metrics.csv", index=False)
    (folder / "runs.json").write_text(json.dumps(runs))
    made = Profile.model_validate({"profile": "quick", "studies": {"survey": {"cells": CELLS}}})
    timed = [(model_times.name(made.studies["survey"].cells["teacher"].model), 0.002, "one")]  # as if the student had never been
    pd.DataFrame(timed, columns=model_times.TABLE).to_csv(folder.parent / "times.csv", index=False)
    return made


def add(profile, rows: list[tuple]) -> Profile:
    """The profile with OTHERS, and results of theirs: (cell, seed, metric, value)."""
    folder = maps.results_dir("quick") / "survey"
    more = pd.DataFrame(rows, columns=["cell", "seed", "metric", "value"]).assign(study="survey")
    pd.concat([pd.read_csv(folder / "metrics.csv"), more]).to_csv(folder / "metrics.csv", index=False)
    runs = json.loads((folder / "runs.json").read_text())
    runs |= {cell: {str(seed): {"status": "completed"} for seed in range(3)} for cell in OTHERS}
    (folder / "runs.json").write_text(json.dumps(runs))
    return Profile.model_validate({"profile": "quick", "studies": {"survey": {"cells": CELLS | OTHERS}}})


@pytest.fixture
def whole(profile):
    rows = [("copy", seed, "phone.accuracy", value) for seed, value in enumerate(ACCURACY["teacher"])]
    rows += [("floor-random", seed, "phone.accuracy", 0.6) for seed in range(3)]
    rows += [("tune-full", seed, "fine_tune_20min.per", 0.3) for seed in range(3)]
    rows += [("tune-full", seed, "fine_tune_3min.per", 0.9) for seed in range(3)]
    rows += [("tune-frozen", seed, "fine_tune_20min.per", 0.5) for seed in range(3)]
    return add(profile, rows)


def test_a_score_in_another_language_is_not_on_the_map(profile):
    cells = {"teacher": CELLS["teacher"], "student": CELLS["student"] | {"data": {"languages": ["de"]}}}
    other = Profile.model_validate({"profile": "quick", "studies": {"survey": {"cells": cells}}})
    assert set(maps.methods(other).cell) == {"teacher"} < set(maps.methods(profile).cell)


def test_methods_hold_what_was_counted_measured_and_spent(profile):
    folder = maps.results_dir("quick") / "survey"
    metrics = pd.read_csv(folder / "metrics.csv")
    own = [("survey", "teacher", seed, "cost.train_flops", 5e6) for seed in range(4)]
    pd.concat([metrics, pd.DataFrame(own, columns=metrics.columns)]).to_csv(folder / "metrics.csv", index=False)
    table = maps.methods(profile)
    assert len(table) == 6  # the runs that diverged are left out
    teacher = table[table.cell == "teacher"].iloc[0]
    cost = cell_cost(profile.studies["survey"].cells["teacher"], 15.625)
    heads = cost.components["heads"]
    assert teacher["params"] == cost.params - heads.params and teacher["macs"] == (cost.macs - heads.macs) / 15.625  # as `export` counts
    assert (teacher["rtf"], teacher["timed_on"]) == (pytest.approx(0.002), "one")
    assert table[table.cell == "student"].rtf.isna().all()
    assert teacher["flops"] == pytest.approx(2 * 3600 / 8 * 5e6 + 1e9)  # the run's own count, not today's settings'
    budget = {"training": {"max_seconds": 8.0, "budget": {"unit": "flops", "amount": 7e9}}}
    spent = Profile.model_validate({"profile": "quick", "studies": {"survey": {"cells": {"teacher": CELLS["teacher"] | budget}}}})
    assert set(maps.methods(spent).flops) == {7e9 + 1e9}
    assert maps.efficiency_map(profile).empty  # no floor, no gain


def test_the_map_is_of_gains_each_method_once(whole, monkeypatch):
    def inference_seconds(models, seconds, repeats):
        return {key: 1e-6 * sum(p.numel() for p in make().parameters()) for key, make in models.items()}

    monkeypatch.setattr("sslrepro.training.measure.inference_seconds", inference_seconds)
    table, figure = write_map(whole)
    mean = table.set_index("cell")
    assert sorted(mean.index) == ["student", "teacher", "tune-full"]  # neither the floors nor the teacher's copy
    assert mean.loc["student", "kept"] == pytest.approx((0.4 - 0.97 / 3) / (0.4 - 0.28)) and mean["seeds"].tolist() == [3, 3, 3]
    full = mean.loc["tune-full"]
    assert (full.metric, full.kept, full.floor) == ("fine_tune_20min.per", 1.0, 0.5) and not full.frozen
    assert mean.loc[["student", "teacher", "tune-full"], "front_params"].all() and (mean.rtf > 0).all() and mean.timed_on.nunique() == 1
    assert mean.told.all()
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert (
        titles[2].startswith("3 of 3 timed, on ")
        and titles[3] == "1 of 3 methods;\n2 supervised from random weights are not here: they have no pre-training"
    )
    assert [text.get_text() for text in figure.legends[1].get_texts()] == ["1  survey/teacher", "2  survey/tune-full", "3  survey/student"]
    assert [[text.get_text() for text in axis.texts] for axis in figure.axes] == [["3", "1, 2"], ["3", "1, 2"], ["3", "1, 2"], ["1"]]
    assert all(any(len(line.get_xdata()) > 1 and line.get_drawstyle() == "steps-post" for line in axis.lines) for axis in figure.axes)
    written = maps.results_dir("quick")
    assert pd.read_csv(written / "map.csv").cell.tolist() == table.cell.tolist()
    assert all((written / f"map.{kind}").stat().st_size for kind in ("png", "svg"))


def test_results_without_a_method_are_an_empty_map(profile, tmp_path, monkeypatch):
    """A profile of timings alone, or one whose cells all failed, still ends with its scoreboard."""
    monkeypatch.setattr("sslrepro.report.efficiency_map.results_dir", lambda name: tmp_path)
    monkeypatch.setattr("sslrepro.report.survey.results_dir", lambda name: tmp_path)
    table, figure = write_map(profile)
    assert table.empty and (tmp_path / "map.svg").exists() and (tmp_path / "map.png").exists()
    assert list(pd.read_csv(tmp_path / "map.csv").columns) == maps.MAP
    assert all("no method of this profile" in axis.texts[0].get_text() for axis in figure.axes)


def test_a_model_of_many_factors_is_there_at_each_and_timed_at_each(profile):
    sampled = {**MODEL, "encoder": MODEL["encoder"] | {"compression": {"kind": "stochastic", "squeeze_factors": [1, 2]}}}
    many = {"model": sampled, "objective": {"name": "contrastive"}}
    scored = {"fine_tune_3min.per": 0.5, "fine_tune_3min.per:s1-q1-k1": 0.5, "fine_tune_3min.per:s2-q1-k1": 0.6}
    add(profile, [("many", 0, *pair) for pair in scored.items()])
    path = maps.results_dir("quick") / "survey" / "runs.json"
    path.write_text(json.dumps({"many": {"0": {"status": "completed"}}}))
    made = Profile.model_validate({"profile": "quick", "studies": {"survey": {"cells": {"many": many}}}})
    model_times.write("quick", maps.shapes(made))
    found = maps.methods(made).set_index("cell")
    assert found.loc["many:s2-q1-k1", "macs"] < found.loc["many", "macs"]
    assert (found.rtf > 0).all() and found.loc["many:s2-q1-k1", "rtf"] != found.loc["many", "rtf"] == found.loc["many:s1-q1-k1", "rtf"]
    assert found.loc["many", "encoder"] == found.loc["many:s1-q1-k1", "encoder"]  # once on the map


def test_shapes_are_timed_once_together_and_adapters_with_what_they_add(whole, monkeypatch):
    timed = []

    def inference_seconds(models, seconds, repeats):
        timed.append({key: sum(p.numel() for p in make().parameters()) for key, make in models.items()})
        return dict.fromkeys(models, 0.03)

    monkeypatch.setattr("sslrepro.training.measure.inference_seconds", inference_seconds)
    model = whole.studies["survey"].cells["teacher"].model
    shapes = [*maps.shapes(whole), model_times.Shape(model, LoRATuning()), model_times.Shape(model, AdapterTuning(width=4))]
    path = model_times.write("quick", shapes)
    assert len(timed) == 1 and len(timed[0]) == 3  # teacher (however often, and with low ranks), student, and the one with adapters
    assert timed[0][model_times.name(model, AdapterTuning(width=4))] > timed[0][model_times.name(model)]
    assert pd.read_csv(path).rtf.tolist() == pytest.approx([0.002] * 3)
    model_times.write("quick", shapes)
    assert len(timed) == 1
    pd.read_csv(path).assign(timed_on="another machine").to_csv(path, index=False)
    model_times.write("quick", shapes)
    assert len(timed) == 2 and "another machine" not in path.read_text()  # times of two machines do not compare


def test_a_part_of_the_map_has_its_own_front_a_metric_each():
    row = {"study": "a", "cell": "x", "metric": "m", "kept": 0.5, "params": 2.0, "macs": 1.0, "rtf": 1.0, "flops": 1.0, "timed_on": "one"}
    other = row | {"study": "b", "cell": "y", "kept": 0.9, "params": 1.0, "rtf": np.nan}
    apart = row | {"cell": "z", "metric": "n", "kept": 0.1, "params": 9.0, "rtf": 0.5}
    table = maps.with_fronts(pd.DataFrame([row, other, apart]))
    assert table.front_params.tolist() == [False, True, True]
    assert table.front_rtf.tolist() == [True, False, True]
    assert maps.timed(table) == "2 of 3 timed, on one"
    assert maps.with_fronts(table[table.study == "a"]).front_params.tolist() == [True, True]


def test_what_a_tuning_adds_is_counted(whole):
    """Two bottlenecks of 4 a layer, 32 wide; low-rank updates merge."""
    model = whole.studies["survey"].cells["teacher"].model
    weights, work = maps.added(model, AdapterTuning(width=4))
    assert weights == 2 * 2 * (2 * 4 * 32 + 4 + 32) and work == 2 * 2 * 2 * 4 * 32 * 50
    assert maps.added(model, LoRATuning()) == maps.added(model, FullTuning()) == (0, 0.0) < maps.added(model, LadderTuning(reduction=4))


def test_nothing_untrained_is_recommended(whole):
    table = maps.methods(whole)
    table = table.assign(flops=table.flops.where(table.cell != "floor-random", 0.0))
    with pytest.raises(UserError, match=r"only floors and untrained models keep these limits \(survey/floor-random\)"):
        maps.advise(table[table.cell.isin(["teacher", "floor-random"])], "quick", "phone.accuracy", None, None, 1.0)
    best = maps.advise(table.assign(error=table.error.where(table.cell != "floor-random", 0.0)), "quick", "phone.accuracy", 1e9, None, None)
    assert best.method == "survey/teacher" and best.fitting == 2
    said = maps.show(best)
    assert "picked as the best of 2" in said and "frozen encoders alone" in said and "15.625 s counted" in said and "5 of 6 timed" in said


@pytest.mark.parametrize("limit", ["--max-params=-5", "--max-params=nan", "--rtf=0", "--train-flops=inf"])
def test_a_limit_that_is_none_is_refused(limit, capsys):
    assert cli.main(["plan", limit]) == 2
    assert f"plan {limit.replace('=', ' ')}: give a finite number above 0" in capsys.readouterr().err


def test_front_by_hand():
    """A point equal to another is on the front with it; one as costly and worse is not; one without a cost is on none."""
    cost, error = np.array([1.0, 2.0, 2.0, 3.0, np.nan, 1.0]), np.array([5.0, 4.0, 4.5, 4.0, 0.0, 5.0])
    assert maps.on_front(cost, error).tolist() == [True, True, False, False, False, True]


def test_advice(profile, capsys):
    table = maps.methods(profile)
    best = maps.advise(table, "quick", "phone.accuracy", None, None, 1e18)
    assert (best.method, best.fitting, best.next) == ("survey/teacher", 2, "survey/student")
    difference = np.array([0.04, 0.05, 0.04])
    half = 4.302653 * difference.std(ddof=1) / 3**0.5
    assert (best.low, best.high) == pytest.approx((difference.mean() - half, difference.mean() + half), rel=1e-4)
    assert best.confidence == "better than the next at 95 %"
    small = maps.advise(
        table, "quick", "phone.accuracy", cell_cost(profile.studies["survey"].cells["student"], 8.0).upstream_params, None, None
    )
    assert small.method == "survey/student" and small.confidence.startswith("none: no other")
    assert "not timed" in maps.show(small)
    with pytest.raises(UserError, match="the least on the map: params"):
        maps.advise(table, "quick", "phone.accuracy", 10.0, None, None)


def test_advice_by_each_metric_that_there_is(whole, capsys):
    """At a profile without frames' phones, too; weights that are scored twice are no rival of their own."""
    path = maps.results_dir("quick") / "survey" / "metrics.csv"
    table = pd.read_csv(path)
    words = table[table.metric == "phone.accuracy"].assign(metric="asr.wer", value=lambda t: 1 - t.value)
    for kept, metrics in ((words, ["asr.wer"]), (table, ["phone.accuracy"]), (pd.concat([table, words]), ["asr.wer", "phone.accuracy"])):
        pd.concat([table[table.metric.str.startswith("cost")], kept]).drop_duplicates().to_csv(path, index=False)
        found = [maps.advise(maps.methods(whole), "quick", metric, 1e9, None, None) for metric in metrics]
        assert [(advice.metric, advice.next) for advice in found] == [(metric, "survey/student") for metric in metrics]
    assert "asr.wer" in maps.QUALITY and "word error rate" in maps.show(found[0])


def test_limits_and_budgets_do_not_mix(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("SSLREPRO_ROOT", str(tmp_path))
    assert cli.main(["plan", "--max-params", "1e6", "--flops", "1e15"]) == 2
    assert cli.main(["plan"]) == 2
    assert cli.main(["plan", "--max-params", "1e6"]) == 2
    assert "no results" in capsys.readouterr().err
