"""The pipeline with its cells side by side, for `make repro JOBS=N`: a device each, longest first. DVC itself runs one stage at a time.

    python -m sslrepro.pipeline.jobs PROFILE N

Each job is `dvc repro --single-item STAGE` in a process of its own; DVC's locks keep them apart. A stage that fails stops only those that
read what it makes. A cell that measures time runs alone, when nothing else is left to run. What DVC finds up to date is not started, and
the scoreboard and the report, which read everything, are made by `dvc repro` in the end.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf

from sslrepro.config import Profile
from sslrepro.errors import UserError
from sslrepro.paths import root
from sslrepro.pipeline import profile
from sslrepro.pipeline.machine import fingerprint

GRACE = 20.0  # seconds between asking jobs to stop and killing them
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Job:
    stage: str
    needs: tuple[str, ...] = ()  # stages
    seconds: float = 0.0  # as `sslrepro plan` estimates; what others wait for goes first
    alone: bool = False  # it measures: nothing may run beside it


@dataclass
class Done:
    finished: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # they need one that failed


def jobs_of(experiment: Profile) -> list[Job]:
    """The stages of dvc.yaml from the sources to the studies."""
    from sslrepro.pipeline import plan  # these take seconds to import, and there may be nothing to do
    from sslrepro.training.cell import others_of

    seconds = {f"{cell['study']}@{cell['cell']}": cell["seconds"] for cell in plan.plan_profile(experiment)["cells"]}
    jobs = [Job("sources", (), inf), Job("corpus", (), inf)]
    for name, target in experiment.targets.items():
        jobs.append(Job(f"targets@{name}", (target.cell.replace("/", "@") if target.cell else "corpus",), inf))
    for study in experiment.with_cells:
        stages = [f"{study}@{cell}" for cell in experiment.studies[study].cells]
        for stage, cell in zip(stages, experiment.studies[study].cells.values(), strict=True):
            named = getattr(cell.objective, "targets", None)
            needs = ["sources", "corpus"] + ([f"targets@{named}"] if named else [])
            needs += [other.replace("/", "@") for other in others_of(cell)]
            jobs.append(Job(stage, tuple(needs), seconds[stage], alone=cell.measure is not None))
        jobs.append(Job(f"study@{study}", tuple(stages)))
    return jobs


def outdated(jobs: list[Job], changed: set[str]) -> list[Job]:
    """The jobs that `dvc status` calls changed, and those that read what they make; without their needs that are up to date."""
    stages = set(changed)
    while more := {job.stage for job in jobs if stages & set(job.needs)} - stages:
        stages |= more
    return [replace(job, needs=tuple(need for need in job.needs if need in stages)) for job in jobs if job.stage in stages]


def changed_stages() -> set[str]:
    """What DVC would run, by what has changed so far."""
    told = subprocess.run(["dvc", "--wait-for-lock", "status", "--json"], cwd=root(), capture_output=True, text=True)
    if told.returncode:
        raise UserError(f"dvc status failed: {told.stderr.strip() or told.stdout.strip()}")
    return set(json.loads(told.stdout))


def dvc(stage: str) -> list[str]:
    return ["dvc", "--wait-for-lock", "repro", "--single-item", stage]


def environments(slots: int) -> list[dict[str, str]]:
    """What tells each slot its device: a GPU, in turn where there are more slots, or its share of the cores."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(number) for number in range(len(fingerprint()["gpus"]))] if given is None else [name for name in given.split(",") if name]
    threads = str(max(1, (os.cpu_count() or 1) // slots))
    shares = [{"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {} for slot in range(slots)]
    return [{"OMP_NUM_THREADS": threads, **share} for share in shares]


def run(jobs: list[Job], slots: int, command: Callable[[str], list[str]] = dvc) -> Done:
    """Keep `slots` jobs running, of those whose needs are met the longest first.

    Asked to stop (Ctrl-C, SIGTERM, SIGHUP), stops every process of every job and raises KeyboardInterrupt.
    """
    done, waiting, shares = Done(), sorted(jobs, key=lambda job: -job.seconds), environments(slots)
    running: dict[int, tuple[Job, subprocess.Popen]] = {}
    asked: list[int] = []
    before = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in STOPS}
    try:
        while not asked:
            for slot, (job, process) in list(running.items()):
                if process.poll() is not None:
                    del running[slot]
                    (done.failed if process.returncode else done.finished).append(job.stage)
                    print(f"{job.stage}: {'failed' if process.returncode else 'done'}", file=sys.stderr, flush=True)
            for slot in set(range(slots)) - running.keys():
                job = _next(waiting, set(done.finished), [job for job, _ in running.values()])
                if job is not None:
                    waiting.remove(job)  # a session of its own: the terminal's Ctrl-C reaches us alone, and we stop all of the job
                    environment = os.environ | shares[slot]
                    running[slot] = job, subprocess.Popen(command(job.stage), cwd=root(), env=environment, start_new_session=True)
            if not running:
                done.left = [job.stage for job in waiting]
                return done
            time.sleep(0.1)
        raise KeyboardInterrupt
    finally:
        _end([process for _, process in running.values()])
        for number, handler in before.items():
            signal.signal(number, handler)


def _next(waiting: list[Job], finished: set[str], running: list[Job]) -> Job | None:
    """The first whose needs are met; one that runs alone only where nothing else runs or could."""
    ready = [job for job in waiting if set(job.needs) <= finished]
    together = [job for job in ready if not job.alone]
    if any(job.alone for job in running):
        return None
    return together[0] if together else ready[0] if ready and not running else None


def _end(processes: list[subprocess.Popen]) -> None:
    """Ask the jobs to stop, and after a while make what is left of them."""
    for number, seconds in ((signal.SIGINT, GRACE), (signal.SIGKILL, inf)):
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        ends = time.monotonic() + seconds
        while any(process.poll() is None for process in processes) and time.monotonic() < ends:
            time.sleep(0.1)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sslrepro.pipeline.jobs", description=__doc__.split("\n")[0])
    parser.add_argument("profile")
    parser.add_argument("jobs", type=int)
    options = parser.parse_args(arguments)
    try:
        if options.jobs < 1:
            raise UserError(f"JOBS={options.jobs}: at least 1")
        changed = changed_stages()
        if not changed:
            print("Data and pipelines are up to date.")
            return 0
        done = run(outdated(jobs_of(profile.load(options.profile)), changed), options.jobs)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what is finished is kept, and the same command goes on from the last checkpoints", file=sys.stderr)
        return 130
    if done.failed:
        print(f"failed: {', '.join(done.failed)}; not run, as they need them: {', '.join(done.left) or 'none'}", file=sys.stderr)
        return 1
    return subprocess.run(["dvc", "repro"], cwd=root()).returncode


if __name__ == "__main__":
    raise SystemExit(main())
