"""What a large corpus costs: nothing for an update, little for the start."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from sslrepro.data.batching import UpdatePlan

LIBRISPEECH = 281_241  # utterances of its 960 hours


def test_an_update_of_a_large_corpus_costs_what_one_of_a_small_one_does():
    """Processor time of an update's plan over whole epochs of the small corpus, and as many of the large one's updates."""

    def each(utterances: int) -> float:
        seconds = np.random.default_rng(0).uniform(2.0, 16.0, utterances)
        plan = UpdatePlan(seconds, 1400.0, 87.5, seed=0)
        plan.update(0)  # the epoch's permutation
        began = time.process_time()
        for number in range(1, 400):
            plan.update(number)
        return (time.process_time() - began) / 400

    small, large = each(LIBRISPEECH // 100), each(LIBRISPEECH)
    assert large < 3 * small + 1e-4


def test_starting_with_librispeechs_manifest_is_quick(tmp_path):
    """281,241 lines: the aim is 3 seconds and 500 MB beside the libraries (benchmarks/NOTES.md); here with room for a busy machine."""
    command = [sys.executable, "-m", "benchmarks.startup", str(LIBRISPEECH), str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["utterances"] == LIBRISPEECH and found["processor_seconds"] < 6 and found["megabytes"] < 500
