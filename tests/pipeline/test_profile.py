"""Profiles to params.yaml and back."""

import math
import re
from typing import get_args

import pytest
import yaml

from sslrepro.config import Profile, parse
from sslrepro.errors import UserError
from sslrepro.paths import root
from sslrepro.pipeline import profile as profiles

SHIPPED = profiles.names()


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty project; call it with the text of profiles/mine.yaml."""
    monkeypatch.setenv("SSLREPRO_ROOT", str(tmp_path))
    (tmp_path / "profiles").mkdir()

    def put(text: str, name: str = "mine") -> None:
        (tmp_path / "profiles" / f"{name}.yaml").write_text(text)

    return put


CELLS = """
targets: {mfcc: {clusters: 10}, second: {source: hidden, cell: budget/masked, layer: 1}}
base: {training: {batch_seconds: 32.0, budget: {unit: updates, amount: 10}}, model: {front_end: {kind: logmel, mels: 40}}}
studies:
  batch_size:
    base: {training: {learning_rate: 1.0e-4}}
    cells: {b16: {training: {batch_seconds: 16.0}}, b32: {}, timed: {measure: {mixer: [50]}}}
  budget: {cells: {masked: {objective: {name: masked_prediction}}, later: {objective: {name: masked_prediction, targets: second}}}}
"""


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_profile_expands_and_reads_back_equal(name):
    profile = profiles.expand(name)
    assert parse(Profile, yaml.safe_load(profiles.text(profile)), name) == profile
    assert profile.with_cells, "a profile without cells"


def test_the_ladder_is_whole():
    assert set(SHIPPED) >= {"tiny", "quick", "laptop", "gpu", "paper"}


def test_committed_params_are_the_quick_profile():
    assert (root() / "params.yaml").read_text() == profiles.text(profiles.expand("quick")), "run make repro FORCE=1 or restore params.yaml"


def test_dvc_reads_the_same_numbers():
    """DVC reads YAML 1.2, PyYAML 1.1: 1e-06 would be a number to one and text to the other."""
    from ruamel.yaml import YAML

    text = profiles.text(profiles.expand("quick"))
    assert YAML(typ="safe").load(text) == yaml.safe_load(text)


def test_cell_is_file_base_then_study_base_then_itself(shelf):
    shelf(CELLS)
    cells = profiles.expand("mine").studies["batch_size"].cells
    assert [cells[c].training.batch_seconds for c in ("b16", "b32")] == [16.0, 32.0]
    assert {cells[c].training.learning_rate for c in cells} == {1.0e-4}
    assert cells["b16"].model.front_end.mels == 40


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("downstream: {tasks: [fone]}", r"cells\.b\.downstream\.tasks\.0: .*'phone'.* got 'fone'"),
        ("downstream: {learning_rates: {fone: 1.0e-3}}", r"cells\.b\.downstream\.learning_rates\.fone.*: .*'phone'"),
        ("model: {encoder: {mixer: atention}}", r"cells\.b\.model\.encoder\.mixer: .*'attention'.* got 'atention'"),
        ("training: {betas: [0.9]}", r"cells\.b\.training\.betas: .*at least 2 items"),
        ("training: {betas: [0.9, 1.0]}", r"cells\.b\.training\.betas\.1: .*less than 1"),
        ("data: {hours: .inf}", r"cells\.b\.data\.hours: .*finite"),
    ],
)
def test_what_would_fail_late_is_one_line_that_names_the_key(shelf, cell, said):
    shelf(f"studies: {{batch_size: {{cells: {{b: {{{cell}}}}}}}}}")
    with pytest.raises(UserError, match=said) as error:
        profiles.expand("mine")
    assert len(str(error.value).splitlines()) == 2, "the file, then the key"


def test_a_file_that_is_not_utf_8_is_named(shelf, tmp_path):
    (tmp_path / "params.yaml").write_bytes("profile: mine  # Größe".encode("latin-1"))
    with pytest.raises(UserError, match=r"params\.yaml: not UTF-8 at byte"):
        profiles.load("mine")


def test_names_in_settings_are_those_of_the_tables():
    from sslrepro.config.downstream import TaskName
    from sslrepro.config.model import MixerName
    from sslrepro.downstream.registry import TASKS
    from sslrepro.models.mixers import MIXERS

    assert set(get_args(TaskName)) == set(TASKS) and set(get_args(MixerName)) == set(MIXERS)


def test_inputs_are_what_the_stage_reads(shelf):
    shelf(CELLS)
    profile = profiles.expand("mine")
    assert profile.studies["batch_size"].cells["b16"].input == "artifacts/mine/corpus"
    assert profile.studies["budget"].cells["masked"].input == "artifacts/mine/targets/mfcc"
    started = profile.studies["batch_size"].cells["b32"]
    assert (started.start_input, started.teacher_input) == ("artifacts/mine/corpus", "artifacts/mine/corpus")
    assert started.measure_input == "artifacts/mine/corpus"
    assert profile.studies["batch_size"].cells["timed"].measure_input == "artifacts/machine.json"
    assert profile.targets["mfcc"].input == "artifacts/mine/corpus"
    assert profile.targets["second"].input == "runs/mine/budget/masked"
    assert profile.with_cells == ["batch_size", "budget"] and profile.studies["survey"].cells == {}


def test_another_kind_inherits_nothing():
    base = {"front_end": {"kind": "waveform", "channels": [8]}, "width": 4}
    assert profiles.merge(base, {"front_end": {"kind": "logmel"}}) == {"front_end": {"kind": "logmel"}, "width": 4}
    assert profiles.merge(base, {"front_end": {"bias": True}})["front_end"] == {"kind": "waveform", "channels": [8], "bias": True}
    assert profiles.merge({"unit": "hours"}, {"unit": "flops", "amount": 1}) == {"unit": "flops", "amount": 1}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("stages: {}", "mine.yaml: no such setting: stages"),
        ("studies: {batchsize: {}}", "studies.batchsize: no such study"),
        ("studies: {budget: {cell: {}}}", "studies.budget: no such setting: cell"),
        ("studies: {budget: {cells: {a: {modle: {}}}}}", "studies.budget.cells.a.modle: no such setting"),
        ("studies: {budget: {cells: {a: {training: {learning_rate: 1e-4}}}}}", "write it with a point"),
        ("studies: {budget: {cells: {a: {seeds: 3}}}}", "studies.budget.cells.a.seeds"),
        (
            "studies: {budget: {cells: {a: {objective: {name: masked_prediction, targets: x}}}}}",
            "budget.cells.a.objective.targets: no targets 'x'",
        ),
        ("targets: {t: {source: hidden, cell: budget/b}}", "targets.t.cell: no cell 'budget/b'"),
        ("targets: {t: {source: hidden}}", "targets.t"),
        ("studies: {budget: {cells: {a: {start: budget/b}}}}", "budget.cells.a.start: no cell 'budget/b'"),
        (
            "studies: {budget: {cells: {a: {training: {snapshots: [0.5]}}, b: "
            "{start: budget/a, objective: {name: none}, training: {snapshots: [0.25]}}}}}",
            "budget.cells.b.training.snapshots: the cell trains nothing, so they are those of the run that it starts with, "
            "and budget/a keeps none at 0.25",
        ),
        (
            "studies: {budget: {cells: {a: {objective: {name: none}, training: {snapshots: [0.5]}}}}}",
            "budget.cells.a.training.snapshots: the cell trains nothing, so they are those of the run that it starts with, "
            "and it starts with none",
        ),
        ("data: {lexicon: words.txt}", "lexicon: the embedded corpus knows its phones"),
        ("studies: {budget: []}", "expected keys and values"),
        ("data: {root: [", "not valid YAML"),
    ],
)
def test_a_wrong_profile_is_named_by_file_and_key(shelf, text, named):
    shelf(text)
    with pytest.raises(UserError) as error:
        profiles.expand("mine")
    assert named in str(error.value) and "mine.yaml" in str(error.value)


def test_a_profile_that_does_not_exist_lists_those_that_do(shelf):
    shelf(CELLS)
    with pytest.raises(UserError, match=r"no profile 'qick'.*it has: mine"):
        profiles.expand("qick")


def test_a_hand_edited_params_file_is_kept_unless_forced(shelf):
    shelf(CELLS)
    shelf(CELLS.replace("16.0", "8.0"), "other")
    params = root() / "params.yaml"
    profiles.write("mine")
    assert "other" in profiles.write("other"), "one that we wrote is replaced"
    edited = params.read_text().replace("batch_seconds: 8.0", "batch_seconds: 9.0")
    params.write_text(edited)
    with pytest.raises(UserError, match=r"edited by hand.*FORCE=1"):
        profiles.write("mine")
    assert params.read_text() == edited
    profiles.write("mine", force=True)
    assert params.read_text() == profiles.text(profiles.expand("mine"))


def test_writing_again_leaves_the_file_alone(shelf):
    shelf(CELLS)
    profiles.write("mine")
    before = (root() / "params.yaml").stat().st_mtime_ns
    profiles.write("mine")
    assert (root() / "params.yaml").stat().st_mtime_ns == before


def test_what_runs_is_params_yaml_where_it_holds_the_profile(shelf):
    shelf(CELLS)
    profiles.write("mine")
    params = root() / "params.yaml"
    params.write_text(params.read_text().replace("batch_seconds: 16.0", "batch_seconds: 24.0"))
    assert profiles.load("mine").studies["batch_size"].cells["b16"].training.batch_seconds == 24.0
    shelf(CELLS, "other")
    assert profiles.load("other").studies["batch_size"].cells["b16"].training.batch_seconds == 16.0
    params.write_text(params.read_text().replace("targets: second", "targets: mfcc"))
    with pytest.raises(UserError, match="input"):
        profiles.load("mine")


def test_place_among_all_cells(shelf):
    shelf(CELLS)
    profile = profiles.expand("mine")
    assert [profiles.position(profile, *cell) for cell in (("batch_size", "b16"), ("budget", "later"))] == ["1/5", "5/5"]


@pytest.mark.parametrize("name", ["quick", "laptop", "gpu", "paper"])
def test_rules_of_the_learning_rate_differ_where_they_are_compared(name):
    """Each batch that runs under several rules has a rate of its own for each."""
    cells = profiles.expand(name).studies["batch_size"].cells
    rates: dict[str, list[float]] = {}
    for cell, settings in cells.items():
        if found := re.fullmatch(r"(?:lr-\w+-)?b([\d.]+)", cell):
            rates.setdefault(found[1], []).append(settings.training.peak_rate)
    assert all(len({round(math.log(rate), 6) for rate in each}) == len(each) for each in rates.values()), rates
