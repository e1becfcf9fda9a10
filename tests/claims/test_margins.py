"""Margins by hand: at or above zero exactly when the criterion holds."""

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy.stats import spearmanr

from sslrepro.claims.contrasts import Kept
from sslrepro.claims.counter import Reverse, Swap, shuffled
from sslrepro.claims.kinds import Test as AnyTest
from sslrepro.claims.margins import Part, smallest
from sslrepro.claims.series import Frame, Series, Undecidable, meets


def series(name, values, **coordinates):
    values = np.atleast_2d(np.array(values, float))
    return Series(name, {k: np.array(v) for k, v in coordinates.items()}, values)


def curve(values, name="y", x=None):
    return series(name, values, x=x if x is not None else np.arange(1.0, np.shape(np.atleast_2d(values))[1] + 1))


def margin(test, *given, resampled=False):
    parts = TypeAdapter(AnyTest).validate_python(test).parts(Frame({s.name: s for s in given}, resampled=resampled))
    return smallest(parts)


CASES = [
    # (test, series, margin)
    ({"kind": "valley", "of": "y", "along": "x", "excess": 0.1}, [curve([1.2, 1.0, 1.3])], 1.0),
    ({"kind": "valley", "of": "y", "along": "x", "excess": 0.1}, [curve([1.1, 1.0, 1.3])], 0.0),
    ({"kind": "valley", "of": "y", "along": "x", "excess": 0.1}, [curve([1.05, 1.0, 1.3])], -0.5),
    ({"kind": "valley", "of": "y", "along": "x", "excess": 0.1}, [curve([1.0, 1.1, 1.2])], (1.0 / 1.1 - 1) / 0.1 - 1),
    ({"kind": "valley", "of": "y", "along": "x"}, [curve([1.0, 1.0, 1.2])], -1e-9),
    ({"kind": "argmin", "of": "y", "along": "x", "low": 1, "high": 4}, [curve([3, 1, 2], x=[1, 2, 4])], 1.0),
    ({"kind": "argmin", "of": "y", "along": "x", "low": 2, "high": 8}, [curve([1, 3, 2], x=[1, 2, 4])], -1.0),
    ({"kind": "argmins_within", "of": "y", "other": "z", "along": "x"}, [curve([3, 1, 2]), curve([3, 2, 1], "z")], 0.0),
    ({"kind": "argmins_within", "of": "y", "other": "z", "along": "x"}, [curve([1, 3, 2]), curve([3, 2, 1], "z")], -1.0),
    ({"kind": "trend", "of": "y", "along": "x", "direction": "falling"}, [curve([4, 2, 1.5])], 0.25),
    ({"kind": "trend", "of": "y", "along": "x", "direction": "falling"}, [curve([4, 4, 1.5])], -1e-9),
    ({"kind": "trend", "of": "y", "along": "x", "direction": "rising", "strict": False}, [curve([4, 4, 5])], 0.0),
    ({"kind": "trend", "of": "y", "over": "z", "along": "x", "direction": "falling"}, [curve([4, 3]), curve([4, 6], "z")], 0.5),
    ({"kind": "spearman", "of": "y", "along": "x", "at_most": -0.9}, [curve([4, 3, 2, 1])], 1 / 9),
    ({"kind": "saturates", "of": "y", "along": "x", "share": 0.5}, [curve([16, 8, 4, 3])], -1e-9),
    ({"kind": "drops", "of": "y", "along": "x", "points": [1, 2, 3], "factor": 2}, [curve([7, 4, 3])], 0.25),
    # both reach 4: y half way between its points, at 2, z at 4
    (
        {"kind": "sooner", "of": "y", "other": "z", "start": "s", "along": "x", "at_least": 3},
        [curve([6, 2], x=[1, 3]), curve([7, 4, 4.5], "z", x=[1, 4, 5]), curve([8], "s")],
        (4 / 2 - 3) / 2,
    ),
    ({"kind": "ratio", "of": "y", "over": "z", "at_most": 0.9}, [curve([0.8]), curve([1.0], "z")], 1.0),
    ({"kind": "ratio", "of": "y", "at_least": 154.0, "at_most": 156.0}, [curve([155.0])], 1 / 156),
    ({"kind": "ratio", "of": "y", "over": "z", "at_most": 1, "strict": True}, [curve([2.0]), curve([2.0], "z")], -1e-9),
    ({"kind": "close", "of": "y", "to": "z", "match": "x", "within": 0.01}, [curve([1.005, 2]), curve([1, 2], "z")], 0.5),
    ({"kind": "ends_ratio", "of": "y", "other": "z", "along": "x"}, [curve([2, 1]), curve([4, 1], "z")], 0.5),
    ({"kind": "slope", "of": "y", "along": "x", "low": -0.6, "high": -0.4}, [curve([1, 0.5, 0.25], x=[1, 4, 16])], 1 / 6),
    ({"kind": "spread", "of": "y", "at_most": 0.05}, [curve([0.95, 1.05])], -1.0),
    ({"kind": "spread", "of": "y", "at_most": 4, "absolute": True}, [curve([10, 12, 13])], 0.25),
    (
        {"kind": "spread", "of": "y", "at_most": 0.2, "at": "x", "pick": "largest"},
        [curve([1.0, 1.1, 5, 0.9, 9], x=[10, 10.2, 20, 10, 20])],
        0.0,
    ),
    (  # of two groups as large, the worse one counts
        {"kind": "spread", "of": "y", "at_most": 0.2, "at": "x", "pick": "largest"},
        [curve([1.0, 1.0, 10, 12], x=[10, 10, 20, 20])],
        1 - (2 / 11) / 0.2,
    ),
    (
        {"kind": "variance", "of": "y", "less": "o", "more": "s"},
        [series("y", [0, 4, 1, 5], o=["a", "a", "b", "b"], s=[1, 2, 1, 3])],
        16 / 17 - 1 / 17,
    ),
    (
        {"kind": "count_best", "of": "y", "among": "rule", "which": "a", "per": "b", "at_least": 2},
        [series("y", [1, 2, 3, 1], rule=["a", "b", "a", "b"], b=[1, 1, 2, 2])],
        -0.5,
    ),
    (
        {"kind": "above_line", "of": "p", "line": "y", "along": "x", "factor": 1.25},
        [series("p", [20.0], x=[1.0]), curve([4, 2, 1, 9], x=[2, 4, 8, 900])],
        1.0,
    ),
    (
        {"kind": "pareto", "of": "p", "others": "q", "cost_of": "pt", "cost_others": "qt"},
        [
            *(series("p", [2.0], cell=["p"]), series("pt", [2.0], cell=["p"])),
            *(series("q", [1.0, 3.0], cell=["q", "r"]), series("qt", [4.0, 1.0], cell=["q", "r"])),
        ],
        0.5,
    ),
    (
        {"kind": "pareto", "of": "p", "others": "q", "cost_of": "pt", "cost_others": "qt"},
        [
            *(series("p", [2.0], cell=["p"]), series("pt", [2.0], cell=["p"])),
            *(series("q", [1.5], cell=["q"]), series("qt", [1.8], cell=["q"])),
        ],
        -0.1,
    ),
    (  # the other may be the better one
        {"kind": "pair_differences", "of": "y", "other": "z", "match": "x"},
        [curve([10, 12], x=[1, 2]), curve([7, 9], "z", x=[1, 2])],
        1 / 11,
    ),
    (
        {"kind": "pair_differences", "of": "y", "other": "z", "match": "x"},
        [curve([9, 11]), curve([14, 16], "z")],
        0.3,
    ),
    (
        {
            "kind": "any",
            "tests": [
                {"kind": "trend", "of": "y", "along": "x", "direction": "falling"},
                {"kind": "trend", "of": "y", "along": "x", "direction": "rising"},
            ],
        },
        [curve([2, 3])],
        0.5,
    ),
]


@pytest.mark.parametrize(("test", "given", "expected"), CASES, ids=[f"{i}-{c[0]['kind']}" for i, c in enumerate(CASES)])
def test_by_hand(test, given, expected):
    found = margin(test, *given)
    assert found.shape == (1,)
    assert found[0] == pytest.approx(expected, abs=1e-12)


def test_every_kind_is_tested_by_hand():
    from typing import get_args

    kinds = {get_args(k.model_fields["kind"].annotation)[0] for k in get_args(get_args(AnyTest)[0])}
    assert kinds - {case[0]["kind"] for case in CASES} == {"kept", "law", "vertex_shift"}  # below


def kept(stochastic, fixed, floor, resampled=False):
    test = {"kind": "kept", "of": "s", "reference": "f", "floor": "l", "share": 0.9}
    return margin(test, series("s", stochastic), series("f", fixed), series("l", floor, cell=["mel", "random"]), resampled=resampled)


def test_kept_is_a_share_of_the_gain_over_the_better_floor():
    assert kept([[22.0]], [[20.0]], [[50.0, 40.0]])[0] == pytest.approx(0.0)
    assert kept([[21.0]], [[20.0]], [[50.0, 40.0]])[0] == pytest.approx(0.95 / 0.9 - 1)
    assert kept([[23.0]], [[20.0]], [[50.0, 40.0]])[0] < 0


def test_the_straight_margin_has_the_sign_of_the_share_s():
    fixed, given = np.array([[20.0], [39.0], [25.0]]), np.array([[21.0], [39.2], [26.0]])
    frame = Frame({"s": series("s", given), "f": series("f", fixed), "l": series("l", [[40.0]])})
    part = Kept(kind="kept", of="s", reference="f", floor="l", share=0.9).parts(frame)[0]
    assert part.straight[0] == pytest.approx(part.margin[0]) and (np.sign(part.straight) == np.sign(part.margin)).all()
    assert np.abs(part.straight).max() < np.abs(part.margin).max()


def test_a_reference_without_gain_decides_nothing():
    with pytest.raises(Undecidable, match="no gain"):
        kept([[39.0]], [[40.0]], [[50.0, 40.0]])
    # nor one whose gain's interval reaches zero
    with pytest.raises(Undecidable, match="no gain"):
        kept([[39.0]], [[39.0], [35.0], [41.0]], [[50.0, 40.0]], resampled=True)


def test_noise_never_helps_quality_kept():
    """A model that keeps 80 % of the gain is not called as good however noisy the scores; one that keeps 97 % only when they are quiet."""
    from sslrepro.claims.verdict import interval

    def low(share, noise):
        random = np.random.default_rng(3)
        fixed = np.vstack([[[20.0]], 20 + noise * random.normal(size=(4000, 1))])
        given = np.vstack([[[40 - 20 * share]], 40 - 20 * share + noise * random.normal(size=(4000, 1))])
        try:
            return interval(kept(given, fixed, [[50.0, 40.0]], resampled=True))[0]
        except Undecidable:
            return -np.inf

    noises = [0.01, 0.3, 1, 3, 10, 30]
    assert all(low(0.8, noise) < 0 for noise in noises)
    falling = [low(0.97, noise) for noise in noises]
    assert falling[0] > 0 > falling[2]
    assert falling == sorted(falling, reverse=True)


def test_law_recovers_its_exponents_and_the_interval_grows_with_noise():
    batch, updates = np.meshgrid([1.0, 2, 4, 8], [10.0, 20, 40], indexing="ij")
    test = {"kind": "law", "of": "y", "batch": "b", "updates": "u", "low": 0.67, "high": 1.5, "r2_loss": 0.01}

    def parts(a, b, noise):
        y = np.exp(3 - a * np.log(batch) - b * np.log(updates) + noise * np.random.default_rng(1).normal(size=batch.shape)).ravel()
        frame = Frame({"y": series("y", y, b=batch.ravel(), u=updates.ravel())})
        return TypeAdapter(AnyTest).validate_python(test).parts(frame)

    lower, upper, lost = parts(0.5, 0.5, 1e-6)
    assert lower.value[0] == pytest.approx(1, abs=1e-4) and upper.value[0] == pytest.approx(1, abs=1e-4)
    assert lost.value[0] == pytest.approx(0, abs=1e-6)
    assert smallest(parts(0.5, 0.25, 1e-6))[0] < 0
    widths = [p[1].value[0] - p[0].value[0] for p in (parts(0.5, 0.5, 0.01), parts(0.5, 0.5, 0.05))]
    assert widths[1] > 3 * widths[0]
    assert smallest(parts(0.0, 0.0, 1.0))[0] < 0  # no law at all


def test_vertex_shift_in_doublings():
    x = np.array([25.0, 50, 100, 200, 400])

    def u(vertex):
        return 10 + (np.log2(x / 100) - vertex) ** 2

    test = {"kind": "vertex_shift", "of": "half", "other": "full", "along": "x"}
    assert margin(test, curve(u(-0.5), "half", x), curve(u(0.25), "full", x))[0] > 0
    parts = TypeAdapter(AnyTest).validate_python(test).parts(Frame({"half": curve(u(-0.5), "half", x), "full": curve(u(0.25), "full", x)}))
    assert parts[0].value[0] == pytest.approx(-0.75)
    assert margin(test, curve(u(0.5), "half", x), curve(u(0.25), "full", x))[0] < 0
    assert margin(test, curve(-u(-0.5), "half", x), curve(-u(0.25), "full", x))[0] < 0  # upside down has no minimum


def test_spearman_is_scipys():
    random = np.random.default_rng(0)
    y = random.integers(0, 4, size=(20, 6)).astype(float)
    found = margin({"kind": "spearman", "of": "y", "along": "x", "at_most": -0.9}, curve(y))
    rho = np.array([spearmanr(np.arange(6), row).statistic if np.ptp(row) else 0.0 for row in y])
    assert found == pytest.approx((-0.9 - rho) / 0.9)


def test_a_choice_is_made_on_the_point_estimate():
    """Resampled draws keep the minimum's place; shuffles are tables of their own."""
    y = curve([[1.3, 1.0, 1.1, 1.3], [1.3, 1.2, 1.0, 1.3]])
    test = {"kind": "valley", "of": "y", "along": "x", "excess": 0.1}
    assert margin(test, y, resampled=True)[1] == pytest.approx((1.3 / 1.2 - 1) / 0.1 - 1)
    assert margin(test, y)[1] == pytest.approx(2.0)


def test_smallest_and_what_decides_nothing():
    def part(*margins):
        return Part("p", np.array(margins), 0, ">=", np.array(margins))

    found = smallest([part(1.0, np.nan, np.nan), part(0.5, 2.0, -1.0)])
    assert found[0] == 0.5 and np.isnan(found[1]) and found[2] == -1.0


def test_groups_and_worst():
    y = series("y", [3, 2, 5, 4.9], x=[1, 2, 1, 2], o=["a", "a", "b", "b"])
    test = {"kind": "trend", "of": "y", "along": "x", "direction": "falling", "by": ["o"], "worst": True}
    (only,) = TypeAdapter(AnyTest).validate_python(test).parts(Frame({"y": y}))
    assert only.name.startswith("b:") and only.margin[0] == pytest.approx(0.02)


def test_counter_tables_turn_only_what_they_name():
    frame = Frame({"a": curve([1, 2, 4], "a"), "b": curve([5, 6, 7], "b")})
    turned = Reverse(kind="reverse", along="x", series=["a"]).turn(frame)
    assert turned["a"].values.tolist() == [[4, 2, 1]] and turned["b"].values.tolist() == [[5, 6, 7]]
    swap = Swap(kind="swap", pairs=[["a", "b"]])
    assert swap.turn(frame)["a"].values.tolist() == [[5, 6, 7]]
    mixed = shuffled(frame, swap, 400, np.random.default_rng(0))
    assert set(mixed["a"].values[:, 0]) == {1, 5}
    assert (mixed["a"].values + mixed["b"].values == [6, 8, 11]).all()


def test_a_range_may_begin_at_a_share_of_the_largest():
    assert meets(np.array([8.0, 16.0, 32.0, 128.0]), {"min_share": 0.125}).tolist() == [False, True, True, True]
    assert meets(np.array(["a", "16", "128"]), {"min_share": 0.5}).tolist() == [False, False, True]
