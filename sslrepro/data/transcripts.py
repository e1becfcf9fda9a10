"""LibriSpeech transcripts: `<speaker>-<chapter>.trans.txt` beside the audio, a line `<name> <TEXT>` for each file."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

_ACCENTS = re.compile(r"(?<=[a-z])[\u0300-\u036f]+")


def normalise(text: str) -> str:
    """Lower-case letters of any script, apostrophe and single spaces: accents on a-z are dropped, anything else becomes a space."""
    plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", text.lower().replace("\u2019", "'")))
    letters = (c if c == "'" or unicodedata.category(c)[0] in "LM" else " " for c in unicodedata.normalize("NFC", plain))
    return " ".join("".join(letters).split())


def read_transcripts(paths: Iterable[Path]) -> dict[Path, str]:
    """Normalised text of those audio files that have one. A name may hold spaces: the longest name that a line begins with is its key."""
    folders: dict[Path, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in paths:
        folders[path.parent][unicodedata.normalize("NFC", path.stem)].append(path)
    texts = {}
    for folder, names in folders.items():
        most = max(name.count(" ") for name in names) + 1  # words of a name
        for file in sorted(folder.glob("*.trans.txt")):
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                words = unicodedata.normalize("NFC", line.strip()).split(" ")
                count = next((n for n in range(most, 0, -1) if " ".join(words[:n]) in names), 0)
                for path in names.get(" ".join(words[:count]), []):
                    texts[path] = normalise(" ".join(words[count:]))
    return texts


def chapters_without(paths: Iterable[Path]) -> list[Path]:
    """Folders laid out as LibriSpeech (`<speaker>/<chapter>/<speaker>-<chapter>-….`) that hold no transcript file at all."""
    folders = {path.parent for path in paths if libri_speaker(path)}
    return sorted(folder for folder in folders if not any(folder.glob("*.trans.txt")))


def libri_speaker(path: Path) -> str:
    """The speaker of a LibriSpeech-like path, by its own name; empty for any other."""
    chapter, speaker = path.parent.name, path.parent.parent.name
    return speaker if path.stem.startswith(f"{speaker}-{chapter}-") else ""
