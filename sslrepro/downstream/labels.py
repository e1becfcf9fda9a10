"""What each task learns and is scored on, from a corpus folder.

Heads learn from `corpus.subset(train_hours, fixed_speakers=True)`: nested in hours, every training voice in it. Test labels are the test
split's, all of them; speaker identification alone splits those same training rows again, since the test split's voices are unknown ones.
The validation split is not used: nothing is chosen, neither a rate nor a moment to stop.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from sslrepro.config import DownstreamSettings
from sslrepro.data.corpus import Corpus
from sslrepro.data.writer import PHONES
from sslrepro.downstream.task import Labelled, Unavailable
from sslrepro.draws import key64

SILENCE = "sil"
SPEAKER_TEST = 4  # one utterance in so many of each voice is for testing


class Intervals(NamedTuple):
    """Phones of an utterance in order: `starts`, `ends` (phones,) in samples, `names` (phones,)."""

    starts: np.ndarray
    ends: np.ndarray
    names: np.ndarray


def intervals(corpus: Corpus, settings: DownstreamSettings) -> Labelled:
    """Phone times of each utterance, silence included."""
    train, test = _rows(corpus, settings)
    table = _phone_tier(corpus)
    if table.empty:
        raise Unavailable("the corpus has no phone times (alignment.tsv)")
    return _checked(train, test, _timed(corpus, table, _both(train, test)), lambda label: label.names)


def _phone_tier(corpus: Corpus) -> pd.DataFrame:
    table = corpus.alignment()
    return table[table["tier"] == "phone"]


def _timed(corpus: Corpus, table: pd.DataFrame, wanted: list[int]) -> dict[int, Intervals]:
    """What the phone tier says of those of the wanted rows that it has."""
    row_of = pd.Series(np.arange(len(corpus)), index=corpus.utterances["utterance"].to_numpy())
    rows = row_of.reindex(table["utterance"].astype(str)).to_numpy()
    kept = np.isin(rows, wanted)
    table, rows = table[kept], rows[kept].astype(np.int64)
    order = np.lexsort((table["start"].to_numpy(), rows))
    columns = [table[name].to_numpy()[order] for name in ("start", "end")] + [table["label"].astype(str).to_numpy()[order]]
    found, firsts = np.unique(rows[order], return_index=True)
    pieces = zip(*(np.split(column, firsts[1:]) for column in columns), strict=True)
    return {int(row): Intervals(*piece) for row, piece in zip(found, pieces, strict=True)}


def phones(corpus: Corpus, settings: DownstreamSettings) -> Labelled:
    """The phones of each utterance in order, without silences: of the alignment, or as the manifest lists them where there is none."""
    train, test = _rows(corpus, settings)
    table = _phone_tier(corpus)
    if not table.empty:
        timed = _timed(corpus, table, _both(train, test))
        labels = {row: [str(name) for name in label.names if name != SILENCE] for row, label in timed.items()}
    elif PHONES in corpus.utterances:
        listed = corpus.utterances[PHONES]
        labels = {row: listed.iat[row].split() for row in _both(train, test)}
    else:
        raise Unavailable(
            "the corpus has no phone times (alignment.tsv), nor phones (manifest.tsv, phones): data.lexicon makes them of text"
        )
    return _checked(train, test, {row: label for row, label in labels.items() if label}, lambda label: label)


def characters(corpus: Corpus, settings: DownstreamSettings) -> Labelled:
    """The letters of each utterance's text in lower case, words apart by one space."""
    train, test = _rows(corpus, settings)
    texts = corpus.utterances["text"]
    labels = {row: list(" ".join(texts.iat[row].lower().split())) for row in _both(train, test)}
    labels = {row: label for row, label in labels.items() if label}
    if not labels:
        raise Unavailable("the corpus has no text (manifest.tsv, text)")
    return _checked(train, test, labels, lambda label: label)


def category(column: str):
    """Labels from a column of the manifest: `keyword`, `intent` or `emotion`."""

    def data(corpus: Corpus, settings: DownstreamSettings) -> Labelled:
        train, test = _rows(corpus, settings)
        labels = {}
        if column in corpus.utterances:
            values = corpus.utterances[column].astype(str)
            labels = {row: values.iat[row] for row in _both(train, test) if values.iat[row]}
        if not labels:
            raise Unavailable(f"the corpus has no {column}s (manifest.tsv, {column})")
        return _checked(train, test, labels, lambda label: [label])

    return data


def known_speakers(corpus: Corpus, settings: DownstreamSettings) -> Labelled:
    """Training voices: of each one's utterances, in the order of a hash of their names, every fourth is for testing."""
    rows, _ = _rows(corpus, settings)
    table = pd.DataFrame({"row": rows, "speaker": corpus.utterances["speaker"].astype(str).to_numpy()[rows]})
    table["key"] = [key64("speaker test", corpus.name(row)) for row in rows]
    place = table.sort_values("key").groupby("speaker").cumcount().sort_index()
    testing = (place % SPEAKER_TEST == SPEAKER_TEST - 1).to_numpy()
    if table["speaker"].nunique() < 2 or not testing.any():
        raise Unavailable(f"it needs two training voices, and {SPEAKER_TEST} utterances of one of them, within downstream.train_hours")
    labels = dict(zip(table["row"].tolist(), table["speaker"].tolist(), strict=True))
    return _checked(rows[~testing], rows[testing], labels, lambda label: [label])


def unknown_speakers(corpus: Corpus, settings: DownstreamSettings) -> Labelled:
    """Training voices to learn an embedding from; the test split's trials to score it on."""
    train, _ = _rows(corpus, settings)
    trials = corpus.trials("test")
    if trials.empty or trials["same"].nunique() < 2:
        raise Unavailable("the corpus has no verification trials of the test split (trials.tsv), of the same and of different voices")
    speakers = corpus.utterances["speaker"].astype(str).to_numpy()
    if len(set(speakers[train])) < 2:
        raise Unavailable("it needs two training voices within downstream.train_hours")
    row_of = pd.Series(np.arange(len(corpus)), index=corpus.utterances["utterance"].to_numpy())
    pairs = np.stack([row_of[trials["left"]], row_of[trials["right"]], trials["same"].astype(np.int64)], axis=1)
    test = np.unique(pairs[:, :2])
    labels = {int(row): str(speakers[row]) for row in _both(train, test)}
    return Labelled(train, test, labels, sorted({labels[int(row)] for row in train}), pairs)


def _rows(corpus: Corpus, settings: DownstreamSettings) -> tuple[np.ndarray, np.ndarray]:
    return corpus.subset(settings.train_hours, fixed_speakers=True), corpus.split("test").index.to_numpy()


def _both(train: np.ndarray, test: np.ndarray) -> list[int]:
    return np.concatenate([train, test]).tolist()


def _checked(train: np.ndarray, test: np.ndarray, labels: dict, names) -> Labelled:
    """Rows that have a label. Unavailable when training or test rows have none."""
    train, test = (np.array([row for row in rows.tolist() if row in labels], dtype=np.int64) for rows in (train, test))
    for rows, split in ((train, "training"), (test, "test")):
        if not len(rows):
            raise Unavailable(f"no {split} utterance of the corpus has such a label")
    return Labelled(train, test, labels, sorted({str(name) for row in train.tolist() for name in names(labels[row])}))
