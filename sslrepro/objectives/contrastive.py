"""wav2vec 2.0's contrastive objective (Baevski 2020, equations 2 to 4), in two published weightings.

    L = sum over masked frames of -log( exp(sim(c, q)/t) / sum over q and its negatives of exp(sim(c, q')/t) )      contrastive
      + alpha x diversity                                                                                       codebook use
      + gamma x mean square of the features                                                                    feature penalty

`fairseq` multiplies both extra terms by the number of masked frames and takes (GV - sum of perplexities) / GV for the diversity;
`batch_size_paper` (Vaessen & van Leeuwen 2024) multiplies neither and takes the sum over groups of V - perplexity, so there the extra terms
weigh 3 to 1,000 times less. Both are reported here per masked frame, in nats.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslrepro.config import ContrastiveSettings, QuantizerSettings
from sslrepro.data.masking import mask_spans, negative_samples
from sslrepro.draws import numpy_generator, torch_generator
from sslrepro.models.dropout import Dropout
from sslrepro.models.linear import Linear
from sslrepro.models.quantizer import Quantized, Quantizer, gumbel_noise
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.base import Batch, Key, LossOutput, Objective, Totals, feature_penalty, take_frames, variance
from sslrepro.objectives.mlp_head import MLPHead

EPS = 1e-7  # inside the logarithm of the perplexity, as fairseq


def contrastive_terms(context: Tensor, targets: Tensor, codes: Tensor, negatives: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy of picking each frame's own target among its negatives, and whether it is picked.

    context, targets (batch, n, dim); codes (batch, n, groups): a negative with the same codes as the positive does not count; negatives
    (batch, n, count): places among the n. Returns (batch, n) nats and (batch, n) 0/1 (a tie is a miss, so a collapsed model scores 0).

    All n x n similarities are one matrix product; a negative drawn m times weighs m, which is the sum over the drawn ones.
    """
    similarity = F.normalize(context.float(), dim=-1) @ F.normalize(targets.float(), dim=-1).transpose(1, 2) / temperature
    positive = similarity.diagonal(dim1=1, dim2=2)
    with torch.no_grad():
        times = torch.zeros_like(similarity).scatter_add_(2, negatives, torch.ones_like(negatives, dtype=similarity.dtype))
        times.masked_fill_((codes[:, :, None, :] == codes[:, None, :, :]).all(-1), 0.0)
        weight = times.log()  # -inf where not drawn
    candidates = torch.cat([positive.unsqueeze(-1), similarity + weight], dim=-1)  # the positive keeps it finite where no rival is left
    loss = torch.logsumexp(candidates, dim=-1) - positive
    with torch.no_grad():
        best = similarity.masked_fill(times == 0, -torch.inf).amax(-1)
        correct = (positive > best).float()
    return loss, correct


def perplexity(distribution: Tensor) -> Tensor:
    """exp(entropy) of each group's code distribution: (groups, codes) -> (groups,)."""
    return torch.exp(-(distribution * torch.log(distribution + EPS)).sum(-1))


def temperature_at(settings: QuantizerSettings, progress: float, update: int) -> float:
    """Gumbel temperature: geometric from start to end over `anneal_share` of the run, or by a factor an update as the papers give it."""
    if settings.anneal_share is None:
        return max(settings.temperature_start * settings.temperature_decay**update, settings.temperature_end)
    share = min(1.0, progress / settings.anneal_share)
    return settings.temperature_start * (settings.temperature_end / settings.temperature_start) ** share


class Contrastive(Objective):
    """wav2vec 2.0 pre-training: upstream, quantizer, and the two projections into the space of the similarity."""

    def __init__(self, settings: ContrastiveSettings, upstream: Upstream) -> None:
        super().__init__(upstream)
        self.settings = settings
        self.quantizer = Quantizer(settings.quantizer, upstream.feature_dim)
        self.project_q = self._head(settings.quantizer.dim)
        self.final_proj = self._head(upstream.dim)
        self.dropout_features = Dropout(settings.dropout_features)

    def _head(self, inputs: int) -> nn.Module:
        if self.settings.head == "mlp":
            return MLPHead(inputs, self.settings.head_hidden, self.settings.final_dim)
        return Linear(inputs, self.settings.final_dim)

    def _project(self, head: nn.Module, x: Tensor, valid: Tensor) -> Tensor:
        return head(x, valid) if isinstance(head, MLPHead) else head(x)

    def draws(self, key: Key, frames: int) -> dict[str, np.ndarray]:
        mask = mask_spans(self.settings.mask, frames, numpy_generator(*key, "mask"))
        if mask.sum() < 2:  # no frame to tell it from
            mask[:] = False
        generator = numpy_generator(*key, "negatives")
        negatives = negative_samples(int(mask.sum()), self.settings.negatives, self.settings.negative_rule, generator)
        return {"mask": mask, "negatives": negatives}

    def _quantize(self, features: Tensor, batch: Batch, totals: Totals, noise: bool) -> Quantized:
        """Targets of the masked frames: vectors (batch, n, dim), soft choices (batch, n, groups, codes), ids (batch, n, groups)."""
        q = self.settings.quantizer
        frames = self.dropout_features(take_frames(features, batch.masked))
        gumbel = None
        if noise:
            shape = (frames.shape[1], q.groups, q.codes)
            draws = [torch_generator(*key, "gumbel", device=frames.device) for key in batch.keys]
            gumbel = torch.stack([gumbel_noise(shape, generator) for generator in draws])
        return self.quantizer(frames, temperature_at(q, totals.progress, totals.update), gumbel)

    def _target_features(self, features: Tensor, normed: Tensor) -> Tensor:
        return features if self.settings.quantizer.input == "before_norm" else normed

    def code_sums(self, batch: Batch, totals: Totals) -> Tensor | None:
        if self.settings.diversity_weight == 0 or self.settings.diversity_scope == "micro_batch":
            return None
        features, normed = self.upstream.front(batch.waveforms, batch.lengths)
        _, soft, _ = self._quantize(self._target_features(features, normed), batch, totals, noise=False)
        return (soft * batch.masked_valid[..., None, None]).sum((0, 1))

    def forward(self, batch: Batch, totals: Totals) -> LossOutput:
        s = self.settings
        output = self.upstream(batch.waveforms, batch.lengths, mask=batch.mask, layer_keep=self.layer_keep(totals))
        valid = batch.masked_valid
        targets, soft, codes = self._quantize(self._target_features(output.features, output.normed), batch, totals, self.training)
        context = self._project(self.final_proj, take_frames(output.output, batch.masked), valid)
        targets = self._project(self.project_q, targets, valid)
        nats, correct = contrastive_terms(context, targets, codes, batch.negatives, s.temperature)
        nats, correct = nats * valid, correct * valid

        code_sum = (soft * valid[..., None, None]).sum((0, 1))
        if totals.mean_codes is None:
            mean_codes, share = code_sum / valid.sum().clamp(min=1), 1.0 / totals.micro_batches
        else:  # the value is the update's; the gradient is this micro-batch's part of it
            mean_codes, share = totals.mean_codes + (code_sum - code_sum.detach()) / totals.masked, 1.0
        groups, codes_per_group = mean_codes.shape
        lost = (codes_per_group - perplexity(mean_codes)).sum()
        if totals.mean_codes is not None:  # each micro-batch has the update's value, and the shares must add up to it once
            lost = lost - (1 - 1 / totals.micro_batches) * lost.detach()
        penalty = feature_penalty(output, totals.frames)
        if s.weighting == "fairseq":
            extra = s.diversity_weight * lost / (groups * codes_per_group) * share + s.feature_weight * penalty
        else:  # per micro-batch in their code, against a sum of cross-entropies over it
            extra = (s.diversity_weight * lost * share + s.feature_weight * penalty) * totals.micro_batches / totals.masked
        loss = nats.sum() / totals.masked + extra

        with torch.no_grad():
            used = F.one_hot(codes, codes_per_group) * valid[..., None, None]
            sums = {
                "masked": valid.sum(),
                "nats": nats.sum(),
                "correct": correct.sum(),
                "codes_soft": code_sum.detach(),
                "codes_hard": used.sum((0, 1)).float(),
                "feature_squares": penalty.detach() * totals.frames,
                "frames": nats.new_full((), float(output.lengths.sum())),
                "context_variance": variance(context, valid) * valid.sum(),
            }
        return LossOutput(loss, sums, {"nats": nats.sum(1), "correct": correct.sum(1), "masked": valid.sum(1)})

    def summarize(self, sums: dict[str, float | np.ndarray]) -> dict[str, float]:
        masked = max(float(sums["masked"]), 1.0)
        metrics = {
            "loss": sums["nats"] / masked,
            "accuracy": sums["correct"] / masked,
            "feature_penalty": sums["feature_squares"] / max(float(sums["frames"]), 1.0),
            "context_variance": sums["context_variance"] / masked,
        }
        for name, key in (("code_perplexity", "codes_hard"), ("soft_perplexity", "codes_soft")):
            share = torch.from_numpy(np.asarray(sums[key], dtype=np.float64))
            share = share / share.sum(-1, keepdim=True).clamp(min=EPS)
            for group, value in enumerate(perplexity(share).tolist()):
                metrics[f"{name}_{group + 1}"] = value
        metrics["distinct_codes"] = float((np.asarray(sums["codes_hard"]) > 0).sum(-1).mean())
        return {name: float(value) for name, value in metrics.items()}

    @torch.no_grad()
    def weight_metrics(self) -> dict[str, float]:
        """Mean cosine similarity of a codebook's different entries: 0.75 where they still lie as initialised, uniform in [0, 1]."""
        words = F.normalize(self.quantizer.codebooks.float(), dim=-1)
        n = words.shape[1]
        mean = ((words @ words.transpose(1, 2)).sum((1, 2)) - n) / (n * (n - 1))
        return {f"codeword_cosine_{group + 1}": value for group, value in enumerate(mean.tolist())}

    def chance(self) -> dict[str, float]:
        n = self.settings.negatives + 1
        return {"loss": math.log(n), "accuracy": 1 / n}

    def collapse(self, metrics: dict[str, float]) -> str | None:
        groups = self.settings.quantizer.groups
        if metrics["distinct_codes"] < 2:
            return f"the quantizer uses {metrics['distinct_codes']:.2g} codes a group"
        worst = min(metrics[f"code_perplexity_{g + 1}"] for g in range(groups))
        if worst < 1.1:
            return f"a codebook's perplexity is {worst:.3f} (1 is one single code)"
        if metrics["context_variance"] < 1e-8:
            return f"the context vectors do not vary (variance {metrics['context_variance']:.1e})"
        return None
