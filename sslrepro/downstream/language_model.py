"""An n-gram language model by interpolated Kneser-Ney, for the beam search (KenLM has no wheels)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

UNKNOWN, START, END = 0, 1, 2  # word numbers; the others follow in alphabetical order
State = tuple[int, ...]  # the last words' numbers, as many as the model can tell from fewer


class NGram:
    """An n-gram model of the sentences, each a sequence of words, with one discount an order.

    Interpolated Kneser-Ney (Chen & Goodman 1998, section 2.7), with a(.) the count at the highest order and after <s>, else the number of
    different words before (Heafield et al. 2013, equation 1):

        p(w | h) = max(a(h w) - D, 0) / sum_v a(h v) + g(h) p(w | h'),  g(h) = D |{v: a(h v) > 0}| / sum_v a(h v),  D = n1 / (n1 + 2 n2)

    h' is h without its first word, and below one word stands 1 / (number of words with </s> and the unknown). The n-grams of a length
    are the sorted numbers (place of h among those one shorter) x words + w.
    """

    def __init__(self, sentences: Iterable[Sequence[str]], order: int) -> None:
        lines = [list(words) for words in sentences]
        self.words = {word: 3 + i for i, word in enumerate(sorted({word for line in lines for word in line}))}
        self.size = 3 + len(self.words)
        text = [[START, *(self.words[word] for word in line), END] for line in lines]
        tokens = np.array([token for line in text for token in line], dtype=np.int64)
        inside = np.concatenate([np.arange(len(line)) for line in text]) if text else tokens  # place in the sentence
        self.keys = [np.arange(self.size)]
        counts, suffixes, starts = [np.bincount(tokens, minlength=self.size)], [np.zeros(self.size, np.int64)], [self.keys[0] == START]
        node = tokens  # of the n-gram that ends at each token
        for n in range(1, order):
            ends = np.flatnonzero(inside >= n)
            keys, places, count = np.unique(node[ends - 1] * self.size + tokens[ends], return_inverse=True, return_counts=True)
            parents, last = np.divmod(keys, self.size)
            suffixes.append(np.searchsorted(self.keys[-1], suffixes[-1][parents] * self.size + last) if n > 1 else last)
            node = np.full(len(tokens), -1)
            node[ends] = places
            starts.append(starts[-1][parents])
            self.keys.append(keys)
            counts.append(count)
        self.probabilities: list[np.ndarray] = []  # of each n-gram's last word after the others
        self.back_off: list[np.ndarray] = []  # g of each n-gram but the longest, as a history; last: of no history
        for n, keys in enumerate(self.keys):
            adjusted = counts[n].astype(np.float64)
            if n + 1 < len(self.keys):
                before = np.bincount(suffixes[n + 1], minlength=len(keys))
                adjusted = np.where(starts[n], adjusted, before)
            if n == 0:
                adjusted[START] = 0  # it is never predicted
            parents = keys // self.size if n else np.zeros(self.size, np.int64)
            histories = len(self.keys[n - 1]) if n else 1
            total = np.bincount(parents, adjusted, histories)
            discount = _discount(adjusted)
            spare = discount * np.bincount(parents, adjusted > 0, histories)
            weight = np.divide(spare, total, out=np.ones(histories), where=total > 0)
            lower = self.probabilities[-1][suffixes[n]] if n else np.full(self.size, 1 / (self.size - 1))
            seen = np.maximum(adjusted - discount, 0) / np.where(total > 0, total, 1)[parents]
            self.probabilities.append(seen + weight[parents] * lower)
            self.back_off.append(weight)
        self.order = order
        self.start: State = (START,) if order > 1 else ()
        self._following: dict[State, np.ndarray] = {(): self.probabilities[0]}

    def number(self, word: str | None) -> int:
        """None: the end of the sentence."""
        return END if word is None else self.words.get(word, UNKNOWN)

    def after(self, state: State, token: int) -> State:
        """The longest end of the state and one more word that the text holds: what was before it changes no probability to come."""
        grown = (*state, token)[-self.order :][1 if len(state) + 1 >= self.order else 0 :]
        while self._place(grown) < 0:
            grown = grown[1:]
        return grown

    def following(self, state: State) -> np.ndarray:
        """p(w | state) of every word number w: (words,)."""
        if state not in self._following:
            n, place = len(state), self._place(state)
            first, last = np.searchsorted(self.keys[n], [place * self.size, (place + 1) * self.size])
            found = self.back_off[n][place] * self.following(state[1:])
            found[self.keys[n][first:last] - place * self.size] = self.probabilities[n][first:last]
            self._following[state] = found
        return self._following[state]

    def log10(self, history: Sequence[str], word: str | None) -> float:
        """log10 p(word | the sentence so far); None: that it ends here."""
        state = self.start
        for earlier in history:
            state = self.after(state, self.number(earlier))
        return float(np.log10(self.following(state)[self.number(word)]))

    def _place(self, numbers: State) -> int:
        """Of an n-gram among those of its length; -1 where the text does not hold it."""
        place = numbers[0] if numbers else 0
        for keys, token in zip(self.keys[1:], numbers[1:], strict=False):
            key = place * self.size + token
            place = int(np.searchsorted(keys, key))
            if place == len(keys) or keys[place] != key:
                return -1
        return place


def _discount(counts: np.ndarray) -> float:
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return once / (once + 2 * twice) if once and twice else 0.5  # a text too small to tell
