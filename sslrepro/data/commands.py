"""What `sslrepro data prepare` and `sslrepro data check` do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sslrepro.config import DataSettings
from sslrepro.data.audio import BadAudio, find_audio, in_parallel, inspect_audio
from sslrepro.data.embedded import build_embedded
from sslrepro.data.folders import prepare
from sslrepro.data.transcripts import chapters_without
from sslrepro.errors import UserError


def check(root: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]], int]:
    """Reads every audio file below `root` whole: (bad, notes, files), the first two as (path, reason). See audio.inspect_audio.

    Stricter than preparing, which reads headers and last samples alone: damage in the middle, silence and non-finite samples show here.
    A chapter without transcripts is a note: fine for pre-training, not for recognition. Raises UserError when there is no audio.
    """
    root = Path(root)
    if not root.exists():
        raise UserError(f"{root} does not exist; give the folder whose audio is to be checked")
    paths = [root] if root.is_file() else find_audio(root)
    if not paths:
        raise UserError(f"{root} holds no audio file (.flac, .wav, .ogg, .mp3, …)")
    bad, notes = [], []
    for path, result in in_parallel(inspect_audio, paths, "checking audio"):
        if isinstance(result, BadAudio):
            bad.append((_shown(path), str(result)))
        else:
            notes += [(_shown(path), note) for note in result]
    notes += [
        (_shown(chapter), "no transcript for this chapter: fine for pre-training, not for ASR") for chapter in chapters_without(paths)
    ]
    return bad, notes, len(paths)


def _shown(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()


def data_check(root: Path, as_json: bool = False) -> int:
    """Prints every bad file with its reason, then the notes. Returns 1 if any file is bad, else 0."""
    bad, notes, files = check(root)
    if as_json:
        rows = {name: [{"path": p, "reason": r} for p, r in found] for name, found in (("bad", bad), ("notes", notes))}
        print(json.dumps({"root": str(root), "files": files, **rows}, ensure_ascii=False, indent=1))
    else:
        for kind, found in (("bad", bad), ("note", notes)):
            for path, reason in found:
                print(f"{kind}\t{path}\t{reason}")
        print(f"{files} files read whole: {len(bad)} bad, {len(notes)} notes")
    return 1 if bad else 0


def data_prepare(data: DataSettings, folder: Path) -> dict:
    """Writes the corpus folder that the settings describe, and returns its corpus.json. What was left out, and what will be
    resampled or averaged when it is read, is said on standard error.

    `data.root` null is the embedded corpus, spoken here; otherwise real speech (data.folders). Raises UserError; leaves nothing
    half-written.
    """
    if data.root is None:
        build_embedded(data.corpus, folder)
    else:
        lexicon, listed = (path and Path(path).expanduser().absolute() for path in (data.lexicon, data.trials))
        prepare(Path(data.root), folder, lexicon, listed)
    info = json.loads((Path(folder) / "corpus.json").read_text(encoding="utf-8"))
    for reason, part in info["left_out"].items():
        print(f"left out: {part['count']} x {reason}; such as {part['examples'][0]}", file=sys.stderr)
    for kind, what in (("resampled", "Hz"), ("averaged", "channels")):
        for value, files in info.get(kind, {}).items():
            print(f"{kind} when read: {files} {'file' if files == 1 else 'files'} of {value} {what}", file=sys.stderr)
    languages = info["languages"] if len(info["languages"]) > 1 else {"": info["splits"]}
    for name, splits in languages.items():
        for split, part in splits.items():
            said = f"{part['utterances']} utterances, {part['hours']:.2f} hours, {part['speakers']} speakers"
            print(f"{' '.join(filter(None, (name, split)))}: {said}", file=sys.stderr)
    return info
