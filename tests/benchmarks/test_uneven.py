"""What `make bench` feeds: every library gets all of the audio, and rows of a part join the kept ones."""

from __future__ import annotations

import pytest

from benchmarks import inputs
from benchmarks.engine import KEY, merged


@pytest.mark.parametrize("size", inputs.SIZES)
@pytest.mark.parametrize("library", ["ours", "transformers", "torchaudio"])
def test_each_library_takes_every_utterance_once(library, size):
    seconds = inputs.uneven_seconds(size)
    pieces = inputs.pieces_as(library, seconds)
    assert sorted(int(index) for piece in pieces for index in piece) == list(range(len(seconds)))


def test_a_row_measured_again_takes_the_place_of_the_kept_one():
    kept = [dict.fromkeys(KEY, "a") | {"ratio": 1.0}, dict.fromkeys(KEY, "b") | {"ratio": 2.0}]
    found = [dict.fromkeys(KEY, "a") | {"ratio": 3.0}]
    assert merged(kept, found) == [kept[1], found[0]]
