"""Stages side by side, with a command in place of DVC that says when it began, what it was given and when it ended."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml

from sslrepro.config import TargetSettings, parse
from sslrepro.pipeline import jobs as pipeline
from sslrepro.pipeline.jobs import Done, Job, environments, jobs_of, outdated, run
from sslrepro.pipeline.profile import expand, load

REPOSITORY = Path(__file__).resolve().parents[2]
FAKE = """
import json, os, sys, time
place, stage, seconds = sys.argv[1:]
def say(**what):
    with open(place, "a") as log:
        log.write(json.dumps({"stage": stage, "at": time.monotonic(), **what}) + "\\n")
say(threads=os.environ["OMP_NUM_THREADS"])
time.sleep(float(seconds))
say(ended=True)
sys.exit(stage.startswith("bad"))
"""


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def fake(log: Path, seconds: float = 0.4):
    return lambda stage: [sys.executable, "-S", "-c", FAKE, str(log), stage, str(seconds)]


def events(log: Path, ended: bool = False) -> dict[str, dict]:
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return {row["stage"]: row for row in rows if ("ended" in row) == ended}


def test_longest_first(log):
    given = [Job("a", seconds=1), Job("b", seconds=5), Job("c", seconds=3), Job("d", seconds=4)]
    done = run(given, 1, fake(log, 0.0))
    assert done == Done(["b", "d", "c", "a"], [], [])
    assert list(events(log)) == ["b", "d", "c", "a"]


def test_so_many_run_at_a_time(log):
    done = run([Job(stage) for stage in "abcd"], 2, fake(log, 1.0))
    assert sorted(done.finished) == ["a", "b", "c", "d"] and not done.failed and not done.left
    began, ended = events(log), events(log, ended=True)
    for stage, row in began.items():
        others = [s for s in began if s != stage and began[s]["at"] <= row["at"] < ended[s]["at"]]
        assert len(others) <= 1
    assert began["b"]["at"] < ended["a"]["at"] and began["a"]["at"] < ended["b"]["at"], "side by side"


def test_what_measures_runs_alone_and_last(log):
    given = [Job("timed", seconds=9, alone=True), Job("timed too", alone=True), Job("a", seconds=5), Job("b", ("a",), 1)]
    given.append(Job("study", ("b", "timed")))
    done = run(given, 2, fake(log, 0.3))
    assert sorted(done.finished) == sorted(job.stage for job in given)
    began, ended = events(log), events(log, ended=True)
    assert began["timed"]["at"] > max(ended["a"]["at"], ended["b"]["at"])
    for stage in ("timed", "timed too"):
        for other in began.keys() - {stage}:
            assert ended[other]["at"] <= began[stage]["at"] or began[other]["at"] >= ended[stage]["at"], (stage, other)


def test_what_is_up_to_date_is_not_started():
    jobs = [Job("corpus"), Job("a", ("corpus",)), Job("b", ("corpus", "a")), Job("c", ("corpus",)), Job("study", ("a", "b", "c"))]
    assert outdated(jobs, {"a"}) == [Job("a"), Job("b", ("a",)), Job("study", ("a", "b"))]
    assert [job.stage for job in outdated(jobs, {"corpus", "report"})] == ["corpus", "a", "b", "c", "study"]
    assert outdated(jobs, {"scoreboard"}) == []


def test_with_everything_up_to_date_it_asks_dvc_once_runs_nothing_and_says_so(tmp_path, monkeypatch, capsys):
    """A DVC that finds no change and notes what it is asked; then one that finds one, and does what it is told."""
    answer, asked = tmp_path / "answer", tmp_path / "asked"
    (tmp_path / "dvc").write_text(f'#!/bin/sh\necho "$@" >> {asked}\ncat {answer}\n')
    (tmp_path / "dvc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    answer.write_text("{}")
    assert pipeline.main(["tiny", "2"]) == 0
    assert capsys.readouterr().out == "Data and pipelines are up to date.\n"
    assert asked.read_text() == "--wait-for-lock status --json\n"

    answer.write_text('{"study@survey": []}')
    monkeypatch.setattr(pipeline.profile, "load", lambda name: name)
    monkeypatch.setattr(pipeline, "jobs_of", lambda experiment: [Job("sources"), Job("study@survey", ("sources",))])
    assert pipeline.main(["tiny", "2"]) == 0
    assert asked.read_text().splitlines()[2:] == ["--wait-for-lock repro --single-item study@survey", "repro"]


def test_each_has_its_share_of_the_machine(log, monkeypatch):
    monkeypatch.setattr(pipeline.os, "cpu_count", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(pipeline, "fingerprint", lambda: {"gpus": []})
    run([Job("a")], 3, fake(log, 0.0))
    assert events(log)["a"]["threads"] == "2"
    monkeypatch.setattr(pipeline, "fingerprint", lambda: {"gpus": ["one", "two"]})
    assert [share["CUDA_VISIBLE_DEVICES"] for share in environments(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [share["CUDA_VISIBLE_DEVICES"] for share in environments(2)] == ["5", "7"]


def test_a_failure_stops_only_what_needs_it(log):
    given = [Job("bad", seconds=9), Job("needs bad", ("bad",)), Job("needs that", ("needs bad",)), Job("good"), Job("after", ("good",))]
    assert run(given, 2, fake(log, 0.0)) == Done(["good", "after"], ["bad"], ["needs bad", "needs that"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_leaves_no_process(number, tmp_path):
    """A job is a shell with a child that will not be asked; all of them are gone, and what waited never began."""
    script = f"""
        from sslrepro.pipeline import jobs
        jobs.GRACE = 1.0
        stubborn = "trap '' INT; (sleep 300 & echo $! >> {tmp_path}/pids; wait; wait; wait)"
        try:
            jobs.run([jobs.Job("a"), jobs.Job("b"), jobs.Job("c", ("a",))], 2, lambda stage: ["sh", "-c", stubborn])
        except KeyboardInterrupt:
            print("stopped")
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    pids = tmp_path / "pids"
    ends = time.monotonic() + 60
    while (not pids.exists() or len(pids.read_text().split()) < 2) and time.monotonic() < ends:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.communicate(timeout=30)[0] == "stopped\n"
    assert len(pids.read_text().split()) == 2
    for pid in map(int, pids.read_text().split()):
        assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"  # not yet collected by init


def test_every_stage_before_the_scoreboard_is_a_job_that_waits_for_what_it_reads():
    list_stages = [sys.executable, "-m", "dvc", "stage", "list", "--name-only"]
    listed = subprocess.run(list_stages, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
    here = {job.stage: job for job in jobs_of(load(yaml.safe_load((REPOSITORY / "params.yaml").read_text())["profile"]))}
    assert set(listed) - set(here) == {"scoreboard", "report"} and set(here) <= set(listed)
    assert {need for job in here.values() for need in job.needs} <= set(here)

    second = {"source": "hidden", "cell": "budget/hubert-slim", "layer": 1}
    profile = expand("tiny")
    profile = profile.model_copy(update={"targets": profile.targets | {"layer1": parse(TargetSettings, second, "test")}})
    jobs = {job.stage: job for job in jobs_of(profile)}
    assert (jobs["targets@mfcc"].needs, jobs["targets@layer1"].needs) == (("corpus",), ("budget@hubert-slim",))
    assert "targets@mfcc" in jobs["budget@hubert-slim"].needs and "targets@mfcc" not in jobs["batch_size@b8"].needs
    assert jobs["study@batch_size"].needs == ("batch_size@b8", "batch_size@b16")
    assert jobs["batch_size@b16"].seconds > 0


def test_one_at_a_time_a_failure_stops_only_what_reads_it(log):
    done = run([Job("bad"), Job("after", ("bad",)), Job("other")], 1, fake(log, 0.0))
    assert done == Done(["other"], ["bad"], ["after"])


@pytest.mark.parametrize("profile, slots", [("laptop", 2), ("gpu", 1), ("paper", 1)])
def test_make_repro_keeps_failures_apart_with_one_job_too(profile, slots):
    told = subprocess.run(["make", "-n", "-o", "setup", "repro", f"PROFILE={profile}"], cwd=REPOSITORY, capture_output=True, text=True)
    assert f"python -m sslrepro.pipeline.jobs {profile} {slots}\n" in told.stdout and "dvc repro" not in told.stdout
