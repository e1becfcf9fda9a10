"""Cells as jobs of a SLURM cluster, through submitit: a job that runs out of time is queued again and goes on from its checkpoint.

submitit has SLURM send a signal some time before the end (and SLURM sends it when it takes a node away). The cell then stops after the
update that it is in, writes a checkpoint, and asks for another turn; a cell that is scoring, which has no checkpoint, asks for it at once
and scores again. submitit hands a job its settings as a pickle in the log folder: nobody else should be able to write there.
"""

from __future__ import annotations

import signal
from pathlib import Path

import submitit
from submitit.helpers import DelayedSubmission

from sslrepro.config import Profile
from sslrepro.errors import UserError
from sslrepro.paths import root

WARNING = 180  # seconds before the end at which the signal comes
TURNS = 1000  # how often a job may run out of time


class CellJob:
    """One cell, with the settings that it had when it was submitted."""

    def __init__(self, profile: Profile, study: str, cell: str, warning: int) -> None:
        self.profile, self.study, self.cell, self.warning = profile.model_dump_json(), study, cell, warning

    def __call__(self) -> str:
        """Runs in the job; returns the finished cell's folder."""
        from sslrepro.pipeline.sweep import run
        from sslrepro.training.loop import Interrupted

        number = submitit.JobEnvironment._usr_sig()
        again = signal.getsignal(number)  # submitit's own: queues the job again and ends this process
        asked: list[int] = []

        def ask(number: int, frame: object) -> None:
            asked.append(number)
            signal.alarm(max(1, self.warning // 2))

        signal.signal(number, ask)
        signal.signal(signal.SIGALRM, lambda alarm, frame: again(number, frame))  # no update has ended by then
        try:
            return str(run(Profile.model_validate_json(self.profile), self.study, self.cell, lambda: bool(asked)))
        except Interrupted:
            signal.alarm(0)
            again(number, None)
            raise

    def checkpoint(self) -> DelayedSubmission:
        """What submitit queues again: the same cell."""
        return DelayedSubmission(self)


def submit(
    profile: Profile, study: str, cells: list[str], minutes: int, sbatch: dict[str, str], local: bool = False, warning: int = WARNING
) -> dict[str, submitit.Job]:
    """One job a cell that is not finished, by the cell's name; a cell that needs another of them waits for its job. No cells: all.

    minutes: of one turn; sbatch: its options by their long names; local: processes on this machine in the cluster's place. Jobs take one
    device each. Raises UserError for names that do not exist, turns that are too short, and where there is no SLURM.
    """
    from sslrepro.pipeline.sweep import is_finished
    from sslrepro.training.cell import find_cell, others_of

    if study not in profile.with_cells:
        raise UserError(f"study {study!r} has no cells in profile {profile.profile}; these have: {', '.join(profile.with_cells)}")
    if 60 * minutes <= warning:
        raise UserError(f"a turn of {minutes} minutes is over before it begins: jobs are asked to stop {warning} s before their end")
    needs = {cell: others_of(find_cell(profile, study, cell)) for cell in cells or profile.studies[study].cells}
    needs = {cell: [other.split("/", 1)[1] for other in others if other.startswith(f"{study}/")] for cell, others in needs.items()}
    waiting = [cell for cell in needs if not is_finished(profile, study, cell)]
    jobs: dict[str, submitit.Job] = {}
    for cell in sorted(waiting, key=lambda cell: _depth(cell, needs)):
        executor = _executor(local)
        if local:  # there a lock keeps the one that needs another waiting
            executor.update_parameters(timeout_min=minutes, signal_delay_s=warning)
        else:
            before = [jobs[other].job_id for other in needs[cell] if other in jobs]
            own = {"dependency": "afterok:" + ":".join(before), "kill-on-invalid-dep": "yes"} if before else {}
            own |= {"job-name": f"{study}-{cell}"} | sbatch
            executor.update_parameters(time=minutes, signal_delay_s=warning, additional_parameters=own)
        jobs[cell] = executor.submit(CellJob(profile, study, cell, warning))
    return jobs


def logs() -> Path:
    """Where jobs leave what they print: a folder that the whole cluster sees, as the project's."""
    return root() / ".work" / "jobs"


def _executor(local: bool) -> submitit.Executor:
    if local:
        return submitit.LocalExecutor(logs() / "%j", max_num_timeout=TURNS)
    try:
        return submitit.SlurmExecutor(logs() / "%j", max_num_timeout=TURNS)
    except RuntimeError:
        raise UserError("there is no SLURM here (no `srun` on the path); --local runs the jobs on this machine") from None


def _depth(cell: str, needs: dict[str, list[str]]) -> int:
    return 1 + max((_depth(other, needs) for other in needs.get(cell, [])), default=0)


def options_of(given: list[str]) -> dict[str, str]:
    """`name=value` of sbatch's long options. Raises UserError for anything else."""
    split = [item.partition("=") for item in given]
    for item, (name, equals, value) in zip(given, split, strict=True):
        if not (name and equals and value):
            raise UserError(f"--sbatch {item!r}: give one of sbatch's long options as name=value, such as partition=gpu")
    return {name: value for name, _, value in split}
