"""Cells in one process: skipped, resumed, stopped in time, and with no more packages than training needs."""

import json
import subprocess
import sys
import textwrap
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from small_cells import cell, profile_of, values

from sslrepro.config import Profile
from sslrepro.errors import UserError
from sslrepro.paths import cell_dir
from sslrepro.pipeline.profile import expand
from sslrepro.pipeline.sweep import is_finished, prepare, sweep

REPOSITORY = Path(__file__).resolve().parents[2]
# what a bare GPU machine must have; pandas because the corpus is a table
NEEDED = ["torch", "numpy", "pydantic", "PyYAML", "safetensors", "soundfile", "lightning-fabric", "pandas", "tqdm"]


@pytest.fixture
def profile(project) -> Profile:
    return profile_of(a=cell(4), b=cell(4))


def test_finished_cells_are_skipped_and_changed_ones_are_not(profile):
    first = sweep(profile, "budget", 10)
    assert (first.finished, first.skipped, first.left, first.failed) == (["a", "b"], [], [], {})
    assert is_finished(profile, "budget", "a")
    again = sweep(profile, "budget", 10)
    assert (again.finished, again.skipped) == ([], ["a", "b"])
    changed = profile.studies["budget"].cells["b"].model_copy(update={"seeds": [0, 1]})
    profile.studies["budget"].cells["b"] = changed
    assert not is_finished(profile, "budget", "b"), "a seed is missing"


def test_it_stops_in_time_and_goes_on_from_there(profile, capsys):
    """No time at all leaves all cells; a little leaves one at a checkpoint, from which the next call goes on."""
    assert sweep(profile, "budget", 0).left == ["a", "b"]
    long = profile.studies["budget"].cells["a"]
    long = long.model_copy(
        update={"training": long.training.model_copy(update={"budget": long.training.budget.model_copy(update={"amount": 600.0})})}
    )
    profile.studies["budget"].cells["a"] = long
    stopped = sweep(profile, "budget", 1.5 / 60)
    assert stopped.left == ["a", "b"] and not cell_dir("tiny", "budget", "a").exists()
    capsys.readouterr()
    assert sweep(profile, "budget", 10).finished == ["a", "b"]
    first = next(line for line in capsys.readouterr().err.splitlines() if "/600 updates" in line)
    assert int(first.split("/600 updates")[0].split()[-1]) > 1, first


def test_one_that_goes_wrong_does_not_stop_the_others(profile):
    bad = profile.studies["budget"].cells["a"]
    bad = bad.model_copy(update={"training": bad.training.model_copy(update={"learning_rate": 1e30})})
    profile.studies["budget"].cells["a"] = bad
    swept = sweep(profile, "budget", 10)
    assert list(swept.failed) == ["a"] and "evidence.json" in swept.failed["a"] and swept.finished == ["b"]


def test_the_cell_whose_states_are_the_labels_is_run_first(monkeypatch):
    """In the profile paper HuBERT's first iteration stands below the cells that learn its clusters."""
    monkeypatch.setattr("sslrepro.pipeline.sweep.is_finished", lambda *_: False)
    first = []
    monkeypatch.setattr("sslrepro.pipeline.sweep.run", lambda _, *cell: first.append("/".join(cell)))
    monkeypatch.setattr("sslrepro.pipeline.sweep.make_corpus", lambda _: None)
    monkeypatch.setattr("sslrepro.pipeline.sweep.make_targets", lambda _, name: first.append(name))
    prepare(expand("paper"), "budget", "hubert-size30")
    assert first == ["budget/hubert-iteration1", "slim_iteration1"]


def test_a_study_without_cells_is_named(profile):
    with pytest.raises(UserError, match=r"'survey' has no cells"):
        sweep(profile, "survey", 1)


def closure(names: list[str]) -> set[str]:
    """These distributions and all that they require."""
    found, open_ = set(), list(names)
    while open_:
        name = canonicalize_name(open_.pop())
        if name in found:
            continue
        found.add(name)
        try:
            required = [Requirement(text) for text in distribution(name).requires or []]
        except PackageNotFoundError:
            continue
        open_ += [r.name for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def test_it_imports_no_more_than_training_needs(profile, project):
    """A cell with a probe, with every other installed package out of reach."""
    allowed = closure(NEEDED)
    blocked = sorted(
        module
        for module, owners in packages_distributions().items()
        if not allowed & {canonicalize_name(owner) for owner in owners} and module.isidentifier() and module != "sslrepro"
    )
    assert {"dvc", "papermill", "wandb", "sklearn", "scipy", "torchaudio", "transformers", "seaborn"} <= set(blocked)
    content = values(a=cell(4) | {"downstream": {"tasks": ["phone"], "updates": 5, "train_hours": 0.01}})
    script = f"""
        import json, sys
        from importlib.machinery import PathFinder
        class Bare(PathFinder):
            # as if the other packages were not installed
            @classmethod
            def find_spec(cls, name, path=None, target=None):
                return None if name.partition(".")[0] in {set(blocked)!r} else PathFinder.find_spec(name, path, target)
        sys.meta_path = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
        from sslrepro.config import Profile, parse
        from sslrepro.pipeline.sweep import sweep
        print(json.dumps(sweep(parse(Profile, json.loads(sys.argv[1]), "test"), "budget", 5).finished))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), json.dumps(content)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    assert json.loads(run.stdout.splitlines()[-1]) == ["a"]


def test_two_processes_at_one_cell_take_turns(profile, project):
    """As when a notebook is opened while the pipeline runs: neither spoils the other's work."""
    script = """
        import json, sys
        from sslrepro.config import Profile, parse
        from sslrepro.pipeline.sweep import run
        print(run(parse(Profile, json.loads(sys.argv[1]), "test"), "budget", "a"))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), profile.model_dump_json()]
    both = [subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert is_finished(profile, "budget", "a")
