"""BEST-RQ (Chiu 2022, arXiv 2202.01855): name the codeword that is nearest to a random projection of the masked frame's log-mels.

Neither projection nor codebook is learned, so nothing is spent on labels beforehand. Masked after the front end like the other objectives;
with `noise_std` as the original, which masks its log-mel input by noise (at 25 Hz: model.front_end logmel with a stack of 4).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslrepro.config import LogMelFrontEnd, RandomProjectionSettings
from sslrepro.data.masking import mask_spans
from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError
from sslrepro.models.front_end import LogMelFeatures
from sslrepro.models.logmel import without_autocast
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.base import Batch, Key, LossOutput, Objective, Totals, feature_penalty, spectra_a_frame, take_frames, variance
from sslrepro.objectives.masked_prediction import masked_prediction_terms


def nearest_codes(spectra: Tensor, projection: Tensor, codebook: Tensor) -> Tensor:
    """Equation 1: the codeword of unit length nearest to the projection at unit length, which is the one of the greatest cosine.

    spectra (..., inputs), projection (inputs, dim), codebook (codes, dim) of unit length -> (...) codes.
    """
    with without_autocast(spectra.device):
        return (F.normalize(spectra @ projection, dim=-1) @ codebook.T).argmax(-1)


class RandomProjection(Objective):
    """BEST-RQ pre-training: upstream and one linear layer to the codes. Raises UserError where noise is asked for without log-mels."""

    def __init__(self, settings: RandomProjectionSettings, upstream: Upstream) -> None:
        super().__init__(upstream)
        self.settings = settings
        self.stack = spectra_a_frame(upstream)
        on_log_mels = isinstance(upstream.front_end, LogMelFeatures) and upstream.settings.mask_embedding == "zero"
        if settings.noise_std is not None and not on_log_mels:
            raise UserError(
                "objective.noise_std masks log-mels: it needs model.front_end.kind logmel, and model.mask_embedding zero, "
                "because the learned one would never be used"
            )
        inputs = settings.mels * self.stack
        generator = numpy_generator("random projection", settings.codebook_seed)
        bound = math.sqrt(6 / (inputs + settings.dim))  # Xavier, as the paper
        projection = generator.uniform(-bound, bound, (inputs, settings.dim)).astype(np.float32)
        codebook = generator.standard_normal((settings.codes, settings.dim), np.float32)
        self.register_buffer("projection", torch.from_numpy(projection).to(self._device()))
        self.register_buffer("codebook", F.normalize(torch.from_numpy(codebook), dim=-1).to(self._device()))
        self.final_proj = nn.Linear(upstream.dim, settings.codes)

    def _device(self) -> torch.device:
        return next(self.upstream.parameters()).device

    def spectra(self, waveform: np.ndarray) -> np.ndarray:
        """Log-mels, each band standardised over the utterance, neighbours side by side: (samples,) -> (frames, mels x stack)."""
        with torch.no_grad():
            return _log_mels(self.settings.mels, self.stack)(torch.from_numpy(waveform)[None], [len(waveform)], True)[0].numpy()

    def draws(self, key: Key, frames: int) -> dict[str, np.ndarray]:
        drawn = {"mask": mask_spans(self.settings.mask, frames, numpy_generator(*key, "mask"))}
        if self.settings.noise_std is not None:
            shape = (frames, self.upstream.feature_dim)
            drawn["noise"] = self.settings.noise_std * numpy_generator(*key, "noise").standard_normal(shape, np.float32)
        return drawn

    def forward(self, batch: Batch, totals: Totals) -> LossOutput:
        mask, alter = batch.mask, None
        if self.settings.noise_std is not None:
            mask, alter = None, lambda x: torch.where(batch.mask[..., None], batch.noise.to(x.dtype), x)
        output = self.upstream(batch.waveforms, batch.lengths, mask=mask, layer_keep=self.layer_keep(totals), alter=alter)
        valid = batch.masked_valid
        labels = nearest_codes(take_frames(batch.spectra, batch.masked).to(self.projection.dtype), self.projection, self.codebook)
        logits = self.final_proj(take_frames(output.output, batch.masked))
        nats, correct = masked_prediction_terms(logits, labels)
        nats, correct = nats * valid, correct * valid
        penalty = feature_penalty(output, totals.frames)
        loss = nats.sum() / totals.masked + self.settings.feature_weight * penalty
        with torch.no_grad():
            sums = {
                "masked": valid.sum(),
                "nats": nats.sum(),
                "correct": correct.sum(),
                "targets": nats.new_zeros(self.settings.codes).scatter_add_(0, labels.flatten(), valid.flatten().to(nats.dtype)),
                "feature_squares": penalty.detach() * totals.frames,
                "frames": nats.new_full((), float(output.lengths.sum())),
                "context_variance": variance(logits, valid) * valid.sum(),
            }
        return LossOutput(loss, sums, {"nats": nats.sum(1), "correct": correct.sum(1), "masked": valid.sum(1)})

    def summarize(self, sums: dict[str, float | np.ndarray]) -> dict[str, float]:
        masked = max(float(sums["masked"]), 1.0)
        share = np.asarray(sums["targets"], dtype=np.float64)
        share = share[share > 0] / max(share.sum(), 1.0)
        return {
            "loss": float(sums["nats"] / masked),
            "accuracy": float(sums["correct"] / masked),
            "feature_penalty": float(sums["feature_squares"] / max(float(sums["frames"]), 1.0)),
            "context_variance": float(sums["context_variance"] / masked),
            "target_perplexity": float(np.exp(-(share * np.log(share)).sum())),
        }

    def chance(self) -> dict[str, float]:
        return {"loss": math.log(self.settings.codes), "accuracy": 1 / self.settings.codes}

    def collapse(self, metrics: dict[str, float]) -> str | None:
        if metrics["target_perplexity"] < 2:
            return f"the targets are nearly one code (perplexity {metrics['target_perplexity']:.2f}): the audio is all alike"
        if metrics["context_variance"] < 1e-8:
            return f"the logits do not vary (variance {metrics['context_variance']:.1e})"
        return None


@lru_cache
def _log_mels(mels: int, stack: int) -> LogMelFeatures:
    """On the host, wherever the model is."""
    return LogMelFeatures(LogMelFrontEnd(mels=mels, stack=stack))
