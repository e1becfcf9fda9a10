"""docs/scaling.md holds what is measured and counted now."""

from __future__ import annotations

from sslrepro.pipeline.profile import expand
from sslrepro.report.scaling import gpu_hours, page, planned, refreshed


def test_the_tables_are_fresh() -> None:
    text = page().read_text(encoding="utf-8")
    assert text == refreshed(text), "docs/scaling.md is stale: run `python -m sslrepro.report.scaling`"


def test_every_study_has_its_line() -> None:
    counted, hours = planned(), gpu_hours()
    for profile in ("quick", "laptop", "gpu", "paper"):
        for study in expand(profile).with_cells:
            assert f"| {profile} | {study} |" in counted
    assert all(f"| {study} |" in hours for study in expand("paper").with_cells) and "| all |" in hours
