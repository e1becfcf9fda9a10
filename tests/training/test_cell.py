"""A cell from settings to its run folder, HuBERT's second iteration on it, and what happens to bad names and bad runs."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
import torch

from sslrepro.claims.bootstrap import speaker_sums
from sslrepro.config import Profile
from sslrepro.data.targets import Targets, build_targets
from sslrepro.errors import UserError
from sslrepro.paths import cell_dir, targets_dir, work_dir
from sslrepro.report.curves import draw_curves
from sslrepro.training import cell as cells
from sslrepro.training.cell import CellFailed, run_cell
from sslrepro.training.loop import Interrupted
from sslrepro.training.runs import flops_of, load_run, load_upstream, spent_flops

torch.set_num_threads(1)


def test_a_run_folder_holds_what_the_schema_says(project, make_cell, make_profile):
    settings = make_cell(seeds=[3, 4], training={"snapshots": [0.5]})
    folder = run_cell(make_profile(a=settings), "trial", "a")
    assert folder == cell_dir("tiny", "trial", "a")
    for seed in ("3", "4"):
        files = {path.name for path in (folder / seed).iterdir()}
        wanted = {
            "settings.json",
            "history.csv",
            "metrics.json",
            "speakers.csv",
            "trials.csv",
            "model.safetensors",
            "snapshot-0.5.safetensors",
        }
        assert files == wanted
    metrics = json.loads((folder / "3" / "metrics.json").read_text())
    assert metrics["status"] == "completed" and metrics["cost.updates"] == 24
    assert {"pretrain.valid_loss", "pretrain.valid_loss@0.5", "pretrain.codeword_cosine_1", "cost.params"} <= metrics.keys()
    speakers = pd.read_csv(folder / "3" / "speakers.csv")
    for metric in ("pretrain.valid_loss", "pretrain.valid_accuracy"):  # the claims read them so
        mine = speakers[speakers.metric == metric]
        sums = speaker_sums(mine[["errors"]].to_numpy().T, mine[["units"]].to_numpy().T, tuple(mine.speaker), metric)
        value = sums.errors.sum() / sums.units.sum()
        assert (1 - value if sums.complement else value) == pytest.approx(metrics[metric], rel=1e-5)
    assert not work_dir("tiny", "trial", "a").exists()
    again, objective = load_run(folder / "3")
    assert again == settings and not objective.training


def test_every_objective_has_a_chance_level(project, make_cell, make_profile):
    """Of spectra, what the best constant loses on the validation split: which so short a training just reaches, and the curve shows."""
    profile = make_profile(a=make_cell("reconstruction", training={"learning_rate": 1.0e-2}))
    folder = run_cell(profile, "trial", "a") / "0"
    chance, metrics = (json.loads((folder / name).read_text()) for name in ("settings.json", "metrics.json"))
    assert 0.6 < chance["chance"]["loss"] < 0.85  # normal values of unit variance: 0.80
    assert metrics["pretrain.valid_loss"] == pytest.approx(chance["chance"]["loss"], rel=0.03)
    assert any(line.get_label() == "chance" for line in draw_curves(folder.parent).axes[0].lines)


def test_hubert_in_two_iterations(project, make_cell, make_profile):
    """k-means on MFCC, a model on its labels, k-means on a layer of that model, a second model; the labels' cost adds up."""
    first = make_cell("masked_prediction")
    second = make_cell("masked_prediction", objective={"targets": "layer1", "classes": 20})
    profile = make_profile(first=first, second=second)
    values = profile.model_dump(mode="json")
    values["targets"]["layer1"] = {"source": "hidden", "cell": "trial/first", "layer": 1, "clusters": 20, "fit_hours": 0.02}
    profile = type(profile).model_validate(values)
    build_targets(profile, "mfcc")
    run_cell(profile, "trial", "first")
    build_targets(profile, "layer1")
    folder = run_cell(profile, "trial", "second")
    mfcc, layer = Targets(targets_dir("tiny", "mfcc")), Targets(targets_dir("tiny", "layer1"))
    assert (mfcc.info["step"], layer.info["step"]) == (160, 320)
    trained = json.loads((cell_dir("tiny", "trial", "first") / "0" / "metrics.json").read_text())
    metrics = json.loads((folder / "0" / "metrics.json").read_text())
    assert metrics["cost.setup_flops"] == layer.info["setup_flops"] > trained["cost.setup_flops"] == mfcc.info["setup_flops"]
    longest = trained["cost.hours_seen"] * 3600 / first.training.max_seconds * trained["cost.train_flops"]
    assert spent_flops(cell_dir("tiny", "trial", "first") / "0") == longest + mfcc.info["setup_flops"]  # as its own metrics say
    history = pd.read_csv(folder / "0" / "history.csv").query("metric == 'train.loss'")
    assert history.value.tail(5).mean() < history.value.head(5).mean()  # it learns on the labels of the layer


def test_a_budget_in_flops_is_what_a_run_took(make_cell):
    """Its utterances are counted at their own lengths; a cell that trains nothing took only what came before it."""
    budget = {"budget": {"unit": "flops", "amount": 6.0e9}}
    metrics = {"cost.hours_seen": 1.0, "cost.train_flops": 1e9, "cost.setup_flops": 5.0}
    assert flops_of(make_cell(training=budget), metrics) == 6.0e9 + 5.0
    assert flops_of(make_cell("none", start="trial/first", training=budget), metrics | {"cost.hours_seen": 0.0}) == 5.0


def test_what_came_before_is_counted_once(project, make_cell, make_profile):
    """A student begins with another of the same teacher, as LightHuBERT's second stage: teacher and labels are there once. So are labels
    that both a cell and what it starts with learn from, and a teacher whose layer gives the labels."""
    distilled = {"objective": {"teacher": "trial/teacher", "layers": [1, 2], "initialise": "random"}}
    second = {"objective": {"targets": "layer1", "classes": 20}, "start": "trial/teacher"}
    values = make_profile(
        teacher=make_cell("masked_prediction"), first=make_cell("distillation", **distilled),
        light=make_cell("distillation", **distilled, start="trial/first"),
        on=make_cell("masked_prediction", start="trial/teacher"), second=make_cell("masked_prediction", **second),
    ).model_dump(mode="json")  # fmt: skip
    values["targets"]["layer1"] = {"source": "hidden", "cell": "trial/teacher", "layer": 1, "clusters": 20, "fit_hours": 0.02}
    profile = Profile.model_validate(values)
    build_targets(profile, "mfcc")
    metrics = {}
    for name in ("teacher", "first", "light", "on", "second"):
        if name == "second":
            build_targets(profile, "layer1")
        metrics[name] = json.loads((run_cell(profile, "trial", name) / "0" / "metrics.json").read_text())
    taken = {name: spent_flops(cell_dir("tiny", "trial", name) / "0") for name in metrics}
    labels, setup = Targets(targets_dir("tiny", "layer1")).info["setup_flops"], {name: m["cost.setup_flops"] for name, m in metrics.items()}
    assert setup["first"] == taken["teacher"] > setup["teacher"] > 0
    assert setup["light"] == pytest.approx(taken["first"], rel=1e-12)  # not once more the teacher, which is in it
    assert setup["on"] == pytest.approx(taken["teacher"], rel=1e-12)
    assert setup["second"] == pytest.approx(labels, rel=1e-12) and labels > taken["teacher"]


def test_labels_keep_their_place(project, make_profile):
    """Every second of the 100 Hz labels for 50 Hz frames, from the crop's start on; the last is repeated."""
    build_targets(make_profile(), "mfcc")
    targets = Targets(targets_dir("tiny", "mfcc"))
    fine = targets.labels(0, 0, 40, 160)
    assert targets.labels(0, 0, 20, 320).tolist() == fine[::2].tolist()
    assert targets.labels(0, 3200, 10, 320).tolist() == fine[20:40:2].tolist()
    assert len(targets.labels(0, 0, 10_000, 320)) == 10_000


def test_interrupted_and_resumed_from_another_call(project, make_cell, make_profile):
    profile = make_profile(a=make_cell())
    answers = iter([False, False, True])
    with pytest.raises(Interrupted):
        run_cell(profile, "trial", "a", lambda: next(answers, True))
    assert not cell_dir("tiny", "trial", "a").exists()
    folder = run_cell(profile, "trial", "a")
    assert json.loads((folder / "0" / "metrics.json").read_text())["status"] == "completed"


def test_other_settings_begin_again_and_say_so(project, make_cell, make_profile, capsys):
    with pytest.raises(Interrupted):
        run_cell(make_profile(a=make_cell()), "trial", "a", lambda: True)
    run_cell(make_profile(a=make_cell(training={"learning_rate": 2.0e-3})), "trial", "a")
    assert "starting again" in capsys.readouterr().out


@pytest.mark.parametrize("wanted", [True, False])
def test_sums_are_in_a_fixed_order_where_asked_for(wanted, project, make_cell, make_profile, monkeypatch):
    """In the training, and no longer: CTC has no such form on a GPU."""
    seen, train, score = [], cells.train, cells.score
    monkeypatch.setattr(cells, "train", lambda *given: (seen.append(torch.are_deterministic_algorithms_enabled()), train(*given))[1])
    monkeypatch.setattr(cells, "score", lambda *given: (seen.append(torch.are_deterministic_algorithms_enabled()), score(*given))[1])
    run_cell(make_profile(a=make_cell(training={"deterministic": wanted})), "trial", "a")
    assert seen == [wanted, False]


def test_a_further_seed_leaves_the_finished_one_as_it_is(project, make_cell, make_profile, monkeypatch):
    ran, run_seed = [], cells._run_seed
    monkeypatch.setattr(cells, "_run_seed", lambda *given: (ran.append(given[3]), run_seed(*given)))
    first = (run_cell(make_profile(a=make_cell(seeds=[0])), "trial", "a") / "0" / "metrics.json").read_text()
    folder = run_cell(make_profile(a=make_cell(seeds=[0, 1])), "trial", "a")
    assert ran == [0, 1] and (folder / "0" / "metrics.json").read_text() == first
    run_cell(make_profile(a=make_cell(seeds=[0, 1], training={"learning_rate": 2.0e-3})), "trial", "a")
    assert ran == [0, 1, 0, 1]


@pytest.mark.parametrize(("study", "name", "said"), [("trail", "a", "no study 'trail'"), ("trial", "b", "no cell 'b'")])
def test_a_name_that_does_not_exist(project, make_cell, make_profile, study, name, said):
    with pytest.raises(UserError, match=f"{said}.*has: (trial|a)"):
        run_cell(make_profile(a=make_cell()), study, name)


def test_a_collapsed_run_ends_with_its_evidence(project, make_cell, make_profile, monkeypatch):
    """The quantizer is made to choose one code whatever it sees."""
    build = cells.objectives.build

    def collapsed(settings):
        objective = build(settings)
        objective.quantizer.proj.weight.requires_grad_(False).zero_()
        objective.quantizer.proj.bias.requires_grad_(False).copy_(torch.eye(16)[0].repeat(2) * 1e4)
        return objective

    monkeypatch.setattr(cells.objectives, "build", collapsed)
    with pytest.raises(CellFailed, match="collapsed"):
        run_cell(make_profile(a=make_cell()), "trial", "a")
    folder = cell_dir("tiny", "trial", "a") / "0"
    assert json.loads((folder / "metrics.json").read_text())["status"] == "collapsed"
    assert "codes a group" in json.loads((folder / "evidence.json").read_text())["reason"]


def test_a_loss_that_is_not_finite_names_the_utterances(project, make_cell, make_profile):
    profile = make_profile(a=make_cell(training={"learning_rate": 1.0e30, "clip_norm": None}))
    with pytest.raises(CellFailed, match="non_finite"):
        run_cell(profile, "trial", "a")
    evidence = json.loads((cell_dir("tiny", "trial", "a") / "0" / "evidence.json").read_text())
    assert evidence["utterances"] and evidence["update"] >= 1


def test_a_floor_is_scored_as_initialised(project, make_cell, make_profile):
    floor = make_cell("none", model={"encoder": None}, downstream={"tasks": ["phone"], "updates": 5, "train_hours": 0.01})
    folder = run_cell(make_profile(floor=floor), "trial", "floor")
    metrics = json.loads((folder / "0" / "metrics.json").read_text())
    assert metrics["cost.updates"] == 0 and 0 < metrics["phone.accuracy"] < 1


def test_what_would_only_be_found_after_the_training_is_found_before(project, make_cell, make_profile, tiny_corpus_dir, tmp_path):
    with pytest.raises(UserError, match=r"phon.*phone"):
        run_cell(make_profile(a=make_cell(downstream={"tasks": ["phon"]})), "trial", "a")
    alone = tmp_path / "alone"
    shutil.copytree(tiny_corpus_dir, alone)
    manifest = (alone / "manifest.tsv").read_text()
    (alone / "manifest.tsv").write_text(manifest.replace("\tvalid\t", "\ttrain\t"))
    place = project / "artifacts" / "tiny" / "corpus"
    place.unlink()
    place.symlink_to(alone)
    with pytest.raises(UserError, match="no validation utterances"):
        run_cell(make_profile(a=make_cell()), "trial", "a")
    assert not work_dir("tiny", "trial", "a").exists()


@pytest.mark.parametrize("seeds", [[], [0, 0], [-1]])
def test_seeds_that_cannot_be(make_cell, seeds):
    with pytest.raises(UserError, match="seeds"):
        make_cell(seeds=seeds)


def test_a_cell_begins_with_the_weights_of_another(project, make_cell, make_profile):
    """Scored as it stands without an objective; its cost is the other's; another shape is refused by the name of a weight."""
    profile = make_profile(
        first=make_cell(seeds=[3]),
        same=make_cell("none", start="trial/first"),
        on=make_cell(start="trial/first", seeds=[3], training={"learning_rate": 1e-12, "budget": {"unit": "updates", "amount": 1.0}}),
        wider=make_cell("none", start="trial/first", model={"encoder": {"ffn": 128}}),
    )
    first = load_upstream(run_cell(profile, "trial", "first") / "3").state_dict()
    for cell, seed in (("same", "0"), ("on", "3")):  # seed 0 of `same` takes the only seed there is
        folder = run_cell(profile, "trial", cell) / seed
        for name, value in load_upstream(folder).state_dict().items():
            torch.testing.assert_close(value, first[name], rtol=0, atol=1e-9)
        assert json.loads((folder / "metrics.json").read_text())["cost.setup_flops"] == spent_flops(folder.parents[1] / "first" / "3") > 0
    with pytest.raises(UserError, match=r"not of this cell's shape: .* the first is encoder"):
        run_cell(profile, "trial", "wider")
