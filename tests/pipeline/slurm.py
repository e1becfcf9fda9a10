"""Cells on a real SLURM: its controller, one node and munge on this machine alone, started here. `make test-interop` runs it.

Debian's packages: slurmctld, slurmd, slurm-client, munge. Without them, or not as root, it is skipped.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from sslrepro.config import Profile, parse
from sslrepro.paths import cell_dir
from sslrepro.pipeline import cluster

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "sinfo", "squeue", "scontrol", "scancel")
CELL = {
    "seeds": [0],
    "input": "artifacts/tiny/corpus",
    "model": {
        "front_end": {"kind": "logmel", "mels": 20, "stack": 4},
        "encoder": {"layers": 1, "width": 16, "ffn": 16, "heads": 2, "position": {"kernel": 4, "groups": 2}},
    },
    "objective": {"name": "contrastive", "negatives": 4, "final_dim": 8, "quantizer": {"codes": 4, "dim": 8, "anneal_share": 0.5}},
    "training": {
        "budget": {"unit": "updates", "amount": 8_000}, "batch_seconds": 8.0, "micro_batch_seconds": 8.0, "min_seconds": 0.5,
        "checkpoint_seconds": 5.0,
    },
    "downstream": {"tasks": []},
}  # fmt: skip
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket,cred_expire=5
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(holds, seconds: float, what: str) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, f"no {what} after {seconds:g} s"
        time.sleep(0.5)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Daemons of our own in the foreground, on free ports of the loopback; gone afterwards."""
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/usr/sbin")
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and {', '.join(missing) or 'nothing else'}: apt install slurmctld slurmd slurm-client munge")
    place, host = tmp_path / "slurm", socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (place / name).mkdir(parents=True)
    key = place / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    values = {"host": host, "place": place, "controller": free_port(), "node": free_port()}
    (place / "slurm.conf").write_text(CONFIGURATION.format(**values))
    monkeypatch.setenv("SLURM_CONF", str(place / "slurm.conf"))
    files = {"key-file": key, "socket": place / "munge.socket", "pid-file": place / "munged.pid", "log-file": place / "munged.log"}
    files["seed-file"] = place / "munged.seed"
    daemons = [subprocess.Popen(["munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items())])]
    try:
        until((place / "munge.socket").exists, 20, "munge")
        for daemon in ("slurmctld", "slurmd"):
            with (place / f"{daemon}.log").open("w") as log:
                daemons.append(subprocess.Popen([daemon, "-D"], stdout=log, stderr=subprocess.STDOUT))
        idle = ["sinfo", "--noheader", "--format=%T"]
        until(lambda: "idle" in subprocess.run(idle, capture_output=True, text=True).stdout, 60, "idle node")
        yield place
        subprocess.run(["scancel", "--user=root"], check=True)
        until(lambda: not subprocess.run(["squeue", "--noheader"], capture_output=True).stdout, 60, "end of the jobs")
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(20)


def output(job) -> str:
    return "".join(path.read_text() for path in (job.paths.stdout, job.paths.stderr) if path.exists())


def test_a_cell_outlives_its_time(slurm, project: Path) -> None:
    """Turns of a minute, of which the last 12 s are for stopping; the same weights as of the cell that has all the time."""
    data = {"corpus": {"hours": 0.03, "voices": 6, "words": 100}}
    values = {"profile": "tiny", "data": data, "studies": {"budget": {"cells": {"short": CELL, "long": CELL}}}, "with_cells": ["budget"]}
    profile = parse(Profile, values, "test")
    jobs = cluster.submit(profile, "budget", ["short"], 1, {}, warning=12) | cluster.submit(profile, "budget", ["long"], 60, {})
    for cell, job in jobs.items():
        until(job.paths.result_pickle.exists, 900, f"result of {cell}; it said {output(job)}")
        assert job.result() == str(cell_dir("tiny", "budget", cell))
    said = output(jobs["short"])
    assert said.count("Starting with JobEnvironment") >= 2 and "timed-out" in said and "remaining timeouts" in said, said
    short, long = (cell_dir("tiny", "budget", cell) / "0" / "model.safetensors" for cell in ("short", "long"))
    assert short.read_bytes() == long.read_bytes()
