"""Distillation of a frozen teacher: the student predicts the hidden states of some of the teacher's layers.

    mean over layers of  (1 / dim) |prediction - state|_1  -  lambda log sigmoid(cos(prediction, state))

`heads: output`: every layer from the student's output, by heads of its own that are thrown away (DistilHuBERT, arXiv 2110.01900, section
2.2). `heads: layers`: each layer from the student's layer at the same relative depth (the hints of FitHuBERT, arXiv 2207.00555, and
LightHuBERT, arXiv 2203.15610; their own distances are squared and absolute errors, here all students share the one above).
Without a mask the loss is over all frames; with one over the masked frames alone, which the teacher sees and the student does not.
With a `supernet` each update trains one smaller student on the leading part of the weights (LightHuBERT's second stage).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslrepro.budget.subnets import subnets
from sslrepro.config import DistillationSettings, ModelSettings
from sslrepro.data.masking import mask_spans
from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError
from sslrepro.models.slices import Slices
from sslrepro.models.upstream import Upstream, UpstreamOutput
from sslrepro.objectives.base import Batch, Key, LossOutput, Objective, Totals, take_frames, variance


def distances(predictions: Tensor, states: Tensor, cosine_weight: float) -> tuple[Tensor, Tensor]:
    """Loss and cosine similarity of each prediction, (..., dim) twice -> (...) twice: L1 over dim, minus log sigmoid of the cosine."""
    predictions, states = predictions.float(), states.float()
    cosine = F.cosine_similarity(predictions, states, dim=-1)
    return (predictions - states).abs().mean(-1) - cosine_weight * F.logsigmoid(cosine), cosine


def source_layer(teacher_layer: int, teacher_layers: int, student_layers: int) -> int:
    """The student's layer (1-based) at the relative depth of the teacher's, rounded up."""
    return math.ceil(teacher_layer * student_layers / teacher_layers)


class OutputHeads(nn.Module):
    """DistilHuBERT's heads: one linear to all heads side by side, GELU, one linear a head. (batch, n, width) -> (batch, n, heads, dim)."""

    def __init__(self, width: int, heads: int, dim: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, heads * width)
        self.weight = nn.Parameter(torch.empty(heads, width, dim).uniform_(-(width**-0.5), width**-0.5))
        self.bias = nn.Parameter(torch.zeros(heads, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.up(x)).unflatten(-1, self.weight.shape[:2])
        return torch.einsum("bnhw,hwd->bnhd", x, self.weight) + self.bias


class Distillation(Objective):
    """Student, heads, and a teacher that is no part of the module: it has no gradient, and is not saved with it."""

    teacher: Upstream

    def __init__(self, settings: DistillationSettings, upstream: Upstream) -> None:
        super().__init__(upstream)
        self.settings = settings
        model = settings.teacher_model
        if model is None or model.encoder is None:
            raise UserError("objective.teacher: a teacher needs an encoder; its settings come from the profile that names its cell")
        depth = model.encoder.layers
        if settings.heads == "layers" and upstream.encoder is not None and upstream.encoder.segmenter is not None:
            raise UserError("objective.heads: a student of segments of variable length is read at its output; use heads: output")
        if max(settings.layers) > depth:
            raise UserError(f"objective.layers: the teacher has layers 1 to {depth}, not {max(settings.layers)}")
        if settings.heads == "output":
            self.heads = OutputHeads(upstream.dim, len(settings.layers), model.encoder.width)
        else:
            self.heads = nn.ModuleList(nn.Linear(upstream.dim, model.encoder.width) for _ in settings.layers)
        self.subnets = [] if settings.supernet is None else subnets(upstream.settings, settings.supernet)
        self.slices = Slices()
        self.chosen: ModelSettings | None = None  # the subnet that is validated; None: all of the model

    def begin(self, teacher: Upstream, fresh: bool) -> None:
        """Take the teacher, frozen; fresh: give the student its front end and first layers where the settings say so.

        Raises UserError where the two have different frames.
        """
        if teacher.frame_rate != self.upstream.frame_rate:
            raise UserError(
                f"the teacher has {teacher.frame_rate:g} frames a second, the student {self.upstream.frame_rate:g}: they must agree"
            )
        object.__setattr__(self, "teacher", teacher.eval().requires_grad_(False))
        if fresh and self.settings.initialise == "teacher":
            first_layers(self.upstream, teacher)

    def draws(self, key: Key, frames: int) -> dict[str, np.ndarray]:
        return {"mask": mask_spans(self.settings.mask, frames, numpy_generator(*key, "mask"))}

    @property
    def masked(self) -> bool:
        return self.settings.mask.share > 0

    @torch.no_grad()
    def states(self, batch: Batch) -> Tensor:
        """What is to be predicted (batch, n, layers, dim): of all frames, or of the masked ones."""
        self.teacher.to(batch.waveforms.device)
        hidden = self.teacher(batch.waveforms, batch.lengths).hidden_states
        chosen = torch.stack([self._take(hidden[layer], batch) for layer in self.settings.layers], dim=2).float()
        return F.layer_norm(chosen, chosen.shape[-1:]) if self.settings.normalise else chosen

    def size(self, totals: Totals) -> ModelSettings:
        """The student of this update, the same on every device and in every micro-batch."""
        if not self.subnets or not self.training:
            return self.chosen or self.upstream.settings
        return self.subnets[numpy_generator(totals.seed, "subnet", totals.update).integers(len(self.subnets))]

    def student(self, batch: Batch, totals: Totals, size: ModelSettings) -> UpstreamOutput:
        mask, keep = batch.mask if self.masked else None, self.layer_keep(totals)
        if size is self.upstream.settings:
            return self.upstream(batch.waveforms, batch.lengths, mask=mask, layer_keep=keep)
        keep = None if keep is None else keep[: size.encoder.layers]
        return self.slices.run(self.upstream, size, batch.waveforms, batch.lengths, mask=mask, layer_keep=keep)

    def predict(self, output: UpstreamOutput, batch: Batch) -> Tensor:
        """(batch, n, layers, dim)."""
        if self.settings.heads == "output":
            return self.heads(self._take(output.output, batch))
        hidden, depth = output.hidden_states, self.settings.teacher_model.encoder.layers
        read = []
        for head, layer in zip(self.heads, self.settings.layers, strict=True):
            x = self._take(hidden[source_layer(layer, depth, len(hidden) - 1)], batch)
            read.append(F.linear(x, head.weight[:, : x.shape[-1]], head.bias))
        return torch.stack(read, dim=2)

    def _take(self, x: Tensor, batch: Batch) -> Tensor:
        return take_frames(x, batch.masked) if self.masked else x

    def forward(self, batch: Batch, totals: Totals) -> LossOutput:
        states, output = self.states(batch), self.student(batch, totals, self.size(totals))
        predictions = self.predict(output, batch)
        loss, cosine = (x.mean(2) for x in distances(predictions, states, self.settings.cosine_weight))
        if self.masked:
            valid, total = batch.masked_valid.float(), totals.masked
        else:
            seen = output.padding.valid
            valid, total = torch.ones_like(loss) if seen is None else seen.float(), totals.frames
        loss, cosine = loss * valid, cosine * valid
        with torch.no_grad():
            sums = {
                "frames": valid.sum(),
                "loss": loss.sum(),
                "cosine": cosine.sum(),
                "context_variance": variance(predictions.flatten(2), valid) * valid.sum(),
            }
        return LossOutput(loss.sum() / total, sums, {"nats": loss.sum(1), "correct": cosine.sum(1), "masked": valid.sum(1)})

    def summarize(self, sums: dict[str, float | np.ndarray]) -> dict[str, float]:
        frames = max(float(sums["frames"]), 1.0)
        return {name: float(sums[name] / frames) for name in ("loss", "cosine", "context_variance")}

    def chance(self) -> dict[str, float]:
        """Of predicting zero for a state of normal channels with unit variance."""
        return {"loss": math.sqrt(2 / math.pi) + self.settings.cosine_weight * math.log(2), "cosine": 0.0}

    @torch.no_grad()
    def chance_on(self, batches: Iterable[Batch]) -> dict[str, float]:
        """The same for states as they are, whose size is the teacher's own."""
        if self.settings.normalise:
            return {}
        size, count = 0.0, 0
        for batch in batches:
            states = self.states(batch).abs().mean((2, 3)).double()
            frames = torch.tensor(batch.host_frames, device=states.device)
            valid = batch.masked_valid if self.masked else torch.arange(states.shape[1], device=states.device) < frames[:, None]
            size, count = size + float(states[valid].sum()), count + int(valid.sum())
        return {"loss": size / count + self.settings.cosine_weight * math.log(2)} if count else {}

    def collapse(self, metrics: dict[str, float]) -> str | None:
        if metrics["context_variance"] < 1e-8:
            return f"the predictions do not vary (variance {metrics['context_variance']:.1e})"
        return None


@torch.no_grad()
def first_layers(student: Upstream, teacher: Upstream) -> None:
    """Give the student the teacher's weights of the same name: front end, position and first layers.

    Raises UserError naming the first weights of another shape. What compresses sequences the teacher need not have.
    """
    given = teacher.state_dict()
    for name, own in student.state_dict().items():
        if name not in given and name.startswith(("encoder.upsample", "encoder.segmenter")):
            continue
        if name not in given or given[name].shape != own.shape:
            raise UserError(f"objective.initialise: the teacher has no {name} of the shape {tuple(own.shape)}; initialise at random")
        own.copy_(given[name])
