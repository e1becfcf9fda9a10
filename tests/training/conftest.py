"""Cells that train in about a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import soundfile

from sslrepro.config import CellSettings, Profile, parse
from sslrepro.data.corpus import Corpus
from sslrepro.data.folders import prepare

MODEL = {
    "front_end": {"kind": "logmel", "mels": 20},
    "encoder": {
        "layers": 2, "width": 32, "ffn": 64, "heads": 4, "layer_drop": 0.2,
        "position": {"kind": "conv", "kernel": 8, "groups": 4},
    },
}  # fmt: skip
CONTRASTIVE = {"name": "contrastive", "quantizer": {"codes": 16, "dim": 16, "anneal_share": 0.7}, "negatives": 10, "final_dim": 16}
MASKED = {"name": "masked_prediction", "targets": "mfcc", "classes": 20, "final_dim": 16}
OBJECTIVES = {
    "contrastive": CONTRASTIVE,
    "masked_prediction": MASKED,
    "reconstruction": {"name": "reconstruction", "normalise": True},
    "regression": {"name": "regression", "layers": 2, "horizon_start": 0.1, "horizon_end": 0.5, "horizon_anneal": 0.5},
    "cloned_regression": {
        "name": "cloned_regression", "layers": 2, "clones": 2, "decoder_layers": 1, "decoder_width": 16, "decoder_kernel": 3,
        "horizon_start": 0.1, "horizon_end": 0.5, "horizon_anneal": 0.5,
    },
    "random_projection": {"name": "random_projection", "codes": 32, "dim": 8, "mels": 20},
    "distillation": {"name": "distillation", "teacher": "trial/teacher", "teacher_model": MODEL, "layers": [1, 2]},
    "none": {"name": "none"},
}  # fmt: skip
TRAINING = {
    "budget": {"unit": "updates", "amount": 24.0}, "batch_seconds": 12.0, "micro_batch_seconds": 6.0, "min_seconds": 1.0,
    "max_seconds": 3.0, "learning_rate": 1.0e-3, "valid_every": 0.5, "clip_norm": 5.0,
}  # fmt: skip


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in changes.items():
        out[key] = merge(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


@pytest.fixture
def make_cell():
    """A tiny cell; keyword arguments are merged into its settings."""

    def make(kind: str = "contrastive", **changes: Any) -> CellSettings:
        values = {"model": MODEL, "objective": OBJECTIVES[kind], "training": TRAINING, "downstream": {"tasks": []}}
        return parse(CellSettings, merge(values, changes), "test")

    return make


@pytest.fixture
def make_profile():
    """A profile `tiny` with these cells in the study `trial` and k-means targets of 20 clusters."""

    def make(**cells: CellSettings) -> Profile:
        return Profile.model_validate(
            {"profile": "tiny", "targets": {"mfcc": {"clusters": 20, "fit_hours": 0.02}}, "studies": {"trial": {"cells": cells}}}
        )

    return make


@pytest.fixture(scope="module")
def two_second_corpus(tmp_path_factory, tiny_corpus_dir) -> Callable[[dict[str, list[str]]], Corpus]:
    """The corpus of a manifest with these columns beside `path`, of two seconds of speech a line."""

    def make(columns: dict[str, list[str]]) -> Corpus:
        spoken, folder = Corpus(tiny_corpus_dir), tmp_path_factory.mktemp("two-seconds")
        paths: list[Path] = []
        long_enough = (row for row in range(len(spoken)) if spoken.samples(row) >= 32_000)
        for row, _ in zip(long_enough, columns["split"], strict=False):
            paths.append(folder / f"{row}.wav")
            soundfile.write(paths[-1], spoken.audio(row)[:32_000], 16_000)
        pd.DataFrame({"path": [path.name for path in paths], **columns}).to_csv(folder / "manifest.tsv", sep="\t", index=False)
        prepare(folder / "manifest.tsv", folder / "corpus")
        return Corpus(folder / "corpus")

    return make
