"""Writes a corpus folder (docs/schemas.md): in a temporary sibling that takes its place whole, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError

SAMPLE_RATE = 16000
SPLITS = ("train", "valid", "test")
MANIFEST = ["utterance", "split", "speaker", "path", "start", "frames", "text", "intent", "keyword"]
PHONES, EMOTION = "phones", "emotion"
LANGUAGE = "language"  # where there is more than one
FOLD = "fold"  # of a cross-validation
OPTIONAL = [PHONES, EMOTION, LANGUAGE, FOLD]  # the manifest's last columns, each where it is given
ALIGNMENT = ["utterance", "tier", "start", "end", "label"]
TRIALS = ["split", "left", "right", "same"]
TRIAL_PAIRS = 2000  # of each kind, same and different, at most
STALE = 6 * 3600  # seconds after which a temporary folder is nobody's


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A temporary sibling of `folder` to write into, which replaces it on success and is removed on failure."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    for left in folder.parent.glob(f".{folder.name}.*.part"):  # of a build that was killed
        if left == temporary or time.time() - left.stat().st_mtime > STALE:
            shutil.rmtree(left, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    except OSError as error:
        raise UserError(f"{folder}: the corpus could not be written: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_tsv(table: pd.DataFrame, path: Path) -> None:
    """Tabs and newlines only between fields: no quoting, so a line splits at its tabs in any language."""
    table.to_csv(path, sep="\t", index=False, lineterminator="\n", encoding="utf-8", quoting=3, escapechar=None)


def trials(utterances: pd.DataFrame, seed: int = 1) -> pd.DataFrame:
    """Verification trials of the held-out splits: as many pairs of one speaker as of two, up to TRIAL_PAIRS each. No pair is of two
    languages.

    A split with fewer than two speakers, or where nobody speaks twice, has none.
    """
    if LANGUAGE in utterances:
        return pd.concat([trials(part.drop(columns=LANGUAGE), seed) for part in by_language(utterances).values()], ignore_index=True)
    rows: list[tuple[str, str, str, int]] = []
    for split in ("valid", "test"):
        part = utterances[utterances["split"] == split].reset_index(drop=True)
        groups = {speaker: group.to_numpy() for speaker, group in part.groupby("speaker").groups.items()}
        groups = {speaker: members for speaker, members in groups.items() if len(members) > 1}
        if len(groups) < 2:
            continue
        generator = numpy_generator("trials", seed, split)
        names = part["utterance"].tolist()
        members = list(groups.values())
        pairs: dict[tuple[int, int], int] = {}
        possible = sum(len(m) * (len(m) - 1) // 2 for m in members)
        wanted = min(TRIAL_PAIRS, possible)
        while wanted:  # speakers alike, whatever they said
            group = members[int(generator.integers(len(members)))]
            left, right = sorted(generator.choice(group, 2, replace=False).tolist())
            wanted -= (left, right) not in pairs
            pairs[left, right] = 1
        wanted = min(len(pairs), sum(len(a) * len(b) for i, a in enumerate(members) for b in members[:i]))
        while wanted:
            one, two = generator.choice(len(members), 2, replace=False)
            left, right = sorted((int(generator.choice(members[one])), int(generator.choice(members[two]))))
            wanted -= (left, right) not in pairs
            pairs[left, right] = 0
        rows += [(split, names[left], names[right], same) for (left, right), same in sorted(pairs.items())]
    return pd.DataFrame(rows, columns=TRIALS)


def by_language(utterances: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The part of each language, in the order in which they first occur."""
    return {str(name): utterances[utterances[LANGUAGE] == name] for name in utterances[LANGUAGE].unique()}


def _counts(utterances: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Utterances, hours and speakers of each split."""
    parts = {split: utterances[utterances["split"] == split] for split in SPLITS}
    return {
        split: {
            "utterances": len(part),
            "hours": round(float(part["frames"].sum()) / SAMPLE_RATE / 3600, 6),
            "speakers": int(part["speaker"].nunique()),
        }
        for split, part in parts.items()
    }


def summary(
    utterances: pd.DataFrame,
    labels: Iterable[tuple[str, str]],
    audio_root: str,
    layout: str,
    left_out: Counter[str],
    examples: dict[str, list[str]],
    language: str = "",
    **more,
) -> dict:
    """What goes into corpus.json. `labels` are (tier, label) pairs of the alignment; `layout` is `shards` or `files`; `language` is the
    name of all utterances' language, where it is known and the table has no such column."""
    tiers: dict[str, set[str]] = {"phone": set(), "word": set()}
    for tier, label in labels:
        tiers[tier].add(label)
    if PHONES in utterances:
        tiers["phone"].update(*utterances[PHONES].str.split())
    emotions = {"emotions": sorted(set(utterances[EMOTION]) - {""})} if EMOTION in utterances else {}
    languages = by_language(utterances) if LANGUAGE in utterances else {language: utterances} if language else {}
    return {
        "sample_rate": SAMPLE_RATE,
        "audio_root": audio_root,
        "layout": layout,
        "splits": _counts(utterances),
        "languages": {name: _counts(part) for name, part in languages.items()},
        "left_out": {reason: {"count": n, "examples": examples[reason][:5]} for reason, n in sorted(left_out.items())},
        "phones": sorted(tiers["phone"]),
        "words": sorted(tiers["word"]),
        "intents": sorted(set(utterances["intent"]) - {""}),
        "keywords": sorted(set(utterances["keyword"]) - {""}),
        **emotions,
        **more,
    }


def write_json(value: dict, path: Path) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
