"""A corpus from real speech: LibriSpeech and Libri-Light as unpacked, any folder of audio, or a manifest. Audio stays where it is.

Splits come from top-level folders by their names: `train*`, `dev*` or `valid*`, `test*`; Libri-Light's `small`, `medium`, `large` and
any other folder are training. A split that no folder gives is held out of training by a hash: of speakers if there are three or
more (a tenth for test, a twentieth for validation, at least one each), else of files. The speaker is LibriSpeech's by the file's name,
otherwise the first folder below the root or below the split's folder; files in no folder have none.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pandas as pd

from sslrepro.data.audio import LONGEST, SAMPLE_RATE, BadAudio, Header, find_audio, in_parallel, read_header
from sslrepro.data.lexicon import read_lexicon
from sslrepro.data.transcripts import libri_speaker, normalise, read_transcripts
from sslrepro.data.trial_list import listed_trials
from sslrepro.data.writer import (
    ALIGNMENT,
    LANGUAGE,
    MANIFEST,
    OPTIONAL,
    PHONES,
    SPLITS,
    by_language,
    summary,
    trials,
    whole,
    write_json,
    write_tsv,
)
from sslrepro.draws import key64
from sslrepro.errors import UserError

PIECE = 20.0  # seconds; files longer than LONGEST are cut into pieces of at most this
HELD_OUT = {"test": 0.1, "valid": 0.05}  # of the speakers, or of the files, when the folders give no such split
_SPLIT = re.compile(r"^(train|dev|valid|validation|test)([-_.].*)?$", re.IGNORECASE)
_LIBRI_LIGHT = re.compile(r"^(small|medium|large|duplicate)$")
_UNSAFE = re.compile(r"[\t\r\n\ud800-\udfff]")  # would break a line of the manifest, or is not UTF-8


class _Tally:
    """Counts what is left out, by reason, with names to show; and of the files that are used, what is changed when they are read."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = defaultdict(list)
        self._used: dict[Path, Header] = {}

    def add(self, reason: str, name: str) -> None:
        kind = reason.partition(" (")[0]
        self.counts[kind] += 1
        self.examples[kind].append(f"{name}: {reason}".encode("utf-8", "replace").decode())

    def use(self, path: Path, header: Header) -> None:
        self._used[path] = header

    def changed(self) -> dict[str, dict[str, int]]:
        """How many of the files used are resampled, by their rate, and averaged, by their channels."""
        rates = Counter(header.rate for header in self._used.values() if header.rate != SAMPLE_RATE)
        channels = Counter(header.channels for header in self._used.values() if header.channels > 1)
        parts = {"resampled": rates, "averaged": channels}
        return {name: {str(value): files for value, files in sorted(part.items())} for name, part in parts.items()}


def prepare(root: Path, folder: Path, lexicon: Path | None = None, trial_list: Path | None = None) -> None:
    """Writes the corpus folder of `root`: a folder of audio, or a manifest (TSV with a `path` column, relative to its own folder,
    and any other columns of docs/schemas.md; with `language` on every line it may hold several). A `lexicon` (data.lexicon) gives the
    texts of the first language their phones. A `trial_list` (data.trials) takes the place of the drawn test trials of its files' language.

    Unreadable, empty, truncated and too short files are left out and counted in corpus.json, stereo is averaged and other rates are
    resampled when read (counted there, too), files longer than LONGEST are cut (and lose their transcript). Raises UserError when nothing
    is left, and for a lexicon or list of trials that cannot be read or does not fit the corpus.
    """
    root = Path(root).expanduser().absolute()
    if not root.exists():
        raise UserError(
            f"data.root: {root} does not exist; give a folder of audio (such as LibriSpeech as unpacked), a manifest.tsv, "
            "or null for the embedded corpus"
        )
    pronunciations = read_lexicon(lexicon) if lexicon else None
    tally = _Tally()
    if root.is_file():
        table, base = _from_manifest(root, tally), root.parent
    else:
        base = root / "LibriSpeech" if (root / "LibriSpeech").is_dir() else root
        table = _from_folder(base, tally)
    if table.empty:
        reasons = "; ".join(f"{n} {reason}" for reason, n in tally.counts.items())
        raise UserError(f"data.root: {root} holds no usable audio{f' ({reasons})' if reasons else ''}")
    parts = list(by_language(table).values()) if LANGUAGE in table else [table]
    if pronunciations is not None:
        parts[0] = _pronounced(parts[0], pronunciations, tally)
    table = pd.concat([_ordered(_hold_out(part.copy())) for part in parts], ignore_index=True).fillna("")
    with whole(folder) as place:
        write_tsv(table[[*MANIFEST, *(name for name in OPTIONAL if name in table)]], place / "manifest.tsv")
        write_tsv(pd.DataFrame(columns=ALIGNMENT), place / "alignment.tsv")
        write_tsv(_trials(table, trial_list), place / "trials.tsv")
        made_of = {"source": str(root)} | {name: str(path) for name, path in (("lexicon", lexicon), ("trials", trial_list)) if path}
        info = summary(table, [], str(base), "files", tally.counts, tally.examples, **made_of, **tally.changed())
        write_json(info, place / "corpus.json")


def _trials(table: pd.DataFrame, trial_list: Path | None) -> pd.DataFrame:
    drawn = trials(table[table["speaker"] != ""])
    if trial_list is None:
        return drawn
    listed, language = listed_trials(trial_list, table)
    of = table[table[LANGUAGE] == language] if LANGUAGE in table else table
    replaced = (drawn["split"] == "test") & drawn["left"].isin(set(of["utterance"]))
    return pd.concat([drawn[~replaced], listed], ignore_index=True)


def _from_folder(base: Path, tally: _Tally) -> pd.DataFrame:
    paths = []
    for path in find_audio(base):
        name = str(path.relative_to(base))
        if _UNSAFE.search(name):
            tally.add("name not usable (tab, line break, or not UTF-8)", name)
        else:
            paths.append(path)
    texts = read_transcripts(paths)
    stems = Counter(path.relative_to(base).with_suffix("") for path in paths)
    libri = Counter(path.stem for path in paths if libri_speaker(path))
    rows = []
    for path, header in in_parallel(read_header, paths, "reading headers"):
        relative = path.relative_to(base)
        if isinstance(header, BadAudio):
            tally.add(str(header), relative.as_posix())
            continue
        tally.use(path, header)
        split, speaker = _place(relative)
        speaker = libri_speaker(path) or speaker
        unique = relative if stems[relative.with_suffix("")] > 1 else relative.with_suffix("")
        name = path.stem if libri[path.stem] == 1 else unique.as_posix()
        place, length = (name, split, speaker, relative.as_posix()), header.frames_at_16k
        if length <= LONGEST * SAMPLE_RATE:
            rows.append((*place, 0, length, texts.get(path, ""), "", ""))
            continue
        if path in texts:
            tally.add(f"transcript of a file longer than {LONGEST:.0f} s (it is cut into pieces)", relative.as_posix())
        for number, (start, end) in enumerate(_pieces(length, _voice_activity(path))):
            rows.append((f"{name}#{number:04d}", *place[1:], start, end - start, "", "", ""))
    return pd.DataFrame(rows, columns=MANIFEST)


def _place(relative: Path) -> tuple[str, str]:
    """(split or empty, speaker or empty) by the folders that a file lies in."""
    folders = list(relative.parts[:-1])
    split = ""
    if folders and (match := _SPLIT.match(folders[0])):
        split = {"dev": "valid", "validation": "valid"}.get(match[1].lower(), match[1].lower())
        folders.pop(0)
    elif len(folders) > 1 and _LIBRI_LIGHT.match(folders[0]):
        folders.pop(0)
    return split, folders[0] if folders else ""


def _voice_activity(path: Path) -> list[tuple[float, float]]:
    """Libri-Light's speech segments (seconds), from the .json beside the audio."""
    side = path.with_suffix(".json")
    if not side.is_file():
        return []
    try:
        content = json.loads(side.read_text(encoding="utf-8"))
        found = content.get("voice_activity", []) if isinstance(content, dict) else []
        return [(float(a), float(b)) for a, b in found]
    except (ValueError, TypeError):
        raise UserError(f"{side}: not a Libri-Light description: `voice_activity` must list pairs of seconds") from None


def _pieces(length: int, speech: list[tuple[float, float]]) -> list[tuple[int, int]]:
    """(start, end) in samples: the speech that Libri-Light found, or the whole file, in equal pieces of at most PIECE."""
    pieces = []
    for start, end in _join(speech, length / SAMPLE_RATE) if speech else [(0.0, length / SAMPLE_RATE)]:
        count = max(1, math.ceil((end - start) / PIECE - 1e-9))
        edges = [min(round((start + (end - start) * i / count) * SAMPLE_RATE), length) for i in range(count + 1)]
        pieces += pairwise(edges)
    return pieces


def _join(speech: list[tuple[float, float]], length: float) -> list[tuple[float, float]]:
    """Neighbouring speech segments joined while they stay within PIECE."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted((max(0.0, a), min(b, length)) for a, b in speech if min(b, length) - max(a, 0.0) >= 0.1):
        if joined and end - joined[-1][0] <= PIECE:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Training, validation, test, each by name."""
    order = table["split"].map({split: i for i, split in enumerate(SPLITS)})
    return table.assign(order=order).sort_values(["order", "utterance"], kind="stable").drop(columns="order")


def _hold_out(table: pd.DataFrame) -> pd.DataFrame:
    """Gives rows without a split to training, and the splits that are missing to the first speakers, or files, by hash."""
    table["split"] = table["split"].replace("", "train")
    unit = "speaker" if table.loc[table["split"] == "train", "speaker"].replace("", None).nunique() >= 3 else "path"
    for split, share in HELD_OUT.items():
        pool = table.loc[table["split"] == "train", unit]
        units = sorted(set(pool) - {""}, key=lambda value: key64("hold out", value))
        if (table["split"] == split).any() or len(units) < 2:
            continue
        chosen = units[: max(1, round(len(units) * share))]
        table.loc[(table["split"] == "train") & table[unit].isin(chosen), "split"] = split
    return table


def _from_manifest(file: Path, tally: _Tally) -> pd.DataFrame:
    try:
        given = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False, quoting=3, encoding="utf-8")
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"data.root: {file} is neither a folder nor a manifest (tab-separated, UTF-8): {error}") from None
    if "path" not in given:
        raise UserError(f"data.root: {file} has no column `path`; it has {', '.join(given.columns)}. To read a folder, give the folder")
    unknown = sorted(set(given.get("split", [])) - {*SPLITS, ""})
    if unknown:
        raise UserError(f"data.root: {file}: split {unknown[0]!r} is none of {', '.join(SPLITS)}")
    paths = {name: file.parent / name for name in dict.fromkeys(given["path"])}
    headers = dict(in_parallel(read_header, paths.values(), "reading headers"))
    optional = [name for name in OPTIONAL if name in given]
    rows = []
    for number, line in enumerate(given.to_dict("records"), start=2):
        header = headers[paths[line["path"]]]
        if isinstance(header, BadAudio):
            tally.add(str(header), line["path"])
            continue
        try:
            start = int(line.get("start") or 0)
            frames = int(line.get("frames") or header.frames_at_16k - start)
        except ValueError:
            raise UserError(f"{file}, line {number}: start and frames must be whole numbers of samples at 16 kHz") from None
        if start < 0 or frames <= 0 or start + frames > header.frames_at_16k:
            tally.add("start and frames lie outside the file", f"{line['path']} (line {number})")
            continue
        tally.use(paths[line["path"]], header)
        name = line.get("utterance") or f"{Path(line['path']).with_suffix('').as_posix()}{f'#{start}' if start else ''}"
        known = [line.get(key, "") for key in ("split", "speaker")]
        labels = [line.get(key, "") for key in ("intent", "keyword", *optional)]
        if LANGUAGE in given and not line[LANGUAGE]:
            raise UserError(f"{file}, line {number}: no language; with a column `{LANGUAGE}` every line must name its own")
        rows.append((name, *known, line["path"], start, frames, normalise(line.get("text", "")), *labels))
    table = pd.DataFrame(rows, columns=[*MANIFEST, *optional])
    twice = table["utterance"][table["utterance"].duplicated()]
    if len(twice):
        raise UserError(f"data.root: {file}: utterance {twice.iloc[0]!r} occurs more than once")
    return table


def _pronounced(table: pd.DataFrame, lexicon: dict[str, str], tally: _Tally) -> pd.DataFrame:
    """The table with `phones` of each text, where they were not given; a text with a word that is not in the lexicon has none."""
    phones = table[PHONES].tolist() if PHONES in table else [""] * len(table)
    for place, (name, text) in enumerate(zip(table["utterance"], table["text"], strict=True)):
        if phones[place] or not text:
            continue
        words = text.split()
        unknown = next((word for word in words if word not in lexicon), None)
        if unknown is None:
            phones[place] = " ".join(lexicon[word] for word in words)
        else:
            tally.add(f"phones of a text with a word that the lexicon lacks ({unknown})", name)
    return table.assign(**{PHONES: phones})
