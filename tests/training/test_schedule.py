"""Schedules over the fraction of the budget, against torch and by their published corner points."""

from __future__ import annotations

import pytest
import torch

from sslrepro.config import ScheduleSettings
from sslrepro.training.schedule import learning_rate


def rate(progress: float, updates: float = 1000, **settings) -> float:
    return learning_rate(ScheduleSettings(**settings), 1.0, progress, updates)


def test_linear():
    assert rate(0.04, warmup=0.08) == pytest.approx(0.5)
    assert rate(0.08, warmup=0.08) == pytest.approx(1.0)
    assert rate(0.54, warmup=0.08) == pytest.approx(0.5)
    assert rate(1.0, warmup=0.08) == 0.0


def test_a_run_may_end_before_its_rate_does():
    """SEW's 100,000 updates under a decay over 400,000: the first quarter of the longer run."""
    for progress in (0.04, 0.32, 0.5, 1.0):
        longer = rate(progress / 4, 400_000, warmup=32_000.0)
        assert rate(progress, 100_000, warmup=32_000.0, decay_updates=400_000.0) == pytest.approx(longer)


def test_a_warmup_in_updates_is_the_papers():
    """32,000 of 400,000 updates are 8 %."""
    for progress in (0.01, 0.05, 0.5):
        assert rate(progress, 400_000, warmup=32_000) == pytest.approx(rate(progress, 400_000, warmup=0.08))


def test_tri_stage_is_fairseqs():
    """10 / 40 / 50 %, from a hundredth, exponential decay to a twentieth."""
    s = {"kind": "tri_stage", "warmup": 0.1, "hold": 0.4, "final_scale": 0.05}
    assert rate(0.0, **s) == pytest.approx(0.01)
    assert rate(0.1, **s) == rate(0.3, **s) == rate(0.5, **s) == pytest.approx(1.0)
    assert rate(0.75, **s) == pytest.approx(0.05**0.5)
    assert rate(1.0, **s) == pytest.approx(0.05)


def test_cyclic_is_torchs():
    """The batch-size paper's CyclicLR: 25k up, 25k down between lr / 100 and lr, 8 cycles in 400k."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.CyclicLR(optimizer, base_lr=0.01, max_lr=1.0, step_size_up=25, cycle_momentum=False)
    for update in range(400):
        assert rate(update / 400, kind="cyclic", cycles=8) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        theirs.step()


def test_constant_and_no_warmup():
    assert rate(0.9, kind="constant", warmup=0.1) == 1.0
    assert rate(0.0, kind="linear", warmup=0.0) == 1.0
