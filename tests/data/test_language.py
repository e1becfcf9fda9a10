from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from sslrepro.data.language import INTENTS, KEYWORDS, Language
from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError


def sentences(count: int, seed: int = 1, words: int = 250):
    language = Language(words, seed)
    return language, [language.sentence(numpy_generator("test", seed, i)) for i in range(count)]


def entropy(counts: Counter) -> float:
    shares = np.array(list(counts.values())) / sum(counts.values())
    return float(-(shares * np.log2(shares)).sum())


def test_is_a_function_of_its_settings_alone():
    assert sentences(50)[1] == sentences(50)[1]
    assert sentences(50)[1] != sentences(50, seed=2)[1]


@pytest.mark.parametrize("words", [100, 250, 2000])
def test_has_the_words_asked_for_spelled_in_plain_letters(words):
    language = Language(words)
    assert len(set(language.words)) == len(language.words) == words
    assert all(word.isascii() and word.isalpha() and word.islower() and len(word) >= 3 for word in language.words)


def test_too_few_words_are_refused():
    with pytest.raises(UserError, match=r"data.corpus.words is 20"):
        Language(20)


def test_intent_needs_frame_and_verb_together():
    language, spoken = sentences(2000)
    assert len({s.intent for s in spoken}) == INTENTS
    pairs, frames, verbs = Counter(), Counter(), Counter()
    for s in spoken:
        words = s.text.split()
        frame = next(w for w in words if w in language.classes["frame"])
        verb = next(w for w in words if w in language.classes["verb"])
        group = language.classes["verb"].index(verb) % 2
        pairs[frame, group, s.intent] += 1
        frames[frame, s.intent] += 1
        verbs[verb, s.intent] += 1
    assert len(pairs) == INTENTS  # each pair of frame word and verb group has one intent
    assert len(frames) == 2 * len({frame for frame, _ in frames})  # a frame word alone leaves two
    assert len(verbs) > 3 * len({verb for verb, _ in verbs})


def test_every_sentence_holds_its_keyword_once_and_no_other():
    language, spoken = sentences(500)
    places = Counter()
    for s in spoken:
        found = [i for i, w in enumerate(s.text.split()) if w in language.classes["keyword"]]
        assert [s.text.split()[i] for i in found] == [s.keyword]
        places[found[0]] += 1
    assert len({s.keyword for s in spoken}) == KEYWORDS
    assert len(places) >= 6  # anywhere


def test_words_follow_zipf_and_context_predicts_them():
    _, spoken = sentences(4000)
    single, pairs, heads = Counter(), Counter(), Counter()
    for s in spoken:
        words = s.text.split()
        single.update(words)
        pairs.update(pairwise(words))
        heads.update(words[:-1])
    counts = np.array(sorted(single.values(), reverse=True))
    ranks = np.arange(1, len(counts) + 1)
    slope = np.polyfit(np.log(ranks[:150]), np.log(counts[:150]), 1)[0]
    assert -1.5 < slope < -0.6
    conditional = entropy(pairs) - entropy(heads)
    assert conditional < entropy(single) - 2.0  # bits: the word before says much about the next
