"""Reads audio files, whatever their name says: mono float32 at 16 kHz."""

from __future__ import annotations

from math import gcd
from pathlib import Path

import numpy as np
import soundfile

from sslrepro.errors import UserError

SAMPLE_RATE = 16000


def frames_at_16k(frames: int, rate: int) -> int:
    """How many samples at 16 kHz `frames` samples at `rate` become."""
    return -(-frames * SAMPLE_RATE // rate)


def read_audio(path: Path, start: int = 0, frames: int | None = None) -> np.ndarray:
    """(samples,) float32 in [-1, 1] at 16 kHz: channels are averaged, other rates resampled; `start` and `frames` are at 16 kHz.

    Raises UserError for a file that is missing, unreadable, or shorter than it says.
    """
    try:
        with open(path, "rb") as handle, soundfile.SoundFile(handle) as file:  # a handle: the content decides, not the name
            rate, channels, length = file.samplerate, file.channels, file.frames
            if rate == SAMPLE_RATE:
                file.seek(start)
                expected = length - start if frames is None else min(frames, length - start)
                samples = file.read(expected, dtype="float32", always_2d=True)
            else:
                expected = length
                samples = file.read(dtype="float32", always_2d=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (soundfile.SoundFileError, OSError) as error:
        raise UserError(f"{path}: not readable as audio: {error}") from None
    if len(samples) != expected:
        raise UserError(f"{path}: cut short: {len(samples)} of {expected} samples could be read")
    mono = samples[:, 0] if channels == 1 else samples.mean(axis=1)
    if rate == SAMPLE_RATE:
        return np.ascontiguousarray(mono)
    from scipy.signal import resample_poly  # only here: the import takes half a second

    greatest = gcd(SAMPLE_RATE, rate)
    mono = resample_poly(mono, SAMPLE_RATE // greatest, rate // greatest).astype(np.float32)
    return mono[start:] if frames is None else mono[start : start + frames]
