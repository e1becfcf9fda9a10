"""Batches by seconds: nothing is left out, every update costs about the same, and update u needs no walk to it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from sslrepro.data.batching import UpdatePlan, by_length
from sslrepro.errors import UserError

DURATIONS = np.random.default_rng(0).uniform(1.5, 5.0, 900)


@pytest.mark.parametrize(("batch", "micro"), [(16, 16), (64, 16), (64, 64), (400, 64), (6000, 100)])
def test_updates_are_the_asked_seconds(batch, micro):
    plan = UpdatePlan(DURATIONS, batch, micro, seed=1)
    seconds = [sum(DURATIONS[piece].sum() for piece in plan.update(u)) for u in range(40)]
    assert np.mean(seconds) == pytest.approx(batch, rel=0.03)
    assert max(seconds) < 1.25 * batch + 5
    assert all(len(plan.update(u)) == plan.micro_batches_per_update and min(map(len, plan.update(u))) > 0 for u in range(40))


def test_an_epoch_holds_every_utterance_as_often():
    plan = UpdatePlan(DURATIONS, 32, 32, seed=1)
    seen: Counter[int] = Counter()
    windows = 12
    for u in range(windows * plan.window_updates):
        seen.update(int(i) for piece in plan.update(u) for i in piece)
    assert sum(seen.values()) == windows * plan.window_size
    epochs = windows * plan.window_size / len(DURATIONS)
    assert min(seen[i] for i in range(len(DURATIONS))) >= int(epochs)
    assert max(seen.values()) <= int(epochs) + 1


def test_an_update_does_not_depend_on_the_ones_before():
    straight, late = UpdatePlan(DURATIONS, 48, 16, seed=3), UpdatePlan(DURATIONS, 48, 16, seed=3)
    wanted = [straight.update(u) for u in range(60)][57]
    for ours, theirs in zip(late.update(57), wanted, strict=True):
        assert np.array_equal(ours, theirs)


def test_seeds_and_epochs_differ():
    a, b = UpdatePlan(DURATIONS, 32, 32, seed=1), UpdatePlan(DURATIONS, 32, 32, seed=2)
    assert not np.array_equal(a.update(0)[0], b.update(0)[0])
    assert not np.array_equal(a._permutation(0), a._permutation(1))


def test_padding_is_small():
    plan = UpdatePlan(DURATIONS, 64, 64, seed=1)
    waste = [1 - DURATIONS[p].sum() / (DURATIONS[p].max() * len(p)) for u in range(30) for p in plan.update(u)]
    assert np.mean(waste) < 0.05


def test_a_corpus_smaller_than_a_batch_and_an_empty_one():
    plan = UpdatePlan(np.array([2.0, 3.0]), 60, 20, seed=0)
    assert sum(len(p) for p in plan.update(5)) == 24
    with pytest.raises(UserError, match=r"training\.min_seconds"):
        UpdatePlan(np.array([]), 60, 20, seed=0)


def test_evaluation_takes_everything_once():
    batches = by_length(DURATIONS, 30)
    assert sorted(np.concatenate(batches)) == list(range(len(DURATIONS)))
    assert max(len(b) * DURATIONS[b].max() for b in batches) <= 30
