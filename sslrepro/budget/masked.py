"""How many frames a mask covers on average: what the cost of pre-training heads depends on."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from sslrepro.config import MaskSettings
from sslrepro.data.masking import FEWEST_SPANS


def expected_masked(settings: MaskSettings, frames: int) -> float:
    """Mean number of masked frames under `data.masking.mask_spans`, exactly: the mean over the number of spans of the chance, frame by
    frame, that one of the starts that cover it is drawn (hypergeometric: starts are distinct)."""
    return _expected(settings.rule, settings.share, settings.length, frames)


@lru_cache(maxsize=65536)
def _expected(rule: str, share: float, length: int, frames: int) -> float:
    if frames < 3 or share == 0:
        return 0.0
    if rule == "fairseq":
        low, rest = divmod(share * frames / length, 1.0)
        counts = {max(int(low), FEWEST_SPANS): 1 - rest}
        high = max(int(low) + 1, FEWEST_SPANS)
        counts[high] = counts.get(high, 0.0) + rest
    else:
        counts = {max(math.ceil(share * (frames - length) / length), 1): 1.0}
    return float(sum(chance * _covered(frames, length, count) for count, chance in counts.items()))


def _covered(frames: int, length: int, count: int) -> float:
    if frames - length <= count:
        length = max(frames - count - 1, 1)
    starts = frames - length
    count = min(count, starts)
    frame = np.arange(frames)
    covering = np.minimum(frame, starts - 1) - np.maximum(frame - length + 1, 0) + 1
    free = starts - covering  # starts that leave the frame unmasked
    factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, starts + 1)))])  # logarithms of 0! to starts!
    log_missed = factorial[free] - factorial[np.maximum(free - count, 0)] - factorial[starts] + factorial[starts - count]
    missed = np.where(free >= count, np.exp(log_missed), 0.0)
    return float((1 - missed).sum())
