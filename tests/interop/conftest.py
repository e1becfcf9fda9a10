"""Finished runs of tiny models."""

from __future__ import annotations

from pathlib import Path

import pytest

from sslrepro.config import Profile
from sslrepro.training.cell import run_cell

WAVEFORM = {"kind": "waveform", "channels": [16] * 7}
LOGMEL = {"kind": "logmel", "mels": 20}
ENCODER = {"layers": 2, "width": 24, "ffn": 32, "heads": 4, "position": {"kernel": 8, "groups": 4}}
TRAINING = {
    "budget": {"unit": "updates", "amount": 3.0}, "batch_seconds": 8.0, "micro_batch_seconds": 8.0, "min_seconds": 0.5,
    "max_seconds": 3.0, "valid_every": 1.0, "valid_seconds": 4.0,
}  # fmt: skip
CONTRASTIVE = {"name": "contrastive", "quantizer": {"codes": 8, "dim": 8}, "negatives": 5, "final_dim": 8}


@pytest.fixture(scope="session")
def runs(tmp_path_factory, tiny_corpus_dir) -> dict[str, Path]:
    """Run folders: `waveform`, trained for three updates, and `logmel`, as initialised."""
    root = tmp_path_factory.mktemp("finished")
    (root / "artifacts" / "tiny").mkdir(parents=True)
    (root / "artifacts" / "tiny" / "corpus").symlink_to(tiny_corpus_dir)
    cells = {
        "waveform": {"model": {"front_end": WAVEFORM, "encoder": ENCODER}, "objective": CONTRASTIVE, "training": TRAINING},
        "logmel": {"model": {"front_end": LOGMEL, "encoder": ENCODER}, "objective": {"name": "none"}},
    }
    profile = Profile.model_validate({"profile": "tiny", "studies": {"trial": {"cells": cells}}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSLREPRO_ROOT", str(root))
        return {cell: run_cell(profile, "trial", cell) / "0" for cell in cells}
