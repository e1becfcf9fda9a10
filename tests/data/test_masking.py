"""Masks and negatives have the published distributions, and survive every length."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sslrepro.config import MaskSettings
from sslrepro.data.masking import mask_spans, negative_samples, span_count


def many(settings: MaskSettings, frames: int, times: int = 400) -> np.ndarray:
    return np.stack([mask_spans(settings, frames, np.random.default_rng(i)) for i in range(times)])


@pytest.mark.parametrize(("share", "frames"), [(0.65, 400), (0.8, 781), (0.65, 60)])
def test_fairseq_masks_have_the_distribution_of_transformers(share, frames):
    """Same mean masked share and the same mean at every place as `_compute_mask_indices`, one utterance at a time."""
    modeling = pytest.importorskip("transformers.models.wav2vec2.modeling_wav2vec2")
    times = 400 if frames > 100 else 3000
    ours = many(MaskSettings(share=share), frames, times)
    np.random.seed(0)
    theirs = np.concatenate([modeling._compute_mask_indices((1, frames), share, 10, min_masks=2) for _ in range(times)])
    spread = max(ours.mean(1).std(), theirs.mean(1).std()) * math.sqrt(2 / times)
    assert abs(ours.mean() - theirs.mean()) < 4 * spread + 1e-9
    bins = ours.mean(0)[: frames // 5 * 5].reshape(5, -1).mean(1), theirs.mean(0)[: frames // 5 * 5].reshape(5, -1).mean(1)
    assert np.abs(bins[0] - bins[1]).max() < 0.05


def test_published_shares():
    """About 49 % for wav2vec 2.0 (0.65, 10) and about 40 % for the batch-size paper (its 0.5)."""
    assert many(MaskSettings(share=0.65), 781).mean() == pytest.approx(1 - (1 - 0.065) ** 10, abs=0.02)
    assert many(MaskSettings(rule="batch_size_paper", share=0.5), 781).mean() == pytest.approx(1 - 0.95**10, abs=0.02)


def test_batch_size_paper_counts_its_spans():
    settings = MaskSettings(rule="batch_size_paper", share=0.5)
    for frames in (11, 50, 200, 999):
        assert span_count(settings, frames, np.random.default_rng(0)) == math.ceil(0.5 * (frames - 10) / 10)


@pytest.mark.parametrize("rule", ["fairseq", "batch_size_paper"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.65, 1.0])
def test_every_length_leaves_something_unmasked(rule, share):
    for frames in range(1, 60):
        for seed in range(3):
            mask = mask_spans(MaskSettings(rule=rule, share=share), frames, np.random.default_rng(seed))
            assert mask.shape == (frames,)
            assert not mask.all() or frames >= 10, (frames, seed)  # a long utterance at share 1 may be masked whole
            assert mask.any() == (share > 0 and frames >= 3)


def test_negatives_are_uniform_over_the_others():
    drawn = np.concatenate([negative_samples(6, 5000, "fairseq", np.random.default_rng(i)) for i in range(2)], axis=1)
    for frame in range(6):
        counts = np.bincount(drawn[frame], minlength=6)
        assert counts[frame] == 0
        others = np.delete(counts, frame)
        assert ((others - 2000) ** 2 / 2000).sum() < 18.5  # chi-squared, 4 degrees of freedom, p = 0.001
    free = np.bincount(negative_samples(6, 60_000, "batch_size_paper", np.random.default_rng(0))[0], minlength=6)
    assert ((free - 10_000) ** 2 / 10_000).sum() < 20.5  # 5 degrees of freedom


def test_too_few_masked_frames():
    assert negative_samples(1, 5, "fairseq", np.random.default_rng(0)).shape == (1, 5)
    assert negative_samples(0, 5, "fairseq", np.random.default_rng(0)).shape == (0, 5)
