"""Intervals: they cover, pairing shortens them, clusters widen them, and the same key gives the same draws."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from sslrepro.claims.bootstrap import Resampler, score_bins, speaker_sums, trial_scores, widening
from sslrepro.claims.margins import Part
from sslrepro.claims.verdict import CONTRADICTED, INCONCLUSIVE, REPLICATED, interval, parts_to_decide, to_decide, verdict


def simulated(random, seeds, speakers, seed_sd=0.01, speaker_sd=0.05, level=0.3, units=200):
    rate = level + random.normal(0, seed_sd, (seeds, 1)) + random.normal(0, speaker_sd, (1, speakers))
    counts = np.full((seeds, speakers), float(units))
    errors = random.binomial(units, np.clip(rate, 0.01, 0.99)).astype(float)
    return errors.sum(1) / counts.sum(1), speaker_sums(errors, counts, tuple(f"v{i}" for i in range(speakers)), "phone_ctc.per")


@pytest.mark.parametrize(("seeds", "speakers"), [(3, 8), (5, 20)])
def test_coverage(seeds, speakers):
    """The 95 % interval holds the truth in about 95 % of simulated studies, at as few as three seeds."""
    random, resampler = np.random.default_rng(0), Resampler(draws=800)
    held = 0
    for _ in range(200):
        observed, clusters = simulated(random, seeds, speakers)
        low, high = interval(resampler.values(observed, tuple(range(seeds)), clusters))
        held += low <= 0.3 <= high
    assert held >= 0.92 * 200


def test_seeds_alone_would_not_cover():
    """Without the speakers the interval is far too short: the test set is part of the uncertainty."""
    random, resampler = np.random.default_rng(0), Resampler(draws=800)
    held = 0
    for _ in range(200):
        observed, _ = simulated(random, 5, 8, seed_sd=0.002)
        low, high = interval(resampler.values(observed, tuple(range(5)), None))
        held += low <= 0.3 <= high
    assert held < 0.6 * 200


def test_pairing_shortens_the_interval():
    """Two cells with the same seeds and speakers differ by a constant: paired, the difference is sharp; with other seeds it is not."""
    random, resampler = np.random.default_rng(1), Resampler()
    shared = random.normal(0.3, 0.02, 5)
    first = resampler.values(shared, (0, 1, 2, 3, 4), None)
    paired = resampler.values(shared + 0.01, (0, 1, 2, 3, 4), None) - first
    other = resampler.values(shared + 0.01, (5, 6, 7, 8, 9), None) - first
    assert np.ptp(interval(paired)) < 1e-9 < 0.02 < np.ptp(interval(other))
    assert verdict(*interval(paired)) == REPLICATED
    assert verdict(*interval(other)) == INCONCLUSIVE


def test_speakers_are_resampled_together():
    random, resampler = np.random.default_rng(2), Resampler()
    observed, clusters = simulated(random, 3, 10)
    same = resampler.values(observed, (0, 1, 2), clusters) - resampler.values(observed, (0, 1, 2), clusters)
    assert np.abs(same).max() == 0
    wider = np.ptp(interval(resampler.values(observed, (0, 1, 2), clusters)))
    assert wider > np.ptp(interval(resampler.values(observed, (0, 1, 2), None)))


def test_draws_depend_on_the_key_alone():
    a, b = Resampler(), Resampler()
    b.weights("seeds", (4, 5))
    assert np.array_equal(a.weights("seeds", (0, 1, 2)), b.weights("seeds", (0, 1, 2)))
    assert not np.array_equal(a.weights("seeds", (0, 1, 2)), a.weights("speakers", (0, 1, 2)))
    assert not np.array_equal(a.weights("seeds", (0, 1, 2)), Resampler(key=("other",)).weights("seeds", (0, 1, 2)))


def test_one_unit_says_nothing_of_its_spread():
    assert widening(1) == 0
    assert widening(3) > widening(5) > widening(100) > 1
    assert np.ptp(Resampler().values(np.array([0.3]), (0,), None)) == 0


def test_equal_error_rate_deviations():
    """Under a resampling the deviation is the exact equal error rate's, to the bins' width."""
    random = np.random.default_rng(0)
    n = 4000
    same = random.integers(0, 2, n)
    speaker = np.array([f"v{i}" for i in random.integers(0, 6, n)])
    score = random.normal(size=n) + 1.5 * same + 0.3 * (speaker == "v0") * same
    names = tuple(sorted(set(speaker)))
    trials = trial_scores(np.zeros(n, int), speaker, score_bins(score)[:, None], same, names)
    weights = np.array([[0.0, 2, 1, 1, 1, 1]]) / 6

    def exact(times):
        repeated = np.repeat(np.arange(n), times)
        far, tar, _ = roc_curve(same[repeated], score[repeated])
        i = np.argmin(np.abs(far - (1 - tar)))
        return (far[i] + 1 - tar[i]) / 2

    times = np.array([weights[0, names.index(s)] * 6 for s in speaker]).astype(int)
    expected = exact(times) - exact(np.ones(n, int))
    assert abs(expected) > 0.003
    assert trials.deviations(weights)[0, 0] == pytest.approx(expected, abs=0.003)


def test_interval_and_verdict():
    margin = np.concatenate([[0.5], np.linspace(0.1, 0.9, 2000)])
    assert verdict(*interval(margin)) == REPLICATED
    assert verdict(*interval(-margin)) == CONTRADICTED
    undecided = margin.copy()
    undecided[1:101] = np.nan  # 5 % of the draws decide nothing
    low, high = interval(undecided)
    assert low == -np.inf and high == np.inf
    assert verdict(low, high) == INCONCLUSIVE


def test_seeds_to_decide():
    """If seeds alone make the interval, the number named is about what Student's interval needs."""
    from scipy.stats import norm, t

    sd, point, n = 1.0, 0.9, 4
    draws = norm.ppf(np.linspace(0.0005, 0.9995, 2000)) * sd / np.sqrt(n) * t.ppf(0.975, n - 1) / norm.ppf(0.975)

    def margin_under(sources):
        return np.concatenate([[point], point + draws if sources == ("seeds",) else np.full(2000, point)])

    told = to_decide(point, n, margin_under).words
    needed = next(k for k in range(n, 99) if t.ppf(0.975, k - 1) * sd / np.sqrt(k) <= point)
    assert told == f"about {needed} seeds"


def test_speech_to_decide():
    draws = np.linspace(-1, 1, 2000)

    def margin_under(sources):
        return np.concatenate([[0.3], 0.3 + (draws if sources == ("speakers",) else 0 * draws)])

    assert "hours of test speech" in to_decide(0.3, 3, margin_under).words
    assert to_decide(0.0, 3, margin_under).words == "more than 200 seeds"


def test_each_part_has_its_own_room():
    """An exact count just inside its bound asks for no seeds; the noisy part, far inside its own, needs few."""
    noise = np.linspace(-1, 1, 2000)

    def part(point, spread):
        margin = np.array([point]) if spread is None else np.concatenate([[point], point + spread * noise])
        return Part("x", margin, 0.0, ">=", margin)

    def told(*given):
        def under(sources, one):
            return one.margin if sources == ("seeds",) else np.full(2001, one.margin[0])

        return parts_to_decide([part(*one) for one in given], 3, under)

    alone = told((0.5, 0.9))
    assert alone.words.startswith("about ") and told((0.01, None), (0.5, 0.9)) == alone
    assert told((0.5, 0.9), (0.1, 0.9)) == told((0.1, 0.9)) > alone
    assert told((0.5, 0.1)) is None and told((0.5, 0.9), (-0.1, 0.9)) is None
