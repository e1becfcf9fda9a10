"""What targets cost that are made anew for every batch: a teacher's forward, spectral features, a random projection."""

from __future__ import annotations

from sslrepro.budget.encoder import encoder
from sslrepro.budget.ops import Part, linear, rfft_macs
from sslrepro.config import ModelSettings, ObjectiveSettings, RandomProjectionSettings, ReconstructionSettings, RegressionSettings

WINDOW, HOP = 400, 160  # of log-mels: 25 ms every 10 ms
KALDI_FFT = 512  # of MFCC: the window, padded to a power of two
BANDS, CEPSTRA = 23, 13  # of Kaldi's MFCC; differences are element-wise


def mfcc_macs() -> int:
    """MACs of one frame: Fourier transform, filter bank, cosine transform."""
    return rfft_macs(KALDI_FFT) + (KALDI_FFT // 2 + 1) * BANDS + BANDS * CEPSTRA


def own_targets(
    model: ModelSettings, objective: ObjectiveSettings, samples: int, frames: int, channels: int, masked: int, hop: int
) -> dict[str, Part]:
    """By component, forward alone. channels: the front end's; hop: samples a frame. Spectral features are made on the host,
    where torch's counter does not look (`unseen`)."""
    spectra = max(0, (samples - WINDOW) // HOP + 1)
    if isinstance(objective, ReconstructionSettings):
        macs = spectra * mfcc_macs()
        return {"targets": Part(macs=macs, unseen=macs)}
    if isinstance(objective, RandomProjectionSettings):
        log_mels = spectra * (rfft_macs(WINDOW) + (WINDOW // 2 + 1) * objective.mels)
        projection = masked * objective.dim * (objective.mels * (hop // HOP) + objective.codes)
        return {"targets": Part(macs=log_mels + projection, unseen=log_mels)}
    if isinstance(objective, RegressionSettings):
        parts = list(encoder(model.encoder, frames).values())
        if channels != model.encoder.width:  # without mask, so projected once more
            parts.append(linear(frames, channels, model.encoder.width))
        return {"teacher": Part(training=sum(part.macs for part in parts), unseen=sum(part.unseen for part in parts))}
    return {}
