"""How long every model on the map takes: each shape once, as initialised, all in one process on one machine, so that the times compare.

`results/<profile>/times.csv`: model (its shape, hashed), rtf (seconds of inference a second of speech), timed_on. Time depends on shapes,
not on what was learned, but for boundaries that a model chooses itself (variable-length subsampling): those are of random weights here.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from sslrepro.config import ModelSettings, TuningMethod
from sslrepro.paths import results_dir

if TYPE_CHECKING:
    from torch import nn

    from sslrepro.downstream.fine_tune import CTCModel

SECONDS = 15.0  # of the utterance, one at a time on one thread, as cells that measure inference mostly have it
REPEATS = 3
TABLE = ["model", "rtf", "timed_on"]


class Shape(NamedTuple):
    """A model, and how it was tuned where it was."""

    model: ModelSettings
    method: TuningMethod | None = None


def adds(model: ModelSettings, method: TuningMethod | None) -> bool:
    """Whether a tuning method leaves layers beside the encoder's: adapters and ladders do, low-rank updates merge."""
    return method is not None and method.kind in ("adapter", "ladder") and model.encoder is not None


def name(model: ModelSettings, method: TuningMethod | None = None) -> str:
    """The same for models that take the same time."""
    beside = method.model_dump_json() if adds(model, method) else ""
    return hashlib.sha256((model.model_dump_json() + beside).encode()).hexdigest()[:16]


def kept(profile: str) -> dict[str, dict]:
    """By name: rtf and timed_on."""
    path = _path(profile)
    return pd.read_csv(path).set_index("model").to_dict("index") if path.exists() else {}


def tuned(model: ModelSettings, method: TuningMethod) -> CTCModel:
    """The model with what a tuning method adds, its output layer without symbols."""
    from sslrepro.downstream.fine_tune import CTCModel
    from sslrepro.downstream.parameter_efficient import prepare
    from sslrepro.models.upstream import Upstream

    found = CTCModel(Upstream(model), [])
    prepare(found, method, updates=1)
    return found


def write(profile: str, shapes: list[Shape]) -> Path:
    """Times every shape that there is, unless all of them were timed on this machine already."""
    from sslrepro.training.identity import machine
    from sslrepro.training.measure import inference_seconds

    about, known, wanted = machine(), kept(profile), {name(*shape): shape for shape in shapes}
    on = about["cpu"] if about["gpu"] == "none" else about["gpu"]
    path = _path(profile)
    if set(known) != set(wanted) or any(row["timed_on"] != on for row in known.values()) or not path.exists():
        seconds = inference_seconds({key: partial(_made, shape) for key, shape in wanted.items()}, SECONDS, REPEATS)
        rows = [(key, seconds[key] / SECONDS, on) for key in sorted(wanted)]
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows, columns=TABLE).to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    return path


def _made(shape: Shape) -> nn.Module:
    from sslrepro.models.upstream import Upstream

    return tuned(*shape) if adds(*shape) else Upstream(shape.model)


def _path(profile: str) -> Path:
    return results_dir(profile) / "times.csv"
