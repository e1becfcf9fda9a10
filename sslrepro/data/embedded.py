"""The embedded corpus: synthetic speech with exact phones, words, intents and keywords, made on the spot; nothing is downloaded.

Splits share neither a voice variant nor a sentence, and the held-out voices come first, so a corpus with more hours keeps its test.
Speaker identification needs known speakers: it is to be split within `train`, by a hash of the utterance's name.
The same settings give the same folder, byte by byte, whatever the number of processes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from sslrepro.config import CorpusSettings
from sslrepro.data.synth import ACCENTS, VARIANTS
from sslrepro.data.writer import ALIGNMENT, MANIFEST, summary, trials, whole, write_json, write_tsv
from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError

MINIMUM_VOICES = 6


def plan_voices(settings: CorpusSettings) -> list[dict]:
    """One job a voice: `speaker`, `voice` (as eSpeak NG names it), `split`, `seconds`, `seed`.

    A fifth of the variants (at least two) is the test split's, a tenth the validation split's. Voices beyond the number of variants
    repeat them with another accent, in the same split. Validation has a twelfth of the training hours (36 s to 2 h), test a sixth
    (72 s to 4 h). Raises UserError when there are too few or too many voices.
    """
    most = len(VARIANTS) * len(ACCENTS)
    if not MINIMUM_VOICES <= settings.voices <= most:
        raise UserError(f"data.corpus.voices is {settings.voices}: from {MINIMUM_VOICES} to {most} are possible")
    order = numpy_generator("embedded", settings.seed, "voices").permutation(len(VARIANTS))
    variants = [VARIANTS[i] for i in order[: settings.voices]]
    test = max(2, round(len(variants) / 5))
    valid = max(1, round(len(variants) / 10))
    hours = {
        "train": settings.hours,
        "valid": min(max(settings.hours / 12, 0.01), 2.0),
        "test": min(max(settings.hours / 6, 0.02), 4.0),
    }
    jobs = []
    for i in range(settings.voices):
        accent, place = ACCENTS[i // len(variants)], i % len(variants)
        split = "test" if place < test else "valid" if place < test + valid else "train"
        jobs.append({"speaker": f"{accent}-{variants[place]}", "voice": f"{accent}+{variants[place]}", "split": split})
    counts = Counter(job["split"] for job in jobs)
    for job in jobs:
        job.update(seconds=hours[job["split"]] * 3600 / counts[job["split"]], seed=settings.seed)
    return jobs


def build_embedded(settings: CorpusSettings, folder: Path, jobs: int | None = None) -> None:
    """Writes the corpus folder with `jobs` processes (null: one a core). Raises UserError; leaves nothing half-written."""
    voices = plan_voices(settings)
    with whole(folder) as place:
        (place / "audio").mkdir()
        (place / "parts").mkdir()
        _speak(voices, settings, place, min(jobs or os.cpu_count() or 1, len(voices)))
        order = {split: i for i, split in enumerate(("train", "valid", "test"))}
        voices.sort(key=lambda job: order[job["split"]])
        for part, columns in (("manifest", MANIFEST), ("alignment", ALIGNMENT)):
            with open(place / f"{part}.tsv", "wb") as file:
                file.write(("\t".join(columns) + "\n").encode())
                for job in voices:
                    file.write((place / "parts" / f"{job['speaker']}.{part}.tsv").read_bytes())
        shutil.rmtree(place / "parts")
        utterances = pd.read_csv(place / "manifest.tsv", sep="\t", keep_default_na=False, quoting=3)
        alignment = pd.read_csv(place / "alignment.tsv", sep="\t", usecols=["tier", "label"], dtype="category", quoting=3)
        write_tsv(trials(utterances, settings.seed), place / "trials.tsv")
        labels = alignment.drop_duplicates().itertuples(index=False, name=None)
        info = summary(utterances, labels, ".", "shards", Counter(), {}, source="embedded", settings=settings.model_dump(mode="json"))
        write_json(info, place / "corpus.json")


def _speak(voices: list[dict], settings: CorpusSettings, folder: Path, processes: int) -> None:
    total = sum(job["seconds"] for job in voices)
    heaviest = sorted(voices, key=lambda job: -job["seconds"])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    with tqdm(total=round(total / 60, 1), unit="min", desc="speaking the corpus", disable=None) as progress:

        def work(share: list[dict]) -> None:
            request = {"words": settings.words, "seed": settings.seed, "folder": str(folder.resolve()), "jobs": share}
            command = [sys.executable, "-m", "sslrepro.data.speaking"]
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
            ) as worker:
                worker.stdin.write(json.dumps(request))
                worker.stdin.close()
                for line in worker.stdout:
                    progress.update(json.loads(line)["seconds"] / 60)
                message = worker.stderr.read().strip()
            if worker.returncode:
                last = message.splitlines()[-1] if message else f"it ended with status {worker.returncode}"
                raise UserError(f"speaking the embedded corpus failed: {last}")

        with ThreadPoolExecutor(processes) as threads:
            list(threads.map(work, [heaviest[i::processes] for i in range(processes)]))
