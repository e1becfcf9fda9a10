"""`sslrepro transcribe`: what is printed."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from sslrepro.config import Factors
from sslrepro.downstream.on_demand import Dial, Transcript, transcribe


def transcribe_command(run: Path, files: Sequence[Path], budget_ms: float | None, rtf: float | None, as_json: bool) -> int:
    """Transcripts with what was picked for each; 1 when one of them took longer than its budget."""
    dial, done = transcribe(run, files, budget_ms, rtf)
    print(json.dumps(_plain(dial, done), indent=1) if as_json else "\n".join(_line(dial, one) for one in done))
    return int(any(one.taken > one.budget for one in done))


def _line(dial: Dial, one: Transcript) -> str:
    unit = dial.metric.rpartition(".")[2].upper()
    late = "" if one.taken <= one.budget else ", over it"
    error = "not validated" if math.isnan(one.error) else f"expected {unit} {one.error:.3f}"
    return (
        f"{one.file} ({one.seconds:.1f} s): {one.text}\n"
        f"  picked {one.factors}: {error}, {1e3 * one.expected:.1f} ms by calibration, "
        f"{1e3 * one.taken:.1f} ms taken, budget {1e3 * one.budget:.1f} ms{late}"
    )


def _plain(dial: Dial, done: list[Transcript]) -> dict:
    def calibrated(factors: Factors) -> dict[str, float]:
        return {f"{seconds:g}": 1e3 * taken for seconds, taken in zip(dial.lengths, dial.times[factors], strict=True)}

    return {
        "metric": dial.metric,
        "choices": [
            {"factors": str(f), "error": None if math.isnan(error) else error, "calibrated_ms": calibrated(f)}
            for f, error in dial.errors.items()
        ],
        "files": [
            {
                "file": one.file,
                "seconds": one.seconds,
                "text": one.text,
                "factors": one.factors._asdict(),
                "expected_error": None if math.isnan(one.error) else one.error,
                "budget_ms": 1e3 * one.budget,
                "expected_ms": 1e3 * one.expected,
                "taken_ms": 1e3 * one.taken,
                "met": one.taken <= one.budget,
            }
            for one in done
        ],
    }
