"""A stage that measures time is run anew on another machine, whatever the run cache holds."""

import os
import subprocess
import sys
from pathlib import Path

from sslrepro.pipeline import machine, sources

STAGE = """
stages:
  timing:
    cmd: python -c "import time; open('seconds.txt', 'w').write(str(time.time()))"
    deps: [artifacts/machine.json]
    outs: [seconds.txt]
"""


def test_the_file_is_touched_only_when_the_machine_differs(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLREPRO_ROOT", str(tmp_path))
    path = machine.write()
    os.utime(path, (1, 1))
    machine.write()
    assert path.stat().st_mtime == 1
    monkeypatch.setattr(machine, "_cpu", lambda: "another")
    machine.write()
    assert path.stat().st_mtime > 1 and "another" in path.read_text()


def test_a_fresh_clone_has_the_file_once_its_first_stage_ran(tmp_path, monkeypatch):
    """Which a plain `dvc repro`, without make, would lack."""
    monkeypatch.setenv("SSLREPRO_ROOT", str(tmp_path))
    assert sources.main([str(Path(__file__).parents[2] / "notebooks"), str(tmp_path / "artifacts" / "sources")]) == 0
    assert machine.path().is_file()


def test_a_measurement_is_not_replayed_from_another_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLREPRO_ROOT", str(tmp_path))
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}

    def repro(cpu: str) -> str:
        monkeypatch.setattr(machine, "_cpu", lambda: cpu)
        machine.write()
        subprocess.run(["dvc", "repro", "-q"], cwd=tmp_path, env=environment, check=True)
        return (tmp_path / "seconds.txt").read_text()

    subprocess.run(["dvc", "init", "-q", "--no-scm"], cwd=tmp_path, env=environment, check=True)
    (tmp_path / "dvc.yaml").write_text(STAGE)
    mine = repro("mine")
    assert repro("mine") == mine
    assert repro("theirs") != mine
