"""The same weights, waveforms, masks, negatives and noise give the peers' losses and gradients, padding included (`padding: peer`)."""

import pytest
import torch
import torch.nn.functional as F
import torchaudio
import transformers as hf
from safetensors.torch import save_file
from torchaudio.models.wav2vec2 import components

from sslrepro.config import EncoderSettings, MaskedPredictionSettings, ModelSettings
from sslrepro.draws import torch_generator
from sslrepro.errors import UserError
from sslrepro.interop.names import peer_names
from sslrepro.interop.pretraining import (
    CONTRASTIVE_RULES,
    HUBERT_RULES,
    load_contrastive_folder,
    load_contrastive_state,
    load_hubert_state,
    settings_from_pretraining,
)
from sslrepro.interop.transformers_in import settings_from_transformers
from sslrepro.models import Upstream, gumbel_noise
from sslrepro.objectives import contrastive
from sslrepro.objectives.base import Batch, Totals
from sslrepro.objectives.contrastive import Contrastive, temperature_at
from sslrepro.objectives.masked_prediction import MaskedPrediction

GROUPS, CODES, NEGATIVES = 2, 5, 7
CONFIG = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "conv_dim": [16, 16, 16, 16, 16, 16, 20],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "codevector_dim": 12,
    "num_codevector_groups": GROUPS,
    "num_codevectors_per_group": CODES,  # few, so that negatives with the positive's codes occur
    "proj_codevector_dim": 8,
    "num_negatives": NEGATIVES,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
}
TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 1e-5}, torch.float64: {"rtol": 1e-9, "atol": 1e-10}}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: str(dtype)[6:])


@pytest.fixture
def keep_double(monkeypatch: pytest.MonkeyPatch):
    """Both sides cast to float32 on the way; in float64 they stay there, so that the comparison is as sharp as the numbers."""

    def keep(dtype: torch.dtype) -> None:
        if dtype == torch.float64:
            monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)

    return keep


def shake(module: torch.nn.Module) -> None:
    """Nothing stays at a value that hides a mistake, such as a zero bias or a unit norm."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))


def make_batch(upstream: Upstream, dtype: torch.dtype, lengths: list[int], classes: int = 2) -> Batch:
    """Random waveforms, zero where padded; some three frames in ten masked, none of them padding, so rows differ in how many."""
    generator = torch.Generator().manual_seed(2)
    count, size = len(lengths), max(lengths)
    ends = torch.tensor(lengths)
    waveforms = 0.1 * torch.randn(count, size, generator=generator, dtype=dtype) * (torch.arange(size) < ends[:, None])
    frames = [upstream.frames(n) for n in lengths]
    generator.manual_seed(3)  # masks are the same for both dtypes
    mask = torch.rand(count, max(frames), generator=generator) < 0.3
    mask &= torch.arange(max(frames)) < torch.tensor(frames)[:, None]
    counts = mask.sum(1).tolist()
    assert min(counts) > 2 and len(set(counts)) == count
    masked = torch.zeros(count, max(counts), dtype=torch.long)
    negatives = torch.zeros(count, max(counts), NEGATIVES, dtype=torch.long)
    for row, n in enumerate(counts):
        masked[row, :n] = mask[row].nonzero().squeeze(1)
        others = torch.randint(0, n - 1, (n, NEGATIVES), generator=generator)
        negatives[row, :n] = others + (others >= torch.arange(n)[:, None])
    return Batch(
        waveforms=waveforms, lengths=ends, utterances=[str(row) for row in range(count)],
        keys=[(7, row) for row in range(count)], indices=torch.arange(count), mask=mask, masked=masked,
        masked_valid=torch.arange(max(counts)) < torch.tensor(counts)[:, None], negatives=negatives,
        labels=torch.randint(0, classes, mask.shape, generator=generator), host_masked_counts=counts, host_frames=frames,
    )  # fmt: skip


def make_totals(batch: Batch) -> Totals:
    return Totals(masked=sum(batch.host_masked_counts), frames=sum(batch.host_frames), micro_batches=1, progress=0.4, update=1_000)


def compare_gradients(
    ours: torch.nn.Module, peer: torch.nn.Module, names: dict[str, str], scale: float, tolerance: dict, summed: dict[str, torch.Tensor]
) -> None:
    """Every parameter's gradient, theirs times `scale`; None counts as zero. The absolute tolerance is a share of the parameter's own
    largest entry, or of what it sums (`key_sums`)."""
    parameters = dict(ours.named_parameters())
    theirs = dict(peer.named_parameters())
    assert set(names) == set(theirs) and set(names.values()) == set(parameters) and len(summed) == 2  # layers
    for name, parameter in theirs.items():
        got = parameters[names[name]]
        got = torch.zeros_like(got) if got.grad is None else got.grad
        wanted = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad * scale
        size = summed[name] * scale if name in summed else wanted.abs().max()
        size = size if size > 0 else 1.0
        wanted = wanted.reshape(got.shape)
        torch.testing.assert_close(got / size, wanted / size, **tolerance, msg=lambda m, n=name: f"{n}: {m}")


def contrastive_pair(dtype: torch.dtype, training: bool) -> tuple[Contrastive, hf.Wav2Vec2ForPreTraining]:
    torch.manual_seed(1)
    config = hf.Wav2Vec2Config(**CONFIG)
    peer = hf.Wav2Vec2ForPreTraining(config)
    torch.nn.init.uniform_(peer.quantizer.codevectors)
    shake(peer)
    model = settings_from_transformers(config.to_dict()).model_copy(update={"padding": "peer", "feature_grad_mult": 1.0})
    # without noise theirs takes the diversity from the picks, which has no gradient; ours is a training term only
    settings = settings_from_pretraining(config.to_dict())
    ours = Contrastive(settings if training else settings.model_copy(update={"diversity_weight": 0.0}), Upstream(model))
    load_contrastive_state(ours, peer.state_dict())
    return ours.to(dtype).train(training), peer.to(dtype).train(training)


def gumbel(ours: Contrastive, batch: Batch):
    """torch's gumbel_softmax with our draws: what stands in the peer's place of a masked frame is that frame's noise."""
    shape = (*batch.mask.shape, GROUPS, CODES)
    noise = torch.zeros(shape, dtype=batch.waveforms.dtype)
    for row, key in enumerate(batch.keys):
        drawn = gumbel_noise((batch.masked.shape[1], GROUPS, CODES), torch_generator(*key, "gumbel", device=noise.device))
        noise[row, batch.mask[row]] = drawn[: batch.host_masked_counts[row]].to(noise.dtype)

    def softmax(logits: torch.Tensor, tau: float, hard: bool) -> torch.Tensor:
        soft = ((logits + noise.view(logits.shape)) / tau).softmax(-1)
        picks = F.one_hot(soft.argmax(-1), CODES).to(soft.dtype)
        return picks + (soft - soft.detach())  # torch rounds here, and the peer then misses some negatives that equal the positive

    return softmax


@DTYPES
@pytest.mark.parametrize("training", [True, False], ids=["gumbel", "argmax"])
def test_contrastive_is_transformers(dtype: torch.dtype, training: bool, keep_double, key_sums, monkeypatch: pytest.MonkeyPatch) -> None:
    tolerance = TOLERANCE[dtype]
    ours, peer = contrastive_pair(dtype, training)
    batch = make_batch(ours.upstream, dtype, [12_345, 9_346, 5_344])
    totals = make_totals(batch)
    keep_double(dtype)
    monkeypatch.setattr(contrastive, "EPS", 1e-30)  # fairseq's guard in the logarithm; transformers has 0 log 0 = 0
    monkeypatch.setattr(torch.nn.functional, "gumbel_softmax", gumbel(ours, batch))
    peer.set_gumbel_temperature(temperature_at(ours.settings.quantizer, totals.progress, totals.update))

    rows = torch.arange(len(batch.lengths))[:, None, None] * batch.mask.shape[1]
    places = batch.masked[:, None, :].expand(-1, batch.masked.shape[1], -1).gather(2, batch.negatives) + rows  # in all rows' frames
    sampled = torch.zeros(*batch.mask.shape, NEGATIVES, dtype=torch.long)
    for row, count in enumerate(batch.host_masked_counts):
        sampled[row, batch.mask[row]] = places[row, :count]
    attention = (torch.arange(batch.waveforms.shape[1]) < batch.lengths[:, None]).long()
    summed = key_sums(peer)
    theirs = peer(batch.waveforms, attention_mask=attention, mask_time_indices=batch.mask, sampled_negative_indices=sampled)
    got = ours(batch, totals)

    masked = totals.masked
    torch.testing.assert_close(got.sums["nats"], theirs.contrastive_loss, **tolerance)
    shares = got.sums["codes_soft" if training else "codes_hard"].to(dtype) / masked
    perplexity = contrastive.perplexity(shares).sum()
    torch.testing.assert_close(perplexity, theirs.codevector_perplexity, **tolerance)
    if training:
        diversity = (GROUPS * CODES - perplexity) / (GROUPS * CODES) * masked
        torch.testing.assert_close(diversity, theirs.diversity_loss, **tolerance)
        torch.testing.assert_close(got.loss * masked, theirs.loss, **tolerance)
        assert theirs.diversity_loss > 0.01 * masked
        theirs.loss.backward()
    else:
        torch.testing.assert_close(got.loss * masked, theirs.contrastive_loss, **tolerance)
        theirs.contrastive_loss.backward()
    got.loss.backward()
    compare_gradients(ours, peer, peer_names(dict(ours.named_parameters()), CONTRASTIVE_RULES), 1 / masked, tolerance, summed)


@pytest.mark.parametrize("training", [True, False], ids=["gumbel", "argmax"])
def test_negatives_with_the_positives_codes_occur(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the comparison above would say nothing about them."""
    ours, _ = contrastive_pair(torch.float32, training)
    batch = make_batch(ours.upstream, torch.float32, [12_345, 9_346, 5_344])
    seen = []
    terms = contrastive.contrastive_terms
    monkeypatch.setattr(contrastive, "contrastive_terms", lambda *arguments: seen.append(arguments) or terms(*arguments))
    ours(batch, make_totals(batch))
    _, _, codes, negatives, _ = seen[0]
    rivals = torch.stack([codes[row][negatives[row]] for row in range(len(codes))])
    same = (rivals == codes[:, :, None, :]).all(-1)[batch.masked_valid]
    assert 5 < same.sum() < 0.9 * same.numel()


SHAPE = [(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16, 2, 2), (20, 2, 2)]


def hubert_pair(dtype: torch.dtype, feature_weight: float) -> tuple[MaskedPrediction, torchaudio.models.HuBERTPretrainModel]:
    torch.manual_seed(3)
    drops = {f"encoder_{name}": 0.0 for name in ("projection_dropout", "attention_dropout", "ff_interm_dropout", "dropout", "layer_drop")}
    masks = {f"mask_{name}": value for name, value in {
        "prob": 0.8, "selection": "static", "other": 0.0, "length": 10, "channel_prob": 0.0, "channel_selection": "static",
        "channel_other": 0.0, "channel_length": 10,
    }.items()}  # fmt: skip
    peer = torchaudio.models.hubert_pretrain_model(
        extractor_mode="group_norm", extractor_conv_layer_config=SHAPE, extractor_conv_bias=False,
        encoder_embed_dim=24, encoder_pos_conv_kernel=16, encoder_pos_conv_groups=4, encoder_num_layers=2, encoder_num_heads=4,
        encoder_ff_interm_features=40, encoder_layer_norm_first=False, **drops, **masks,
        no_mask_overlap=False, mask_min_space=1, no_mask_channel_overlap=False, mask_channel_min_space=1,
        skip_masked=False, skip_nomask=False, num_classes=11, final_dim=8, feature_grad_mult=0.1,
    )  # fmt: skip
    shake(peer)
    config = hf.Wav2Vec2Config(**CONFIG).to_dict() | {"conv_dim": [c for c, _, _ in SHAPE]}  # the same shape, by its other name
    model = settings_from_transformers(config).model_copy(update={"padding": "peer", "feature_grad_mult": 0.1})
    settings = MaskedPredictionSettings(classes=11, final_dim=8, feature_weight=feature_weight)
    ours = MaskedPrediction(settings, Upstream(model))
    load_hubert_state(ours, peer.state_dict())
    return ours.to(dtype).train(), peer.to(dtype).train()


@DTYPES
@pytest.mark.parametrize("padded", [True, False], ids=["padded", "whole"])
def test_masked_prediction_is_torchaudio(dtype: torch.dtype, padded: bool, keep_double, key_sums, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masked logits, loss and gradients; with the feature penalty where no row is padded (theirs counts padding frames)."""
    tolerance = TOLERANCE[dtype]
    ours, peer = hubert_pair(dtype, feature_weight=0.0 if padded else 10.0)
    batch = make_batch(ours.upstream, dtype, [12_345, 9_346] if padded else [12_345, 12_345], classes=11)
    totals = make_totals(batch)
    keep_double(dtype)
    monkeypatch.setattr(components, "_compute_mask_indices", lambda *arguments, **more: batch.mask)
    summed = key_sums(peer)
    logits, _, penalty = peer(batch.waveforms, batch.labels, batch.lengths if padded else None)
    wanted = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long), reduction="sum")  # theirs has the positive first
    got = ours(batch, totals)

    with torch.no_grad():
        output = ours.upstream(batch.waveforms, batch.lengths, mask=batch.mask).output
        classes = output[batch.mask] @ ours.final_proj.weight.T + ours.final_proj.bias
        labels = batch.labels[batch.mask]
        for row, (others, label) in enumerate(zip(logits[:, 1:].clone(), labels, strict=True)):
            others[label] = logits[row, 0]  # theirs stands at minus infinity among the others
            similar = F.cosine_similarity(classes[row][None], ours.label_embeddings) / 0.1
            torch.testing.assert_close(similar, others, **tolerance)
    torch.testing.assert_close(got.sums["nats"], wanted, **tolerance)
    correct = (logits.argmax(-1) == 0).sum().to(got.sums["correct"].dtype)
    assert got.sums["correct"] == correct
    if not padded:
        torch.testing.assert_close(got.sums["feature_squares"] / totals.frames, penalty, **tolerance)
        wanted = wanted + 10.0 * penalty * totals.masked
    torch.testing.assert_close(got.loss * totals.masked, wanted, **tolerance)
    wanted.backward()
    got.loss.backward()
    compare_gradients(ours, peer, peer_names(dict(ours.named_parameters()), HUBERT_RULES), 1 / totals.masked, tolerance, summed)


def test_a_pre_training_folder_goes_on_with_its_heads(tmp_path) -> None:
    torch.manual_seed(1)
    peer = hf.Wav2Vec2ForPreTraining(hf.Wav2Vec2Config(**CONFIG, contrastive_logits_temperature=0.2))
    torch.nn.init.uniform_(peer.quantizer.codevectors)
    peer.save_pretrained(tmp_path / "m")
    ours = load_contrastive_folder(tmp_path / "m")
    assert ours.training and ours.settings.temperature == 0.2 and ours.settings.negatives == NEGATIVES
    assert torch.equal(ours.quantizer.codebooks[1, 0], peer.quantizer.codevectors[0, CODES])
    assert torch.equal(ours.final_proj.weight, peer.project_hid.weight)
    assert torch.equal(ours.upstream.proj.weight, peer.wav2vec2.feature_projection.projection.weight)


def test_a_folder_without_heads_is_refused(tmp_path) -> None:
    hf.Wav2Vec2Model(hf.Wav2Vec2Config(**CONFIG)).save_pretrained(tmp_path / "bare")
    with pytest.raises(UserError, match=r"missing: .*quantizer\.codevectors"):
        load_contrastive_folder(tmp_path / "bare")
    hf.HubertConfig(**{k: v for k, v in CONFIG.items() if "code" not in k}).save_pretrained(tmp_path / "hubert")
    save_file({}, tmp_path / "hubert" / "model.safetensors")
    with pytest.raises(UserError, match="'hubert' has no quantizer"):
        load_contrastive_folder(tmp_path / "hubert")


def test_masked_prediction_of_hubert_pretrain_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """As published: twelve layers of 768, the loss and what is guessed right."""
    torch.manual_seed(4)
    drops = {f"encoder_{name}": 0.0 for name in ("projection_dropout", "attention_dropout", "dropout", "layer_drop")}
    peer = torchaudio.models.hubert_pretrain_base(num_classes=100, **drops)
    settings = MaskedPredictionSettings(classes=100, final_dim=256, feature_weight=0.0)
    model = ModelSettings(encoder=EncoderSettings(dropout=0.0, attention_dropout=0.0), dropout_input=0.0, padding="peer")
    ours = MaskedPrediction(settings, Upstream(model))
    load_hubert_state(ours, peer.state_dict())
    batch = make_batch(ours.upstream, torch.float32, [12_345, 9_346], classes=100)
    totals = make_totals(batch)
    monkeypatch.setattr(components, "_compute_mask_indices", lambda *arguments, **more: batch.mask)
    with torch.no_grad():
        logits, _, _ = peer(batch.waveforms, batch.labels, batch.lengths)
        got = ours(batch, totals)
    wanted = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long), reduction="sum")
    torch.testing.assert_close(got.sums["nats"], wanted, **TOLERANCE[torch.float32])
    assert got.sums["correct"] == (logits.argmax(-1) == 0).sum()
