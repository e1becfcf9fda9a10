"""docs/accounting.md holds what is counted now."""

from __future__ import annotations

import pytest

from sslrepro.budget.counted import counted
from sslrepro.budget.names import NAMED
from sslrepro.budget.setup import kmeans_flops, label_flops, spectral_feature_flops
from sslrepro.budget.table import page, refreshed
from sslrepro.config import CellSettings, Profile, StudySettings, TargetSettings
from sslrepro.errors import UserError


def test_the_tables_are_fresh() -> None:
    text = page().read_text(encoding="utf-8")
    assert text == refreshed(text), "docs/accounting.md is stale: run `python -m sslrepro.budget.table`"


def test_every_named_model_is_in_the_page() -> None:
    text = page().read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in NAMED)


def test_numbers_by_name() -> None:
    assert counted("params:slim-100") == NAMED["slim-100"].cost(1.0).params
    assert counted("macs:hubert-base@2.0") == NAMED["hubert-base"].cost(2.0).macs
    assert counted("macs:sweep/hubert-473@15.625") == NAMED["hubert-base"].cost(15.625).macs
    profile = Profile(profile="p", studies={"s": StudySettings(cells={"c": CellSettings()})})
    assert counted("train_flops:s/c@2.0", profile) == NAMED["wav2vec2-base"].cost(2.0).train_flops
    for unknown in ("params:nothing", "colour:slim-100", "params:s/c", "sweep/hubert-30", "macs:sweep/hubert-31@15.625"):
        assert counted(unknown) is None


def test_labels_from_spectral_features() -> None:
    targets = TargetSettings(source="mfcc", clusters=100, fit_hours=1.0)
    flops = label_flops(targets, hours=3.0)
    assert flops == spectral_feature_flops("mfcc", 4 * 3600) + kmeans_flops(100 * 4 * 3600, 100, 39)
    assert label_flops(targets, hours=6.0) == pytest.approx(flops * 7 / 4)


def test_labels_from_a_hidden_layer_cost_its_model_s_forward_and_past() -> None:
    targets = TargetSettings(source="hidden", clusters=500, fit_hours=1.0)
    source = CellSettings()
    flops = label_flops(targets, hours=10.0, source=source, seconds=10.0, trained_flops=7.0)
    forward = NAMED["wav2vec2-base"].cost(10.0)
    heads = sum(forward.components[name].macs for name in ("quantizer", "heads", "negatives"))
    utterances = 11 * 360
    expected = utterances * (2 * (forward.macs - heads) + kmeans_flops(forward.frames, 500, 768)) + 7
    assert flops == pytest.approx(expected)
    with pytest.raises(UserError, match="hidden"):
        label_flops(targets, hours=1.0)
