"""The embedded corpus: synthetic speech with exact phones, words, intents and keywords, made on the spot; nothing is downloaded.

Splits share neither a voice variant nor a sentence, and the held-out voices come first, so a corpus with more hours keeps its test.
Speaker identification needs known speakers: it is to be split within `train`, by a hash of the utterance's name. A further language is
spoken by the same variants in the same splits, after all of English, whose part of the folder it leaves as it is.
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
from sslrepro.data.language import FIRST
from sslrepro.data.synth import ACCENTS, VARIANTS
from sslrepro.data.writer import ALIGNMENT, LANGUAGE, MANIFEST, SPLITS, summary, trials, whole, write_json, write_tsv
from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError

MINIMUM_VOICES = 6


def plan_voices(settings: CorpusSettings) -> list[dict]:
    """One job a voice and language: `language`, `words`, `speaker`, `voice` (as eSpeak NG names it), `split`, `seconds`, `seed`, and
    `column`, whether the manifest names the language.

    A fifth of the variants (at least two) is the test split's, a tenth the validation split's. Voices beyond the number of variants
    repeat them with another accent, in the same split. Validation has a twelfth of the training hours (36 s to 2 h), test a sixth
    (72 s to 4 h). A further language has every variant once, so that none is heard in two splits by who learns from both. Raises UserError
    when there are too few or too many voices.
    """
    most = len(VARIANTS) * len(ACCENTS)
    if not MINIMUM_VOICES <= settings.voices <= most:
        raise UserError(f"data.corpus.voices is {settings.voices}: from {MINIMUM_VOICES} to {most} are possible")
    order = numpy_generator("embedded", settings.seed, "voices").permutation(len(VARIANTS))
    variants = [VARIANTS[i] for i in order[: settings.voices]]
    test = max(2, round(len(variants) / 5))
    valid = max(1, round(len(variants) / 10))
    splits = {variant: "test" if i < test else "valid" if i < test + valid else "train" for i, variant in enumerate(variants)}
    english = [(ACCENTS[i // len(variants)], variants[i % len(variants)]) for i in range(settings.voices)]
    jobs = _voices(FIRST, english, splits, settings.hours, settings.words)
    for other in settings.languages:
        jobs += _voices(other.voice, [(other.voice, variant) for variant in variants], splits, other.hours, other.words)
    return [job | {"seed": settings.seed, "column": bool(settings.languages)} for job in jobs]


def _voices(language: str, spoken: list[tuple[str, str]], splits: dict[str, str], train_hours: float, words: int) -> list[dict]:
    """The jobs of one language. spoken: (eSpeak NG's voice, variant); splits: variant -> split. All voices of a split say as much."""
    hours = {"train": train_hours, "valid": min(max(train_hours / 12, 0.01), 2.0), "test": min(max(train_hours / 6, 0.02), 4.0)}
    jobs = [{"speaker": f"{voice}-{name}", "voice": f"{voice}+{name}", "split": splits[name]} for voice, name in spoken]
    counts = Counter(job["split"] for job in jobs)
    shares = {split: hours[split] * 3600 / count for split, count in counts.items()}
    return [job | {"language": language, "words": words, "seconds": shares[job["split"]]} for job in jobs]


def build_embedded(settings: CorpusSettings, folder: Path, jobs: int | None = None) -> None:
    """Writes the corpus folder with `jobs` processes (null: one a core). Raises UserError; leaves nothing half-written."""
    voices = plan_voices(settings)
    with whole(folder) as place:
        (place / "audio").mkdir()
        (place / "parts").mkdir()
        _speak(voices, place, min(jobs or os.cpu_count() or 1, len(voices)))
        languages = [FIRST, *(language.voice for language in settings.languages)]
        voices.sort(key=lambda job: (languages.index(job["language"]), SPLITS.index(job["split"])))
        for part, columns in (("manifest", MANIFEST + ([LANGUAGE] if settings.languages else [])), ("alignment", ALIGNMENT)):
            with open(place / f"{part}.tsv", "wb") as file:
                file.write(("\t".join(columns) + "\n").encode())
                for job in voices:
                    file.write((place / "parts" / f"{job['speaker']}.{part}.tsv").read_bytes())
        shutil.rmtree(place / "parts")
        utterances = pd.read_csv(place / "manifest.tsv", sep="\t", keep_default_na=False, quoting=3)
        alignment = pd.read_csv(place / "alignment.tsv", sep="\t", usecols=["tier", "label"], dtype="category", quoting=3)
        write_tsv(trials(utterances, settings.seed), place / "trials.tsv")
        labels = alignment.drop_duplicates().itertuples(index=False, name=None)
        info = summary(
            utterances, labels, ".", "shards", Counter(), {}, FIRST, source="embedded", settings=settings.model_dump(mode="json")
        )
        write_json(info, place / "corpus.json")


def _speak(voices: list[dict], folder: Path, processes: int) -> None:
    total = sum(job["seconds"] for job in voices)
    heaviest = sorted(voices, key=lambda job: -job["seconds"])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    with tqdm(total=round(total / 60, 1), unit="min", desc="speaking the corpus", disable=None) as progress:

        def work(share: list[dict]) -> None:
            request = {"folder": str(folder.resolve()), "jobs": share}
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
