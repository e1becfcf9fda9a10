import itertools
from collections import Counter

import numpy as np
import pytest

from sslrepro.config import LanguageModelSettings
from sslrepro.downstream.beam_search import BeamSearch
from sslrepro.downstream.ctc import greedy
from sslrepro.downstream.language_model import NGram

SENTENCES = [line.split() for line in ["a b a", "b a", "a b c a b", "c", "a a b b c a", "b c a b", "d a b c", "a b", "c c a"]]


def by_the_equation(sentences, order):
    """p(w | h), straight from counts in dictionaries: Chen & Goodman's recursion with Heafield's adjusted counts."""
    text = [("<s>", *line, "</s>") for line in sentences]
    grams = [Counter(line[i : i + n] for line in text for i in range(len(line) - n + 1)) for n in range(1, order + 1)]
    vocabulary = {word for line in text for word in line} - {"<s>"} | {"?"}

    def adjusted(gram):
        if len(gram) == order or gram[0] == "<s>":
            return grams[len(gram) - 1][gram] if gram != ("<s>",) else 0
        return sum(longer[1:] == gram for longer in grams[len(gram)])

    def discount(n):
        counts = [adjusted(gram) for gram in grams[n - 1]]
        once, twice = counts.count(1), counts.count(2)
        return once / (once + 2 * twice) if once and twice else 0.5

    discounts = {n: discount(n) for n in range(1, order + 1)}

    def probability(history, word):
        lower = probability(history[1:], word) if history else 1 / len(vocabulary)
        followers = {v: adjusted((*history, v)) for v in vocabulary}
        total = sum(followers.values())
        if not total:
            return lower
        d = discounts[len(history) + 1]
        return max(followers[word] - d, 0) / total + d * sum(a > 0 for a in followers.values()) / total * lower

    return vocabulary, probability


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_are_the_equation(order):
    model, (vocabulary, expected) = NGram(SENTENCES, order), by_the_equation(SENTENCES, order)
    for history in ([], ["a"], ["a", "b"], ["c", "c", "a"], ["?", "a"], ["d", "d", "d", "d"], ["b", "c", "a", "b"]):
        kept = tuple(["<s>", *history][max(0, len(history) + 2 - order) :])
        got = {word: 10 ** model.log10(history, None if word == "</s>" else word) for word in vocabulary}
        assert sum(got.values()) == pytest.approx(1)
        for word in vocabulary:
            assert got[word] == pytest.approx(expected(kept, word)), (history, word)


def all_texts(log_probs, symbols):
    """Each text that CTC can read, with its log-probability: the sum over every alignment."""
    texts = {}
    for path in itertools.product(range(len(symbols) + 1), repeat=len(log_probs)):
        text = tuple(symbols[s - 1] for s, _ in itertools.groupby(path) if s)
        texts[text] = np.logaddexp(texts.get(text, -np.inf), sum(log_probs[t, s] for t, s in enumerate(path)))
    return texts


def score_of(text, words, model, settings):
    heard = [model.log10(words[:i], word) for i, word in enumerate([*words, None])]
    return text + settings.weight * sum(heard) + settings.word_score * len(words)


@pytest.mark.parametrize("symbols", [["a", "b", " "], ["a", "b", "c"]], ids=["words", "phones"])
@pytest.mark.parametrize("settings", [{"weight": 0.0}, {"weight": 2.0}, {"weight": 0.7, "word_score": 1.5}], ids=str)
def test_a_beam_that_holds_all_finds_the_best_text(symbols, settings):
    settings = LanguageModelSettings(order=3, beam=10_000, **settings)
    spoken = [["ab", "a"], ["b", "a", "ab"], ["aab"], ["a", "b"]] if " " in symbols else SENTENCES
    model = NGram(spoken, settings.order)
    found = set()
    for seed in range(8):
        logits = np.random.default_rng(seed).normal(scale=2.0, size=(5, 4))
        log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        scores = {
            text: score_of(value, list(text) if " " not in symbols else "".join(text).split(), model, settings)
            for text, value in all_texts(log_probs, symbols).items()
        }
        (got,) = map(tuple, BeamSearch(model, settings)([log_probs], symbols))
        assert scores[got] == pytest.approx(max(scores.values()))
        found.add(got)
    assert len(found) > 4


def test_a_small_beam_is_close_and_a_clear_voice_needs_no_words():
    model, symbols = NGram(SENTENCES, 2), ["a", "b", "c", " "]
    generator = np.random.default_rng(0)
    spoken = generator.integers(0, 5, 40)
    clear = np.full((40, 5), np.log(0.001))
    clear[np.arange(40), spoken] = np.log(0.996)
    assert BeamSearch(model, LanguageModelSettings(beam=4, weight=0.0))([clear], symbols) == greedy([clear], symbols)
    assert BeamSearch(model, LanguageModelSettings(beam=1, weight=0.0))([clear], symbols) == greedy([clear], symbols)


def test_words_that_are_known_win_where_the_sound_does_not_tell():
    model = NGram([["bad", "dab"]] * 3 + [["cab"]], 2)
    symbols, spelled = list("abcd "), "bad dcb"
    log_probs = np.full((2 * len(spelled), 6), np.log(0.01))
    for i, symbol in enumerate(spelled):
        log_probs[2 * i, 0] = np.log(0.95)
        log_probs[2 * i + 1, 1 + symbols.index(symbol)] = np.log(0.5)
        log_probs[2 * i + 1, 1 + symbols.index("a")] = np.log(0.45 if symbol != "a" else 0.95)
    assert "".join(*greedy([log_probs], symbols)) == "bad dcb"
    assert "".join(*BeamSearch(model, LanguageModelSettings(order=2))([log_probs], symbols)) == "bad dab"
    assert "".join(*BeamSearch(model, LanguageModelSettings(order=2, weight=0.0))([log_probs], symbols)) == "bad dcb"


def test_texts_without_frames_and_models_without_repetition():
    search = BeamSearch(NGram([["a"]], 4), LanguageModelSettings())
    assert search([np.empty((0, 3))], ["a", " "]) == [[]]
    assert search([], ["a", " "]) == []
    assert 10 ** search.model.log10(["a"], None) > 0.5 > 10 ** search.model.log10([], None)
