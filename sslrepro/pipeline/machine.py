"""The machine as a file, for stages that measure time or memory: where they depend on it, DVC never takes another machine's numbers.

`make repro` writes it, and the stage `sources`, and only when it differs. Standard library only.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sslrepro.paths import root


def fingerprint() -> dict[str, str | int | list[str]]:
    """Processor, cores, GPUs and the version of torch: what timings depend on."""
    return {"cpu": _cpu(), "cores": os.cpu_count() or 1, "gpus": _gpus(), "system": platform.system(), "torch": _torch()}


def path() -> Path:
    return root() / "artifacts" / "machine.json"


def write() -> Path:
    """`artifacts/machine.json`, touched only when the machine is another."""
    file, text = path(), json.dumps(fingerprint(), indent=1, sort_keys=True) + "\n"
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return file


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    return listed.stdout.split("\n")[:-1] if listed.returncode == 0 else []


def _torch() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return "none"


if __name__ == "__main__":
    print(write())
