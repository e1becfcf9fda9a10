"""Cells as jobs, by submitit's executor for one machine: asked to stop they are queued again and end as if nothing had been."""

import os
import signal
import time
from pathlib import Path

import pytest
from small_cells import cell, profile_of, until

from sslrepro.cli import main
from sslrepro.config import Profile
from sslrepro.errors import UserError
from sslrepro.paths import cell_dir, work_dir
from sslrepro.pipeline import cluster, sweep


@pytest.fixture
def profile(project) -> Profile:
    long = cell(120, checkpoint_seconds=0.2)
    return profile_of(broken=long, whole=long, after=long | {"start": "budget/broken"})


def task_of(job) -> int:
    """The process in which the cell runs, a child of the one that submitit started."""
    controller = int(job.job_id)
    return int(Path(f"/proc/{controller}/task/{controller}/children").read_text().split()[0])


def test_a_job_asked_to_stop_goes_on_from_its_checkpoint(profile):
    jobs = cluster.submit(profile, "budget", ["broken", "whole"], 30, {}, local=True)
    assert list(jobs) == ["broken", "whole"]
    checkpoints = work_dir("tiny", "budget", "broken") / "0" / "checkpoints"
    until(lambda: checkpoints.exists() and any(checkpoints.iterdir()), 120, "checkpoint")
    os.kill(task_of(jobs["broken"]), signal.SIGUSR2)  # what SLURM sends when the time is nearly up
    for name, job in jobs.items():
        assert job.result() == str(cell_dir("tiny", "budget", name))
    said = jobs["broken"].stdout() + jobs["broken"].stderr()
    assert "Requeued job" in said and said.count("Starting with JobEnvironment") == 2
    broken, whole = (cell_dir("tiny", "budget", name) / "0" / "model.safetensors" for name in ("broken", "whole"))
    assert broken.read_bytes() == whole.read_bytes()
    assert cluster.submit(profile, "budget", ["whole"], 30, {}, local=True) == {}, "it is finished"


def test_what_a_cell_needs_is_submitted_first(profile, monkeypatch, tmp_path):
    """With a stand-in for sbatch that says what it was given."""
    for name, text in {"srun": "", "sbatch": f"cat $1 >> {tmp_path}/given; echo Submitted batch job $$"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    jobs = cluster.submit(profile, "budget", ["after", "broken"], 120, {"partition": "gpu", "gpus-per-node": "1"})
    assert list(jobs) == ["broken", "after"]
    first, second = (tmp_path / "given").read_text().split("#!/bin/bash")[1:]
    for line in ("--time=120", "--signal=USR2@180", "--partition=gpu", "--gpus-per-node=1", "--job-name=budget-broken"):
        assert f"#SBATCH {line}\n" in first
    assert "dependency" not in first and f"#SBATCH --dependency=afterok:{jobs['broken'].job_id}\n" in second


def test_scoring_is_not_waited_for(profile, monkeypatch):
    """A signal that no update answers in half of the time that is left asks for another turn all the same."""
    asked = []
    number = signal.SIGUSR2
    before = signal.signal(number, lambda number, frame: asked.append(time.monotonic()))

    def scoring(profile, study, cell, should_stop) -> None:
        os.kill(os.getpid(), number)
        until(lambda: asked, 10, "request")

    monkeypatch.setattr(sweep, "run", scoring)
    try:
        cluster.CellJob(profile, "budget", "whole", warning=2)()
    finally:
        signal.signal(number, before)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nothing", "--minutes", "60"], "has no cells"),
        (["budget", "nothing", "--minutes", "60"], "no cell 'nothing'"),
        (["budget", "--minutes", "3"], "over before it begins"),
        (["budget", "--minutes", "60", "--sbatch", "gpu"], "name=value"),
        (["budget", "--minutes", "60"], "no SLURM here"),
    ],
)
def test_mistakes_are_one_message(arguments, word, profile, monkeypatch, capsys):
    monkeypatch.setattr("sslrepro.pipeline.profile.load", lambda name: profile)
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["submit", *arguments]) == 2
    assert word in capsys.readouterr().err


def test_options_are_sbatchs_own():
    assert cluster.options_of(["partition=gpu", "constraint=a100|h100"]) == {"partition": "gpu", "constraint": "a100|h100"}
    with pytest.raises(UserError, match="long options"):
        cluster.options_of(["=gpu"])
