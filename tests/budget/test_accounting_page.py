"""docs/accounting.md holds what is counted now."""

from __future__ import annotations

import pytest

from sslrepro.budget.counted import counted
from sslrepro.budget.names import NAMED
from sslrepro.budget.setup import kmeans_flops, label_flops, spectral_feature_flops
from sslrepro.budget.table import page, refreshed
from sslrepro.claims.judging import judge_study
from sslrepro.config import CellSettings, TargetSettings
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
    for unknown in ("params:nothing", "colour:slim-100", "params:budget/nothing", "slim-100"):
        assert counted(unknown) is None


def test_claims_that_are_counts_hold_at_the_published_sizes(tmp_path) -> None:
    for study, claims in {"budget": ["budget-12"], "summarymixing": ["sm-04"], "survey": ["survey-02", "survey-03"]}.items():
        rows = {row.claim: row for row in judge_study(study, "paper", top=tmp_path, counts=counted)}
        assert [rows[claim].verdict for claim in claims] == ["replicated"] * len(claims)


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
