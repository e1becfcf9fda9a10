"""Which size is best for a budget, from runs at several sizes and budgets: a quadratic in log size a budget, and a parametric loss.

Intervals are 95 % bootstraps. With several runs (seeds) a size, runs are drawn again within each size; with one run a size, the residuals
of the fit are, so then the interval knows of the fit's misfit and not of seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError

DRAWS = 1000
HUBER = 0.01  # residuals of log loss beyond 1 % count linearly
LEAST_CONVEX = 0.95  # share of bootstrap curves that must open upwards for the interval to be closed


@dataclass(frozen=True)
class Vertex:
    """The size at the bottom of the U. low, high: 95 % interval, 0 and inf where more than 5 % of the curves do not open upwards.

    value: the fitted metric there. inside: whether the size lies strictly between the smallest and the largest that ran. log_draws:
    natural logs of the bootstrap's vertices, NaN where a curve opens downwards.
    """

    size: float
    low: float
    high: float
    value: float
    convex_share: float
    inside: bool
    log_draws: np.ndarray


def _parabola(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.polynomial.polynomial.polyfit(x, y, 2)


def _bottom(c: np.ndarray) -> np.ndarray:
    """Where parabolas (3, ...) are lowest; NaN where they open downwards."""
    return np.where(c[2] > 0, -c[1] / (2 * np.where(c[2] > 0, c[2], 1)), np.nan)


def u_curve(sizes: np.ndarray, values: np.ndarray, seed: int | str = 0) -> Vertex:
    """Fit value = a + b log(size) + c log(size)^2. sizes (runs,) in parameters; values (runs,), lower is better. seed: of the
    bootstrap; curves that are to be compared need different ones, or their draws go up and down together.

    Raises UserError with fewer than four sizes: three points fix a parabola and leave nothing to judge it by.
    """
    sizes, values = np.asarray(sizes, float), np.asarray(values, float)
    different = np.unique(sizes)
    if len(different) < 4:
        raise UserError(f"a U-curve needs at least 4 sizes at a budget, here are {len(different)}")
    centre = np.log(sizes).mean()
    x = np.log(sizes) - centre
    c = _parabola(x, values)
    drawn = _parabola_draws(x, values, c, np.log(sizes), numpy_generator("u_curve", seed))
    bottoms = _bottom(drawn) + centre
    convex = float(np.isfinite(bottoms).mean())
    closed = convex >= LEAST_CONVEX
    low, high = np.exp(np.nanpercentile(bottoms, [2.5, 97.5])) if closed else (0.0, math.inf)
    bottom = float(_bottom(c))
    value = float(np.polynomial.polynomial.polyval(bottom, c))
    size = math.exp(bottom + centre)
    return Vertex(size, float(low), float(high), value, convex, different[0] < size < different[-1], bottoms)


def _parabola_draws(x: np.ndarray, y: np.ndarray, c: np.ndarray, groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Coefficients (3, draws) of bootstrap curves."""
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    if min(len(m) for m in members) > 1:
        picks = np.concatenate([generator.choice(m, size=(DRAWS, len(m))) for m in members], axis=1)
        designs = np.vander(x, 3, increasing=True)[picks]  # (draws, runs, 3)
        return (np.linalg.pinv(designs) @ y[picks][..., None])[..., 0].T
    design = np.vander(x, 3)
    leverage = np.einsum("ij,ji->i", design, np.linalg.pinv(design))
    residuals = (y - np.polynomial.polynomial.polyval(x, c)) / np.sqrt(np.clip(1 - leverage, 0.05, None))
    residuals -= residuals.mean()
    fitted = np.polynomial.polynomial.polyval(x, c)
    return _parabola(x, (fitted + generator.choice(residuals, size=(DRAWS, len(x)))).T)


def vertex_shift(less: Vertex, more: Vertex) -> tuple[float, float, float]:
    """log(size at the smaller budget / size at the larger) with its 95 % interval; below 0, the optimum shrinks with the budget."""
    return (math.log(less.size / more.size), *_interval(less.log_draws - more.log_draws))


def _interval(draws: np.ndarray) -> tuple[float, float]:
    if np.isfinite(draws).mean() < LEAST_CONVEX:
        return -math.inf, math.inf
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class ParametricLoss:
    """L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann 2022, equation 2), N parameters, D hours of speech seen.

    intervals: 95 % of each coefficient, by bootstrap over runs. draws (draws, 5): log E, logs of A / N^alpha and
    B / D^beta at `centre` (mean log N, mean log D), alpha, beta: centred, so that the coefficients are told apart well.
    """

    floor: float
    a: float
    alpha: float
    b: float
    beta: float
    intervals: dict[str, tuple[float, float]]
    sizes: tuple[float, float]
    hours: tuple[float, float]
    centre: tuple[float, float]
    draws: np.ndarray

    def loss(self, size: float | np.ndarray, hours: float | np.ndarray) -> np.ndarray:
        return self.floor + self.a / np.asarray(size) ** self.alpha + self.b / np.asarray(hours) ** self.beta

    def best_size(self, sizes: np.ndarray, hours: np.ndarray) -> tuple[float, float, float]:
        """Of models of `sizes`, each of which sees `hours` within one and the same budget, the best, with its 95 % interval."""
        log_n = np.log(np.asarray(sizes, float)) - self.centre[0]
        log_d = np.log(np.asarray(hours, float)) - self.centre[1]
        best = np.asarray(sizes)[np.argmin(self.loss(sizes, hours))]
        drawn = [np.argmin(_log_loss(p, log_n, log_d)) for p in self.draws]
        low, high = np.percentile(np.asarray(sizes, float)[drawn], [2.5, 97.5])
        return float(best), float(low), float(high)


def _terms(p: np.ndarray, log_n: np.ndarray, log_d: np.ndarray) -> np.ndarray:
    """Logs of the three terms of the loss, (3, runs)."""
    return np.stack([np.full_like(log_n, p[0]), p[1] - p[3] * log_n, p[2] - p[4] * log_d])


def _log_loss(p: np.ndarray, log_n: np.ndarray, log_d: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce(_terms(p, log_n, log_d))


def _solve(start: np.ndarray, log_n: np.ndarray, log_d: np.ndarray, log_l: np.ndarray) -> tuple[float, np.ndarray]:
    """Least Huber loss of the residuals of log L, from one start."""

    def residuals(p: np.ndarray) -> np.ndarray:
        return _log_loss(p, log_n, log_d) - log_l

    def slopes(p: np.ndarray) -> np.ndarray:
        terms = _terms(p, log_n, log_d)
        share = np.exp(terms - np.logaddexp.reduce(terms))
        return np.stack([*share, -share[1] * log_n, -share[2] * log_d], axis=1)

    low, high = [-20, -20, -20, 0.01, 0.01], [10, 10, 10, 3, 3]
    found = least_squares(residuals, start, slopes, (low, high), loss="huber", f_scale=HUBER, max_nfev=200)
    return float(found.cost), found.x


def parametric_loss(sizes: np.ndarray, hours: np.ndarray, losses: np.ndarray, seed: int = 0, draws: int = 100) -> ParametricLoss:
    """Fit the loss by Huber's criterion on its log, from many starts. sizes, hours, losses (runs,): positive.

    Raises UserError with fewer than 7 runs: five coefficients and two runs to judge them by.
    """
    log_n, log_d, y = (np.log(np.asarray(v, float)) for v in (sizes, hours, losses))
    if len(y) < 7:
        raise UserError(f"the parametric loss needs at least 7 runs, here are {len(y)}")
    centre = float(log_n.mean()), float(log_d.mean())
    n, d = log_n - centre[0], log_d - centre[1]
    starts = [
        np.array([y.min() - gap, y.mean() - 2, y.mean() - 2, alpha, beta])
        for gap in (0.1, 0.5, 2.0)
        for alpha in (0.2, 0.6, 1.2)
        for beta in (0.2, 0.6, 1.2)
    ]
    _, best = min((_solve(start, n, d, y) for start in starts), key=lambda found: found[0])
    generator = numpy_generator("parametric_loss", seed)
    picks = generator.integers(0, len(y), size=(draws, len(y)))
    drawn = np.array([_solve(best, n[p], d[p], y[p])[1] for p in picks])
    coefficients = np.vstack([best, drawn])
    coefficients[:, 1] += coefficients[:, 3] * centre[0]
    coefficients[:, 2] += coefficients[:, 4] * centre[1]
    coefficients[:, :3] = np.exp(coefficients[:, :3])
    low, high = np.percentile(coefficients[1:], [2.5, 97.5], axis=0)
    names = ("floor", "a", "b", "alpha", "beta")
    intervals = {name: (float(low[i]), float(high[i])) for i, name in enumerate(names)}
    floor, a, b, alpha, beta = (float(value) for value in coefficients[0])
    ends = [(float(np.exp(v.min())), float(np.exp(v.max()))) for v in (log_n, log_d)]
    return ParametricLoss(floor, a, alpha, b, beta, intervals, *ends, centre, drawn)
