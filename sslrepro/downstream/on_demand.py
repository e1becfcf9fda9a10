"""Compute on demand: a fine-tuned model with sampled compression meets a time budget on this machine by its choice of factors.

Expected errors are the run's own on its validation split, since factors are chosen by them; times are measured here, before the first
utterance. Reading files is not timed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from sslrepro.config import Factors
from sslrepro.data.audio import LONGEST, SAMPLE_RATE, read_audio
from sslrepro.downstream.fine_tune import CTCModel
from sslrepro.downstream.kept import load_kept
from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError
from sslrepro.training.runs import run_settings

REPEATS = 3  # timings of each choice at each length, of which the median counts
LENGTHS = 3  # between the shortest and the longest utterance, at which times are measured; others lie on lines between them


@dataclass(frozen=True)
class Transcript:
    """One file. seconds: of its audio; expected, taken: seconds of computing; error: of the run's validation split at these factors."""

    file: str
    text: str
    factors: Factors
    error: float
    seconds: float
    budget: float
    expected: float
    taken: float


class Dial:
    """A model, the expected error of each choice of factors, and what each costs on this machine."""

    def __init__(self, run: Path) -> None:
        """Raises UserError for a folder that is no finished run, and for a run without a kept model or without its scores."""
        self.model, self.minutes = load_kept(run)
        self.joint = "" if run_settings(run).downstream.fine_tune.symbols == "characters" else " "
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        self.metric, self.errors = _expected_errors(run, self.minutes, self.model)
        self.lengths: list[float] = []
        self.times: dict[Factors, list[float]] = {}

    def calibrate(self, seconds: Sequence[float]) -> None:
        """Measure every choice at lengths from the shortest to the longest of `seconds`; all take turns, after a warm-up."""
        self.lengths = sorted(set(np.geomspace(min(seconds), max(seconds), LENGTHS).tolist()))
        samples = [max(1, round(length * SAMPLE_RATE)) for length in self.lengths]
        noise = [0.1 * numpy_generator("on demand", n).standard_normal(n, dtype=np.float32) for n in samples]
        turns: dict[Factors, list[list[float]]] = {factors: [[] for _ in noise] for factors in self.errors}
        for turn in range(1 + REPEATS):
            for factors, times in turns.items():
                for place, waveform in enumerate(noise):
                    taken, _ = self.run(waveform, factors)
                    if turn:
                        times[place].append(taken)
        self.times = {factors: [median(each) for each in times] for factors, times in turns.items()}

    def expected(self, seconds: float, factors: Factors) -> float:
        """Seconds of computing for an utterance of so many seconds, from the calibration."""
        return float(np.interp(seconds, self.lengths, self.times[factors]))

    def pick(self, seconds: float, budget: float, name: str = "this utterance") -> Factors:
        """The choice of the least expected error that takes no longer than `budget` seconds; of equal ones the quickest.

        Raises UserError with the least possible budget where none does.
        """
        times = {factors: self.expected(seconds, factors) for factors in self.errors}
        possible = [factors for factors, taken in times.items() if taken <= budget]
        if not possible:
            quickest = min(times, key=times.__getitem__)
            raise UserError(
                f"{name}: {1e3 * budget:.3g} ms is too little for {seconds:.1f} s of audio on this machine; the quickest choice, "
                f"{quickest}, takes {1e3 * times[quickest]:.3g} ms (real-time factor {times[quickest] / seconds:.3g})"
            )
        return min(possible, key=lambda factors: (self.errors[factors], times[factors]))

    def run(self, waveform: np.ndarray, factors: Factors) -> tuple[float, str]:
        """Seconds taken, and the text read from a waveform (samples,) at these factors."""
        if self.model.upstream.choices:
            self.model.upstream.set_compression(*factors)
        began = time.perf_counter()
        read = self.model.transcribe([waveform])[0]
        return time.perf_counter() - began, self.joint.join(read)


def transcribe(run: Path, files: Sequence[Path], budget_ms: float | None = None, rtf: float | None = None) -> tuple[Dial, list[Transcript]]:
    """Transcripts of audio files, each within its budget: `budget_ms` milliseconds, or `rtf` seconds of computing a second of audio.

    Raises UserError for a bad run, file or budget, before anything is transcribed.
    """
    given = budget_ms if rtf is None else rtf
    if given is None or (budget_ms is not None and rtf is not None) or not given > 0:
        raise UserError(f"give one budget above 0: milliseconds a file or a real-time factor, not {budget_ms} and {rtf}")
    audio = {path: read_audio(path) for path in files}
    for path, waveform in audio.items():
        if len(waveform) > LONGEST * SAMPLE_RATE:
            raise UserError(f"{path}: {len(waveform) / SAMPLE_RATE:.0f} s of audio; cut it into pieces of at most {LONGEST:g} s")
    dial = Dial(run)
    for path, waveform in audio.items():
        if dial.model.upstream.frames(len(waveform)) < 1:
            raise UserError(f"{path}: too short for one frame")
    dial.calibrate([len(waveform) / SAMPLE_RATE for waveform in audio.values()])
    plans = []
    for path, waveform in audio.items():
        seconds = len(waveform) / SAMPLE_RATE
        budget = budget_ms / 1e3 if rtf is None else rtf * seconds
        plans.append((path, waveform, seconds, budget, dial.pick(seconds, budget, str(path))))
    done = []
    for path, waveform, seconds, budget, factors in plans:
        taken, text = dial.run(waveform, factors)
        done.append(Transcript(str(path), text, factors, dial.errors[factors], seconds, budget, dial.expected(seconds, factors), taken))
    return dial, done


def _expected_errors(run: Path, minutes: float, model: CTCModel) -> tuple[str, dict[Factors, float]]:
    """The metric (word errors before phone errors), and its value at each choice; of a model without a choice its only one, or nan."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    for unit in ("wer", "per"):
        name = f"fine_tune_{minutes:g}min_valid.{unit}"
        choices = {factors: f"{name}:{factors}" for factors in model.upstream.choices} or {Factors(): name}
        if all(metric in metrics for metric in choices.values()):
            return name, {factors: metrics[metric] for factors, metric in choices.items()}
    if not model.upstream.choices:  # nothing is to be chosen: what it reads does not depend on an error that was not measured
        return "unknown", {Factors(): float("nan")}
    raise UserError(
        f"{run / 'metrics.json'}: no validation errors of the fine-tuning on {minutes:g} minutes at every choice of factors; run the cell "
        "again, on a corpus whose validation split has the labels"
    )
