"""A cell that is killed outside its training, or whose disk fills up: the same call ends with the files of one that was not."""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from sslrepro import files
from sslrepro.data.targets import build_targets
from sslrepro.errors import UserError
from sslrepro.paths import cell_dir, targets_dir, work_dir
from sslrepro.training import cell as cells
from sslrepro.training.cell import run_cell

torch.set_num_threads(1)


@pytest.fixture
def profile(make_cell, make_profile):
    tuned = {"shares": [{"minutes": 0.3, "updates": 4}], "symbols": "phones", "batch_seconds": 12.0, "micro_batch_seconds": 12.0}
    scored = {"tasks": ["phone"], "updates": 5, "train_hours": 0.01, "fine_tune": tuned}
    training = {"snapshots": [0.5], "budget": {"unit": "updates", "amount": 6.0}}
    return make_profile(a=make_cell(seeds=[0, 1], training=training, downstream=scored))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by name, without what the clock decides."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found[path.relative_to(folder).as_posix()] = path.read_bytes()
        if path.name == "metrics.json":
            metrics = json.loads(path.read_text())
            found[path.relative_to(folder).as_posix()] = {name: value for name, value in metrics.items() if "seconds" not in name}
    return found


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


rmtree = shutil.rmtree


def killed_in_rmtree(folder: Path, **named) -> None:
    """After the first seed's weights are gone (not a checkpoint's, which nobody would miss), as a folder is deleted file by file."""
    for weights in sorted(Path(folder).glob("*/model.safetensors"))[:1]:
        weights.unlink()
        kill()
    rmtree(folder, **named)


def killed_in_copytree(source: Path, target: Path, **_) -> None:
    Path(target).mkdir(parents=True)
    shutil.copy(Path(source) / "metrics.json", target)
    kill()


fine_tuning = importlib.import_module("sslrepro.downstream.fine_tune")  # the package gives the function that name
KILLS = {
    "scoring": (cells, "score", lambda *_: kill()),
    "fine-tuning": (fine_tuning, "_train", lambda *_, **__: kill()),
    "copying": (files.shutil, "copytree", killed_in_copytree),
    "removing": (files.shutil, "rmtree", killed_in_rmtree),
    "removing again": (files.shutil, "rmtree", killed_in_rmtree),  # the finished cell that was there, then the work
}


def run_killed(profile, place, name, replacement) -> None:
    """In a process of its own, which dies of it."""
    child = os.fork()
    if child == 0:
        setattr(place, name, replacement)
        try:
            run_cell(profile, "trial", "a")
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_killed_again_and_again_the_files_are_those_of_a_run_that_was_not(project, profile):
    final = cell_dir("tiny", "trial", "a")
    whole = contents(run_cell(profile, "trial", "a"))
    assert whole["0/metrics.json"].keys() >= {"phone.accuracy"} and any("fine_tune" in name for name in whole["0/metrics.json"])
    for kind in ("before", "beside"):  # nothing finished before, then a finished cell in place
        if kind == "before":
            shutil.rmtree(final)
        else:
            (final / "1" / "metrics.json").unlink()  # seed 0 is taken over, seed 1 runs again
        for where in KILLS:
            run_killed(profile, *KILLS[where])
        assert contents(run_cell(profile, "trial", "a")) == whole, kind
        assert not work_dir("tiny", "trial", "a").exists() and {path.name for path in final.parent.iterdir()} == {"a"}


def full(function, after: int = 0):
    """`function` with room for a kilobyte a file, from its call number `after` on."""
    calls = []

    def limited(*given, **named):
        calls.append(True)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000 if len(calls) > after else soft, hard))
        try:
            return function(*given, **named)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.mark.parametrize(
    ("place", "name", "after", "said"),
    [
        (files, "save_file", 0, r"snapshot-0.5.safetensors: the weights could not be written"),
        (files, "save_file", 1, r"model.safetensors: the weights could not be written"),
        (files.shutil, "copytree", 0, r"trial/a: the copy could not be written"),
    ],
    ids=["snapshot", "weights", "moving"],
)
def test_a_full_disk_is_one_line_and_nothing_half_is_taken_for_whole(
    project, make_cell, make_profile, monkeypatch, place, name, after, said
):
    profile = make_profile(a=make_cell(training={"snapshots": [0.5], "budget": {"unit": "updates", "amount": 4.0}}))
    final = cell_dir("tiny", "trial", "a")
    whole = contents(run_cell(profile, "trial", "a"))
    shutil.rmtree(final)
    with monkeypatch.context() as patched:
        patched.setattr(place, name, full(getattr(place, name), after))
        with pytest.raises(UserError, match=said) as error:
            run_cell(profile, "trial", "a")
    assert "\n" not in str(error.value) and "MB are free" in str(error.value) and "the same command" in str(error.value)
    assert not final.exists() and not list(work_dir("tiny", "trial", "a").glob("*/*.tmp"))
    assert contents(run_cell(profile, "trial", "a")) == whole


def test_labels_on_a_full_disk(project, make_profile, monkeypatch):
    profile = make_profile()
    with monkeypatch.context() as patched:
        patched.setattr("sslrepro.data.targets.np.save", full(np.save))
        with pytest.raises(UserError, match="mfcc: the labels could not be written"):
            build_targets(profile, "mfcc")
    assert not targets_dir("tiny", "mfcc").exists()
