"""Cells on a real SLURM: its controller, one node and munge on this machine alone, started here. `make test-interop` runs it.

Debian's packages: slurmctld, slurmd, slurm-client, munge. Without them, or not as root, it fails and says what is missing.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from small_cells import cell, profile_of, until

from sslrepro.paths import cell_dir
from sslrepro.pipeline import cluster

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "sinfo", "squeue", "scontrol", "scancel")
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


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Daemons of our own in the foreground, on free ports of the loopback; gone afterwards."""
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/usr/sbin")
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.fail(f"needs root and {', '.join(missing) or 'nothing else'}: apt install slurmctld slurmd slurm-client munge")
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
    long = cell(8_000, checkpoint_seconds=5.0)
    profile = profile_of(short=long, long=long)
    jobs = cluster.submit(profile, "budget", ["short"], 1, {}, warning=12) | cluster.submit(profile, "budget", ["long"], 60, {})
    for name, job in jobs.items():
        until(job.paths.result_pickle.exists, 900, f"result of {name}; it said {output(job)}")
        assert job.result() == str(cell_dir("tiny", "budget", name))
    said = output(jobs["short"])
    assert said.count("Starting with JobEnvironment") >= 2 and "timed-out" in said and "remaining timeouts" in said, said
    short, whole = (cell_dir("tiny", "budget", name) / "0" / "model.safetensors" for name in ("short", "long"))
    assert short.read_bytes() == whole.read_bytes()
