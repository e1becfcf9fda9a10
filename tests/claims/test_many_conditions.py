"""A claim of many conditions: noise alone must not contradict it, and a plain failure must."""

import numpy as np
import pytest

from sslrepro.claims.bootstrap import Resampler
from sslrepro.claims.contrasts import Close, PairDifferences
from sslrepro.claims.curves import Trend, VertexShift
from sslrepro.claims.laws import Spread
from sslrepro.claims.margins import Part, at_least, smallest
from sslrepro.claims.series import Frame, Series, Undecidable
from sslrepro.claims.verdict import CONTRADICTED, REPLICATED, bounds, interval, verdict


def frame(values, axis, name="of", seeds=5, draws=800):
    """Points along an axis, each with its value in every seed `(points, seeds)`, resampled together."""
    resampler = Resampler(draws=draws)
    drawn = np.stack([resampler.values(row, tuple(range(seeds)), None) for row in values], axis=1)
    return Frame({name: Series(name, {"x": np.array(axis, float)}, drawn)}, resampled=True)


def outcomes(truth, noise, seeds, test, studies=200):
    """Verdicts on simulated studies of a curve whose true values are given."""
    random, found = np.random.default_rng(0), []
    for _ in range(studies):
        values = np.array(truth)[:, None] + random.normal(0, noise, (len(truth), seeds))
        parts = test.judge(frame(values, range(1, len(truth) + 1), seeds=seeds))
        ends = bounds(parts, seeds)
        found.append((verdict(ends.low, ends.high), verdict(*interval(smallest(parts)))))
    return found


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("noise", [0.01, 0.03, 0.1])
def test_noise_does_not_contradict_a_true_trend(seeds, noise):
    """Seven points that fall by a hundredth each; and the interval of the minimum's own draws would do so."""
    test = Trend(kind="trend", of="of", along="x", direction="falling")
    found = outcomes(1 - 0.01 * np.arange(7), noise, seeds, test)
    assert np.mean([now == CONTRADICTED for now, _ in found]) <= 0.05
    if noise == 0.1:
        assert np.mean([before == CONTRADICTED for _, before in found]) > 0.9


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_step_that_rises_contradicts_a_trend(seeds):
    test = Trend(kind="trend", of="of", along="x", direction="falling")
    assert all(now == CONTRADICTED for now, _ in outcomes([1.0, 0.9, 0.8, 0.95, 0.7], 0.003, seeds, test, studies=20))
    assert all(now == REPLICATED for now, _ in outcomes([1.0, 0.9, 0.8, 0.7, 0.6], 0.003, seeds, test, studies=20))


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("margin", [0.0, 0.01])
def test_noise_does_not_contradict_parts_that_hold(seeds, margin):
    """Six parts, each at its threshold or a hundredth above: the upper end lies above the true margin in nearly all studies."""
    random, resampler, held = np.random.default_rng(1), Resampler(draws=800), []
    for _ in range(300):
        observed = random.normal(1 + margin, 0.05, (6, seeds))
        parts = [at_least(str(i), resampler.values(row, tuple(range(seeds)), None), 1.0) for i, row in enumerate(observed)]
        held.append(bounds(parts, seeds).high >= margin)
    assert np.mean(held) >= 0.96


def test_equal_points_are_not_spread_by_noise():
    test = Spread(kind="spread", of="of", at_most=0.05)
    assert np.mean([now == CONTRADICTED for now, _ in outcomes([1.0] * 6, 0.08, 5, test)]) <= 0.025
    assert all(now == CONTRADICTED for now, _ in outcomes([1.0, 1.0, 1.2], 0.01, 5, test, studies=20))


def test_groups_of_equal_points_are_not_spread_by_noise():
    random, wrong = np.random.default_rng(2), 0
    test = Spread(kind="spread", of="of", at_most=0.1, at="x")
    for _ in range(100):
        values = 1 + random.normal(0, 0.05, (9, 5))
        ends = bounds(test.judge(frame(values, [1, 1, 1, 2, 2, 2, 3, 3, 3])), 5)
        wrong += verdict(ends.low, ends.high) == CONTRADICTED
    assert wrong <= 8


def test_an_end_that_nothing_bounds_is_infinite():
    unbounded = np.array([-14.0, *[-np.inf] * 100, *[np.inf] * 100])
    ends = bounds([Part("share", unbounded, 1.0, ">=", unbounded)], 4)
    assert (ends.low, ends.high) == (-np.inf, np.inf)


def test_close_has_two_sides():
    drawn = np.concatenate([[0.0], np.random.default_rng(0).normal(0, 0.5, 2000)])
    series = {name: Series(name, {"x": np.array([1.0])}, values[:, None]) for name, values in (("of", 1 + drawn), ("to", np.ones(2001)))}
    (part,) = Close(kind="close", of="of", to="to", match="x", within=0.1).judge(Frame(series, resampled=True))
    assert len(part.conditions) == 2 and np.allclose(np.minimum(*part.conditions), part.margin)


def test_the_reference_difference_of_pairs_is_signed_once():
    random, wrong = np.random.default_rng(3), 0
    for _ in range(100):
        resampler = Resampler(draws=400)
        drawn = {
            name: np.stack([resampler.values(level + random.normal(0, 0.05, 5), tuple(range(5)), None) for _ in range(3)], axis=1)
            for name, level in (("of", 1.0), ("other", 1.06))
        }
        series = {name: Series(name, {"x": np.arange(3.0)}, values) for name, values in drawn.items()}
        ends = bounds(PairDifferences(kind="pair_differences", of="of", other="other", match="x").judge(Frame(series, resampled=True)), 5)
        wrong += verdict(ends.low, ends.high) == CONTRADICTED
    assert wrong <= 5


def test_vertices_are_of_the_sizes_that_both_have():
    """The same parabola at both budgets: a point that one lacks moves nothing."""
    x = np.array([1.0, 2, 4, 8, 16])
    y = 1 + (np.log2(x) - 2) ** 2 / 10
    y[-1] += 0.5  # no parabola: with it the vertex lies elsewhere
    series = {"full": Series("full", {"x": x}, y[None]), "half": Series("half", {"x": x[:-1]}, y[None, :-1])}
    test = VertexShift(kind="vertex_shift", of="half", other="full", along="x")
    assert test.judge(Frame(series, resampled=True))[0].value[0] == pytest.approx(0, abs=1e-9)
    series["half"] = Series("half", {"x": x[:2]}, y[None, :2])
    with pytest.raises(Undecidable, match="where both have points, has 2"):
        test.judge(Frame(series, resampled=True))
