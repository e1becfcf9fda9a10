"""data2vec (Baevski 2022, arXiv 2202.03555): predict, at the masked frames, what a slowly following teacher makes of the whole utterance.

Targets: the outputs of the teacher's last feed-forward blocks (before their residual), each channel standardised over the utterance's
own frames, and their mean. The teacher is an exponential moving average of the encoder and reads the student's unmasked projection; its
position embedding is the student's (fairseq's `ema_transformer_layers_only`). Its weights are part of the state, so that a resumed run is
the same run.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from sslrepro.config import RegressionSettings
from sslrepro.data.masking import mask_spans
from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError
from sslrepro.models.norms import standardise
from sslrepro.models.upstream import Upstream, UpstreamOutput
from sslrepro.objectives.base import Batch, Key, LossOutput, Objective, Totals, take_frames, variance
from sslrepro.training.schedule import share


def regression_terms(predicted: Tensor, targets: Tensor) -> Tensor:
    """Mean squared difference of each frame: (batch, n, dim) twice -> (batch, n)."""
    return (predicted.float() - targets.float()).square().mean(-1)


def decay_at(settings: RegressionSettings, progress: float, updates: float) -> float:
    """The share of itself that the teacher keeps at an update: 1 - 1 / horizon, from the first to the last in a straight line."""
    start, end = (1 - 1 / max(share(h, updates) * updates, 1.0) for h in (settings.horizon_start, settings.horizon_end))
    return start + (end - start) * min(1.0, progress / share(settings.horizon_anneal, updates))


class Regression(Objective):
    """data2vec pre-training: upstream, teacher and one linear layer. Raises UserError for encoders that it is not defined for."""

    def __init__(self, settings: RegressionSettings, upstream: Upstream) -> None:
        super().__init__(upstream)
        self.settings = settings
        encoder = upstream.settings.encoder
        if encoder is None or encoder.layout != "transformer" or encoder.compression.kind != "none":
            raise UserError("objective regression needs model.encoder of layout transformer without compression")
        if settings.layers > encoder.layers:
            raise UserError(f"objective.layers: {settings.layers} to average, but the encoder has {encoder.layers}")
        self.teacher = untrained_copy(upstream.encoder)
        self.final_proj = nn.Linear(upstream.dim, upstream.dim)

    def draws(self, key: Key, frames: int) -> dict[str, np.ndarray]:
        return {"mask": mask_spans(self.settings.mask, frames, numpy_generator(*key, "mask"))}

    @torch.no_grad()
    def after_update(self, progress: float, updates: float, sound: Tensor) -> None:
        self._follow(decay_at(self.settings, progress, updates), sound)

    @torch.no_grad()
    def _follow(self, decay: float, sound: Tensor | float = 1.0) -> None:
        weights = dict(self.upstream.encoder.named_parameters())
        for name, mine in self.teacher.named_buffers():
            if name in weights:
                mine.lerp_(weights[name], sound * (1.0 if name.startswith("position") else 1 - decay))

    @torch.no_grad()
    def targets(self, output: UpstreamOutput) -> tuple[Tensor, Tensor]:
        """Targets (batch, frames, dim) and the mean variance over time of what they are made of, a scalar; from the unmasked front end."""
        x = output.normed.detach()
        x = x if self.upstream.proj is None else self.upstream.proj(x)
        caught: list[Tensor] = []
        layers = self.teacher.layers[-self.settings.layers :]
        hooks = [layer.feed_forward.register_forward_hook(lambda module, inputs, result: caught.append(result)) for layer in layers]
        try:
            self.teacher.eval()(x, output.padding, [True] * len(self.teacher.layers))
        finally:
            for hook in hooks:
                hook.remove()
        mean = torch.stack([standardise(block.float(), output.padding, eps=1e-5) for block in caught]).mean(0)
        valid = output.padding.valid
        everything = torch.ones(mean.shape[:2], dtype=torch.bool, device=mean.device) if valid is None else valid
        return mean, torch.stack([variance(block, everything) for block in caught]).mean()

    def forward(self, batch: Batch, totals: Totals) -> LossOutput:
        if self.training and totals.update == 0:
            self._follow(0.0)  # whatever the upstream began with
        output = self.upstream(batch.waveforms, batch.lengths, mask=batch.mask, layer_keep=self.layer_keep(totals))
        valid = batch.masked_valid
        targets, spread = self.targets(output)
        predicted = self.final_proj(take_frames(output.output, batch.masked))
        distance = regression_terms(predicted, take_frames(targets, batch.masked)) * valid
        with torch.no_grad():
            masked = valid.sum()
            sums = {
                "masked": masked,
                "distance": distance.sum(),
                "target_variance": spread * masked,
                "context_variance": variance(predicted, valid) * masked,
            }
        loss = distance.sum() / totals.masked
        return LossOutput(loss, sums, {"nats": distance.sum(1), "correct": torch.zeros_like(distance.sum(1)), "masked": valid.sum(1)})

    def summarize(self, sums: dict[str, float | np.ndarray]) -> dict[str, float]:
        masked = max(float(sums["masked"]), 1.0)
        names = {"loss": "distance", "target_variance": "target_variance", "context_variance": "context_variance"}
        return {name: float(sums[key] / masked) for name, key in names.items()}

    def chance(self) -> dict[str, float]:
        return {"loss": 1.0}  # at most: zeros against a mean of standardised blocks, which has unit variance where they agree

    def collapse(self, metrics: dict[str, float]) -> str | None:
        for name in ("target_variance", "context_variance"):
            if metrics[name] < 1e-6:
                return f"the {name.replace('_', ' ')} is {metrics[name]:.1e}: the same for all frames"
        return None


def untrained_copy(module: nn.Module) -> nn.Module:
    """A copy whose weights are buffers: part of the state, but no parameters that are counted or trained."""
    copy = deepcopy(module)
    for part in copy.modules():
        for name, weight in list(part.named_parameters(recurse=False)):
            del part._parameters[name]
            part.register_buffer(name, weight.detach())
    return copy
