"""The dial of the on-demand notebook, turned: what stands under it is the row it points at."""

from __future__ import annotations

import pandas as pd

from sslrepro.report.dial import slider

TABLE = pd.DataFrame(
    {
        "factors": ["s4-q2-k2", "s2-q1-k1", "s1-q1-k1"],
        "text": ["", "a b", "a b c"],
        "ms": [1.25, 4.0, 9.5],
        "mmacs": [10.0, 40.0, 90.0],
        "error": [70.0, 30.0, 20.0],
    }
)


def test_text_time_and_cost_change_as_it_is_turned():
    knob, shown = slider(TABLE).children
    assert (knob.min, knob.max, knob.value) == (0, 2, 2), "it begins at the largest budget"
    seen = []
    for place in (2, 0, 1):
        knob.value = place
        seen.append(shown.value)
    assert all(part in seen[0] for part in ("s1-q1-k1", "9.5 ms", "90 MMAC", "20.0 %", ">a b c<"))
    assert all(part in seen[1] for part in ("s4-q2-k2", "1.2 ms", "10 MMAC", "70.0 %", "(nothing)"))
    assert all(part in seen[2] for part in ("s2-q1-k1", "4.0 ms", "40 MMAC", "30.0 %", ">a b<"))
