"""What made a result: settings, code, commit, machine, versions."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import torch

from sslrepro.paths import root

# What a cell's numbers can depend on. Figures, claims and the command line are not among it, so editing them reruns nothing.
CELL_CODE = ("config", "draws.py", "data", "models", "objectives", "training", "downstream", "budget")


def code_hash(parts: tuple[str, ...] = CELL_CODE) -> str:
    """A hash of the sources of these parts of the package."""
    package = Path(__file__).resolve().parent.parent
    files = sorted(f for part in parts for f in ([package / part] if part.endswith(".py") else (package / part).rglob("*.py")))
    digest = hashlib.blake2b(digest_size=6)
    for file in files:
        digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def commit() -> str:
    """The commit, with `+` when the tree was changed; `unknown` outside a repository.

    params.yaml and dvc.lock are written by every run of the pipeline: what they hold is in the run's own settings.
    """
    try:
        name = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=root(), capture_output=True, text=True, check=True)
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!params.yaml", ":!dvc.lock"],
            cwd=root(),
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.stdout.strip() + ("+" if dirty.stdout.strip() else "")


@lru_cache
def machine() -> dict[str, str | int]:
    """The hardware and the versions that timings and last bits depend on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": version("torch"),
        "python": platform.python_version(),
        "system": platform.system(),
    }
