"""A budget in FLOPs, in updates, and back; and what the trainer imports is light."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from sslrepro.budget import cell_cost, flops_for, hours_seen, update_flops, updates_for
from sslrepro.config import CellSettings, TrainingSettings
from sslrepro.config.training import BudgetSettings
from sslrepro.pipeline.plan import plan_cell
from sslrepro.training.meter import Budget


@pytest.mark.parametrize("updates", [1, 7, 400_000])
def test_there_and_back(updates: int) -> None:
    settings = CellSettings()
    flops = flops_for(settings, updates)
    assert updates_for(settings, flops) == updates
    assert updates_for(settings, flops * (1 - 1e-6)) == updates - 1


def test_an_update_holds_its_batch_of_utterances() -> None:
    settings = CellSettings(training=TrainingSettings(batch_seconds=100.0, max_seconds=10.0))
    assert update_flops(settings) == pytest.approx(10 * cell_cost(settings, 10.0).train_flops)
    assert update_flops(settings, 5.0) == pytest.approx(20 * cell_cost(settings, 5.0).train_flops)
    assert hours_seen(settings, 36) == pytest.approx(1.0)


def test_longer_utterances_cost_more_a_second() -> None:
    settings = CellSettings()
    a_second = [cell_cost(settings, s).train_flops / s for s in (2.0, 15.625, 60.0)]
    assert a_second == sorted(a_second) and a_second[2] > 1.2 * a_second[0]


def test_a_front_end_that_costs_nothing() -> None:
    """A budget of the rest alone pays for as many updates more as the extractor's share of them says, utterance by utterance."""
    seconds = np.array([3.0, 9.0, 15.0])
    units = [CellSettings(training=TrainingSettings(budget=BudgetSettings(unit=u, amount=1e15))) for u in ("flops", "flops_past_front_end")]
    whole, rest = (Budget(settings, seconds) for settings in units)
    for i, each in enumerate(seconds):
        cost = cell_cost(units[0], float(each))
        assert whole.cost(np.array([i])) == pytest.approx(cost.train_flops, rel=3e-3)
        front_end = cost.as_dict()["components"]["feature_extractor"]["train_flops"]
        assert front_end > 0 and rest.cost(np.array([i])) == pytest.approx(cost.train_flops - front_end, rel=3e-3)
    cost = cell_cost(units[0], units[0].training.max_seconds)
    planned = [plan_cell("study", "cell", settings, rate=1e12).hours for settings in units]
    assert planned[1] / planned[0] == pytest.approx(cost.train_flops / cost.train_flops_past_front_end)


def test_fast_enough_for_every_utterance() -> None:
    settings = CellSettings()
    began = time.perf_counter()
    for i in range(300):
        cell_cost(settings, 2.0 + i * 0.01)
    assert (time.perf_counter() - began) / 300 < 5e-3


def test_imports_nothing_heavy() -> None:
    code = "import sys, sslrepro.budget; print([m for m in ('scipy', 'pandas', 'torch', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
