"""Reading CTC outputs with a language model: prefix beam search, summing over alignments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sslrepro.config import LanguageModelSettings
from sslrepro.downstream.language_model import NGram

SPACE = " "


@dataclass(frozen=True)
class _Prefix:
    """What has been read so far: the number of the prefix one symbol shorter, and that symbol's column (0: nothing is read yet)."""

    parent: int
    column: int
    words: tuple[str, ...]  # whole ones
    word: str  # the unfinished one
    score: float  # of the whole words
    gains: np.ndarray  # (symbols,) what each as the next symbol adds to it


class BeamSearch:
    """The text with the highest log p(text | audio) + weight log10 p(words) + word_score x words: a `ctc.Decode`.

    Prefix beam search (Hannun et al. 2014, arXiv 1408.2873, Algorithm 1): probabilities of a prefix's alignments that end in a blank and
    in its last symbol are kept apart, and `beam` prefixes after each frame. Words end at a space; where the symbols have none (phones)
    every symbol is a word. Any spelling can be read; one that the model does not know has the probability of its unknown word.
    """

    def __init__(self, model: NGram, settings: LanguageModelSettings) -> None:
        self.model, self.settings = model, settings

    def __call__(self, log_probs: np.ndarray, symbols: Sequence[str]) -> list[str]:
        """log_probs (frames, 1 + symbols), the blank first -> the symbols read."""
        prefixes = [_Prefix(-1, 0, (), "", 0.0, self._gains((), "", symbols))]
        numbers: dict[tuple[int, int], int] = {}  # of a prefix by its parent and column: one that leaves the beam may return
        beam, blank, other = np.array([0]), np.zeros(1), np.full(1, -np.inf)
        for frame in log_probs.astype(np.float64):
            held = [prefixes[i] for i in beam]
            parent, last = (np.array([getattr(prefix, name) for prefix in held]) for name in ("parent", "column"))
            total = np.logaddexp(blank, other)
            repeated = np.where(last > 0, other + frame[last], -np.inf)
            longer = total[:, None] + frame[None, 1:]
            rows = np.flatnonzero(last)
            longer[rows, last[rows] - 1] = blank[rows] + frame[last[rows]]  # twice the same symbol needs a blank between
            child, of = np.nonzero(parent[:, None] == beam[None, :])  # a longer prefix that the beam holds already
            repeated[child] = np.logaddexp(repeated[child], longer[of, last[child] - 1])
            longer[of, last[child] - 1] = -np.inf
            score, gains = np.array([prefix.score for prefix in held]), np.stack([prefix.gains for prefix in held])
            stayed = np.stack([total + frame[0], repeated])
            ranked = np.concatenate([np.logaddexp(*stayed) + score, (longer + score[:, None] + gains).ravel()])
            best = np.argsort(-ranked, kind="stable")[: self.settings.beam]
            best = best[ranked[best] > -np.inf]
            stays, grows = best[best < len(beam)], best[best >= len(beam)] - len(beam)
            places, columns = np.divmod(grows, len(symbols))
            new = []
            for place, column in zip(beam[places].tolist(), (columns + 1).tolist(), strict=True):
                if (place, column) not in numbers:
                    numbers[place, column] = len(prefixes)
                    prefixes.append(self._extended(prefixes[place], place, column, symbols))
                new.append(numbers[place, column])
            blank = np.concatenate([stayed[0][stays], np.full(len(new), -np.inf)])
            other = np.concatenate([stayed[1][stays], longer[places, columns]])
            beam = np.concatenate([beam[stays], np.array(new, dtype=np.int64)])
        finished = [self._finished(prefixes[i]) for i in beam]
        number = int(beam[np.argmax(np.logaddexp(blank, other) + finished)])
        read: list[str] = []
        while number:
            read.append(symbols[prefixes[number].column - 1])
            number = prefixes[number].parent
        return read[::-1]

    def _gain(self, words: tuple[str, ...], word: str) -> float:
        return self.settings.weight * self.model.log10(words, word) + self.settings.word_score

    def _gains(self, words: tuple[str, ...], word: str, symbols: Sequence[str]) -> np.ndarray:
        if SPACE not in symbols:
            return np.array([self._gain(words, symbol) for symbol in symbols])
        return np.array([self._gain(words, word) if word and symbol == SPACE else 0.0 for symbol in symbols])

    def _extended(self, prefix: _Prefix, number: int, column: int, symbols: Sequence[str]) -> _Prefix:
        symbol, words, word = symbols[column - 1], prefix.words, prefix.word
        if SPACE not in symbols:
            words = (*words, symbol)
        elif symbol != SPACE:
            word += symbol
        elif word:
            words, word = (*words, word), ""
        score = prefix.score + float(prefix.gains[column - 1])
        return _Prefix(number, column, words, word, score, self._gains(words, word, symbols))

    def _finished(self, prefix: _Prefix) -> float:
        words, score = prefix.words, prefix.score
        if prefix.word:
            words, score = (*words, prefix.word), score + self._gain(words, prefix.word)
        return score + self.settings.weight * self.model.log10(words, None)
