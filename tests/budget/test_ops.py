"""What torch's counter has no rule for, against naive counts of algorithms that are checked to be right."""

from __future__ import annotations

import cmath

import numpy as np
import pytest

from sslrepro.budget.ops import fft_macs, prime_factors, rfft_macs, scan_macs


def counted_fft(x: list[complex]) -> tuple[list[complex], int]:
    """Mixed-radix Cooley-Tukey by recursion, and the complex multiply-accumulates that it does."""
    n = len(x)
    if n == 1:
        return x, 0
    radix = prime_factors(n)[0]
    size, done = n // radix, 0
    parts = []
    for r in range(radix):
        part, macs = counted_fft(x[r::radix])
        parts.append(part)
        done += macs
    out = []
    for k in range(n):
        value = 0j
        for r in range(radix):
            value += parts[r][k % size] * cmath.exp(-2j * cmath.pi * r * k / n)
            done += 1
        out.append(value)
    return out, done


@pytest.mark.parametrize("n", [1, 2, 7, 12, 77, 400, 512])
def test_fft(n: int) -> None:
    x = np.random.default_rng(n).normal(size=n) + 1j * np.random.default_rng(n + 1).normal(size=n)
    result, macs = counted_fft(list(x))
    np.testing.assert_allclose(result, np.fft.fft(x), atol=1e-9)
    assert fft_macs(n) == 4 * macs  # a complex multiply-accumulate is four real ones


def test_two_real_signals_go_through_one_complex_transform() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 400))
    both, macs = counted_fft(list(a + 1j * b))
    mirrored = np.conj(np.roll(both[::-1], 1))
    np.testing.assert_allclose((np.array(both) + mirrored) / 2, np.fft.fft(a), atol=1e-9)
    np.testing.assert_allclose((np.array(both) - mirrored) / 2j, np.fft.fft(b), atol=1e-9)
    assert 2 * rfft_macs(400) == 4 * macs


def test_scan() -> None:
    steps, width = 9, 5
    a, b = np.random.default_rng(0).normal(size=(2, steps, width))
    state, states, done = np.zeros(width), [], 0
    for t in range(steps):
        for i in range(width):
            state[i] = a[t, i] * state[i] + b[t, i]
            done += 1
        states.append(state.copy())
    closed = [sum(b[s] * np.prod(a[s + 1 : t + 1], axis=0) for s in range(t + 1)) for t in range(steps)]
    np.testing.assert_allclose(states, closed)
    assert scan_macs(steps, width) == done
