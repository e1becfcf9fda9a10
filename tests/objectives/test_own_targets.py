"""Objectives that make their own targets: losses by hand, batches as utterances, accumulation as the bigger batch."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sslrepro import objectives
from sslrepro.config import (
    CellSettings,
    EncoderSettings,
    LogMelFrontEnd,
    ModelSettings,
    PositionSettings,
    RandomProjectionSettings,
    ReconstructionSettings,
    RegressionSettings,
    WaveformFrontEnd,
)
from sslrepro.data.corpus import Corpus
from sslrepro.data.loading import Request, Shapes, collate
from sslrepro.data.targets import mfcc
from sslrepro.errors import UserError
from sslrepro.objectives.base import Batch, Objective, Totals
from sslrepro.objectives.random_projection import nearest_codes
from sslrepro.objectives.reconstruction import reconstruction_terms, stacked
from sslrepro.objectives.regression import decay_at, regression_terms

BEST_RQ = RandomProjectionSettings(codes=32, dim=8, mels=20)
WAVEFORM = WaveformFrontEnd(channels=[12, 16, 24], kernels=[10, 8, 4], strides=[5, 16, 4], padding=[0, 0, 0])
CASES = {
    "tera": (WAVEFORM, ReconstructionSettings(), "learned"),
    "tera-original": (LogMelFrontEnd(mels=20, stack=2), ReconstructionSettings(frequency=0.5, noise_share=0.5), "zero"),
    "data2vec": (WAVEFORM, RegressionSettings(layers=2), "learned"),
    "best-rq": (WAVEFORM, BEST_RQ, "learned"),
    "best-rq-original": (LogMelFrontEnd(mels=20, stack=4), BEST_RQ.model_copy(update={"noise_std": 0.1}), "zero"),
}


def build(front_end, objective, mask_embedding: str, norm: str = "post") -> Objective:
    encoder = EncoderSettings(
        layers=2, width=32, ffn=48, heads=4, norm=norm, position=PositionSettings(kernel=8, groups=4), dropout=0.0, attention_dropout=0.0
    )
    model = ModelSettings(front_end=front_end, encoder=encoder, dropout_input=0.0, mask_embedding=mask_embedding)
    torch.manual_seed(0)
    return objectives.build(CellSettings(model=model, objective=objective)).double()


def batch_of(objective: Objective, corpus: Corpus, rows: list[int]) -> Batch:
    """These utterances of the corpus, each with the counter of its row, padded to the longest of them; in double precision."""
    requests = [Request(row, 0, min(corpus.samples(row), 30_000), (7, row)) for row in rows]
    batch = collate(corpus, requests, objective.draws, Shapes.of(objective), None)
    doubled = {name: getattr(batch, name) for name in ("waveforms", "spectra", "noise", "keep")}
    return replace(batch, **{name: value.double() for name, value in doubled.items() if value is not None})


def outcome(objective: Objective, batches: list[Batch]) -> tuple[float, dict[str, torch.Tensor], list[float]]:
    """Loss of the update, its gradients, and the loss of each utterance."""
    masked, frames = (float(sum(sum(getattr(b, name)) for b in batches)) for name in ("host_masked_counts", "host_frames"))
    totals = Totals(masked, frames, len(batches), 0.5, 3)
    objective.zero_grad()
    outputs = [objective.train()(batch, totals) for batch in batches]
    for output in outputs:
        output.loss.backward()
    gradients = {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}
    return float(sum(o.loss.detach() for o in outputs)), gradients, [x for o in outputs for x in o.utterances["nats"].tolist()]


@pytest.mark.parametrize("case", CASES)
def test_a_batch_is_its_utterances_and_accumulation_is_the_bigger_batch(case, tiny_corpus_dir):
    corpus, objective = Corpus(tiny_corpus_dir), build(*CASES[case])
    loss, gradients, utterances = outcome(objective, [batch_of(objective, corpus, [0, 1, 2, 3])])
    assert loss > 0 and len(gradients) > 10
    for parts in ([[0], [1, 2, 3]], [[0, 1], [2, 3]], [[0], [1], [2], [3]]):
        found, other, alone = outcome(objective, [batch_of(objective, corpus, part) for part in parts])
        assert found == pytest.approx(loss, rel=1e-6)
        assert alone == pytest.approx(utterances, rel=1e-5)
        assert gradients.keys() == other.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-7, msg=name)


def test_every_weight_learns(tiny_corpus_dir):
    """But the mask embedding, which the originals do not have."""
    for case, (front_end, objective, mask) in CASES.items():
        module = build(front_end, objective, mask)
        _, gradients, _ = outcome(module, [batch_of(module, Corpus(tiny_corpus_dir), [0, 1])])
        assert gradients.keys() == dict(module.named_parameters()).keys(), case


def test_reconstruction_by_hand(tiny_corpus_dir):
    predicted = torch.tensor([[[1.0, -2.0], [0.0, 4.0]]])
    target = torch.tensor([[[0.0, 0.0], [0.5, 4.0]]])
    assert reconstruction_terms(predicted, target)[0].tolist() == [1.5, 0.25]
    corpus, objective = Corpus(tiny_corpus_dir), build(*CASES["tera"])
    batch = batch_of(objective, corpus, [0])
    output = objective.eval()(batch, Totals(float(sum(batch.host_masked_counts)), float(sum(batch.host_frames)), 1, 0.5, 3))
    hidden = objective.upstream(batch.waveforms, batch.lengths, mask=batch.mask)
    features = mfcc(batch.waveforms[0].float().numpy())
    assert features.shape[1] == 39
    pairs = np.concatenate([features[0 : len(features) // 2 * 2 : 2], features[1::2][: len(features) // 2]], axis=1)  # two frames of 10 ms
    frames = [int(i) for i in np.flatnonzero(batch.mask[0])]
    by_hand = [np.abs(objective.final_proj(hidden.output[0, i]).detach().numpy() - pairs[min(i, len(pairs) - 1)]).mean() for i in frames]
    penalty = float(hidden.features.square().mean().detach())
    assert float(output.loss.detach()) == pytest.approx(np.mean(by_hand) + 10 * penalty, rel=1e-5)


def test_what_a_constant_loses_by_hand(tiny_corpus_dir):
    """One value after the other, over two batches of different lengths: the middle one loses less than any other constant."""
    corpus, objective = Corpus(tiny_corpus_dir), build(*CASES["tera"])
    batches = [batch_of(objective, corpus, rows) for rows in ([0, 1], [2])]
    frames = np.array([b.spectra[row, i].tolist() for b in batches for row, i in b.mask.nonzero().tolist()])
    by_hand = []
    for values in frames.T:
        middle = sorted(values)[len(values) // 2]
        by_hand.append(np.mean(np.abs(values - middle)))
        assert by_hand[-1] <= min(np.mean(np.abs(values - other)) for other in (values.mean(), middle - 0.1, middle + 0.1)) + 1e-9
    assert objective.chance() == {} and objective.chance_on(batches)["loss"] == pytest.approx(np.mean(by_hand), rel=1e-6)
    loss = objective.eval()(batches[0], Totals(1.0, 1.0, 1, 0.5, 3)).utterances["nats"].sum() / sum(batches[0].host_masked_counts)
    assert float(loss.detach()) > 0.9 * np.mean(by_hand), "as it begins, it knows nothing"


def test_normalised_coefficients(tiny_corpus_dir):
    objective = build(WAVEFORM, ReconstructionSettings(normalise=True), "learned")
    wave = Corpus(tiny_corpus_dir).audio(0)
    frames = objective.spectra(wave).reshape(-1, 39)
    plain = mfcc(wave)[: len(frames)]
    assert np.abs(frames.mean(0)).max() < 0.05 and frames.std(0) == pytest.approx(1.0, abs=0.05)
    assert all(np.corrcoef(frames[:, i], plain[:, i])[0, 1] > 0.999 for i in range(39))


def test_stacking_puts_neighbours_side_by_side():
    assert stacked(np.arange(10).reshape(5, 2), 2).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_original_tera_alters_bands_and_some_utterances(tiny_corpus_dir):
    objective = build(*CASES["tera-original"])
    drawn = [objective.draws((0, i), 50) for i in range(400)]
    lost = np.stack([d["keep"] for d in drawn]) == 0
    assert (lost[:, :20] == lost[:, 20:]).all()  # the same bands in both stacked frames
    assert lost.sum(1).max() == 2 * 10 and 0.15 < lost.mean() < 0.35  # widths 0 to half of the bands
    starts = np.diff(np.pad(lost[:, :20], ((0, 0), (1, 1))).astype(int), axis=1)
    assert ((starts == 1).sum(1) <= 1).all()  # one band
    noisy = np.array([np.abs(d["noise"]).max() > 0 for d in drawn])
    assert 0.4 < noisy.mean() < 0.6
    assert np.std([d["noise"] for d, n in zip(drawn, noisy, strict=True) if n]) == pytest.approx(0.2, rel=0.02)
    batch = batch_of(objective, Corpus(tiny_corpus_dir), [0, 1])
    seen = objective.upstream.front_end(batch.waveforms, batch.lengths.tolist(), True)
    totals = Totals(10.0, 10.0, 1, 0.5, 3)
    changed = []
    hook = objective.upstream.feature_norm.register_forward_hook(lambda module, inputs, result: changed.append(inputs[0]))
    objective(batch, totals)
    hook.remove()
    n = batch.host_frames[0]
    torch.testing.assert_close(changed[0][0, :n], (seen * batch.keep[:, None] + batch.noise)[0, :n])


def test_nearest_codes_by_hand():
    """The nearest codeword of unit length, not the nearest before normalisation."""
    codebook = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    projection = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    spectra = torch.tensor([[[0.4, 0.7], [0.4, 0.9], [-5.0, 1.0]]])  # projected (0.8, 0.7), (0.8, 0.9), (-10, 1)
    assert nearest_codes(spectra, projection, codebook)[0].tolist() == [0, 1, 2]
    generator = torch.Generator().manual_seed(0)
    words = torch.nn.functional.normalize(torch.randn(50, 8, generator=generator), dim=-1)
    weights, x = torch.randn(12, 8, generator=generator), torch.randn(40, 12, generator=generator)
    distances = torch.cdist(torch.nn.functional.normalize(x @ weights, dim=-1), words)  # the paper's equation
    assert torch.equal(nearest_codes(x, weights, words), distances.argmin(-1))


def test_best_rq_loss_by_hand_and_one_codebook_for_all_runs(tiny_corpus_dir):
    corpus, objective = Corpus(tiny_corpus_dir), build(*CASES["best-rq"])
    other = objectives.build(CellSettings(model=objective.upstream.settings, objective=BEST_RQ))
    assert torch.equal(other.codebook.double(), objective.codebook) and torch.equal(other.projection.double(), objective.projection)
    assert {"codebook", "projection"} <= objective.state_dict().keys()
    assert not {"codebook", "projection"} & dict(objective.named_parameters()).keys()
    batch = batch_of(objective, corpus, [0])
    frames = np.flatnonzero(batch.mask[0]).tolist()
    hidden = objective.eval().upstream(batch.waveforms, batch.lengths, mask=batch.mask)
    logits = objective.final_proj(hidden.output[0, frames]).log_softmax(-1)
    labels = nearest_codes(batch.spectra[0, frames], objective.projection, objective.codebook)
    by_hand = -logits[range(len(frames)), labels].mean() + 10 * hidden.features.square().mean()
    output = objective(batch, Totals(float(len(frames)), float(batch.host_frames[0]), 1, 0.5, 3))
    assert float(output.loss.detach()) == pytest.approx(float(by_hand.detach()), rel=1e-5)
    counts = np.bincount(labels.numpy(), minlength=32) / len(frames)
    entropy = -sum(c * math.log(c) for c in counts if c > 0)
    assert objective.summarize({k: v.numpy() for k, v in output.sums.items()})["target_perplexity"] == pytest.approx(math.exp(entropy))


def test_the_original_best_rq_sees_noise_where_it_is_masked(tiny_corpus_dir):
    objective = build(*CASES["best-rq-original"])
    batch = batch_of(objective, Corpus(tiny_corpus_dir), [0])
    assert batch.spectra.shape[1] == batch.mask.shape[1] == batch.waveforms.shape[1] // 640  # 25 Hz
    seen = objective.upstream.front_end(batch.waveforms, batch.lengths.tolist(), True)
    caught = []
    hook = objective.upstream.feature_norm.register_forward_hook(lambda module, inputs, result: caught.append(inputs[0]))
    objective(batch, Totals(10.0, 10.0, 1, 0.5, 3))
    hook.remove()
    masked = batch.mask[0]
    torch.testing.assert_close(caught[0][0, ~masked], seen[0, ~masked])
    torch.testing.assert_close(caught[0][0, masked], batch.noise[0, masked])
    assert float(batch.noise.std()) == pytest.approx(0.1, rel=0.1)


def test_regression_by_hand(tiny_corpus_dir):
    predicted, target = torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[0.0, 1.0]]])
    assert regression_terms(predicted, target).item() == 2.5
    corpus, objective = Corpus(tiny_corpus_dir), build(WAVEFORM, RegressionSettings(layers=1), "learned", norm="pre")
    with torch.no_grad():
        for weight in objective.teacher.buffers():
            weight.mul_(1.3)  # so that the student could not pass for it
    batch = batch_of(objective, corpus, [0])
    upstream = objective.eval().upstream
    hidden = upstream(batch.waveforms, batch.lengths, mask=batch.mask)
    unmasked = upstream.proj(hidden.normed)
    states, *_ = objective.teacher(unmasked, hidden.padding, [True, True])
    last = objective.teacher.layers[1]
    middle = states[1] + last.mixer(last.mixer_norm(states[1]), hidden.padding)
    block = last.feed_forward(last.feed_forward_norm(middle))[0]  # before the residual
    target = (block - block.mean(0)) / (block.var(0, correction=0) + 1e-5).sqrt()
    frames = np.flatnonzero(batch.mask[0]).tolist()
    by_hand = (objective.final_proj(hidden.output[0, frames]) - target[frames]).square().mean()
    output = objective(batch, Totals(float(len(frames)), float(batch.host_frames[0]), 1, 0.5, 3))
    assert float(output.loss.detach()) == pytest.approx(float(by_hand.detach()), rel=1e-5)
    assert output.sums["target_variance"] / len(frames) == pytest.approx(float(block.var(0, correction=0).mean().detach()), rel=1e-5)


def test_the_teacher_follows_and_is_not_trained(tiny_corpus_dir):
    objective = build(WAVEFORM, RegressionSettings(layers=2, horizon_start=4.0, horizon_end=4.0, horizon_anneal=1.0), "learned")
    names = dict(objective.upstream.encoder.named_parameters())
    teacher = dict(objective.teacher.named_buffers())
    assert names.keys() == teacher.keys() and not list(objective.teacher.parameters())
    assert {f"teacher.{name}" for name in names} <= objective.state_dict().keys()
    before = {name: value.clone() for name, value in teacher.items()}
    with torch.no_grad():
        for weight in names.values():
            weight.add_(1.0)
    objective.after_update(0.5, 100.0, torch.ones(()))
    for name, value in teacher.items():
        moved = 1.0 if name.startswith("position") else 0.25
        torch.testing.assert_close(value, before[name] + moved, msg=name)
    outcome(objective, [batch_of(objective, Corpus(tiny_corpus_dir), [0])])
    assert all(torch.equal(value, objective.teacher.get_buffer(name)) for name, value in teacher.items())


def test_a_run_begins_with_the_teacher_equal_to_the_student(tiny_corpus_dir):
    objective = build(WAVEFORM, RegressionSettings(layers=2), "learned")
    with torch.no_grad():
        for weight in objective.upstream.encoder.parameters():
            weight.add_(0.1)  # as when the upstream begins with another run's weights
    objective.train()(batch_of(objective, Corpus(tiny_corpus_dir), [0]), Totals(10.0, 10.0, 1, 0.0, 0))
    for name, weight in objective.upstream.encoder.named_parameters():
        assert torch.equal(objective.teacher.get_buffer(name), weight)


def test_decay():
    paper = RegressionSettings()  # data2vec: 0.999 to 0.9999 over 30,000 updates
    assert decay_at(paper, 0.0, 400_000) == pytest.approx(0.999)
    assert decay_at(paper, 15_000 / 400_000, 400_000) == pytest.approx(0.99945)
    assert decay_at(paper, 0.5, 400_000) == pytest.approx(0.9999)
    scaled = RegressionSettings(horizon_start=0.0025, horizon_end=0.025, horizon_anneal=0.075)
    assert decay_at(scaled, 0.0, 400_000) == pytest.approx(0.999) and decay_at(scaled, 1.0, 4_000) == pytest.approx(0.99)


@pytest.mark.parametrize("case", ["tera-original", "best-rq-original"])
def test_what_alters_log_mels_needs_log_mels(case):
    _, objective, mask = CASES[case]
    with pytest.raises(UserError, match=r"front_end\.kind logmel"):
        build(WAVEFORM, objective, mask)


def test_regression_needs_layers_to_average():
    with pytest.raises(UserError, match="layers: 3 to average"):
        build(WAVEFORM, RegressionSettings(layers=3), "learned")
