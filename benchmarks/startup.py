"""What it takes to begin training on a manifest of so many lines: `python -m benchmarks.startup LINES FOLDER` prints it as JSON.

From reading the manifest to the first update's plan; all that training imports is there before, and an optimizer, as torch brings its
compiler in with the first one. What the libraries hold is given apart. `anonymous` is the process's own memory; the rest of what is
resident are pages of the libraries' files, which all processes share and the kernel drops when it needs them.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

import sslrepro.training.loop  # noqa: F401  (all that training imports)
from sslrepro.config import CellSettings
from sslrepro.data.corpus import Corpus
from sslrepro.data.loading import Shapes, TrainingData

FIELDS = {"resident": "VmRSS", "anonymous": "RssAnon", "of_files": "RssFile"}


def main(lines: int, folder: Path) -> dict[str, float | dict[str, float]]:
    write_manifest(lines, folder)
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    libraries = {name: memory(field) for name, field in FIELDS.items()}
    wall, processor = time.perf_counter(), time.process_time()
    data = TrainingData(Corpus(folder), CellSettings(), 0, lambda key, frames: {}, Shapes(lambda n: n // 320, 320), None)
    data.plan.update(0)
    data.names(np.arange(1))
    return {
        "utterances": len(data.corpus), "seconds": time.perf_counter() - wall, "processor_seconds": time.process_time() - processor,
        "megabytes_at_most": memory("VmHWM") - libraries["resident"],
        "megabytes_of_all": {name: memory(field) for name, field in FIELDS.items()}, "megabytes_of_libraries": libraries,
    }  # fmt: skip


def memory(field: str) -> float:
    """MB, held now (VmRSS, RssAnon, RssFile) or at most so far (VmHWM)."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(field))
    return int(line.split()[1]) / 1024


def write_manifest(lines: int, folder: Path) -> None:
    """Names, lengths and texts like LibriSpeech's, 2,338 speakers; no audio."""
    frames = np.random.default_rng(0).integers(32_000, 256_000, lines)
    text = "and so the days went by as they had before and nobody asked what became of it all in the end"
    with (folder / "manifest.tsv").open("w", encoding="utf-8") as file:
        file.write("utterance\tsplit\tspeaker\tpath\tstart\tframes\ttext\tintent\tkeyword\n")
        for i, n in enumerate(frames):
            speaker = i % 2338
            name = f"{speaker}-{i // 40}-{i % 40:04d}"
            file.write(f"{name}\ttrain\t{speaker}\ttrain/{speaker}/{i // 40}/{name}.flac\t0\t{n}\t{text}\t\t\n")
    (folder / "corpus.json").write_text(json.dumps({"sample_rate": 16_000, "audio_root": ".", "layout": "files"}))


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), Path(sys.argv[2]))))
