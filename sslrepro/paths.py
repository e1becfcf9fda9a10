"""Where things live. Nothing in the project depends on the working directory: Jupyter, papermill and pytest each choose another."""

from __future__ import annotations

import os
from pathlib import Path


def root() -> Path:
    """The project folder: `SSLREPRO_ROOT` if set (tests, copies of the pipeline), else the checkout this package lies in."""
    return Path(os.environ.get("SSLREPRO_ROOT") or Path(__file__).resolve().parent.parent)


def corpus_dir(profile: str) -> Path:
    return root() / "artifacts" / profile / "corpus"


def targets_dir(profile: str, name: str) -> Path:
    return root() / "artifacts" / profile / "targets" / name


def cell_dir(profile: str, study: str, cell: str) -> Path:
    """A finished cell: one folder a seed. Moved here whole, so what is here is complete."""
    return root() / "runs" / profile / study / cell


def work_dir(profile: str, study: str, cell: str) -> Path:
    """A cell in progress, checkpoints included. Outside DVC's outputs, which DVC deletes before a stage runs."""
    return root() / ".work" / profile / study / cell


def results_dir(profile: str) -> Path:
    return root() / "results" / profile
