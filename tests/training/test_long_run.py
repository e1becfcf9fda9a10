"""Memory stays as it is, however long the run."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch

from sslrepro import objectives
from sslrepro.config import CellSettings
from sslrepro.data.batching import UpdatePlan
from sslrepro.data.corpus import Corpus
from sslrepro.draws import key64
from sslrepro.training.loop import train
from sslrepro.training.meter import Progress

SMALL = {
    "model": {"encoder": {"layers": 1, "width": 8, "ffn": 8, "heads": 2, "layer_drop": 0.0}},
    "training": {"batch_seconds": 4.0, "micro_batch_seconds": 4.0, "max_seconds": 2.0},
}


def held() -> int:
    """Bytes of memory of this process's own (mapped audio is not), after the C library has given back what is free."""
    ctypes.CDLL(None).malloc_trim(0)
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def growth(corpus_dir: Path, settings: CellSettings, folder: Path, updates: int) -> float:
    """Bytes by which the run's last tenth holds more than the tenth after its first third."""
    torch.set_num_threads(1)
    folder.mkdir()
    torch.manual_seed(key64(0, "init"))
    objective = objectives.build(settings)
    seen: list[int] = []
    done = [0]

    def watch() -> bool:
        done[0] += 1
        if done[0] % max(1, updates // 100) == 0:
            seen.append(held())
        return False

    state = train(objective, Corpus(corpus_dir), None, settings, 0, folder, Progress("test", None, every=1e9), watch)
    assert state.update == done[0] == updates
    third, tenth = len(seen) // 3, len(seen) // 10
    return float(np.median(seen[-tenth:]) - np.median(seen[third : third + tenth]))


@pytest.mark.parametrize("updates", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_long_run_does_not_grow(updates, tiny_corpus_dir, make_cell, tmp_path):
    training = SMALL["training"] | {"budget": {"unit": "updates", "amount": float(updates)}, "valid_every": 0.1}
    assert growth(tiny_corpus_dir, make_cell(**SMALL | {"training": training}), tmp_path / "run", updates) < 1e6


def test_what_is_kept_would_be_seen(tiny_corpus_dir, make_cell, tmp_path, monkeypatch):
    """The test above can fail: 40 kB an update."""
    kept, plan = [], UpdatePlan.update

    def leaking(self, number):
        kept.append(np.ones(5_000))
        return plan(self, number)

    monkeypatch.setattr(UpdatePlan, "update", leaking)
    training = SMALL["training"] | {"budget": {"unit": "updates", "amount": 100.0}}
    assert growth(tiny_corpus_dir, make_cell(**SMALL | {"training": training}), tmp_path / "run", 100) > 1e6
