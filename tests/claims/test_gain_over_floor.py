"""A metric that random weights beat decides nothing, and what would decide a claim where more seeds would not."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter

from sslrepro.claims.kinds import Test as AnyTest
from sslrepro.claims.ledger import load_study
from sslrepro.claims.series import Frame, Series, Undecidable
from sslrepro.pipeline.profile import expand
from tests.claims.test_judging import Made, rows

SIZES = {"size30": 0.30, "slim": 0.25, "size473": 0.26, "size1582": 0.31}


def valley(y, floor):
    """A valley by objective, on draws whose first is the point estimate."""
    x = np.tile([1.0, 2.0, 3.0], len(y[0]) // 3)
    test = TypeAdapter(AnyTest).validate_python({"kind": "valley", "of": "y", "along": "x", "by": ["o"], "gain_over": "floor"})
    objectives = np.repeat(["a", "b"][: len(y[0]) // 3], 3)
    given = {"y": Series("y", {"x": x, "o": objectives}, np.array(y))}
    if floor is not None:
        given["floor"] = Series("floor", {"cell": np.arange(len(floor[0]))}, np.array(floor))
    frame = Frame(given, resampled=True)
    return test.parts(frame), frame


def test_by_hand():
    """a's best is 2; of the floors 4 and 3 the better is 3, so a has a gain; b's best of 3.5 has none and is named."""
    both = [[3.0, 2.0, 5.0, 4.0, 3.5, 6.0]]
    parts, frame = valley(both, [[4.0, 3.0]])
    assert [part.name for part in parts] == ["a: low end above the inner minimum", "a: high end above the inner minimum"]
    assert len(frame.undecided) == 1 and "b 3.5 against 3" in frame.undecided[0] and "not seeds" in frame.undecided[0]
    parts, frame = valley(both, None)  # a published table
    assert len(parts) == 4 and not frame.undecided
    with pytest.raises(Undecidable, match=r"a 2 against 1, b 3\.5 against 1"):
        valley(both, [[1.0]])


def test_a_gain_counts_with_its_interval():
    """Below the floor by 0.1 on the point, above it in a tenth of the draws: no gain yet, and seeds would tell."""
    draws = [[3.0, 2.0, 5.0]] * 90 + [[3.0, 2.2, 5.0]] * 10
    with pytest.raises(Undecidable, match=r"a 2 against 2\.1") as refused:
        valley(draws, [[2.1]])
    assert "not seeds" not in str(refused.value)
    assert len(valley(draws, [[2.3]])[0]) == 2


def made(top, floor, profile="laptop"):
    """U-curves of three objectives, Slim worse than Small, HuBERT the best of Slims, three seeds of random weights beside five of all."""
    study = Made(top, "budget", profile)
    for place, objective in enumerate(("hubert", "tera", "wav2vec2")):
        for size, rate in ({**SIZES, "small": 0.2}).items():
            for seed in range(5):
                value = rate + 0.02 * place + 0.001 * seed
                study.add(f"{objective}-{size}", seed, phone_ctc__per=value, verification__eer=value, asr__wer=value)
    for seed in range(3 if floor else 0):
        for cell in ("floor-random", "floor-random-size1582"):
            study.add(cell, seed, phone_ctc__per=0.9, verification__eer=floor, asr__wer=0.9)
    study.write()
    return study


def test_no_verdict_rests_on_a_metric_that_random_weights_beat(tmp_path):
    made(tmp_path / "bad", floor=0.15), made(tmp_path / "good", floor=0.5)
    bad, good = (rows(tmp_path / name, "budget", "laptop") for name in ("bad", "good"))
    assert [good[f"budget-{n}"].verdict for n in ("04", "08", "10")] == ["replicated", "contradicted", "replicated"]
    assert bad["budget-04"].verdict == "inconclusive at this scale" and not bad["budget-04"].parts
    assert "hubert 0.252 against 0.15" in bad["budget-04"].reason
    assert bad["budget-10"].verdict == "inconclusive at this scale"  # content alone does not replicate a claim of two metrics
    assert {part["name"] for part in bad["budget-10"].parts} == {"hubert / wav2vec2", "hubert / tera"}
    assert bad["budget-08"].verdict == "contradicted"  # but it contradicts one
    assert bad["budget-08"].seeds == 5, "the floor's seeds are not the claim's"


def test_a_profile_without_a_floor_says_so(tmp_path):
    made(tmp_path, floor=None)
    row = rows(tmp_path, "budget", "laptop")["budget-04"]
    assert row.verdict == "replicated" and "this profile has no floor" in row.reason


def test_the_ledger_says_what_would_decide_where_seeds_would_not(tmp_path):
    """budget-11 at laptop, whose runs hear less than all of 100: the reason names that, and no number of seeds."""
    study, random = Made(tmp_path, "budget", "laptop"), np.random.default_rng(1)
    for hours in (1, 10, 100, 960):
        for seed in range(3):
            study.add(f"unique{hours}", seed, phone_ctc__per=0.7 + 0.05 * random.normal())
    study.write()
    row = rows(tmp_path, "budget", "laptop")["budget-11"]
    assert row.verdict == "inconclusive at this scale"
    assert "hear all of 960 several times" in row.reason and "about" not in row.reason
    training, hours = (getattr(expand("laptop").studies["budget"].cells["unique100"], key) for key in ("training", "data"))
    assert training.budget.unit == "updates" and training.budget.amount * training.batch_seconds / 3600 < hours.hours
    unique = expand("paper").studies["budget"].cells["unique960"].training
    assert unique.budget.amount * unique.batch_seconds / 3600 > 5 * 960


def test_a_vertex_past_the_sizes_is_named(tmp_path):
    """The error of wav2vec 2.0 falls to the largest size: its vertex is no minimum, and HuBERT's is one."""
    study = Made(tmp_path, "budget", "laptop")
    for objective, values in {"hubert": (0.6, 0.5, 0.6), "wav2vec2": (0.6, 0.5, 0.3)}.items():
        for size, value in zip((30, 100, 1582), values, strict=True):
            for seed in range(3):
                study.add(f"{objective}-size{size}", seed, phone_ctc__per=value + 0.01 * seed)
                study.add(f"{objective}-size{size}-half", seed, phone_ctc__per=value + 0.01 * (2 - seed) * (size == 100))
    study.write()
    reason = rows(tmp_path, "budget", "laptop")["budget-07"].reason
    assert "the vertex of full wav2vec2 is not within the points that ran" in reason and "full hubert is not" not in reason
    assert "rises at both ends" in reason


def test_the_part_that_seeds_would_decide_is_named(tmp_path):
    study, random = Made(tmp_path, "budget", "laptop"), np.random.default_rng(0)
    for objective in ("hubert", "tera", "wav2vec2"):
        for seed in range(5):
            study.add(f"{objective}-slim", seed, phone_ctc__per=0.305 + 0.02 * random.normal(), verification__eer=0.2)
            study.add(f"{objective}-small", seed, phone_ctc__per=0.3, verification__eer=0.3)
    study.write()
    row = rows(tmp_path, "budget", "laptop")["budget-08"]
    assert row.verdict == "inconclusive at this scale"
    assert any(f"the margin of {part['name']} stays {part['margin']:+.2g}" in row.reason for part in row.parts)


def test_one_run_of_the_papers_size_says_that_it_cannot_decide(tmp_path):
    study = Made(tmp_path, "budget", "paper")
    for size, rate in SIZES.items():
        study.add(f"hubert-{size}", 0, asr__wer=rate)
    study.write()
    row = rows(tmp_path, "budget", "paper")["budget-01"]
    assert row.verdict == "inconclusive at this scale" and "its cells are of one run" in row.reason


def test_every_floor_of_the_ledger_is_of_random_weights():
    for claim in load_study("budget").claims:
        for test in claim.tests:
            if test.gain_over is not None:
                cells = claim.ours[test.gain_over].templates()
                assert all(name.startswith("floor-random") for name in cells), claim.id
