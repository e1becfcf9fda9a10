"""Which frames are masked, and which of them serve as negatives. One utterance at a time, from its own counter.

fairseq also trims every utterance of a batch to the fewest masked frames among them, so that its tensors are rectangular. That makes a draw
depend on batch mates (and under-masks long utterances); here each utterance keeps its own, which is what fairseq does with a batch of one.
"""

from __future__ import annotations

import math

import numpy as np

from sslrepro.config import MaskSettings

FEWEST_SPANS = 2  # fairseq's `min_masks`


def span_count(settings: MaskSettings, frames: int, generator: np.random.Generator) -> int:
    """How many spans start in an utterance.

    fairseq (`compute_mask_indices`): share x frames / length, rounded at random, at least 2.
    Batch-size paper (nanow2v2): ceil(share x (frames - length) / length).
    """
    if settings.rule == "fairseq":
        return max(int(settings.share * frames / settings.length + generator.random()), FEWEST_SPANS)
    return max(math.ceil(settings.share * (frames - settings.length) / settings.length), 1)


def mask_spans(settings: MaskSettings, frames: int, generator: np.random.Generator) -> np.ndarray:
    """Boolean mask (frames,). Spans start at distinct frames and may overlap; an utterance of fewer than 3 frames is left unmasked."""
    mask = np.zeros(frames, dtype=bool)
    if frames < 3 or settings.share == 0:
        return mask
    length = settings.length
    count = span_count(settings, frames, generator)
    if frames - length <= count:  # too short for that many spans of that length: shorten them, as fairseq does
        length = max(frames - count - 1, 1)
    starts = generator.choice(frames - length, size=min(count, frames - length), replace=False)
    inside = starts[:, None] + np.arange(length)[None, :]
    mask[inside[inside < frames]] = True
    return mask


def negative_samples(masked: int, count: int, rule: str, generator: np.random.Generator) -> np.ndarray:
    """For each of the masked frames, `count` of the masked frames of the same utterance: (masked, count), uniform with replacement.

    `fairseq` never draws the frame itself; `batch_size_paper` may, and the loss then drops it (collisions set to -inf, as nanow2v2 does).
    """
    if masked < 2:
        return np.zeros((masked, count), dtype=np.int64)
    if rule == "batch_size_paper":
        return generator.integers(0, masked, size=(masked, count))
    drawn = generator.integers(0, masked - 1, size=(masked, count))
    return drawn + (drawn >= np.arange(masked)[:, None])
