"""`setup_flops`: what is spent before a model's own training, on its labels and on the earlier iterations that they come from."""

from __future__ import annotations

from sslrepro.budget.count import count
from sslrepro.budget.front_end import SAMPLE_RATE
from sslrepro.budget.ops import rfft_macs
from sslrepro.budget.own_targets import CEPSTRA, KALDI_FFT, mfcc_macs
from sslrepro.config import CellSettings, NoObjective, TargetSettings
from sslrepro.errors import UserError

DIMENSIONS = {"mfcc": 3 * CEPSTRA, "logmel": 40}
LABEL_RATE = 100  # frames a second of MFCC and log-mels


def spectral_feature_flops(source: str, seconds: float) -> float:
    """FLOPs of MFCC (with differences, which are element-wise) or log-mels of so many seconds: FFT, filter bank, cosine transform."""
    a_frame = mfcc_macs() if source == "mfcc" else rfft_macs(KALDI_FFT) + (KALDI_FFT // 2 + 1) * DIMENSIONS["logmel"]
    return 2.0 * LABEL_RATE * seconds * a_frame


def kmeans_flops(frames: float, clusters: int, dimensions: int) -> float:
    """One distance of every frame to every centroid: 2 x frames x clusters x dimensions."""
    return 2.0 * frames * clusters * dimensions


def label_flops(
    targets: TargetSettings,
    hours: float,
    source: CellSettings | None = None,
    seconds: float = 15.625,
    trained_flops: float = 0.0,
) -> float:
    """FLOPs of making labels for `hours` of speech: features of all of it, k-means on `fit_hours`, one label a frame.

    For `hidden` targets: source, the cell whose layer is clustered (its whole forward is counted), seconds, the length of its inputs, and
    trained_flops, what that cell's own training and labels had cost.
    """
    audio = 3600 * hours
    fit = 3600 * min(targets.fit_hours, hours)
    if targets.source != "hidden":
        frames, dimensions = LABEL_RATE, DIMENSIONS[targets.source]
        features = spectral_feature_flops(targets.source, audio + fit)
    else:
        if source is None or source.model.encoder is None:
            raise UserError("targets of source 'hidden' need the settings of the cell that they come from")
        cost = count(source.model, NoObjective(), round(seconds * SAMPLE_RATE))
        frames, dimensions = cost.frames / seconds, source.model.encoder.width
        features = 2 * cost.macs * (audio + fit) / seconds
    return trained_flops + features + kmeans_flops(frames * (audio + fit), targets.clusters, dimensions)
