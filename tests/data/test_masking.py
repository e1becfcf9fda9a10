"""Masks and negatives have the published distributions, and survive every length."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, ks_2samp

from sslrepro.config import MaskSettings
from sslrepro.data.masking import mask_spans, negative_samples, span_count


def many(settings: MaskSettings, frames: int, times: int = 400) -> np.ndarray:
    return np.stack([mask_spans(settings, frames, np.random.default_rng(i)) for i in range(times)])


def peer_masks(peer: str, share: float, frames: int, times: int) -> np.ndarray:
    """Masks of one utterance at a time, by the peer's own function: (times, frames)."""
    if peer == "transformers":
        modeling = pytest.importorskip("transformers.models.wav2vec2.modeling_wav2vec2")
        np.random.seed(0)
        return np.concatenate([modeling._compute_mask_indices((1, frames), share, 10, min_masks=2) for _ in range(times)])
    components = pytest.importorskip("torchaudio.models.wav2vec2.components")
    torch.manual_seed(0)
    drawn = [components._compute_mask_indices((1, frames), None, share, 10, min_masks=2) for _ in range(times)]
    return torch.cat(drawn).numpy()


def stretches(masks: np.ndarray) -> np.ndarray:
    """How many separate stretches each mask has."""
    return (np.diff(masks.astype(int), axis=1, prepend=0) == 1).sum(1)


@pytest.mark.parametrize(("share", "frames"), [(0.65, 400), (0.8, 781), (0.65, 60)])
@pytest.mark.parametrize("peer", ["transformers", "torchaudio"])
def test_fairseq_masks_have_the_distribution_of_the_peers(peer, share, frames):
    """The same mean share, number of masked frames and of stretches, and mean at every place."""
    times = 400 if frames > 100 else 3000
    ours, theirs = many(MaskSettings(share=share), frames, times), peer_masks(peer, share, frames, times)
    spread = max(ours.mean(1).std(), theirs.mean(1).std()) * math.sqrt(2 / times)
    assert abs(ours.mean() - theirs.mean()) < 4 * spread + 1e-9
    bins = ours.mean(0)[: frames // 5 * 5].reshape(5, -1).mean(1), theirs.mean(0)[: frames // 5 * 5].reshape(5, -1).mean(1)
    assert np.abs(bins[0] - bins[1]).max() < 0.05
    for measure in (lambda masks: masks.sum(1), stretches):
        assert ks_2samp(measure(ours), measure(theirs), method="asymp").pvalue > 1e-3


@pytest.mark.parametrize("settings", [MaskSettings(share=0.6), MaskSettings(length=8)], ids=str)
def test_the_comparison_tells_other_masks_apart(settings):
    theirs = peer_masks("transformers", 0.65, 400, 400)
    ours = many(settings, 400)
    values = [ks_2samp(measure(ours), measure(theirs), method="asymp").pvalue for measure in (lambda masks: masks.sum(1), stretches)]
    assert min(values) < 1e-3


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


def test_negatives_have_the_distribution_of_transformers():
    """For each masked frame, how often each other one is drawn: two samples, one table."""
    modeling = pytest.importorskip("transformers.models.wav2vec2.modeling_wav2vec2")
    mask = np.zeros((1, 30), dtype=bool)
    mask[0, [2, 3, 4, 11, 17, 18, 29]] = True
    places = np.flatnonzero(mask)
    np.random.seed(1)
    theirs = modeling._sample_negative_indices((1, 30), 4_000, mask)[0][places]
    ours = places[negative_samples(7, 4_000, "fairseq", np.random.default_rng(1))]
    free = places[negative_samples(7, 4_000, "batch_size_paper", np.random.default_rng(1))]
    for row, place in enumerate(places):
        others = np.delete(places, row)
        tables = [[(drawn[row] == other).sum() for other in others] for drawn in (ours, theirs)]
        assert [sum(table) for table in tables] == [4_000, 4_000]
        assert chi2_contingency(tables).pvalue > 1e-3
        assert (free[row] == place).any()  # the other rule draws the frame itself too, and would not pass


def test_too_few_masked_frames():
    assert negative_samples(1, 5, "fairseq", np.random.default_rng(0)).shape == (1, 5)
    assert negative_samples(0, 5, "fairseq", np.random.default_rng(0)).shape == (0, 5)
