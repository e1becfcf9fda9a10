"""The expected number of masked frames is the mean of the masks that training draws."""

from __future__ import annotations

import numpy as np
import pytest

from sslrepro.budget.masked import expected_masked
from sslrepro.config import MaskSettings
from sslrepro.data.masking import mask_spans


@pytest.mark.parametrize("rule", ["fairseq", "batch_size_paper"])
@pytest.mark.parametrize(("share", "length", "frames"), [(0.65, 10, 781), (0.8, 10, 99), (0.7, 5, 24), (0.5, 10, 12), (0.9, 10, 5)])
def test_mean_of_the_masks(rule: str, share: float, length: int, frames: int) -> None:
    settings = MaskSettings(rule=rule, share=share, length=length)
    counts = np.array([mask_spans(settings, frames, np.random.default_rng(i)).sum() for i in range(3_000)])
    error = counts.std() / np.sqrt(len(counts))
    assert abs(counts.mean() - expected_masked(settings, frames)) <= 4 * error + 1e-9


def test_nothing_to_mask() -> None:
    assert expected_masked(MaskSettings(share=0.0), 500) == 0
    assert expected_masked(MaskSettings(), 2) == 0
