"""Labels of a corpus of any size: no more results wait than a few a core, and no more features are held than a step's."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sslrepro.config import Profile
from sslrepro.data import targets
from sslrepro.data.corpus import Corpus

FRAMES = 500  # of an utterance
SIZE = FRAMES * 39 * 4  # bytes of its features


def test_few_results_wait_to_be_taken():
    begun = []
    taken = 0
    with targets._one_thread_each() as in_order:
        for value in in_order(lambda row: begun.append(row) or row, range(200)):
            assert value == taken
            taken += 1
            time.sleep(0.001)
            assert len(begun) - taken < targets.AHEAD * os.cpu_count()
    assert taken == 200


def corpus_of(utterances: int, project: Path) -> None:
    """A manifest whose audio nobody reads."""
    folder = project / "artifacts" / "tiny" / "corpus"
    folder.mkdir(parents=True)
    with (folder / "manifest.tsv").open("w", encoding="utf-8") as file:
        file.write("utterance\tsplit\tspeaker\tpath\tstart\tframes\ttext\tintent\tkeyword\n")
        file.writelines(f"u{i}\ttrain\t{i % 7}\taudio.wav\t0\t{FRAMES * 160}\t\t\t\n" for i in range(utterances))
    (folder / "corpus.json").write_text(json.dumps({"sample_rate": 16_000, "audio_root": ".", "layout": "files"}))


def peak(utterances: int, project: Path, monkeypatch) -> int:
    """Bytes by which this process held more, at most, while it fitted and labelled so many utterances of features that are noise."""
    monkeypatch.setenv("SSLREPRO_ROOT", str(project))
    corpus_of(utterances, project)
    numbers = itertools.count()
    monkeypatch.setattr(Corpus, "audio", lambda self, row: np.empty(0, dtype=np.float32))
    noise = lambda _: np.random.default_rng(next(numbers)).standard_normal((FRAMES, 39), dtype=np.float32)  # noqa: E731
    monkeypatch.setattr(targets, "_source", lambda profile, settings: (noise, 160, None, 0.0))
    profile = Profile.model_validate({"profile": "tiny", "targets": {"mfcc": {"clusters": 8, "fit_hours": 100.0}}})
    before = held("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    targets.build_targets(profile, "mfcc")
    assert targets.Targets(project / "artifacts" / "tiny" / "targets" / "mfcc").info["fit_frames"] == utterances * FRAMES
    return held("VmHWM") - before


def held(field: str) -> int:
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(field))
    return int(line.split()[1]) * 1024


def growth(whole: bool, folder: Path) -> int:
    """`peak` of 100 MB of features, where a quarter of it was done before: what imports, threads and waiting results hold is there."""
    with pytest.MonkeyPatch.context() as patch:
        utterances = 100_000_000 // SIZE
        peak(utterances // 4, folder / "first", patch)
        if whole:
            gathered = targets._chunks
            patch.setattr(targets, "_chunks", lambda parts, at_least: gathered(parts, 10**9))
        return peak(utterances, folder / "large", patch)


@pytest.mark.parametrize("whole", [False, True], ids=["streamed", "held"])
def test_k_means_streams(whole, tmp_path):
    """100 MB of features are fitted and labelled in a tenth of that; gathered first, they would be seen. In a process of its own: what
    other tests left free or fragmented is none of its growth."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        assert (process.submit(growth, whole, tmp_path).result() < 10_000_000) != whole
