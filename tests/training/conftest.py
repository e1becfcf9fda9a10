"""Cells that train in about a second."""

from __future__ import annotations

from typing import Any

import pytest

from sslrepro.config import CellSettings, Profile, parse

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
    "max_seconds": 3.0, "learning_rate": 1.0e-3, "valid_every": 0.5, "checkpoint_seconds": 1.0e-3, "clip_norm": 5.0,
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
