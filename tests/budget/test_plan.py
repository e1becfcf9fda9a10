"""The published sweep's curves, and the plans that stand on them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from sslrepro.budget.commands import plan_command
from sslrepro.budget.fits import parametric_loss, vertex_shift
from sslrepro.budget.plan import GPUS, UTILISATION, gpu_flops, plan_budget
from sslrepro.budget.published import METRICS, published_vertices, size_sweep, sweep_vertex
from sslrepro.errors import UserError

FULL, HALF = 1.7e18, 8.5e17


def test_counted_sizes_are_the_published_ones() -> None:
    sweep = size_sweep().dropna(subset="params_m")
    np.testing.assert_array_equal((sweep.params / 1e6).round(1), sweep.params_m)


def test_every_run_of_a_budget_costs_about_the_same() -> None:
    for _, part in size_sweep().groupby(["objective", "budget"]):
        assert part.flops.max() / part.flops.min() < 1.02


def test_every_curve_of_the_sweep_has_an_inner_bottom() -> None:
    vertices = published_vertices()
    assert len(vertices) == 20 and vertices.inside.all()
    assert ((vertices.low < vertices["size"]) & (vertices["size"] < vertices.high)).all()
    assert vertices["size"].between(20e6, 50e6).all()  # the paper: 100 to 200 % of Slim, 20 to 40 M


def test_half_the_budget_wants_a_smaller_model() -> None:
    for metric in METRICS:
        shift, _, high = vertex_shift(sweep_vertex("hubert", "half", metric), sweep_vertex("hubert", "full", metric))
        assert shift < 0 and high < 0


def test_parametric_loss_fits_the_sweep() -> None:
    part = size_sweep().query("objective == 'hubert'")
    fit = parametric_loss(part.params, part.hours, part.valid_loss, draws=20)
    np.testing.assert_allclose(fit.loss(part.params, part.hours), part.valid_loss, rtol=0.03)
    full = part[part.budget == "full"]
    assert 20e6 <= fit.best_size(full.params, full.hours)[0] <= 95e6


@pytest.mark.parametrize("objective", ["hubert", "wav2vec2", "tera"])
def test_plan_at_the_sweep_s_own_budget(objective: str) -> None:
    plan = plan_budget(FULL, objective)
    vertex = sweep_vertex(objective, "full", "asr_wer")
    assert plan.size == pytest.approx(vertex.size, rel=0.01)
    assert plan.low < plan.size < plan.high
    assert plan.warnings == [] and len(plan.evidence) == 4
    assert plan.audio_hours == pytest.approx(plan.updates * plan.batch_seconds / 3600, rel=0.001)


def test_plan_at_half_the_budget_is_the_half_budget_s_curve() -> None:
    plan, vertex = plan_budget(HALF), sweep_vertex("hubert", "half", "asr_wer")
    assert plan.size == pytest.approx(vertex.size, rel=0.02)
    assert (plan.low, plan.high) == (pytest.approx(vertex.low, rel=0.03), pytest.approx(vertex.high, rel=0.03))


@pytest.mark.parametrize(("flops", "words"), [(1e13, "below"), (1e21, "above")])
def test_outside_its_range_it_says_so(flops: float, words: str) -> None:
    plan = plan_budget(flops)
    assert any(words in warning and "extrapolated" in warning for warning in plan.warnings)
    near, far = plan_budget(FULL), plan
    assert far.high / far.low > 2 * near.high / near.low


def test_more_budget_never_plans_less() -> None:
    plans = [plan_budget(flops) for flops in np.geomspace(1e15, 1e21, 7)]
    for name in ("size", "audio_hours", "batch_seconds"):
        values = [getattr(plan, name) for plan in plans]
        assert values == sorted(values)


def test_a_gpu_s_hours_are_a_budget() -> None:
    assert gpu_flops("NVIDIA H200", 2.0) == GPUS["h200"] * UTILISATION * 7200
    with pytest.raises(UserError, match=r"h100.*--flops"):
        gpu_flops("abacus", 1.0)


def test_command(capsys) -> None:
    assert plan_command(None, "A100", 24.0, as_json=True) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["flops"] == gpu_flops("a100", 24.0) and printed["model"] and printed["evidence"]
    assert plan_command(1e15, None, None, as_json=False) == 0
    text = capsys.readouterr().out
    assert "warning" in text and "evidence" in text and "batch" in text


@pytest.mark.parametrize(
    "wrong",
    [
        (None, None, None),
        (1e18, "h100", 1.0),
        (None, "h100", None),
        (-1.0, None, None),
        (math.nan, None, None),
        (None, "h100", math.nan),
    ],
)
def test_budgets_that_make_no_sense(wrong) -> None:
    with pytest.raises(UserError):
        plan_command(*wrong, as_json=False)


@pytest.mark.parametrize("flops", [0.0, 1e5, 2e11])
def test_a_budget_of_no_updates_is_refused_with_one_that_would_do(flops: float) -> None:
    with pytest.raises(UserError) as refused:
        plan_budget(flops)
    said = str(refused.value)
    if flops == 0:
        assert "above 0" in said
    else:
        enough = float(said.rpartition("about ")[2].split()[0])
        assert "updates of one utterance" in said and plan_budget(2 * enough).updates >= 30


def test_a_small_budget_takes_a_smaller_batch_and_says_why() -> None:
    plan = plan_budget(1e15)
    assert plan.batch_seconds < 150 and plan.updates >= 900
    assert any("below the batch-size paper's 150 s" in warning for warning in plan.warnings)


def test_the_range_over_objectives_is_said() -> None:
    (said,) = [line for line in plan_budget(FULL).evidence if "each objective" in line]
    sizes = [sweep_vertex(objective, "full", "asr_wer").size / 1e6 for objective in ("hubert", "wav2vec2", "tera")]
    assert [float(part.split()[-2]) for part in said.partition(": ")[2].split(",")] == pytest.approx(sizes, rel=0.02)
