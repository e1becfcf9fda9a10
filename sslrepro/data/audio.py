"""Reads and checks audio files, whatever their name says: mono float32 at 16 kHz."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
from tqdm import tqdm

from sslrepro.errors import UserError

SAMPLE_RATE = 16000
SUFFIXES = {".flac", ".wav", ".ogg", ".opus", ".mp3", ".aiff", ".aif"}
SHORTEST = 0.1  # seconds; below, no front end gives frames to speak of
LONGEST = 40.0  # seconds; LibriSpeech's longest has 35. Longer files are cut into pieces
_BLOCK = 1 << 20  # samples read at once when a file is checked: an hour-long file does not fill the memory
_UNSTATED = 1 << 40  # streams without a stated length claim an absurd one
_WAV_DATA = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
_WAV_STREAMED = {0, 0xFFFFFFFF}


class BadAudio(Exception):
    """Why a file cannot be used, in a few words without its name."""


@dataclass(frozen=True)
class Header:
    rate: int
    channels: int
    frames: int  # at the file's own rate

    @property
    def frames_at_16k(self) -> int:
        return -(-self.frames * SAMPLE_RATE // self.rate)


def find_audio(root: Path) -> list[Path]:
    """Every file below `root` with an audio suffix, sorted; hidden files and folders are not looked into."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder) / name for name in files if Path(name).suffix.lower() in SUFFIXES and name[0] != "."]
    return sorted(found)


def _open(path: Path) -> soundfile.SoundFile:
    """An open file whose header makes sense. Raises BadAudio."""
    try:
        if os.path.getsize(path) == 0:
            raise BadAudio("empty file (0 bytes)")
        file = soundfile.SoundFile(path)
    except soundfile.SoundFileError as error:
        raise BadAudio(f"not readable as audio ({_said(error)})") from None
    except OSError as error:
        raise BadAudio(f"not readable ({error.strerror})") from None
    short = _WAV_DATA.search(file.extra_info)
    reason = None
    if file.frames == 0:
        reason = "empty (no samples)"
    elif file.frames > _UNSTATED:
        reason = "the header does not state a length"
    elif short and int(short[1]) not in _WAV_STREAMED and int(short[1]) > int(short[2]):
        reason = f"truncated (the header promises {short[1]} bytes of samples, {short[2]} are there)"
    elif file.frames < SHORTEST * file.samplerate:
        reason = f"too short (under {SHORTEST} s)"
    if reason:
        file.close()
        raise BadAudio(reason)
    return file


def _said(error: soundfile.SoundFileError) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".") or "the decoder failed"


def read_header(path: Path) -> Header:
    """Rate, channels and length, after a look at the very last sample: a file cut short fails here. Raises BadAudio."""
    with _open(path) as file:
        try:
            file.seek(file.frames - 1)
            last = len(file.read(1, dtype="float32"))
        except soundfile.SoundFileError:
            last = 0
        if not last:
            raise BadAudio(f"truncated (the header promises {file.frames} samples, the last cannot be read)")
        return Header(file.samplerate, file.channels, file.frames)


def read_audio(path: Path, start: int = 0, frames: int | None = None) -> np.ndarray:
    """(samples,) float32 in [-1, 1] at 16 kHz: channels are averaged, other rates resampled; `start` and `frames` are at 16 kHz.

    Raises UserError for a file that is unreadable, or shorter than its header says.
    """
    try:
        with _open(path) as file:
            rate, length = file.samplerate, file.frames
            if rate == SAMPLE_RATE:
                file.seek(min(start, length))
                expected = max(0, length - start if frames is None else min(frames, length - start))
            else:
                expected = length
            samples = file.read(expected, dtype="float32", always_2d=True)
            if len(samples) != expected:
                raise BadAudio(f"truncated ({len(samples)} of {expected} samples could be read)")
    except soundfile.SoundFileError as error:
        raise UserError(f"{path}: truncated or damaged ({_said(error)})") from None
    except BadAudio as error:
        raise UserError(f"{path}: {error}") from None
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if rate == SAMPLE_RATE:
        return np.ascontiguousarray(mono)
    from scipy.signal import resample_poly  # only here: the import takes half a second

    greatest = gcd(SAMPLE_RATE, rate)
    mono = resample_poly(mono, SAMPLE_RATE // greatest, rate // greatest).astype(np.float32)
    return mono[start:] if frames is None else mono[start : start + frames]


def inspect_audio(path: Path) -> list[str]:
    """Reads the whole file; returns notes on what is unusual but usable. Raises BadAudio.

    Bad: unreadable, empty, truncated (fewer samples than the header promises), shorter than SHORTEST, not finite, or silent (every
    sample the same: there is nothing to learn from, though normalisation stays finite). Usable, with a note: another rate
    (resampled), several channels (averaged), longer than LONGEST (cut into pieces), clipped (over 1 % of samples at full scale),
    and an offset above a tenth of full scale. Noise is not told from speech.
    """
    with _open(path) as file:
        total, clipped, mean, low, high, scale = 0, 0, 0.0, np.inf, -np.inf, 1.0 - 2.0**-15
        while True:
            try:
                block = file.read(_BLOCK, dtype="float32", always_2d=True)
            except soundfile.SoundFileError as error:
                raise BadAudio(f"truncated or damaged (the header promises {file.frames} samples: {_said(error)})") from None
            if not len(block):
                break
            if not np.isfinite(block).all():
                raise BadAudio("not finite (NaN or infinity among its samples)")
            total += len(block)
            clipped += int(np.count_nonzero(np.abs(block) >= scale))
            mean += float(block.mean(dtype=np.float64)) * len(block)
            low, high = min(low, float(block.min())), max(high, float(block.max()))
        header = Header(file.samplerate, file.channels, file.frames)
    if total != header.frames:
        raise BadAudio(f"truncated (the header promises {header.frames} samples, {total} are there)")
    if low == high:
        raise BadAudio("silent (every sample is the same)")
    notes = []
    if header.rate != SAMPLE_RATE:
        notes.append(f"{header.rate} Hz: resampled to {SAMPLE_RATE}")
    if header.channels > 1:
        notes.append(f"{header.channels} channels: averaged")
    if header.frames > LONGEST * header.rate:
        notes.append(f"{header.frames / header.rate:.0f} s long: cut into pieces")
    if clipped > 0.01 * total * header.channels:
        notes.append(f"clipped: {clipped / total / header.channels:.0%} of samples at full scale")
    if abs(mean / total) > 0.1:
        notes.append(f"offset of {mean / total:+.2f}")
    return notes


T = TypeVar("T")


def in_parallel(work: Callable[[Path], T], paths: Iterable[Path], title: str) -> Iterator[tuple[Path, T | BadAudio]]:
    """(path, result) in order, with BadAudio as a result rather than raised. Decoding runs outside Python's lock, so threads do."""

    def one(path: Path) -> T | BadAudio:
        try:
            return work(path)
        except BadAudio as error:
            return error

    paths = list(paths)
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        results = threads.map(one, paths)
        yield from zip(paths, tqdm(results, total=len(paths), desc=title, unit="file", disable=None), strict=True)
