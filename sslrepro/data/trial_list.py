"""Verification trials as VoxCeleb1 lists them (veri_test.txt): a line a trial, `1 left.wav right.wav`, 1 for one speaker and 0 for two."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath

import pandas as pd

from sslrepro.data.writer import LANGUAGE, TRIALS
from sslrepro.errors import UserError

SHAPE = "a line is `1 left.wav right.wav`, or 0 for two speakers"


def listed_trials(file: Path, utterances: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The trials of `file` as `split left right same` (split is test), in its order, and the language, or part, that they are of, or "".

    A path of the list is that utterance of the manifest whose `path` ends in it. Raises UserError, with the line, for a list that cannot be
    read, for a path that no utterance or more than one has, for utterances of another split than test or of two languages, and for a trial
    that the manifest's speakers contradict.
    """
    lines = _read(file)
    rows_of: dict[int, dict[str, list[int]]] = {}  # by how many parts a path of the list has
    paths = [PurePosixPath(path).parts for path in utterances["path"]]
    for parts in {len(PurePosixPath(path).parts) for _, *pair in lines.values() for path in pair}:
        found = rows_of[parts] = defaultdict(list)
        for row, path in enumerate(paths):
            found["/".join(path[-parts:])].append(row)
    names, splits, speakers = (utterances[column].to_numpy() for column in ("utterance", "split", "speaker"))
    languages = utterances[LANGUAGE].to_numpy() if LANGUAGE in utterances else [""] * len(utterances)
    trials, first = [], None
    for number, (same, *pair) in lines.items():
        rows = []
        for path in pair:
            known = PurePosixPath(path).parts
            found = rows_of[len(known)].get("/".join(known), [])
            if len(found) != 1:
                what = "no utterance of data.root has" if not found else f"{len(found)} utterances of data.root have"
                raise _wrong(file, number, f"{what} a path that ends in {path}; each file of a trial must be there once")
            if splits[found[0]] != "test":
                raise _wrong(file, number, f"{path} is in the split {splits[found[0]]!r}: give the list's files the split test")
            rows += found
        first = rows[0] if first is None else first
        if other := next((row for row in rows if languages[row] != languages[first]), None):
            raise _wrong(file, number, f"{names[other]} is of {languages[other]!r}, the trials before are of {languages[first]!r}")
        left, right = rows
        if "" in (speakers[left], speakers[right]) or (speakers[left] == speakers[right]) != bool(same):
            said = f"speakers {speakers[left]!r} and {speakers[right]!r}"
            raise _wrong(file, number, f"it says {same}, and the manifest says {said}: one of the two is wrong")
        trials.append(("test", names[left], names[right], same))
    return pd.DataFrame(trials, columns=TRIALS), str(languages[first])


def _read(file: Path) -> dict[int, tuple[int, str, str]]:
    """Line number -> same, left path, right path."""
    if not file.is_file():
        raise UserError(f"data.trials: {file}: no such file; give a list of trials such as VoxCeleb1's veri_test.txt, or null")
    lines = {}
    try:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            parts = line.split()
            if not parts:
                continue
            if len(parts) != 3 or parts[0] not in ("0", "1"):
                raise _wrong(file, number, f"{line.strip()!r} is no trial; {SHAPE}")
            lines[number] = (int(parts[0]), *(path.removeprefix("/") for path in parts[1:]))
    except UnicodeDecodeError:
        raise UserError(f"data.trials: {file} is not a list of trials: it is not UTF-8 text") from None
    if len({same for same, *_ in lines.values()}) < 2:
        raise UserError(f"data.trials: {file} must have trials of one speaker and of two; {SHAPE}")
    return lines


def _wrong(file: Path, number: int, what: str) -> UserError:
    return UserError(f"data.trials: {file}, line {number}: {what}")
