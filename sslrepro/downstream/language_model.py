"""An n-gram language model by interpolated Kneser-Ney, for the beam search (KenLM has no wheels)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

UNKNOWN, START, END = 0, 1, 2  # word numbers; the others follow in alphabetical order


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
        self._known: dict[tuple[tuple[str, ...], str], float] = {}

    def log10(self, history: Sequence[str], word: str | None) -> float:
        """log10 p(word | the sentence so far); None: that it ends here."""
        kept = tuple(history[max(0, len(history) - self.order + 1) :])
        started = len(history) < self.order - 1  # so <s> is among the last order - 1 words
        if ((started, *kept), word) not in self._known:
            numbers = [START] * started + [self.words.get(w, UNKNOWN) for w in kept]
            token = END if word is None else self.words.get(word, UNKNOWN)
            self._known[(started, *kept), word] = float(np.log10(self._probability(numbers, token)))
        return self._known[(started, *kept), word]

    def _probability(self, history: list[int], token: int) -> float:
        place = self._place([*history, token])
        if place >= 0:
            return float(self.probabilities[len(history)][place])
        context = self._place(history)
        weight = self.back_off[len(history)][context] if context >= 0 else 1.0
        return float(weight) * self._probability(history[1:], token)

    def _place(self, numbers: list[int]) -> int:
        """Of an n-gram among those of its length; -1 where the text does not hold it."""
        place = numbers[0]
        for keys, token in zip(self.keys[1:], numbers[1:], strict=False):
            key = place * self.size + token
            place = int(np.searchsorted(keys, key))
            if place == len(keys) or keys[place] != key:
                return -1
        return place


def _discount(counts: np.ndarray) -> float:
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return once / (once + 2 * twice) if once and twice else 0.5  # a text too small to tell
