"""The spread at equal hours: by hand on a law that breaks below 100 updates, and that the published table has both regions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sslrepro.report.batch_size import published
from sslrepro.report.equal_hours import CRITERION, spreads


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


def test_hours_within_one_per_cent_are_equal_and_others_are_not():
    table = pd.DataFrame(
        {"batch_seconds": [1.0, 2.0, 3.0], "updates": [300, 150, 98], "hours_seen": [1.0, 1.005, 1.03], "error": [1.0, 2.0, 9.0]}
    )
    found = spreads(table, "error").set_index("updates")
    assert found.loc[98].to_dict() == pytest.approx({"median": 2 / 3, "largest": 2 / 3, "groups": 1.0})


def test_the_published_table_breaks_the_law_where_updates_are_few():
    paper = published("batch_size_wer_over_time").query("batch_seconds >= 150 and label == '100 hours of labels'")
    found = spreads(paper, "wer_clean")
    assert found.largest.iloc[0] > CRITERION > found.largest.iloc[-1]
    assert (found["median"] < CRITERION).all()
