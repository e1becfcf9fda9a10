"""What this machine and environment are, and what is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sslrepro.paths import root

LEAST_DISK = 5.0  # GB


def doctor() -> dict[str, Any]:
    """Facts about the machine, and `missing`: what stops the pipeline here, each with what to do."""
    missing: list[str] = []
    versions = {name: _version(name) for name in _dependencies()}
    missing += [f"{name} is not installed: make setup" for name, found in versions.items() if found is None]
    if not (3, 11) <= sys.version_info < (3, 14):
        missing.append(f"Python {sys.version.split()[0]}: 3.11, 3.12 or 3.13 is needed")
    disk = shutil.disk_usage(root()).free / 1e9
    if disk < LEAST_DISK:
        missing.append(f"{disk:.1f} GB free in {root()}: {LEAST_DISK:.0f} GB are needed")
    espeak = importlib.util.find_spec("espeakng_loader") is not None and _espeak()
    if not espeak:
        missing.append("eSpeak NG's library does not load: the embedded corpus cannot be spoken; make setup, or set data.root")
    for tool in ("git", "dvc"):
        if not _which(tool):
            missing.append(f"{tool} is not on the path" + (": source .venv/bin/activate" if tool == "dvc" else ""))
    return {
        "python": sys.version.split()[0],
        "environment": sys.prefix,
        "project": str(root()),
        "versions": versions,
        "cores": os.cpu_count(),
        "devices": _devices(),
        "disk_free_gb": round(disk, 1),
        "espeak": espeak,
        "git": _git(),
        "missing": missing,
    }


def show(report: dict[str, Any]) -> str:
    lines = [f"{key:14} {value}" for key, value in report.items() if key not in ("versions", "missing")]
    lines += [f"{name:22} {found or 'missing'}" for name, found in report["versions"].items()]
    return "\n".join([*lines, *(f"MISSING: {what}" for what in report["missing"])] + ([] if report["missing"] else ["all well"]))


def _dependencies() -> list[str]:
    declared = tomllib.loads((root() / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    return [line.split(";")[0].split("=")[0].split(">")[0].split("<")[0].strip() for line in declared]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [f"cpu, {torch.get_num_threads()} threads", *gpus]


def _espeak() -> bool:
    import espeakng_loader

    return os.path.exists(espeakng_loader.get_library_path()) and os.path.isdir(espeakng_loader.get_data_path())


def _which(tool: str) -> bool:
    return shutil.which(tool) is not None or os.path.exists(os.path.join(os.path.dirname(sys.executable), tool))


def _git() -> str:
    try:
        run = subprocess.run(["git", "status", "--porcelain", "--branch"], cwd=root(), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "not a repository"
    branch, *changes = run.stdout.splitlines()
    named = subprocess.run(["git", "config", "user.email"], cwd=root(), capture_output=True).returncode == 0
    identity = "" if named else "; no user.name and user.email, which `dvc exp run` needs: git config --global user.email …"
    return f"{branch.removeprefix('## ')}, {len(changes)} file(s) changed{identity}"
