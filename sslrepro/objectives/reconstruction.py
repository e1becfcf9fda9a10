"""TERA's reconstruction (Liu 2021, arXiv 2007.06028): the L1 distance to the MFCC of the masked frames.

As the compute-budget paper's authors run it: HuBERT's mask after the front end, one linear layer, 39-dimensional MFCC of as many 10 ms
frames as one frame of the model holds (two: 78 values at 50 Hz), as they are. The original alters log-mels: whole bands, and noise on
some utterances, which the settings turn on. Left out of the original: masked frames that are exchanged for others or kept as they are.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from sslrepro.config import ReconstructionSettings
from sslrepro.data.masking import mask_spans
from sslrepro.data.targets import mfcc
from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError
from sslrepro.models.front_end import LogMelFeatures
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.base import Batch, Key, LossOutput, Objective, Totals, feature_penalty, spectra_a_frame, take_frames, variance

COEFFICIENTS = 39  # 13 with first and second differences


def reconstruction_terms(predicted: Tensor, spectra: Tensor) -> Tensor:
    """Mean absolute difference of each frame: (batch, n, dim) twice -> (batch, n)."""
    return (predicted.float() - spectra.float()).abs().mean(-1)


class Reconstruction(Objective):
    """TERA pre-training: upstream and one linear layer to the MFCC. Raises UserError for bands or noise without log-mels."""

    def __init__(self, settings: ReconstructionSettings, upstream: Upstream) -> None:
        super().__init__(upstream)
        self.settings = settings
        self.stack = spectra_a_frame(upstream)
        self.alters = settings.frequency > 0 or settings.noise_share > 0
        if self.alters and not isinstance(upstream.front_end, LogMelFeatures):
            raise UserError("objective.frequency and objective.noise_share alter log-mels: they need model.front_end.kind logmel")
        self.final_proj = nn.Linear(upstream.dim, COEFFICIENTS * self.stack)

    def spectra(self, waveform: np.ndarray) -> np.ndarray:
        """MFCC, neighbours side by side: (samples,) -> (frames, 39 x stack)."""
        frames = mfcc(waveform)
        if self.settings.normalise:
            frames = (frames - frames.mean(0)) / (frames.std(0) + 1e-5)
        return stacked(frames, self.stack)

    def draws(self, key: Key, frames: int) -> dict[str, np.ndarray]:
        s = self.settings
        drawn = {"mask": mask_spans(s.mask, frames, numpy_generator(*key, "mask"))}
        if self.alters:
            drawn["keep"] = self._kept_channels(numpy_generator(*key, "frequency"))
            generator = numpy_generator(*key, "noise")
            noisy = generator.random() < s.noise_share
            shape = (frames, self.upstream.feature_dim)
            drawn["noise"] = s.noise_std * generator.standard_normal(shape, np.float32) if noisy else np.zeros(shape, np.float32)
        return drawn

    def _kept_channels(self, generator: np.random.Generator) -> np.ndarray:
        """1 for the channels that stay, (channels,): a band of 0 to `frequency` of the mels is lost, the same in all stacked frames."""
        mels = self.upstream.feature_dim // self.stack
        keep = np.ones(mels, dtype=np.float32)
        width = int(generator.integers(0, int(self.settings.frequency * mels) + 1))
        first = int(generator.integers(0, mels - width + 1))
        keep[first : first + width] = 0.0
        return np.tile(keep, self.stack)

    def forward(self, batch: Batch, totals: Totals) -> LossOutput:
        alter = (lambda x: x * batch.keep[:, None].to(x.dtype) + batch.noise.to(x.dtype)) if self.alters else None
        output = self.upstream(batch.waveforms, batch.lengths, mask=batch.mask, layer_keep=self.layer_keep(totals), alter=alter)
        valid = batch.masked_valid
        predicted = self.final_proj(take_frames(output.output, batch.masked))
        distance = reconstruction_terms(predicted, take_frames(batch.spectra, batch.masked)) * valid
        penalty = feature_penalty(output, totals.frames)
        loss = distance.sum() / totals.masked + self.settings.feature_weight * penalty
        with torch.no_grad():
            sums = {
                "masked": valid.sum(),
                "distance": distance.sum(),
                "feature_squares": penalty.detach() * totals.frames,
                "frames": distance.new_full((), float(output.lengths.sum())),
                "context_variance": variance(predicted, valid) * valid.sum(),
            }
        return LossOutput(loss, sums, {"nats": distance.sum(1), "correct": torch.zeros_like(distance.sum(1)), "masked": valid.sum(1)})

    def summarize(self, sums: dict[str, float | np.ndarray]) -> dict[str, float]:
        masked = max(float(sums["masked"]), 1.0)
        return {
            "loss": float(sums["distance"] / masked),
            "feature_penalty": float(sums["feature_squares"] / max(float(sums["frames"]), 1.0)),
            "context_variance": float(sums["context_variance"] / masked),
        }

    def chance(self) -> dict[str, float]:
        return {}  # what a constant loses depends on the data

    def chance_on(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Of the best constant for L1: the median of each value over the masked frames."""
        masked = np.concatenate([batch.spectra[batch.mask].float().cpu().numpy() for batch in batches])
        return {"loss": float(np.abs(masked - np.median(masked, axis=0)).mean(dtype=np.float64))} if len(masked) else {}

    def collapse(self, metrics: dict[str, float]) -> str | None:
        if metrics["context_variance"] < 1e-8:
            return f"the prediction does not vary (variance {metrics['context_variance']:.1e})"
        return None


def stacked(frames: np.ndarray, count: int) -> np.ndarray:
    """`count` neighbours side by side; what is left over at the end is dropped: (n, dim) -> (n // count, count x dim)."""
    whole = len(frames) // count
    return frames[: whole * count].reshape(whole, -1)
