"""A small generated language: a few hundred made-up words, a grammar that makes context predictable, an intent and a keyword a sentence.

A sentence is FRAME VERB DET [ADJECTIVE] NOUN [PREPOSITION DET NOUN] [ADVERB], with one KEYWORD at any boundary between these parts.
Frame word and verb group together give the intent, so neither word alone tells it. Words within a class follow Zipf's law; each word
prefers a few successors, the determiner agrees with its noun, and the verb chooses its preposition: what is masked can be guessed
from what is around it. Languages differ in their words, which are spelled as their speakers would read them; the grammar is one.
Everything is a function of (number of words, seed, language).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError

FRAMES, VERB_GROUPS, KEYWORDS, DETERMINERS, PREPOSITIONS = 5, 2, 12, 5, 8
INTENTS = FRAMES * VERB_GROUPS
MINIMUM_WORDS = 100
PREFERRED, OTHER = 6, 0.03  # successors that a word prefers, and the weight of all others relative to them

FIRST = "en"
# onsets, vowels and codas of a syllable, in letters, by language: its name is eSpeak NG's voice
SPELLINGS = {
    "en": (
        [*"bdfghjklmnprstvwz", "sh", "ch", "th", "st", "tr", "pl", "br", "gr", "fl", "sn", "dr"],
        [*"aeiou", "ee", "oo", "ai", "ow"],
        ["", "", "n", "l", "r", "s", "t", "k", "m", "nd", "sk", "lt"],
    ),
    "de": (
        [*"bdfghklmnprtwz", "sch", "schw", "pf", "kn", "st", "sp", "tr", "kr", "gl", "zw", "pfl"],
        [*"aeiouäöü", "ie", "ei", "eu", "au", "üh", "öh"],
        ["", "", "n", "l", "r", "s", "t", "ch", "cht", "nk", "rz", "tz"],
    ),
    "es": (
        [*"bdfjlmnñprstyz", "ll", "ch", "tr", "pl", "br", "gr", "fl", "pr"],
        [*"aeiou", "ie", "ue", "ai"],
        ["", "", "", "n", "l", "r", "s", "z", "d"],
    ),
}


@dataclass(frozen=True)
class Sentence:
    text: str
    intent: str
    keyword: str


class Language:
    """`words` words in all, drawn from `seed`, of a language of SPELLINGS. Raises UserError below MINIMUM_WORDS words."""

    def __init__(self, words: int = 250, seed: int = 1, language: str = FIRST) -> None:
        if words < MINIMUM_WORDS:
            raise UserError(f"data.corpus.words is {words}: the generated language needs at least {MINIMUM_WORDS}")
        self.seed = seed
        spelled = _spell(words, seed, language)
        sizes = {
            "determiner": DETERMINERS,
            "frame": FRAMES,
            "preposition": PREPOSITIONS,
            "keyword": KEYWORDS,
            "verb": VERB_GROUPS * max(6, words // 20),
            "adverb": words // 10,
            "adjective": words // 5,
        }
        sizes["noun"] = words - sum(sizes.values())
        self.classes: dict[str, list[str]] = {}
        for name, size in sizes.items():  # short words first: the closed classes are the frequent ones
            self.classes[name], spelled = spelled[:size], spelled[size:]

    @cached_property
    def words(self) -> list[str]:
        return [word for members in self.classes.values() for word in members]

    def sentence(self, generator: np.random.Generator) -> Sentence:
        """One sentence, by the draws of `generator` alone."""
        intent = int(generator.integers(INTENTS))
        frame = self.classes["frame"][intent % FRAMES]
        verb = self._next(generator, "", f"verb{intent // FRAMES}")
        parts = [[frame], [verb], self._noun_phrase(generator, verb)]
        if generator.random() < 0.6:
            preposition = self.classes["preposition"][self._rank("verb", verb) % PREPOSITIONS]
            parts.append([preposition, *self._noun_phrase(generator, preposition, adjective=0.2)])
        if generator.random() < 0.4:
            parts.append([self._next(generator, verb, "adverb")])
        keyword = self.classes["keyword"][int(generator.integers(KEYWORDS))]
        parts.insert(int(generator.integers(len(parts) + 1)), [keyword])
        return Sentence(" ".join(word for part in parts for word in part), f"intent{intent}", keyword)

    def _noun_phrase(self, generator: np.random.Generator, head: str, adjective: float = 0.5) -> list[str]:
        noun = self._next(generator, head, "noun")
        phrase = [self.classes["determiner"][self._rank("noun", noun) % DETERMINERS]]
        if generator.random() < adjective:
            phrase.append(self._next(generator, noun, "adjective"))
        return [*phrase, noun]

    def _next(self, generator: np.random.Generator, before: str, kind: str) -> str:
        members, cumulative = self._successors(before, kind)
        return members[int(np.searchsorted(cumulative, generator.random(), side="right"))]

    def _successors(self, before: str, kind: str) -> tuple[list[str], np.ndarray]:
        key = (before, kind)
        if key not in self._tables:
            members = self.classes["verb"][int(kind[-1]) :: VERB_GROUPS] if kind[:-1] == "verb" else self.classes[kind]
            weights = 1 / np.arange(1, len(members) + 1)
            if before:
                chosen = numpy_generator("language", self.seed, "successors", before, kind)
                liked = chosen.choice(len(members), size=min(PREFERRED, len(members)), replace=False)
                weights[np.setdiff1d(np.arange(len(members)), liked)] *= OTHER
            cumulative = np.cumsum(weights / weights.sum())
            cumulative[-1] = 1.0
            self._tables[key] = (members, cumulative)
        return self._tables[key]

    @cached_property
    def _tables(self) -> dict[tuple[str, str], tuple[list[str], np.ndarray]]:
        return {}

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        return {(kind, word): rank for kind, members in self.classes.items() for rank, word in enumerate(members)}

    def _rank(self, kind: str, word: str) -> int:
        return self._ranks[kind, word]


def _spell(count: int, seed: int, language: str) -> list[str]:
    """Distinct made-up words of one to three syllables in lower-case letters, short ones first."""
    onsets, vowels, codas = SPELLINGS[language]
    generator = numpy_generator("language", seed, *([] if language == FIRST else [language]), "spelling")
    words: dict[str, int] = {}
    while len(words) < count:
        syllables = int(np.searchsorted(np.cumsum([0.2, 0.6]), len(words) / count, side="right")) + 1
        word = ""
        for last in [*[False] * (syllables - 1), True]:
            coda = codas[int(generator.integers(len(codas)))] if last else ""
            word += onsets[int(generator.integers(len(onsets)))] + vowels[int(generator.integers(len(vowels)))] + coda
        if len(word) >= 3:
            words.setdefault(word, syllables)
    return list(words)
