"""What each task learns and is scored on, from a corpus folder.

Heads learn from `corpus.subset(train_hours, fixed_speakers=True)`: nested in hours, every training voice in it. Test labels are the test
split's, all of them; speaker identification alone splits those same training rows again, since the test split's voices are unknown ones.
The validation split is used with `select_every` alone, to choose the best of a run's heads. `folders` restricts each of the three.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from sslrepro.config import DownstreamSettings
from sslrepro.data.corpus import Corpus
from sslrepro.data.writer import FOLD, PHONES
from sslrepro.downstream.task import Labelled, Unavailable
from sslrepro.draws import key64
from sslrepro.errors import UserError

SILENCE = "sil"
SPEAKER_TEST = 4  # one utterance in so many of each voice is for testing
SLOT = "|"  # between the slots of an intent: action|object|location
Data = Callable[[Corpus, DownstreamSettings], Labelled]


class Rows(NamedTuple):
    """Rows of a corpus, each (utterances,): to learn from, to select a head by (none without select_every), to test."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    def all(self) -> list[int]:
        return np.concatenate(self).tolist()


class Intervals(NamedTuple):
    """Phones of an utterance in order: `starts`, `ends` (phones,) in samples, `names` (phones,)."""

    starts: np.ndarray
    ends: np.ndarray
    names: np.ndarray


def intervals(corpus: Corpus, settings: DownstreamSettings) -> Labelled:
    """Phone times of each utterance, silence included."""
    rows = _rows(corpus, settings)
    table = _phone_tier(corpus)
    if table.empty:
        raise Unavailable("the corpus has no phone times (alignment.tsv)")
    return _checked(rows, settings, _timed(corpus, table, rows.all()), lambda label: label.names)


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
    rows = _rows(corpus, settings)
    table = _phone_tier(corpus)
    if not table.empty:
        timed = _timed(corpus, table, rows.all())
        labels = {row: [str(name) for name in label.names if name != SILENCE] for row, label in timed.items()}
    elif PHONES in corpus.utterances:
        listed = corpus.utterances[PHONES]
        labels = {row: listed.iat[row].split() for row in rows.all()}
    else:
        raise Unavailable(
            "the corpus has no phone times (alignment.tsv), nor phones (manifest.tsv, phones): data.lexicon makes them of text"
        )
    return _checked(rows, settings, {row: label for row, label in labels.items() if label}, lambda label: label)


def characters(corpus: Corpus, settings: DownstreamSettings) -> Labelled:
    """The letters of each utterance's text in lower case, words apart by one space."""
    rows = _rows(corpus, settings)
    texts = corpus.utterances["text"]
    labels = {row: list(" ".join(texts.iat[row].lower().split())) for row in rows.all()}
    labels = {row: label for row, label in labels.items() if label}
    if not labels:
        raise Unavailable("the corpus has no text (manifest.tsv, text)")
    return _checked(rows, settings, labels, lambda label: label)


def category(column: str) -> Data:
    """Labels from a column of the manifest: `keyword`, `intent` or `emotion`."""

    def data(corpus: Corpus, settings: DownstreamSettings) -> Labelled:
        return _category(corpus, settings, column, _rows(corpus, settings))

    return data


def _category(corpus: Corpus, settings: DownstreamSettings, column: str, rows: Rows) -> Labelled:
    labels = {}
    if column in corpus.utterances:
        values = corpus.utterances[column].astype(str)
        labels = {row: values.iat[row] for row in rows.all() if values.iat[row]}
    if not labels:
        raise Unavailable(f"the corpus has no {column}s (manifest.tsv, {column})")
    return _checked(rows, settings, labels, lambda label: [label])


def intents(corpus: Corpus, settings: DownstreamSettings) -> Labelled:
    """Intents as the tuple of their slots, which SLOT parts. Raises UserError where they do not all have as many, or where one is empty."""
    data = category("intent")(corpus, settings)
    labels = {row: tuple(part.strip() for part in label.split(SLOT)) for row, label in data.labels.items()}
    first = next(iter(labels))
    for row, slots in labels.items():
        if len(slots) != len(labels[first]) or not all(slots):
            raise UserError(
                f"{_manifest(corpus)}: intent {data.labels[row]!r} of {corpus.name(row)}, {data.labels[first]!r} of {corpus.name(first)}: "
                f"every intent of a part must have as many slots, none empty, with {SLOT!r} between them"
            )
    return replace(data, labels=labels)


def emotions(corpus: Corpus, settings: DownstreamSettings) -> Labelled:
    """Emotions, by the splits; or, with settings.folds, all of them to be tested fold by fold, whatever their splits.

    Raises UserError when some of them have no fold, or when there is one fold.
    """
    if not settings.folds:
        return category("emotion")(corpus, settings)
    if FOLD not in corpus.utterances:
        raise Unavailable(f"the corpus has no folds (manifest.tsv, {FOLD}), which downstream.folds asks for")
    named, none = corpus.utterances[FOLD].astype(str), np.empty(0, dtype=np.int64)
    data = _category(corpus, settings.model_copy(update={"select_every": None}), "emotion", Rows(corpus.rows, none, corpus.rows))
    folds = {row: named.iat[row] for row in data.train.tolist()}
    lacking = next((row for row, name in folds.items() if not name), None)
    if lacking is not None:
        raise UserError(
            f"{_manifest(corpus)}: {corpus.name(lacking)} has an emotion, no {FOLD}: give each line one, or set downstream.folds to false"
        )
    if len(set(folds.values())) < 2:
        raise UserError(
            f"{_manifest(corpus)}: all emotions are in one {FOLD}, {folds[int(data.train[0])]!r}: no other is left to learn from"
        )
    return replace(data, folds=folds)


def known_speakers(corpus: Corpus, settings: DownstreamSettings) -> Labelled:
    """Training voices: of each one's utterances, in the order of a hash of their names, every fourth is for testing."""
    rows = _rows(corpus, settings).train
    table = pd.DataFrame({"row": rows, "speaker": corpus.utterances["speaker"].astype(str).to_numpy()[rows]})
    table["key"] = [key64("speaker test", corpus.name(row)) for row in rows]
    place = table.sort_values("key").groupby("speaker").cumcount().sort_index()
    testing = (place % SPEAKER_TEST == SPEAKER_TEST - 1).to_numpy()
    if table["speaker"].nunique() < 2 or not testing.any():
        raise Unavailable(f"it needs two training voices, and {SPEAKER_TEST} utterances of one of them, within downstream.train_hours")
    labels = dict(zip(table["row"].tolist(), table["speaker"].tolist(), strict=True))
    return _checked(Rows(rows[~testing], rows[:0], rows[testing]), settings, labels, lambda label: [label])


def unknown_speakers(corpus: Corpus, settings: DownstreamSettings) -> Labelled:
    """Training voices to learn an embedding from; the test split's trials to score it on."""
    train = _rows(corpus, settings).train
    trials = corpus.trials("test")
    if trials.empty or trials["same"].nunique() < 2:
        raise Unavailable("the corpus has no verification trials of the test split (trials.tsv), of the same and of different voices")
    speakers = corpus.utterances["speaker"].astype(str).to_numpy()
    if len(set(speakers[train])) < 2:
        raise Unavailable("it needs two training voices within downstream.train_hours")
    row_of = pd.Series(np.arange(len(corpus)), index=corpus.utterances["utterance"].to_numpy())
    pairs = np.stack([row_of[trials["left"]], row_of[trials["right"]], trials["same"].astype(np.int64)], axis=1)
    test = np.unique(pairs[:, :2])
    labels = {int(row): str(speakers[row]) for row in np.concatenate([train, test]).tolist()}
    return Labelled(train, test, labels, sorted({labels[int(row)] for row in train}), pairs)


def _manifest(corpus: Corpus) -> str:
    return str(corpus.folder / "manifest.tsv")


def _rows(corpus: Corpus, settings: DownstreamSettings) -> Rows:
    folders = settings.folders
    train = _inside(corpus, corpus.subset(settings.train_hours, fixed_speakers=True), "train", folders.train)
    valid = np.empty(0, dtype=np.int64)
    if settings.select_every is not None:
        valid = _inside(corpus, corpus.split("valid").index.to_numpy(), "valid", folders.valid)
    return Rows(train, valid, _inside(corpus, corpus.split("test").index.to_numpy(), "test", folders.test))


def _inside(corpus: Corpus, rows: np.ndarray, split: str, folders: list[str] | None) -> np.ndarray:
    """The rows in any of the folders; Unavailable for a folder that no row of the split lies in."""
    if folders is None:
        return rows
    paths = [set(path.split("/")[:-1]) for path in corpus.utterances["path"].iloc[rows]]
    for name in folders:
        if not any(name in path for path in paths):
            there = ", ".join(sorted(set().union(*paths))[:12]) or "none"
            raise Unavailable(
                f"downstream.folders.{split}: no utterance of this split of {corpus.folder} lies in a folder {name!r}; its folders: {there}"
            )
    return rows[[not path.isdisjoint(folders) for path in paths]]


def _checked(rows: Rows, settings: DownstreamSettings, labels: dict, names: Callable) -> Labelled:
    """Rows that have a label. Unavailable when training, test or (with select_every) validation rows have none."""
    found = Rows(*(np.array([row for row in part.tolist() if row in labels], dtype=np.int64) for part in rows))
    wanted = {"training": found.train, "test": found.test} | ({"validation": found.valid} if settings.select_every is not None else {})
    for split, part in wanted.items():
        if not len(part):
            raise Unavailable(f"no {split} utterance of the corpus has such a label")
    classes = sorted({str(name) for row in found.train.tolist() for name in names(labels[row])})
    return Labelled(found.train, found.test, labels, classes, valid=found.valid)
