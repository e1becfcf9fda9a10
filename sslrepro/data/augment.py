"""Changes of the training audio: speed, room, noise and masking, each drawn for each utterance of each update from its own counter.

Every change keeps time where it is: frame i of the changed audio is frame i of the audio before it, but for the speed, whose factor the
labels are told. Spectral targets are made after the change of speed and before the others, so a model learns to hear through them.
"""

from __future__ import annotations

import numpy as np
import torch

from sslrepro.config import AugmentSettings
from sslrepro.draws import numpy_generator

SAMPLE_RATE = 16_000
SPEED_STEP = 0.05  # factors lie on this grid: resampling between small whole numbers is quick

Key = tuple[int | str, ...]


def speed_of(settings: AugmentSettings | None, key: Key) -> float:
    """How many times faster this utterance is to be spoken; 1 for most or all."""
    if settings is None or settings.speed_share == 0:
        return 1.0
    generator = numpy_generator(*key, "speed")
    if generator.random() >= settings.speed_share:
        return 1.0
    low, high = (round(end / SPEED_STEP) for end in settings.speed)
    return float(generator.integers(low, high + 1)) * SPEED_STEP


def change_speed(waveform: np.ndarray, factor: float) -> np.ndarray:
    """Spoken `factor` times faster, pitch included (Kaldi's speed perturbation): (samples,) -> (about samples / factor,)."""
    if factor == 1.0:
        return waveform
    import torchaudio  # here and below: only who asks for it waits for the import

    hundredths = round(100 * factor)
    return torchaudio.functional.resample(torch.from_numpy(waveform), hundredths, 100).numpy()


def augment(waveform: np.ndarray, settings: AugmentSettings | None, key: Key) -> np.ndarray:
    """Room, then noise, then masking: (samples,) float32 -> the same shape."""
    if settings is None:
        return waveform
    changes = ((settings.room_share, _room, "room"), (settings.noise_share, _noise, "noise"), (settings.mask_share, _masking, "audio mask"))
    for share, change, name in changes:
        generator = numpy_generator(*key, name)
        if generator.random() < share:
            waveform = change(waveform, settings, generator)
    return waveform


def _room(waveform: np.ndarray, settings: AugmentSettings, generator: np.random.Generator) -> np.ndarray:
    """A room whose echoes fall by 60 dB within the drawn time: noise under an exponential behind the direct sound. The power stays."""
    import torchaudio

    seconds = generator.uniform(*settings.room_seconds)
    times = np.arange(1, round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tail = generator.standard_normal(len(times)) * 10 ** (-3 * times / seconds)
    tail *= 10 ** (-generator.uniform(0, 10) / 20) / max(float(np.linalg.norm(tail)), 1e-9)  # direct to reverberant: 0 to 10 dB
    response = np.concatenate([[1.0], tail]).astype(np.float32)
    wet = torchaudio.functional.fftconvolve(torch.from_numpy(waveform), torch.from_numpy(response))[: len(waveform)].numpy()
    return wet * np.float32(np.linalg.norm(waveform) / max(float(np.linalg.norm(wet)), 1e-9))


def _noise(waveform: np.ndarray, settings: AugmentSettings, generator: np.random.Generator) -> np.ndarray:
    """Noise between white and brown at a drawn distance below the speech."""
    import torchaudio

    slope, decibels = generator.uniform(0, 1), generator.uniform(*settings.noise_decibels)
    spectrum = np.fft.rfft(generator.standard_normal(len(waveform)))
    noise = np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 1) ** slope, len(waveform)).astype(np.float32)
    return torchaudio.functional.add_noise(torch.from_numpy(waveform), torch.from_numpy(noise), torch.tensor(decibels).float()).numpy()


def _masking(waveform: np.ndarray, settings: AugmentSettings, generator: np.random.Generator) -> np.ndarray:
    """Silence in `mask_spans` stretches of up to `mask_seconds`."""
    waveform = waveform.copy()
    for _ in range(settings.mask_spans):
        length = min(int(generator.integers(0, round(settings.mask_seconds * SAMPLE_RATE) + 1)), len(waveform))
        first = int(generator.integers(0, len(waveform) - length + 1))
        waveform[first : first + length] = 0.0
    return waveform
