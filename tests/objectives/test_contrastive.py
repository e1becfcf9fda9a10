"""The contrastive objective: against transformers on the same tensors, by hand, and under accumulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from sslrepro.config import (
    ContrastiveSettings,
    EncoderSettings,
    LogMelFrontEnd,
    MaskSettings,
    ModelSettings,
    PositionSettings,
    QuantizerSettings,
)
from sslrepro.data.masking import negative_samples
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.base import Batch, Totals
from sslrepro.objectives.contrastive import Contrastive, contrastive_terms, perplexity, temperature_at
from sslrepro.training.gradients import Step, update_gradients

torch.set_num_threads(1)


def tiny_model(**changes) -> ModelSettings:
    encoder = EncoderSettings(
        layers=2, width=32, ffn=64, heads=4, position=PositionSettings(kernel=8, groups=4), dropout=0.0, attention_dropout=0.0
    )
    return ModelSettings(front_end=LogMelFrontEnd(mels=20), encoder=encoder, dropout_input=0.0, **changes)


def tiny_settings(**changes) -> ContrastiveSettings:
    quantizer = QuantizerSettings(groups=2, codes=8, dim=16)
    values = {"quantizer": quantizer, "negatives": 5, "final_dim": 16, "dropout_features": 0.0, "mask": MaskSettings(length=4)} | changes
    return ContrastiveSettings(**values)


def make_batch(objective: Contrastive, seconds: list[float], seed: int = 0) -> Batch:
    """White noise utterances with the objective's own draws; utterance i has the key (seed, i)."""
    upstream = objective.upstream
    lengths = [int(16_000 * s) for s in seconds]
    frames = [upstream.frames(n) for n in lengths]
    drawn = [objective.draws((seed, i), n) for i, n in enumerate(frames)]
    counts = [int(d["mask"].sum()) for d in drawn]
    generator = torch.Generator().manual_seed(seed)
    waveforms = torch.zeros(len(lengths), max(lengths))
    mask = torch.zeros(len(lengths), upstream.frames(max(lengths)), dtype=torch.bool)
    masked = torch.zeros(len(lengths), max(counts), dtype=torch.long)
    valid = torch.zeros(len(lengths), max(counts), dtype=torch.bool)
    negatives = torch.zeros(len(lengths), max(counts), objective.settings.negatives, dtype=torch.long)
    for row, (n, d) in enumerate(zip(lengths, drawn, strict=True)):
        waveforms[row, :n] = torch.randn(n, generator=torch.Generator().manual_seed(seed + row + 17))
        mask[row, : frames[row]] = torch.from_numpy(d["mask"])
        masked[row, : counts[row]] = torch.from_numpy(np.flatnonzero(d["mask"]))
        valid[row, : counts[row]] = True
        negatives[row, : counts[row]] = torch.from_numpy(d["negatives"])
    del generator
    names = [f"u{i}" for i in range(len(lengths))]
    keys = [(seed, i) for i in range(len(lengths))]
    return Batch(
        waveforms, torch.tensor(lengths), names, keys, torch.arange(len(lengths)), mask, masked, valid, negatives,
        host_masked_counts=counts, host_frames=frames,
    )  # fmt: skip


def rows(batch: Batch, chosen: list[int]) -> Batch:
    """A part of a batch, with its padding."""
    pick = torch.tensor(chosen)
    parts = {n: getattr(batch, n)[pick] for n in ("waveforms", "lengths", "indices", "mask", "masked", "masked_valid", "negatives")}
    lists = {n: [getattr(batch, n)[i] for i in chosen] for n in ("utterances", "keys", "host_masked_counts", "host_frames")}
    return Batch(**parts, **lists)


def test_loss_equals_the_sum_over_the_drawn_negatives():
    """One matrix product with multiplicities is the definition: log-softmax over the positive and each drawn negative."""
    generator = torch.Generator().manual_seed(0)
    context, targets = torch.randn(2, 7, 6, generator=generator), torch.randn(2, 7, 6, generator=generator)
    codes = torch.randint(0, 3, (2, 7, 2), generator=generator)
    negatives = torch.from_numpy(np.stack([negative_samples(7, 20, "fairseq", np.random.default_rng(i)) for i in range(2)]))
    loss, correct = contrastive_terms(context, targets, codes, negatives, temperature=0.3)
    for b in range(2):
        for i in range(7):
            similarity = torch.cosine_similarity(context[b, i][None], targets[b], dim=-1) / 0.3
            others = [similarity[j] for j in negatives[b, i].tolist() if not torch.equal(codes[b, j], codes[b, i])]
            logits = torch.stack([similarity[i], *others])
            torch.testing.assert_close(loss[b, i], -logits.log_softmax(0)[0])
            assert correct[b, i] == float(all(similarity[i] > other for other in others))


def test_parity_with_transformers_loss_parts():
    """Wav2Vec2ForPreTraining on the same features, mask and negatives: contrastive and diversity loss."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2ForPreTraining

    generator = torch.Generator().manual_seed(3)
    batch, frames, count = 2, 11, 9
    context = torch.randn(batch, frames, 16, generator=generator)
    targets = torch.randn(batch, frames, 16, generator=generator)
    negatives = torch.from_numpy(np.stack([negative_samples(frames, count, "fairseq", np.random.default_rng(i)) for i in range(batch)]))
    codes = torch.arange(frames)[None, :, None].expand(batch, -1, 2)
    loss, _ = contrastive_terms(context, targets, codes, negatives, temperature=0.1)
    picked = torch.stack([targets[b][negatives[b].T] for b in range(batch)], dim=1)  # (count, batch, frames, dim)
    logits = Wav2Vec2ForPreTraining.compute_contrastive_logits(targets[None], picked, context, 0.1)
    labels = torch.zeros(batch * frames, dtype=torch.long)
    theirs = torch.nn.functional.cross_entropy(logits.transpose(0, 2).reshape(-1, logits.shape[0]).float(), labels, reduction="sum")
    torch.testing.assert_close(loss.sum(), theirs, rtol=1e-4, atol=1e-5)
    assert transformers.__version__


def test_accumulation_is_the_bigger_batch():
    """Loss and every gradient of four utterances at once equal those of 1 + 3 and of 2 + 2, diversity included."""
    torch.manual_seed(0)
    objective = Contrastive(tiny_settings(), Upstream(tiny_model())).double()
    whole = make_batch(objective, [1.0, 1.3, 0.8, 1.7])
    whole = Batch(**{**whole.__dict__, "waveforms": whole.waveforms.double()})
    masked, frames = float(sum(whole.host_masked_counts)), float(sum(whole.host_frames))

    def gradients(parts: list[list[int]]) -> tuple[float, list[torch.Tensor]]:
        """The update's loss, and the gradient of each parameter that has one."""
        objective.zero_grad()
        batches = [rows(whole, part) for part in parts]
        totals = Totals(masked, frames, len(parts), 0.5, 3)
        if len(parts) > 1:
            with torch.no_grad():
                mean = sum(objective.code_sums(b, totals) for b in batches) / masked
            totals = Totals(masked, frames, len(parts), 0.5, 3, mean_codes=mean)
        outputs = [objective(b, totals) for b in batches]
        for output in outputs:
            output.loss.backward()
        return sum(float(o.loss.detach()) for o in outputs), [p.grad.clone() for p in objective.parameters() if p.grad is not None]

    reference = gradients([[0, 1, 2, 3]])
    assert len(reference[1]) > 10
    for parts in ([[0], [1, 2, 3]], [[0, 1], [2, 3]]):
        loss, found = gradients(parts)
        assert loss == pytest.approx(reference[0], rel=1e-6)
        for ours, theirs in zip(found, reference[1], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


def test_diversity_is_of_the_update_or_by_name_of_each_micro_batch():
    """`diversity_scope`: what the update's mean code distribution lacks, or the mean of what each micro-batch's own lacks. Told by the
    gradient of the code logits, with and without the term."""
    torch.manual_seed(0)
    fabric = Fabric(accelerator="cpu", devices=1)
    objective = Contrastive(tiny_settings(), Upstream(tiny_model()))
    weight = objective.quantizer.proj.weight
    with torch.no_grad():
        weight.mul_(20)  # few codes a frame, so that micro-batches differ
    whole = make_batch(objective, [1.0, 1.3, 0.8, 1.7])
    parts = [rows(whole, [0]), rows(whole, [1, 2, 3])]
    counts = [sum(part.host_masked_counts) for part in parts]
    totals = Totals(sum(counts), sum(whole.host_frames), 2, 0.0, 0)

    def lost(share: torch.Tensor) -> torch.Tensor:
        return (8 - perplexity(share)).sum() / 16

    def gradient_of_update(scope: str, diversity_weight: float) -> torch.Tensor:
        objective.settings = tiny_settings(diversity_scope=scope, diversity_weight=diversity_weight)
        objective.zero_grad()
        update_gradients(fabric, fabric.setup(Step(objective)), objective, parts, 0, 0, 0.0, {})
        return weight.grad.clone()

    codes = [objective.code_sums(part, totals) for part in parts]
    by_hand = {
        "update": lost(sum(codes) / totals.masked),
        "micro_batch": sum(lost(code / count) for code, count in zip(codes, counts, strict=True)) / 2,
    }
    wanted = {scope: torch.autograd.grad(value, weight, retain_graph=True)[0] for scope, value in by_hand.items()}
    for scope, gradient in wanted.items():
        found = (gradient_of_update(scope, 10.0) - gradient_of_update(scope, 0.0)) / 10
        torch.testing.assert_close(found / gradient.abs().max(), gradient / gradient.abs().max(), rtol=1e-3, atol=1e-4)
    assert (wanted["update"] - wanted["micro_batch"]).norm() > 0.1 * wanted["update"].norm()


def test_weightings_differ_as_published():
    """fairseq: both terms times the masked frames. Batch-size paper: neither, and the diversity unscaled."""
    torch.manual_seed(0)
    upstream = Upstream(tiny_model())
    losses = {}
    for weighting in ("fairseq", "batch_size_paper"):
        torch.manual_seed(1)
        objective = Contrastive(tiny_settings(weighting=weighting), upstream).eval()
        batch = make_batch(objective, [1.0, 1.4])
        masked, frames = sum(batch.host_masked_counts), sum(batch.host_frames)
        output = objective(batch, Totals(masked, frames, 1, 0.5, 3))
        mean = output.sums["codes_soft"] / masked
        lost = float((8 - perplexity(mean)).sum())
        squares = float(output.sums["feature_squares"]) / frames
        nats = float(output.sums["nats"]) / masked
        by_hand = 0.1 * lost / 16 + 10 * squares if weighting == "fairseq" else (0.1 * lost + 10 * squares) / masked
        losses[weighting] = float(output.loss.detach())
        assert float(output.loss) == pytest.approx(nats + by_hand, rel=1e-5)
    assert losses["fairseq"] > losses["batch_size_paper"]


def test_a_batch_is_each_utterance_alone():
    torch.manual_seed(0)
    objective = Contrastive(tiny_settings(diversity_weight=0.0), Upstream(tiny_model())).train()
    batch = make_batch(objective, [0.7, 1.9, 1.1])
    together = objective(batch, Totals(100.0, 100.0, 1, 0.5, 3)).utterances
    for row in range(3):
        alone = rows(batch, [row])
        n, samples = alone.host_frames[0], int(alone.lengths[0])
        alone = Batch(**{**alone.__dict__, "waveforms": alone.waveforms[:, :samples], "mask": alone.mask[:, :n]})
        found = objective(alone, Totals(100.0, 100.0, 1, 0.5, 3)).utterances
        torch.testing.assert_close(found["nats"][0], together["nats"][row], rtol=1e-4, atol=1e-4)


def test_ties_are_misses_so_that_a_collapsed_model_scores_zero():
    flat = torch.ones(1, 5, 4)
    codes = torch.arange(5)[None, :, None]
    negatives = torch.from_numpy(negative_samples(5, 3, "fairseq", np.random.default_rng(0)))[None]
    loss, correct = contrastive_terms(flat, flat, codes, negatives, 0.1)
    assert correct.sum() == 0
    assert loss.mean() == pytest.approx(math.log(4))


def test_gradients_stay_finite_where_every_negative_has_the_positives_codes():
    context = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    negatives = torch.from_numpy(negative_samples(4, 3, "fairseq", np.random.default_rng(0)))[None]
    loss, _ = contrastive_terms(context, context.detach().flip(1), torch.zeros(1, 4, 2, dtype=torch.long), negatives, 0.1)
    loss.sum().backward()
    assert loss.abs().max() == 0  # nothing to tell apart
    assert context.grad.isfinite().all()


def test_temperature():
    q = QuantizerSettings()
    assert temperature_at(q, 0.5, 0) == 2.0
    assert temperature_at(q, 0.5, 400_000) == 0.5
    assert temperature_at(q, 0.0, 100_000) == pytest.approx(2 * 0.999995**100_000)
    scaled = QuantizerSettings(anneal_share=0.7)
    assert temperature_at(scaled, 0.35, 1) == pytest.approx(1.0)
    assert temperature_at(scaled, 0.9, 1) == pytest.approx(0.5)
