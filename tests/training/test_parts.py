"""Cells that only score, on parts of a corpus: an emotion, the snapshots of the run they start with, and a part that is not there."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from sslrepro.config import Profile
from sslrepro.data.corpus import NoSuchLanguage
from sslrepro.data.folders import prepare
from sslrepro.draws import numpy_generator
from sslrepro.paths import cell_dir, corpus_dir
from sslrepro.report.collect import collect
from sslrepro.report.unscored import unscored, why_unscored
from sslrepro.training import cell as cells
from sslrepro.training.cell import run_cell

torch.set_num_threads(1)
SPLITS = ["train"] * 6 + ["valid", "test"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose profile `tiny` has a corpus of two parts, `en` and `moods`, of eight utterances of noise each; one mood is loud."""
    monkeypatch.setenv("SSLREPRO_ROOT", str(tmp_path))
    lines = []
    for part in ("en", "moods"):
        for i, split in enumerate(SPLITS):
            loud = i % 2 == 0
            noise = numpy_generator(part, i).standard_normal(32_000) * (0.2 if loud else 0.02)
            soundfile.write(tmp_path / f"{part}{i}.wav", noise, 16_000)
            lines.append((f"{part}{i}.wav", split, f"{part}{i // 2}", "" if part == "en" else "loud" if loud else "low", part))
    table = pd.DataFrame(lines, columns=["path", "split", "speaker", "emotion", "language"])
    table.to_csv(tmp_path / "manifest.tsv", sep="\t", index=False)
    prepare(tmp_path / "manifest.tsv", corpus_dir("tiny"))
    return tmp_path


@pytest.fixture
def profile(project, make_cell) -> Profile:
    scored = {"kind": "none", "start": "trial/first", "training": {"snapshots": [0.5]}}
    moods = {"tasks": ["emotion", "speaker"], "updates": 5, "batch": 4, "train_hours": None}
    tuned = {"tasks": ["verification_tdnn"], "fine_tune": {"shares": [{"minutes": 0.1, "updates": 1}]}}
    made = {
        "first": make_cell(training={"snapshots": [0.5]}),
        "moods": make_cell(**scored, data={"languages": ["moods"]}, downstream=moods),
        "voices": make_cell(**scored, data={"languages": ["voices"]}, downstream=tuned),
        "trained": make_cell(data={"languages": ["voices"]}),
    }
    return Profile.model_validate({"profile": "tiny", "studies": {"trial": {"cells": made}}, "with_cells": ["trial"]})


def _said(cell: str) -> tuple[dict, dict]:
    folder = cell_dir("tiny", "trial", cell) / "0"
    return json.loads((folder / "metrics.json").read_text()), json.loads((folder / "settings.json").read_text())


def test_parts_are_scored_or_said_not_to_be(profile, monkeypatch, capsys):
    scored, score = [], cells.score
    first = run_cell(profile, "trial", "first") / "0"

    def watched(upstream, *given):
        scored.append({name: tensor.clone() for name, tensor in upstream.state_dict().items()})
        return score(upstream, *given)

    monkeypatch.setattr(cells, "score", watched)
    run_cell(profile, "trial", "moods")
    metrics, described = _said("moods")
    assert {0.0, 1.0} >= {metrics["emotion.accuracy"], metrics["emotion.accuracy@0.5"]}  # of one test utterance
    assert set(described["unavailable"]) == {"speaker"} and metrics["status"] == "completed"
    for weights, name in zip(scored, ["snapshot-0.5.safetensors", "model.safetensors"], strict=True):
        kept = load_file(first / name)
        assert all(torch.equal(tensor, kept[f"upstream.{key}"]) for key, tensor in weights.items()), name
    assert any(not torch.equal(tensor, scored[1][key]) for key, tensor in scored[0].items())

    capsys.readouterr()
    run_cell(profile, "trial", "voices")
    metrics, described = _said("voices")
    reason = "the corpus has no language 'voices'; it has: en, moods"
    assert metrics["status"] == "completed" and not [name for name in metrics if not name.startswith(("cost.", "status"))]
    assert described["unavailable"] == {"verification_tdnn": reason, "fine_tune_0.1min": reason}
    assert len(scored) == 2 and f"verification_tdnn was not scored: {reason}" in capsys.readouterr().err
    assert why_unscored(cell_dir("tiny", "trial", "voices")) == [f"{task} was not scored: {reason}" for task in described["unavailable"]]

    with pytest.raises(NoSuchLanguage, match=reason):
        run_cell(profile, "trial", "trained")

    del profile.studies["trial"].cells["trained"]
    table = unscored(collect(profile, "trial")).set_index("task")
    assert table.loc["verification_tdnn"].tolist() == [reason, "voices"] and table.loc["speaker", "cells"] == "moods"
