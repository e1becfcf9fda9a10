"""Reading CTC outputs with a language model: prefix beam search, summing over alignments, many utterances side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sslrepro.config import LanguageModelSettings
from sslrepro.downstream.language_model import END, NGram, State

SPACE = " "
TOGETHER = 64  # utterances that share each step: on one core 7 times as fast as one after the other
NO_WORD = SPACE  # the unfinished word that no known word begins with
NOTHING, NOBODY = np.uint64(0), np.uint64(1)  # names of a free place in the beam and of the empty prefix's parent


class BeamSearch:
    """The text with the highest log p(text | audio) + weight log10 p(words) + word_score x words: a `ctc.Decode`.

    Prefix beam search (Hannun et al. 2014, arXiv 1408.2873, Algorithm 1): probabilities of a prefix's alignments that end in a blank and
    in its last symbol are kept apart, and `beam` prefixes after each frame. Words end at a space; where the symbols have none (phones)
    every symbol is a word. Any spelling can be read; one that the model does not know has the probability of its unknown word.
    """

    def __init__(self, model: NGram, settings: LanguageModelSettings) -> None:
        self.model, self.settings = model, settings

    def __call__(self, lines: Sequence[np.ndarray], symbols: Sequence[str]) -> list[list[str]]:
        """Of each line the log_probs (frames, 1 + symbols), the blank first -> the symbols read from it."""
        states = _States(self.model, self.settings, symbols)
        longest_first = sorted(range(len(lines)), key=lambda i: -len(lines[i]))
        read: list[list[str]] = [[] for _ in lines]
        for start in range(0, len(lines), TOGETHER):
            rows = longest_first[start : start + TOGETHER]
            for row, text in zip(rows, self._search([lines[row] for row in rows], states), strict=True):
                read[row] = [symbols[column - 1] for column in text]
        return read

    def _search(self, lines: list[np.ndarray], states: _States) -> list[list[int]]:
        """The columns read from each line (frames, 1 + symbols); lines from the longest to the shortest."""
        count, lengths = len(lines), np.array([len(line) for line in lines])
        # of each place in the beam: its prefix's name, its parent's, its last column (0: none), its state and the score of its whole words
        name, parent = np.full((count, 1), 2, dtype=np.uint64), np.full((count, 1), NOBODY)
        last, state = np.zeros((2, count, 1), dtype=np.int64)
        score, blank, other = np.zeros((count, 1)), np.zeros((count, 1)), np.full((count, 1), -np.inf)
        came: list[np.ndarray] = []  # after each frame, of each place: where in the beam it was, x (1 + symbols) + the column added, or 0
        ends: list[tuple[int, int]] = [(0, 0)] * count  # of each line: its frames, and the place in its last beam
        for t in range(lengths[0] + 1 if count else 0):
            going = int((lengths > t).sum())
            if going < len(name):  # these lines are read whole
                finished = np.logaddexp(blank, other)[going:] + score[going:] + states.endings(state[going:])
                for line, place in enumerate(finished.argmax(1).tolist(), start=going):
                    ends[line] = (t, place)
                name, parent, last, state, score, blank, other = (x[:going] for x in (name, parent, last, state, score, blank, other))
            if not going:
                break
            frame = np.stack([line[t] for line in lines[:going]]).astype(np.float64)
            width, lines_of = name.shape[1], np.arange(going)[:, None]
            total = np.logaddexp(blank, other)
            said = np.take_along_axis(frame, last, 1)
            repeated = np.where(last > 0, other + said, -np.inf)
            longer = total[:, :, None] + frame[:, None, 1:]
            line, place = np.nonzero(last)
            longer[line, place, last[line, place] - 1] = (blank + said)[line, place]  # twice the same symbol needs a blank between
            line, child, of = np.nonzero(parent[:, :, None] == name[:, None, :])  # a longer prefix that the beam holds already
            grown = last[line, child] - 1
            repeated[line, child] = np.logaddexp(repeated[line, child], longer[line, of, grown])
            longer[line, of, grown] = -np.inf
            stayed = total + frame[:, :1]
            ranked = np.concatenate(
                [np.logaddexp(stayed, repeated) + score, (longer + (score[:, :, None] + states.gains[state])).reshape(going, -1)], axis=1
            )
            if ranked.shape[1] > self.settings.beam:
                best = np.argpartition(-ranked, self.settings.beam - 1, axis=1)[:, : self.settings.beam]
            else:
                best = np.broadcast_to(np.arange(ranked.shape[1]), ranked.shape)
            grows = best >= width
            place, column = np.divmod(np.where(grows, best - width, 0), longer.shape[2])
            place, column = np.where(grows, place, best), np.where(grows, column + 1, 0)
            blank = np.where(grows, -np.inf, stayed[lines_of, place])
            other = np.where(grows, longer[lines_of, place, column - 1], repeated[lines_of, place])
            came.append(place * (1 + longer.shape[2]) + column)
            free = np.take_along_axis(ranked, best, 1) == -np.inf
            name, parent = name[lines_of, place], np.where(grows, name[lines_of, place], parent[lines_of, place])
            name, parent = np.where(free, NOTHING, np.where(grows, _longer_name(name, column), name)), np.where(free, NOBODY, parent)
            last = np.where(free, 0, np.where(grows, column, last[lines_of, place]))
            before, score = state[lines_of, place], score[lines_of, place]
            score = score + np.where(grows, states.gains[before, column - 1], 0.0)
            state = np.where(free, 0, states.after(before, np.where(free, 0, column)))
        return [_traced(came, line, *end, states.columns) for line, end in enumerate(ends)]


class _States:
    """What the language model must know of a prefix, numbered as it is first met: its own state, and the unfinished word.

    gains (states, symbols): what each symbol, as the next, adds to the score.
    """

    def __init__(self, model: NGram, settings: LanguageModelSettings, symbols: Sequence[str]) -> None:
        self.model, self.settings, self.symbols, self.columns = model, settings, symbols, 1 + len(symbols)
        self.starts = {word[:i] for word in model.words for i in range(len(word) + 1)}
        self.numbers: dict[tuple[State, str], int] = {}
        self.held: list[tuple[State, str]] = []
        self.gains, self._next, self._ending = np.empty((0, len(symbols))), np.empty((0, self.columns), dtype=np.int64), np.empty(0)
        self._number(model.start, "")

    def after(self, states: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The state of each prefix once the symbol of that column is added (0: the same); both (lines, places)."""
        unmet = self._next[states, columns] < 0
        for state, column in {*zip(states[unmet].tolist(), columns[unmet].tolist(), strict=True)}:
            number = self._number(*self._extended(*self.held[state], self.symbols[column - 1]))  # may make the table anew
            self._next[state, column] = number
        return self._next[states, columns]

    def endings(self, states: np.ndarray) -> np.ndarray:
        """What the end of the text adds to the score: the unfinished word, if any, and the sentence's end."""
        return self._ending[states]

    def _number(self, state: State, word: str) -> int:
        if (state, word) not in self.numbers:
            number = self.numbers[state, word] = len(self.held)
            self.held.append((state, word))
            if number == len(self.gains):
                more = max(64, number)  # the tables double
                self.gains = np.concatenate([self.gains, np.empty((more, self.columns - 1))])
                self._next = np.concatenate([self._next, np.full((more, self.columns), -1)])
                self._ending = np.concatenate([self._ending, np.empty(more)])
            self._next[number, 0] = number
            if SPACE in self.symbols:
                self.gains[number] = 0.0
                if word:
                    self.gains[number, self.symbols.index(SPACE)] = self._gain(state, word)
            else:
                self.gains[number] = [self._gain(state, symbol) for symbol in self.symbols]
            whole, unfinished = (self._with(state, word), self._gain(state, word)) if word else (state, 0.0)
            self._ending[number] = unfinished + self.settings.weight * np.log10(self.model.following(whole)[END])
        return self.numbers[state, word]

    def _gain(self, state: State, word: str) -> float:
        return self.settings.weight * np.log10(self.model.following(state)[self.model.number(word)]) + self.settings.word_score

    def _with(self, state: State, word: str) -> State:
        return self.model.after(state, self.model.number(word))

    def _extended(self, state: State, word: str, symbol: str) -> tuple[State, str]:
        if SPACE not in self.symbols:
            return self._with(state, symbol), ""
        if symbol == SPACE:
            return (self._with(state, word) if word else state), ""
        return state, word + symbol if word + symbol in self.starts else NO_WORD


def _longer_name(name: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Names prefixes by their text: a prefix that left the beam and returns has its name again. Two texts share one with a chance of 2^-64.

    The finaliser of splitmix64 (Steele et al. 2014) over the parent's name and the column.
    """
    mixed = name * np.uint64(0x9E3779B97F4A7C15) + column.astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _traced(came: list[np.ndarray], line: int, frames: int, place: int, columns: int) -> list[int]:
    """The columns that were added on the way to that place of the beam after so many frames."""
    text: list[int] = []
    for t in range(frames - 1, -1, -1):
        place, column = divmod(int(came[t][line, place]), columns)
        if column:
            text.append(column)
    return text[::-1]
