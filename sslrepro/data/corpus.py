"""A corpus folder (docs/schemas.md), read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from sslrepro.data.audio import read_audio
from sslrepro.data.writer import EMOTION, FOLD, LANGUAGE, PHONES
from sslrepro.draws import key64
from sslrepro.errors import UserError

SAMPLE_RATE = 16000
_TABLE = {"sep": "\t", "quoting": 3, "keep_default_na": False, "encoding": "utf-8"}


class NoSuchLanguage(UserError):
    """The corpus does not have a language, or part, that was asked for."""


class Corpus:
    """`.utterances` is the manifest in its order, with an integer index that every method below speaks of. Safe to use from threads.

    Where the corpus has several languages, splits, subsets and trials are those of `languages` (None: the first), in the corpus's order.
    Raises NoSuchLanguage for one that it does not have, UserError for a folder that is no corpus.
    """

    def __init__(self, folder: Path, languages: Sequence[str] | None = None) -> None:
        self.folder = Path(folder)
        for name in ("corpus.json", "manifest.tsv"):
            if not (self.folder / name).is_file():
                raise UserError(f"{self.folder} is not a corpus folder: it has no {name}; make it with `sslrepro data prepare`")
        self.info: dict = json.loads((self.folder / "corpus.json").read_text(encoding="utf-8"))
        kinds = {"split": "category", "speaker": "category", "intent": "category", "keyword": "category"}
        kinds |= {"utterance": str, "path": str, "text": str, "start": np.int64, "frames": np.int64}
        kinds |= {PHONES: str, EMOTION: "category", LANGUAGE: "category", FOLD: "category"}
        self.utterances: pd.DataFrame = pd.read_csv(self.folder / "manifest.tsv", dtype=kinds, **_TABLE)
        columns = (self.utterances[name].to_numpy() for name in ("utterance", "path", "start", "frames"))
        self._names, self._paths, self._starts, self._frames = columns  # not as rows of Python's own: a long manifest would be held twice
        self._root = (self.folder / self.info["audio_root"]).resolve()
        self._shards: dict[str, np.ndarray] = {}
        self.languages = self._chosen(languages)
        self._seen = self.utterances[LANGUAGE].isin(self.languages).to_numpy() if LANGUAGE in self.utterances else None

    def _chosen(self, languages: Sequence[str] | None) -> list[str]:
        """The names asked for, in the corpus's order. A corpus that does not know its one language has none."""
        there = list(self.info.get("languages", []))
        unknown = [name for name in languages or [] if name not in there]
        if unknown:
            has = f"it has: {', '.join(there)}" if there else "it does not name the language that it is in"
            raise NoSuchLanguage(f"the corpus has no language {unknown[0]!r}; {has}")
        return there[:1] if languages is None else [name for name in there if name in languages]

    def __len__(self) -> int:
        return len(self.utterances)

    @cached_property
    def durations(self) -> np.ndarray:
        """(utterances,) float64 seconds."""
        return self.utterances["frames"].to_numpy() / SAMPLE_RATE

    @cached_property
    def rows(self) -> np.ndarray:
        """Index of all utterances of the chosen languages."""
        return np.arange(len(self)) if self._seen is None else np.flatnonzero(self._seen)

    def name(self, index: int) -> str:
        """The utterance's own name, unique in the corpus: what its random choices are keyed by."""
        return self._names[index]

    def samples(self, index: int) -> int:
        """Its length at 16 kHz."""
        return int(self._frames[index])

    def split(self, name: str) -> pd.DataFrame:
        """The utterances of `train`, `valid` or `test`, with their index."""
        wanted = (self.utterances["split"] == name).to_numpy()
        return self.utterances[wanted if self._seen is None else wanted & self._seen]

    def audio(self, index: int, start: int = 0, frames: int | None = None) -> np.ndarray:
        """(samples,) float32 of utterance `index`, from `start` samples after its beginning, at most `frames`."""
        path, first, length = self._paths[index], int(self._starts[index]), self.samples(index)
        last = length if frames is None else min(start + frames, length)
        if self.info["layout"] == "files":
            return read_audio(self._root / path, first + start, last - start)
        return self._shard(path)[first + start : first + last].astype(np.float32) / 32768

    def _shard(self, path: str) -> np.ndarray:
        """The samples of one of our own WAV files (PCM16, mono, header of 44 bytes), mapped, not read."""
        if path not in self._shards:
            try:
                self._shards[path] = np.memmap(self._root / path, dtype="<i2", mode="r", offset=44)
            except (OSError, ValueError) as error:
                raise UserError(f"{self._root / path}: {error}; make the corpus again") from None
        return self._shards[path]

    def subset(self, hours: float | None, fixed_speakers: bool = False) -> np.ndarray:
        """Index of the training utterances that make up `hours` of each language; a smaller subset is part of any larger one. None: all.

        By default speakers are added one after another, as collections grow; with `fixed_speakers` every speaker is kept and says
        less. Either way the order is drawn from the names alone. Raises UserError if the split has fewer hours.
        """
        return np.sort(np.concatenate([self._first(order[fixed_speakers], hours) for order in self._nested]))

    def _first(self, order: np.ndarray, hours: float | None) -> np.ndarray:
        """The beginning of an order that makes up `hours`."""
        if hours is None:
            return order
        reached = np.cumsum(self.durations[order]) / 3600
        if not len(order) or reached[-1] < hours * 0.999:
            have = reached[-1] if len(order) else 0.0
            raise UserError(f"{self.folder}: {hours} hours of training audio were asked for, there are {have:.2f}")
        return order[: int(np.searchsorted(reached, hours * (1 - 1e-9))) + 1]

    @cached_property
    def _nested(self) -> list[dict[bool, np.ndarray]]:
        """The orders in which each language's training utterances are taken: {fixed_speakers: index}."""
        train = self.split("train")
        several = len(self.languages) > 1
        return [self._orders(train[train[LANGUAGE] == name] if several else train) for name in self.languages or [""]]

    @staticmethod
    def _orders(train: pd.DataFrame) -> dict[bool, np.ndarray]:
        speakers = train["speaker"].astype(str).to_numpy()
        place = {speaker: key64("subset", speaker) for speaker in np.unique(speakers)}
        keys = pd.DataFrame({"speaker": [place[speaker] for speaker in speakers]}, index=train.index)
        keys["utterance"] = [key64("subset", name) for name in train["utterance"]]
        keys = keys.sort_values(["speaker", "utterance"], kind="stable")
        growing = keys.index.to_numpy()
        turn = keys.groupby("speaker").cumcount().to_numpy()
        return {False: growing, True: growing[np.argsort(turn, kind="stable")]}

    def alignment(self) -> pd.DataFrame:
        """`utterance tier start end label`; empty where phones are not known."""
        return self._table("alignment", {"utterance": "category", "tier": "category", "label": "category"})

    def trials(self, split: str) -> pd.DataFrame:
        """`split left right same` of one split."""
        table = self._table("trials", {"split": "category", "left": str, "right": str})
        wanted = table["split"] == split
        if self._seen is not None:
            wanted &= table["left"].isin(set(self._names[self._seen]))
        return table[wanted].reset_index(drop=True)

    def _table(self, name: str, kinds: dict) -> pd.DataFrame:
        return pd.read_csv(self.folder / f"{name}.tsv", dtype=kinds, **_TABLE)


class Validation(Corpus):
    """A corpus whose test split is the validation split: what something is chosen by. The real one is out of reach."""

    def split(self, name: str) -> pd.DataFrame:
        return super().split("valid" if name == "test" else name)

    def trials(self, split: str) -> pd.DataFrame:
        return super().trials("valid" if split == "test" else split)
