"""HuBERT's masked prediction (Hsu 2021, equations 1 and 3; loss on masked frames alone, alpha = 1): name the cluster of each masked frame.

`cosine`: softmax over cos(projection, class embedding) / temperature, as HuBERT. `linear`: a plain softmax, as MelHuBERT.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslrepro.config import MaskedPredictionSettings
from sslrepro.data.masking import mask_spans
from sslrepro.draws import numpy_generator
from sslrepro.models.linear import Linear
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.base import Batch, Key, LossOutput, Objective, Totals, feature_penalty, take_frames, variance


def class_logits(projected: Tensor, embeddings: Tensor, temperature: float) -> Tensor:
    """Cosine similarity over temperature: projected (..., dim), embeddings (classes, dim) -> (..., classes)."""
    return F.normalize(projected.float(), dim=-1) @ F.normalize(embeddings.float(), dim=-1).T / temperature


def masked_prediction_terms(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats and whether the label is the best class: logits (batch, n, classes), labels (batch, n) -> (batch, n) each."""
    # F.cross_entropy over two dimensions has no form on a GPU that adds in a fixed order (training.deterministic)
    nats = -F.log_softmax(logits.float().transpose(1, 2), dim=1).gather(1, labels[:, None]).squeeze(1)
    return nats, (logits.detach().argmax(-1) == labels).float()


class MaskedPrediction(Objective):
    """HuBERT pre-training: upstream, projection and class embeddings (or one linear layer)."""

    def __init__(self, settings: MaskedPredictionSettings, upstream: Upstream) -> None:
        super().__init__(upstream)
        self.settings = settings
        if settings.head == "cosine":
            self.final_proj = Linear(upstream.dim, settings.final_dim)
            self.label_embeddings = nn.Parameter(torch.empty(settings.classes, settings.final_dim).uniform_())
        else:
            self.final_proj = Linear(upstream.dim, settings.classes)

    def draws(self, key: Key, frames: int) -> dict[str, np.ndarray]:
        return {"mask": mask_spans(self.settings.mask, frames, numpy_generator(*key, "mask"))}

    def forward(self, batch: Batch, totals: Totals) -> LossOutput:
        output = self.upstream(batch.waveforms, batch.lengths, mask=batch.mask, layer_keep=self.layer_keep(totals))
        valid = batch.masked_valid
        projected = self.final_proj(take_frames(output.output, batch.masked))
        logits = projected
        if self.settings.head == "cosine":
            logits = class_logits(projected, self.label_embeddings, self.settings.temperature)
        labels = batch.labels.gather(1, batch.masked).clamp(min=0)
        nats, correct = masked_prediction_terms(logits, labels)
        nats, correct = nats * valid, correct * valid
        penalty = feature_penalty(output, totals.frames)
        loss = nats.sum() / totals.masked + self.settings.feature_weight * penalty
        with torch.no_grad():
            predicted = F.one_hot(logits.argmax(-1), self.settings.classes) * valid[..., None]
            sums = {
                "masked": valid.sum(),
                "nats": nats.sum(),
                "correct": correct.sum(),
                "predicted": predicted.sum((0, 1)).float(),
                "feature_squares": penalty.detach() * totals.frames,
                "frames": nats.new_full((), float(output.lengths.sum())),
                "context_variance": variance(projected, valid) * valid.sum(),
            }
        return LossOutput(loss, sums, {"nats": nats.sum(1), "correct": correct.sum(1), "masked": valid.sum(1)})

    def summarize(self, sums: dict[str, float | np.ndarray]) -> dict[str, float]:
        masked = max(float(sums["masked"]), 1.0)
        return {
            "loss": float(sums["nats"] / masked),
            "accuracy": float(sums["correct"] / masked),
            "feature_penalty": float(sums["feature_squares"] / max(float(sums["frames"]), 1.0)),
            "context_variance": float(sums["context_variance"] / masked),
            "distinct_classes": float((np.asarray(sums["predicted"]) > 0).sum()),
        }

    def chance(self) -> dict[str, float]:
        return {"loss": math.log(self.settings.classes), "accuracy": 1 / self.settings.classes}

    def collapse(self, metrics: dict[str, float]) -> str | None:
        if metrics["context_variance"] < 1e-8:
            return f"the projected context does not vary (variance {metrics['context_variance']:.1e})"
        return None
