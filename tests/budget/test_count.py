"""The count from settings equals what torch's counter sees when the built model runs, op for op."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from sslrepro.budget.count import cell_cost, count
from sslrepro.budget.names import NAMED
from sslrepro.config import (
    CellSettings,
    CompressionSettings,
    ContrastiveSettings,
    EncoderSettings,
    LogMelConvFrontEnd,
    LogMelFrontEnd,
    MaskedPredictionSettings,
    ModelSettings,
    NoObjective,
    PositionSettings,
    QuantizerSettings,
    RandomProjectionSettings,
    ReconstructionSettings,
    RegressionSettings,
    WaveformFrontEnd,
)
from sslrepro.data.loading import Shapes
from sslrepro.models.mixers import MIXERS
from sslrepro.models.upstream import Upstream
from sslrepro.objectives import build, contrastive
from sslrepro.objectives.base import Batch, Totals

SMALL_CONV = {"channels": [16, 24, 32], "kernels": [10, 3, 2], "strides": [5, 4, 4], "padding": [0, 0, 0]}


def encoder(**changes) -> EncoderSettings:
    values = {"layers": 2, "width": 48, "ffn": 80, "heads": 4, "position": PositionSettings(kernel=16, groups=4)}
    return EncoderSettings(**values | changes)


def waveform(**changes) -> WaveformFrontEnd:
    return WaveformFrontEnd(**SMALL_CONV | changes)


CONTRASTIVE = ContrastiveSettings(quantizer=QuantizerSettings(codes=12, dim=16), final_dim=20)
COSINE = MaskedPredictionSettings(classes=11, final_dim=20)
LINEAR = MaskedPredictionSettings(classes=11, head="linear")
BEST_RQ = RandomProjectionSettings(codes=24, dim=6, mels=20)
NO_POSITION = PositionSettings(kind="none")

FAMILIES = {
    "wav2vec2": (ModelSettings(front_end=waveform(), encoder=encoder()), CONTRASTIVE),
    "wav2vec2_large": (
        ModelSettings(front_end=waveform(norm="layer", bias=True), encoder=encoder(norm="pre")),
        CONTRASTIVE,
    ),
    "padded_conv_before_norm": (
        ModelSettings(front_end=waveform(padding=[3, 1, 1]), encoder=encoder(activation="gelu_tanh")),
        ContrastiveSettings(quantizer=QuantizerSettings(codes=12, dim=16, input="before_norm"), final_dim=20),
    ),
    "hubert": (ModelSettings(front_end=waveform(), encoder=encoder()), COSINE),
    "tera": (ModelSettings(front_end=waveform(strides=[5, 8, 4]), encoder=encoder()), ReconstructionSettings()),
    "tera_original": (
        ModelSettings(front_end=LogMelFrontEnd(mels=20, stack=1), encoder=encoder(), mask_embedding="zero"),
        ReconstructionSettings(frequency=0.2, noise_share=0.15),
    ),
    "data2vec": (ModelSettings(front_end=waveform(), encoder=encoder()), RegressionSettings(layers=2)),
    "data2vec_same_width": (ModelSettings(front_end=waveform(), encoder=encoder(width=32)), RegressionSettings(layers=1)),
    "best_rq": (ModelSettings(front_end=waveform(strides=[5, 16, 4]), encoder=encoder()), BEST_RQ),
    "best_rq_original": (
        ModelSettings(front_end=LogMelFrontEnd(mels=20, stack=4), encoder=encoder(), mask_embedding="zero"),
        BEST_RQ.model_copy(update={"noise_std": 0.1}),
    ),
    "same_width": (ModelSettings(front_end=waveform(), encoder=encoder(width=32)), COSINE),
    "frozen_extractor": (ModelSettings(front_end=waveform(), encoder=encoder(), feature_grad_mult=0.0), COSINE),
    "frozen_extractor_no_norm": (
        ModelSettings(front_end=waveform(), encoder=encoder(), feature_grad_mult=0.0, feature_norm=False),
        CONTRASTIVE,
    ),
    "sew": (
        ModelSettings(
            front_end=waveform(pointwise=True),
            encoder=encoder(compression=CompressionSettings(kind="fixed", squeeze=2), position=PositionSettings(kernel=15, groups=4)),
        ),
        CONTRASTIVE,
    ),
    "mlp_heads": (
        ModelSettings(front_end=waveform(), encoder=encoder()),
        ContrastiveSettings(quantizer=QuantizerSettings(codes=12, dim=16), final_dim=20, head="mlp", head_hidden=28),
    ),
    "stochastic": (
        ModelSettings(
            front_end=waveform(),
            encoder=encoder(
                position=PositionSettings(kernel=16, groups=4),
                compression=CompressionSettings(kind="stochastic", squeeze=3, query=2, key_value=4, sampled=False),
            ),
        ),
        CONTRASTIVE,
    ),
    "variable": (
        ModelSettings(front_end=waveform(), encoder=encoder(compression=CompressionSettings(kind="variable", rate=2.3))),
        CONTRASTIVE,
    ),
    "data2vec_position": (
        ModelSettings(front_end=waveform(), encoder=encoder(position=PositionSettings(kernel=5, groups=4, layers=3))),
        COSINE,
    ),
    "melhubert": (
        ModelSettings(front_end=LogMelFrontEnd(mels=20), encoder=encoder(), feature_norm=False, mask_embedding="zero"),
        LINEAR,
    ),
    "logmel_normed": (ModelSettings(front_end=LogMelFrontEnd(mels=20, stack=3), encoder=encoder()), CONTRASTIVE),
    "logmel_contrastive_no_norm": (
        ModelSettings(front_end=LogMelFrontEnd(mels=20), encoder=encoder(), feature_norm=False),
        CONTRASTIVE,
    ),
    "conformer": (
        ModelSettings(
            front_end=LogMelConvFrontEnd(mels=20, channels=[24, 32]),
            encoder=encoder(layout="conformer", norm="pre", conv_kernel=7, position=PositionSettings(kind="sinusoidal")),
        ),
        CONTRASTIVE,
    ),
    "branchformer": (
        ModelSettings(front_end=waveform(), encoder=encoder(layout="branchformer", norm="pre", conv_kernel=7, position=NO_POSITION)),
        COSINE,
    ),
}
for mixer in sorted(set(MIXERS) - {"attention"}):
    layout = {"layout": "branchformer", "conv_kernel": 7} if mixer == "summary_mixing_lite" else {}
    FAMILIES[mixer] = (ModelSettings(front_end=waveform(), encoder=encoder(mixer=mixer, norm="pre", **layout)), COSINE)
LENGTHS = (5_200, 16_000, 31_999)


@pytest.fixture(autouse=True)
def noise_on_meta(monkeypatch) -> None:
    """There are no random generators on the meta device; the noise is an addend, its values do not matter here."""
    monkeypatch.setattr(contrastive, "torch_generator", lambda *key, device: None)
    monkeypatch.setattr(contrastive, "gumbel_noise", lambda shape, generator: torch.zeros(shape, device="meta"))


def counter(exact: bool) -> FlopCounterMode:
    """Torch's counter; exact: with the number of groups honoured in the weight gradient of a convolution."""

    def backward(grad, x, w, _bias, _stride, _padding, _dilation, _transposed, _output_padding, groups, mask, out_val):
        flops = conv_flop_count(grad.shape, w.shape, x.shape, True) if mask[0] else 0
        swapped = [t.shape[1::-1] + t.shape[2:] for t in (x, grad, w)]
        return flops + (conv_flop_count(*swapped) // groups if mask[1] else 0)

    backward._get_raw = True
    mapping = {torch.ops.aten.convolution_backward: backward} if exact else {}
    return FlopCounterMode(display=False, custom_mapping=mapping)


def batch_of_one(module, samples: int, masked: int) -> Batch:
    """One utterance without padding, its first `masked` frames masked, on the meta device."""
    upstream = module if isinstance(module, Upstream) else module.upstream
    frames = upstream.frames(samples)
    meta = {"device": "meta"}
    own = None if module is upstream else Shapes.of(module).spectra  # on the host, and not counted by torch
    spectra = None if own is None else torch.zeros(1, frames, own(torch.zeros(8_000).numpy()).shape[1], **meta)
    return Batch(
        waveforms=torch.zeros(1, samples, **meta),
        lengths=torch.tensor([samples]),
        utterances=["a"],
        keys=[(0, 0, "a")],
        indices=torch.zeros(1, dtype=torch.long, **meta),
        mask=torch.zeros(1, frames, dtype=torch.bool, **meta),
        masked=torch.zeros(1, masked, dtype=torch.long, **meta),
        masked_valid=torch.ones(1, masked, dtype=torch.bool, **meta),
        negatives=torch.zeros(1, masked, 7, dtype=torch.long, **meta),
        labels=torch.zeros(1, frames, dtype=torch.long, **meta),
        spectra=spectra,
        noise=torch.zeros(1, frames, upstream.feature_dim, **meta),
        keep=torch.zeros(1, upstream.feature_dim, **meta),
        host_masked_counts=[masked],
        host_frames=[frames],
    )


def seen(settings: CellSettings, samples: int, masked: int, exact: bool = True) -> tuple[int, int]:
    """FLOPs of forward, and of forward and backward, as torch's counter sees them."""
    with torch.device("meta"):
        module = build(settings)
    batch = batch_of_one(module, samples, masked)
    totals = Totals(masked=masked, frames=batch.host_frames[0], micro_batches=1, progress=0.5, update=0)
    with sdpa_kernel(SDPBackend.MATH), counter(exact) as both:
        with counter(exact) as forward:
            loss = module(batch, totals).loss
        loss.backward()
    return forward.get_total_flops(), both.get_total_flops()


@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_counter(family: str, samples: int) -> None:
    model, objective = FAMILIES[family]
    cost = count(model, objective, samples)
    settings = CellSettings(model=model, objective=objective)
    forward, both = seen(settings, samples, cost.masked)
    teacher = cost.components["teacher"].training if "teacher" in cost.components else 0  # no part of `macs`
    assert forward == 2 * (cost.macs + teacher - cost.total.unseen)
    assert both == cost.train_flops - 2 * (cost.total.unseen + cost.total.unseen_training)


@pytest.mark.parametrize("mixer", sorted(MIXERS))
@pytest.mark.parametrize("layout", [("transformer", "post"), ("conformer", "pre"), ("branchformer", "pre")], ids=lambda layout: layout[0])
def test_every_mixer_in_every_layout(layout: tuple[str, str], mixer: str) -> None:
    """Pre-norm Transformers are families above."""
    kind, norm = layout
    model = ModelSettings(front_end=waveform(), encoder=encoder(layout=kind, norm=norm, mixer=mixer, conv_kernel=7))
    cost = count(model, COSINE, 9_999)
    forward, both = seen(CellSettings(model=model, objective=COSINE), 9_999, cost.masked)
    assert forward == 2 * (cost.macs - cost.total.unseen)
    assert both == cost.train_flops - 2 * (cost.total.unseen + cost.total.unseen_training)


def test_every_factor_equals_the_counter_and_the_mean_is_what_training_costs() -> None:
    """Set on one built model, as the settings say; `train_flops` of a sampled cell is the mean over what it draws from."""
    compression = CompressionSettings(kind="stochastic")
    settings, length = encoder(layers=1, compression=compression), 17_777
    model = ModelSettings(front_end=waveform(), encoder=settings)
    with torch.device("meta"):
        built = build(CellSettings(model=model, objective=CONTRASTIVE))
    masked = count(model, CONTRASTIVE, length).masked
    batch = batch_of_one(built, length, masked)
    totals = Totals(masked=masked, frames=batch.host_frames[0], micro_batches=1, progress=0.5, update=0)
    both = []
    assert len(compression.choices) == 24
    for factors in compression.choices:
        built.upstream.set_compression(*factors)
        with sdpa_kernel(SDPBackend.MATH), counter(True) as steps, counter(True) as forward:
            loss = built(batch, totals).loss
            seen_forward = forward.get_total_flops()
            loss.backward()
        cost = count(model.at(factors), CONTRASTIVE, length)
        assert seen_forward == 2 * cost.macs
        both.append(steps.get_total_flops())
        fixed = model.at(factors).encoder.compression.model_copy(update={"sampled": False})
        fixed = model.model_copy(update={"encoder": settings.model_copy(update={"compression": fixed})})
        assert count(fixed, CONTRASTIVE, length).train_flops == both[-1]
    assert count(model, CONTRASTIVE, length).train_flops == pytest.approx(sum(both) / 24, rel=1e-9)


def test_a_range_of_rates_costs_its_mean() -> None:
    """Each rate as the counter sees it (family "variable"); training over a range, near the mean over many evenly spread rates."""

    def settings(**compression) -> ModelSettings:
        values = CompressionSettings(kind="variable", **compression)
        return ModelSettings(front_end=waveform(), encoder=encoder(compression=values))

    many = [1.5 + 2.5 * (i + 0.5) / 400 for i in range(400)]
    mean = sum(count(settings(rate=rate), COSINE, 31_999).train_flops for rate in many) / len(many)
    ranged = count(settings(rate=2.0, rates=[1.5, 4.0]), COSINE, 31_999)
    assert ranged.train_flops == pytest.approx(mean, rel=2e-3)
    assert ranged.macs == count(settings(rate=2.0), COSINE, 31_999).macs


@pytest.mark.parametrize("family", ["wav2vec2", "conformer", "branchformer"])
def test_the_plain_counter_adds_what_grouped_convolutions_never_compute(family: str) -> None:
    model, objective = FAMILIES[family]
    cost = count(model, objective, 16_000)
    _, both = seen(CellSettings(model=model, objective=objective), 16_000, cost.masked, exact=False)
    assert cost.total.grouped_excess > 0
    assert both == cost.train_flops - 2 * cost.total.unseen + 2 * cost.total.grouped_excess


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_equal_the_built_model(family: str) -> None:
    model, objective = FAMILIES[family]
    with torch.device("meta"):
        built = build(CellSettings(model=model, objective=objective))
    cost = count(model, objective, 16_000)
    assert cost.params == sum(p.numel() for p in built.parameters())
    assert cost.upstream_params == sum(p.numel() for p in built.upstream.parameters())
    assert cost.frames == built.upstream.frames(16_000)


def test_components_equal_the_built_modules() -> None:
    model, objective = FAMILIES["wav2vec2"]
    with torch.device("meta"):
        built = build(CellSettings(model=model, objective=objective))
    parts = count(model, objective, 16_000).components
    sizes = {name: sum(p.numel() for p in module.parameters()) for name, module in built.named_modules()}
    assert parts["feature_extractor"].params == sizes["upstream.front_end"]
    assert parts["position"].params == sizes["upstream.encoder.position"]
    assert parts["quantizer"].params == sizes["quantizer"]
    assert parts["heads"].params == sizes["project_q"] + sizes["final_proj"]
    mixers = sum(size for name, size in sizes.items() if name.endswith(".mixer"))
    forwards = sum(size for name, size in sizes.items() if name.endswith(".feed_forward"))
    assert (parts["mixer"].params, parts["feed_forward"].params) == (mixers, forwards)


def test_frames_for_any_length() -> None:
    for front_end in (waveform(), waveform(padding=[3, 1, 1]), LogMelFrontEnd(stack=3), LogMelConvFrontEnd()):
        with torch.device("meta"):
            built = Upstream(ModelSettings(front_end=front_end, encoder=None))
        for samples in itertools.chain(range(300, 2_000, 37), (16_000, 250_000)):
            assert count(ModelSettings(front_end=front_end, encoder=None), NoObjective(), samples).frames == built.frames(samples)


def test_nothing_learned_costs_no_training() -> None:
    cost = cell_cost(CellSettings(objective=NoObjective()), 1.0)
    assert cost.train_flops == 0 and cost.macs > 0


def test_components_add_up() -> None:
    cost = cell_cost(CellSettings(), 15.625)
    rows = cost.as_dict()["components"].values()
    for name in ("params", "macs", "train_flops"):
        assert sum(row[name] for row in rows) == getattr(cost, name)


@pytest.mark.parametrize("name", [n for n, m in NAMED.items() if not m.teacher and m.model.encoder.mixer in MIXERS])
def test_named_models_at_full_size_equal_the_counter(name: str) -> None:
    cost = NAMED[name].cost(15.625)
    settings = CellSettings(model=NAMED[name].model, objective=NAMED[name].objective)
    forward, both = seen(settings, cost.samples, cost.masked)
    assert forward == 2 * (cost.macs - cost.total.unseen)
    assert both == cost.train_flops - 2 * (cost.total.unseen + cost.total.unseen_training)
