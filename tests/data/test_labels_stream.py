"""Labels of a corpus of any size: no more results wait than a few a core."""

from __future__ import annotations

import os
import time

from sslrepro.data import targets


def test_few_results_wait_to_be_taken():
    begun = []
    taken = 0
    with targets._one_thread_each() as in_order:
        for value in in_order(lambda row: begun.append(row) or row, range(200)):
            assert value == taken
            taken += 1
            time.sleep(0.001)
            assert len(begun) - taken < targets.AHEAD * os.cpu_count()
    assert taken == 200
