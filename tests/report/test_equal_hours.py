"""The spread at equal hours: by hand on a law that breaks below 100 updates, and that the published table has both regions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sslrepro.report.batch_size import draw_against_hours, published
from sslrepro.report.equal_hours import CRITERION, fit_law, published_equal_hours, spreads


def law(penalty: float) -> pd.DataFrame:
    """Error goes as 1 / hours; below 100 updates so much more. Two seeds about the mean."""
    rows = [
        {"batch_seconds": float(b), "updates": u, "hours_seen": b * u / 3600, "error": sign + 1e5 / (b * u) * (1 + penalty * (u < 100))}
        for b in (9, 18, 36) for u in (50, 100, 200, 400) for sign in (-0.01, 0.01)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_law_holds_from_the_updates_on_where_it_was_made_to():
    found = spreads(law(0.3), "error").set_index("updates")
    assert found.loc[50, "largest"] == pytest.approx(0.3 / 1.1)  # three batches at equal hours, one of them penalised
    assert found.loc[100:, "largest"].to_numpy() == pytest.approx(0.0, abs=1e-9)
    assert found.groups.tolist() == [4, 3, 2]  # and at 400 updates no two batches have seen the same hours
    assert np.allclose(spreads(law(0.0), "error").largest, 0.0)


def test_hours_within_three_per_cent_are_equal_and_others_are_not():
    table = pd.DataFrame(
        {"batch_seconds": [1.0, 2.0, 3.0], "updates": [300, 150, 98], "hours_seen": [1.0, 1.025, 1.04], "error": [1.0, 2.0, 9.0]}
    )
    found = spreads(table, "error").set_index("updates")
    assert found.loc[98].to_dict() == pytest.approx({"median": 2 / 3, "largest": 2 / 3, "groups": 1.0})


def test_the_published_table_breaks_the_law_where_updates_are_few():
    paper = published("batch_size_wer_over_time").query("batch_seconds >= 150 and label == '100 hours of labels'")
    found = spreads(paper, "wer_clean")
    assert found.largest.iloc[0] > CRITERION > found.largest.iloc[-1]
    assert (found["median"] < CRITERION).all()


def test_the_law_of_the_published_table_and_of_one_by_hand():
    paper = published("batch_size_wer_over_time").query("batch_seconds >= 150 and label == '100 hours of labels'")
    found = fit_law(paper, "wer_clean")
    assert found["a / b"] == pytest.approx(1.04, abs=0.005) and found["low"] < 1 < found["high"]
    assert found["R2"] >= found["R2, hours alone"] > 0.97
    table = law(0.0).assign(error=lambda t: t.batch_seconds**-0.2 * t.updates**-0.4)
    exact = fit_law(table, "error")
    assert (exact["a"], exact["b"], exact["R2"]) == pytest.approx((0.2, 0.4, 1.0)) and exact["R2, hours alone"] < 0.99
    alone = fit_law(table[table.batch_seconds == 9], "error")
    assert alone["points"] == 4 and np.isnan(alone["a / b"])


def test_published_table_at_equal_hours():
    table = published_equal_hours("100 hours of labels")
    assert table.loc["3.33e+04"].to_dict() == pytest.approx(
        {"150": np.nan, "300": 12.24, "600": 12.46, "1200": 12.30, "2400": 10.94, "4800": np.nan, "relative spread": 0.127},
        rel=3e-3, nan_ok=True,
    )  # fmt: skip


def test_ends_of_the_other_rules_are_hollow(tmp_path):
    rows = [(cell, 0, metric, value) for cell, hours in (("b8", 1.0), ("lr-linear-b8", 1.0), ("lr-constant-b8", 1.0))
            for metric, value in (("cost.updates", 400), ("cost.hours_seen", hours), ("pretrain.valid_loss", 3.0))]  # fmt: skip
    pd.DataFrame(rows, columns=["cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    axis = draw_against_hours(tmp_path, {"pretrain.valid_loss": "loss"}).axes[0]
    hollow = [line.get_label() for line in axis.lines if line.get_markerfacecolor() == "none"]
    assert hollow == ["constant rate, end", "linear rate, end"]
