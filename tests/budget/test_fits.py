"""The fits find what was put in, and say how sure they are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sslrepro.budget.fits import parametric_loss, u_curve, vertex_shift
from sslrepro.errors import UserError

SIZES = np.array([5e6, 1e7, 2e7, 4e7, 8e7, 1.6e8])


def bowl(best: float, sizes: np.ndarray = SIZES) -> np.ndarray:
    return 3.0 + 0.1 * np.log(sizes / best) ** 2


def noise(shape, scale: float, seed: int) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=shape)


def test_finds_the_bottom() -> None:
    vertex = u_curve(SIZES, bowl(3e7))
    assert vertex.size == pytest.approx(3e7) and vertex.value == pytest.approx(3.0)
    assert vertex.inside and vertex.convex_share == 1


@pytest.mark.parametrize("seeds", [1, 3])
def test_interval_holds_the_truth_about_as_often_as_it_says(seeds: int) -> None:
    sizes = np.tile(SIZES, seeds)
    hits = 0
    for trial in range(60):
        vertex = u_curve(sizes, bowl(3e7, sizes) + noise(len(sizes), 0.03, trial), seed=trial)
        hits += vertex.low <= 3e7 <= vertex.high
    assert hits >= 60 * 0.8  # 95 % in the limit of many runs; small bootstraps are narrower


def test_more_noise_widens_the_interval() -> None:
    narrow, wide = (u_curve(SIZES, bowl(3e7) + noise(6, scale, 1)) for scale in (0.005, 0.05))
    assert math.log(wide.high / wide.low) > 3 * math.log(narrow.high / narrow.low)


def test_a_hill_has_no_bottom() -> None:
    vertex = u_curve(SIZES, -bowl(3e7) + noise(6, 0.01, 0))
    assert (vertex.low, vertex.high) == (0.0, math.inf)
    assert vertex.convex_share < 0.05 and not vertex.inside and math.isnan(vertex.size)


def test_a_slope_s_bottom_is_outside() -> None:
    assert not u_curve(SIZES, bowl(1e9)).inside


def test_shift_of_the_bottom() -> None:
    less = u_curve(SIZES, bowl(2e7) + noise(6, 0.005, 1), seed="less")
    more = u_curve(SIZES, bowl(4e7) + noise(6, 0.005, 2), seed="more")
    shift, low, high = vertex_shift(less, more)
    assert low < math.log(0.5) < high < 0
    assert low < shift < high


def test_three_sizes_are_too_few() -> None:
    with pytest.raises(UserError, match="at least 4 sizes"):
        u_curve(SIZES[:3], bowl(1e7)[:3])


def grid() -> tuple[np.ndarray, np.ndarray]:
    sizes, hours = np.meshgrid(SIZES, [500.0, 2_000.0, 8_000.0])
    return sizes.ravel(), hours.ravel()


def test_parametric_loss_recovers_its_coefficients() -> None:
    sizes, hours = grid()
    losses = 1.7 + 400 / sizes**0.4 + 30 / hours**0.5
    fit = parametric_loss(sizes, hours, losses, draws=20)
    assert fit.floor == pytest.approx(1.7, rel=1e-3)
    assert (fit.alpha, fit.beta) == (pytest.approx(0.4, rel=1e-3), pytest.approx(0.5, rel=1e-3))
    np.testing.assert_allclose(fit.loss(sizes, hours), losses, rtol=1e-4)


def test_parametric_intervals_hold_the_truth() -> None:
    sizes, hours = grid()
    losses = (1.7 + 400 / sizes**0.4 + 30 / hours**0.5) * np.exp(noise(len(sizes), 0.003, 5))
    fit = parametric_loss(sizes, hours, losses, draws=60)
    for name, truth in {"floor": 1.7, "alpha": 0.4, "beta": 0.5}.items():
        low, high = fit.intervals[name]
        assert low <= truth <= high
    assert fit.sizes == (pytest.approx(5e6), pytest.approx(1.6e8))


def test_best_size_within_a_budget() -> None:
    sizes, hours = grid()
    fit = parametric_loss(sizes, hours, 1.7 + 400 / sizes**0.4 + 30 / hours**0.5, draws=20)
    candidates = np.geomspace(1e6, 1e9, 200)
    affordable = 4e10 / candidates  # hours, were cost proportional to size
    truth = candidates[np.argmin(400 / candidates**0.4 + 30 / affordable**0.5)]
    best, low, high = fit.best_size(candidates, affordable)
    assert best == pytest.approx(truth, rel=0.05)
    assert low <= best <= high


def test_too_few_runs_for_five_coefficients() -> None:
    with pytest.raises(UserError, match="at least 7 runs"):
        parametric_loss(SIZES, SIZES, SIZES)
