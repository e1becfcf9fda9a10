"""The real pipeline on profile `tiny`, in a copy of the project: what runs, what does not run again, what fails, what resumes."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from sslrepro.pipeline.profile import expand

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = expand("tiny")
CELL = {"batch_size": "b16", "budget": "hubert-slim"}  # every kind of stage; the other studies' notebooks are run by nbval
CELLS = {f"{study}@{cell}" for study, cell in CELL.items()}
TRAINING = "studies.batch_size.cells.b16.training"
STUDIES = {f"study@{study}" for study in CELL}


class Copy:
    """A git repository of its own with the project's files, and commands run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        home = folder / "home"
        home.mkdir()
        bin = str(Path(sys.executable).parent)
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "DVC_", "GIT_", "PYTEST_"))}
        self.environment = keep | {
            "PATH": bin + os.pathsep + os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(self.folder), "DVC_NO_ANALYTICS": "1",
            "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
        }  # fmt: skip
        self.environment.pop("SSLREPRO_ROOT", None)
        listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
        for name in listed.splitlines():
            if (REPOSITORY / name).is_file() and not name.startswith("tests/"):
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, self.folder / name)
        shelf = self.folder / "profiles" / "tiny.yaml"
        tiny = yaml.safe_load(shelf.read_text())
        tiny["studies"] = {
            study: tiny["studies"][study] | {"cells": {cell: tiny["studies"][study]["cells"][cell]}} for study, cell in CELL.items()
        }
        del tiny["targets"]["mfcc-second"]
        shelf.write_text(yaml.safe_dump(tiny))
        self.run("git", "init", "-q", "-b", "main")
        self.run("python", "-m", "sslrepro.pipeline.profile", "write", "tiny", "--force")
        self.commit()

    def run(self, *command: str, code: int | None = 0, timeout: float = 600) -> subprocess.CompletedProcess:
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=timeout)
        assert code is None or done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    def start(self, *command: str) -> subprocess.Popen:
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, start_new_session=True, stderr=subprocess.PIPE, text=True)

    def put(self, path: str, value: float) -> None:
        """Change one setting in params.yaml, as a person would."""
        params = yaml.safe_load((self.folder / "params.yaml").read_text())
        *above, last = path.split(".")
        place = params
        for key in above:
            place = place[key]
        assert last in place
        place[last] = value
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "--allow-empty", "-m", "state")

    def changed(self) -> set[str]:
        """The stages that `dvc repro` would run for what they themselves depend on, as `dvc status` has them (whose process takes 3 s)."""
        with contextlib.chdir(self.folder), Repo() as repo:
            return set(repo.status())

    def restore(self) -> None:
        """Everything as committed."""
        self.run("git", "checkout", "-q", ".")
        with contextlib.chdir(self.folder), Repo() as repo:
            repo.checkout(force=True)

    def edit(self, name: str, old: str = "", new: str = "") -> None:
        path = self.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1) if old else text + new)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy in which the pipeline has run once."""
    if subprocess.run(["git", "rev-parse"], cwd=REPOSITORY, capture_output=True).returncode:
        pytest.skip("the project is not a git checkout")
    copy = Copy(tmp_path_factory.mktemp("pipeline"))
    copy.first = copy.run("dvc", "repro")
    copy.commit()
    return copy


@pytest.fixture
def clean(copy):
    """The copy, put back as committed afterwards."""
    yield copy
    copy.restore()


def test_the_first_run_leaves_runs_results_and_pages(copy):
    for name in (
        "results/tiny/scoreboard.json", "results/tiny/scoreboard.md", "results/tiny/batch_size/metrics.csv",
        "results/tiny/budget/verdicts.json", "runs/tiny/batch_size/b16/0/metrics.json", "report/index.html",
        "artifacts/tiny/executed/batch_size/b16.ipynb", "artifacts/tiny/tracked.json",
    ):  # fmt: skip
        assert (copy.folder / name).stat().st_size > 0, name
    row = json.loads((copy.folder / "results/tiny/scoreboard.json").read_text())[0]
    assert set(row) >= {"claim", "study", "profile", "metric", "verdict", "effect", "low", "high", "parts", "criterion", "paper", "seeds"}
    assert f"/{len(CELLS)} batch_size/b16" in copy.first.stderr and "h seen" in copy.first.stderr, "progress is shown"
    named = copy.run("python", "-m", "sslrepro.pipeline.profile", "where").stdout
    assert "results/tiny/scoreboard.md" in named and "report/index.html" in named


def test_what_a_run_makes_is_ignored_by_git_but_the_lock_is_not(copy):
    assert copy.run("git", "check-ignore", "dvc.lock", code=1)
    assert copy.run("git", "status", "--porcelain").stdout == ""


def test_the_second_run_does_nothing_and_says_so(copy):
    began = time.monotonic()
    said = copy.run("dvc", "repro")
    assert "up to date" in said.stdout + said.stderr and "Running stage" not in said.stdout
    assert time.monotonic() - began < 30  # about 3 s on an idle machine
    assert copy.changed() == set()


def test_metrics_and_plots_show(copy):
    shown = json.loads(copy.run("dvc", "metrics", "show", "--json").stdout)
    values = next(iter(shown.values()))["data"]["artifacts/tiny/metrics/batch_size.json"]["data"]["b16"]
    assert 0 < values["phone.accuracy"] < 1 and values["cost.updates"] == 12
    copy.run("dvc", "plots", "show", "-o", str(copy.folder.parent / "plots"))
    page = (copy.folder.parent / "plots" / "index.html").read_text()
    assert "valid_loss" in page and "hours_seen" in page


def test_editing_a_figure_reruns_no_cell(clean):
    clean.edit("sslrepro/report/curves.py", new="\n# another colour\n")
    assert clean.changed() == STUDIES | {"scoreboard", "report"}


@pytest.mark.parametrize("name", ["profiles/paper.yaml", "sslrepro/pipeline/scores.py"])
def test_editing_what_counted_verdicts_read_judges_again_and_reruns_no_cell(clean, name):
    clean.edit(name, new="\n# another count\n")
    assert clean.changed() == STUDIES | {"scoreboard"}


def test_editing_a_cost_labels_again(clean):
    clean.edit("sslrepro/budget/setup.py", new="\n# another cost\n")
    assert clean.changed() >= CELLS | STUDIES | {"targets@mfcc", "scoreboard"}


@pytest.mark.parametrize("name", ["models/encoder.py", "training/loop.py", "downstream/probe.py", "draws.py"])
def test_editing_code_that_a_cell_uses_reruns_it(clean, name):
    clean.edit(f"sslrepro/{name}", new="\n# another model\n")
    assert clean.changed() >= CELLS


def test_bytecode_and_checkpoint_folders_rerun_nothing(clean):
    for name in ("sslrepro/models/__pycache__/x.pyc", "notebooks/.ipynb_checkpoints/cell-checkpoint.ipynb"):
        (clean.folder / name).parent.mkdir(exist_ok=True)
        (clean.folder / name).write_text("left over")
    assert clean.changed() == set()


def test_opening_and_running_a_notebook_reruns_no_stage_and_editing_it_does(clean):
    path = clean.folder / "notebooks" / "cell.ipynb"
    content = json.loads(path.read_text())
    code = next(cell for cell in content["cells"] if cell["cell_type"] == "code")
    code |= {"execution_count": 5, "outputs": [{"output_type": "stream", "name": "stdout", "text": ["hello"]}]}
    path.write_text(json.dumps(content))
    assert clean.changed() == {"sources"}
    clean.run("dvc", "repro", "--single-item", "sources")
    assert clean.changed() == set()
    code["source"] = ["study = 'budget'\n", "cell = 'hubert-slim'\n", "profile = 'tiny'\n"]
    path.write_text(json.dumps(content))
    clean.run("dvc", "repro", "--single-item", "sources")
    assert clean.changed() == CELLS


def test_one_setting_changes_one_cell(clean):
    clean.put(f"{TRAINING}.learning_rate", 6.0e-4)
    assert clean.changed() == {"batch_size@b16"}


def test_an_experiment_runs_with_another_setting(clean):
    setting = f"{TRAINING}.budget.amount"
    clean.run("dvc", "exp", "run", "-q", "-S", f"{setting}=3", "batch_size@b16")
    assert json.loads((clean.folder / "runs/tiny/batch_size/b16/0/metrics.json").read_text())["cost.updates"] == 3
    assert f"{setting}" in clean.run("dvc", "exp", "show", "--csv", "--no-pager").stdout
    misspelt = clean.run("dvc", "exp", "run", "-S", setting.replace("budget", "bugdet") + "=3", "batch_size@b16", code=None)
    assert misspelt.returncode != 0 and "bugdet" in misspelt.stdout + misspelt.stderr
    clean.restore()
    assert clean.changed() == set(), "the earlier run comes back from the cache"


def test_a_run_that_leaves_the_finite_numbers_fails_its_stage_with_evidence(clean):
    clean.put(f"{TRAINING}.learning_rate", 1.0e30)
    failed = clean.run("dvc", "repro", "--single-item", "batch_size@b16", code=255)
    assert "b16" in failed.stderr
    seed = clean.folder / "runs/tiny/batch_size/b16/0"
    status = json.loads((seed / "metrics.json").read_text())["status"]
    assert status in ("non_finite", "diverged", "collapsed") and (seed / "evidence.json").stat().st_size > 0
    assert status in failed.stderr
    assert "batch_size@b16" in clean.changed(), "a failed stage is not taken for done"


def test_a_killed_stage_resumes_where_it_was(clean):
    """Everything killed at once with a checkpoint written: the next run goes on from there, not from the start."""
    clean.put(f"{TRAINING}.budget.amount", 3000.0)
    clean.put(f"{TRAINING}.checkpoint_seconds", 0.5)
    run = clean.start("dvc", "repro", "--single-item", "batch_size@b16")
    work = clean.folder / ".work" / "tiny" / "batch_size" / "b16" / "0"
    ends = time.monotonic() + 120
    while not list((work / "checkpoints").glob("*")) and time.monotonic() < ends:
        time.sleep(0.2)
    time.sleep(2)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    time.sleep(3)  # the kernel, in a session of its own, sees that its parent is gone
    assert list((work / "checkpoints").glob("*")) and not (clean.folder / "runs/tiny/batch_size/b16").exists()
    again = clean.start("dvc", "repro", "--single-item", "batch_size@b16")
    first = next(line for line in again.stderr if " updates " in line)
    os.killpg(again.pid, signal.SIGKILL)
    again.wait()
    time.sleep(3)
    assert int(first.split("/3000 updates")[0].split()[-1]) > 5, first


def test_two_cells_run_side_by_side(clean):
    clean.put(f"{TRAINING}.learning_rate", 7.0e-4)
    clean.put("studies.budget.cells.hubert-slim.training.learning_rate", 7.0e-4)
    both = [clean.start("dvc", "repro", "--single-item", cell) for cell in ("batch_size@b16", "budget@hubert-slim")]
    assert [run.wait(180) for run in both] == [0, 0]
    assert not CELLS & clean.changed()


def cloned(origin: Copy, place: Path, shelf: Path) -> Copy:
    """A fresh clone, as on another machine, that knows the remote."""
    other = object.__new__(Copy)
    other.folder, other.environment = place, origin.environment | {"PYTHONPATH": str(place)}
    subprocess.run(["git", "clone", "-q", origin.folder, place], check=True)
    other.run("dvc", "remote", "add", "--local", "-d", "shelf", str(shelf))
    return other


RUN = """
from sslrepro.pipeline import profile, sweep
asked = []
def stop():
    asked.append(True)
    return len(asked) == {most}
try:
    sweep.run(profile.load("tiny"), "batch_size", "b16", stop)
finally:
    print(len(asked))
"""


def test_results_and_checkpoints_move_through_a_remote(clean, tmp_path):
    """Here: pushed. On a second machine: a cell begun, stopped, its checkpoint pushed. On a third: all of it pulled, and gone on with."""
    shelf = tmp_path / "shelf"
    clean.run("dvc", "remote", "add", "--local", "-d", "shelf", str(shelf))
    clean.run("dvc", "push")
    second = cloned(clean, tmp_path / "second", shelf)
    second.run("dvc", "pull", "corpus", "targets@mfcc")
    assert not (second.folder / "runs").exists()
    assert second.run("python", "-c", RUN.format(most=3), code=1).stdout == "3\n"
    second.run("dvc", "add", ".work", "-o", "checkpoints")
    second.run("dvc", "push", "checkpoints.dvc")
    second.commit()

    third = cloned(second, tmp_path / "third", shelf)
    third.run("dvc", "pull")
    made = {path.relative_to(clean.folder): path for path in (clean.folder / "runs").rglob("*") if path.is_file()}
    assert len(made) > 8
    for name, path in made.items():
        assert (third.folder / name).read_bytes() == path.read_bytes(), name
    # results/ is git's where it is kept, and this profile's is not: figures and verdicts are made again, no cell is
    again = {stage for stage in third.changed() if not stage.startswith("study@")}
    assert again <= {"scoreboard", "report"}, "what was pulled is not run again"
    place = third.folder / "runs/tiny/batch_size/b16"
    weights = (place / "0/model.safetensors").read_bytes()
    shutil.rmtree(place)
    shutil.copytree(third.folder / "checkpoints", third.folder / ".work", dirs_exist_ok=True)
    went_on = int(third.run("python", "-c", RUN.format(most=0)).stdout)
    updates = json.loads((place / "0/metrics.json").read_text())["cost.updates"]
    assert went_on == updates - 3, "from the checkpoint"
    assert (place / "0/model.safetensors").read_bytes() == weights
