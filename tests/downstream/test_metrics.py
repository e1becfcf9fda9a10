import jiwer
import numpy as np
import pytest
from sklearn.metrics import roc_curve

from sslrepro.downstream.ctc import count_phones, count_text
from sslrepro.downstream.metrics import by_speaker, edit_errors, equal_error_rate


def random_lines(generator, count, symbols, fewest):
    return [[str(s) for s in generator.choice(list(symbols), size=generator.integers(fewest, 12))] for _ in range(count)]


def test_error_rates_are_jiwers():
    generator = np.random.default_rng(0)
    said, heard = random_lines(generator, 60, "abcd", 1), random_lines(generator, 60, "abcde", 0)
    result = count_phones("x", said, heard, ["s"] * 60)
    assert result.metrics["x.per"] == pytest.approx(jiwer.wer([" ".join(x) for x in said], [" ".join(x) for x in heard]))
    assert edit_errors(said, heard)[7] == jiwer.process_words(" ".join(said[7]), " ".join(heard[7])).wer * len(said[7])


def test_word_and_character_error_rates_are_jiwers():
    generator = np.random.default_rng(1)
    words = ["ab", "cad", "be", "a"]
    said = [" ".join(generator.choice(words, size=4)) for _ in range(50)]
    heard = [" ".join(generator.choice(words, size=generator.integers(0, 6))) for _ in range(50)]
    heard[3] = "  " + heard[3].replace(" ", "   ") + " "
    metrics = count_text("x", [list(x) for x in said], [list(x) for x in heard], ["s"] * 50).metrics
    tidy = [" ".join(x.split()) for x in heard]
    assert metrics["x.wer"] == pytest.approx(jiwer.wer(said, tidy))
    assert metrics["x.cer"] == pytest.approx(jiwer.cer(said, tidy))


def test_rows_of_speakers_add_up():
    errors, units = np.array([1, 2, 3]), np.array([10, 20, 30])
    rows = by_speaker("m", ["b", "a", "b"], errors, units)
    assert rows == [("m", "a", 2.0, 20.0), ("m", "b", 4.0, 40.0)]


@pytest.mark.parametrize("shift", [0.0, 0.7, 2.0])
def test_equal_error_rate_is_where_a_sweep_finds_it(shift):
    generator = np.random.default_rng(2)
    same = generator.random(4000) < 0.4
    scores = generator.normal(size=4000) + shift * same
    thresholds = np.unique(scores)
    accepted = np.array([(scores[~same] >= t).mean() for t in thresholds])
    rejected = np.array([(scores[same] < t).mean() for t in thresholds])
    nearest = np.argmin(np.abs(accepted - rejected))
    assert equal_error_rate(scores, same) == pytest.approx((accepted[nearest] + rejected[nearest]) / 2, abs=1e-3)
    false, true, _ = roc_curve(same, scores)
    assert np.interp(equal_error_rate(scores, same), false, true) == pytest.approx(1 - equal_error_rate(scores, same), abs=2e-3)


def test_equal_error_rate_at_the_ends():
    same = np.array([True, True, False, False])
    assert equal_error_rate(np.array([2.0, 3.0, 0.0, 1.0]), same) == 0
    assert equal_error_rate(np.array([0.0, 1.0, 2.0, 3.0]), same) == 1
    assert equal_error_rate(np.zeros(4), same) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="different"):
        equal_error_rate(np.zeros(2), np.array([True, True]))
