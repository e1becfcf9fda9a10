"""Activation memory: measured as saved-tensor bytes, and predicted from settings."""

from __future__ import annotations

import gc

import pytest
import torch
from test_count import CONTRASTIVE, COSINE, FAMILIES, batch_of_one, noise_on_meta  # noqa: F401
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sslrepro.budget.activations import predicted_activations
from sslrepro.budget.memory import cuda_peak, measure, saved_bytes
from sslrepro.budget.mixer_activations import CUDA, MIXER_ACTIVATIONS, PLAIN, PROCESSOR, Kernels
from sslrepro.budget.names import NAMED
from sslrepro.config import CellSettings, ClonedRegressionSettings, DistillationSettings, EncoderSettings, ModelSettings, NoObjective
from sslrepro.errors import UserError
from sslrepro.models.blocks import split
from sslrepro.models.linear import by_blocks
from sslrepro.models.mixers import build_mixer
from sslrepro.models.padding import Padding
from sslrepro.models.upstream import Upstream
from sslrepro.objectives import build
from sslrepro.objectives.base import Totals


def measured(model: ModelSettings, objective, samples: int) -> int:
    from sslrepro.budget.count import count

    masked = count(model, objective, samples).masked
    with torch.device("meta"):
        module = build(CellSettings(model=model, objective=objective))
    batch = batch_of_one(module, samples, masked)
    totals = Totals(masked=masked, frames=batch.host_frames[0], micro_batches=1, progress=0.5, update=0)
    with sdpa_kernel(SDPBackend.MATH):
        return saved_bytes(module, lambda: module(batch, totals).loss)


@pytest.mark.parametrize("family", FAMILIES)
def test_prediction_against_saved_tensors(family: str) -> None:
    model, objective = FAMILIES[family]
    predicted = sum(predicted_activations(model, objective, 16_000, PLAIN).values())
    assert predicted == pytest.approx(measured(model, objective, 16_000), rel=0.05)


@pytest.mark.parametrize("name", ["slim-100", "hubert-base", "wav2vec2-large", "sew-tiny", "mhsa-w2v2-conformer", "summarymixing-w2v2"])
def test_prediction_at_full_size(name: str) -> None:
    model, objective = NAMED[name].model, NAMED[name].objective
    predicted = sum(predicted_activations(model, objective, 250_000, PLAIN).values())
    assert predicted == pytest.approx(measured(model, objective, 250_000), rel=0.02)


def upstream_alone(model: ModelSettings, samples: int, device: str) -> int:
    with torch.device(device):
        module = Upstream(model)
        waveforms = torch.zeros(1, samples)
        mask = torch.ones(1, module.frames(samples), dtype=torch.bool)
    return saved_bytes(module, lambda: module(waveforms, mask=mask).output.sum())


def predicted_upstream(model: ModelSettings, samples: int, kernels: Kernels) -> int:
    parts = predicted_activations(model, NoObjective(), samples, kernels)
    assert parts.pop("heads") == 0
    return sum(parts.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_upstream_s_activations_to_the_byte(family: str) -> None:
    """As torch's own operations do it (on the meta device), and by our functions for processors (on the processor)."""
    model, samples = FAMILIES[family][0], 15_999
    with sdpa_kernel(SDPBackend.MATH):
        assert predicted_upstream(model, samples, PLAIN) == upstream_alone(model, samples, "meta")
    assert predicted_upstream(model, samples, PROCESSOR) == upstream_alone(model, samples, "cpu")


def test_without_dropout_to_the_byte() -> None:
    """Then attention is the processor's fused kernel, which keeps no square either."""
    rates = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    encoder = EncoderSettings(layers=2, width=48, ffn=80, heads=4, **rates)
    model = FAMILIES["hubert"][0].model_copy(update={"encoder": encoder, "dropout_input": 0.0})
    saved = upstream_alone(model, 31_999, "cpu")
    assert predicted_upstream(model, 31_999, PROCESSOR) == saved
    assert saved < predicted_upstream(model, 31_999, PLAIN) / 2


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("mixer", ["summary_mixing", "summary_mixing_lite"])
def test_products_by_blocks_keep_as_much(mixer: str) -> None:
    """At a size where they go another way (models.blocks)."""
    settings, frames = EncoderSettings(width=204, heads=3, mixer=mixer, dropout=0.0), 2_500
    module, x = build_mixer(settings), torch.randn(1, frames, settings.width, requires_grad=True)
    assert by_blocks(split(x, settings.heads), module.summary.first.weight)
    saved = saved_bytes(module, lambda: module(x, Padding.of([frames], frames, x.device)).sum())
    assert saved == MIXER_ACTIVATIONS[mixer](settings, frames, PROCESSOR) + 4 * x.numel()


def test_our_functions_keep_less() -> None:
    """wav2vec 2.0 base, 15.6 s, as it trains: from settings alone."""
    model = NAMED["wav2vec2-base"].model
    own, plain = (predicted_upstream(model, 250_000, kernels) for kernels in (PROCESSOR, PLAIN))
    assert own < 0.5 * plain


def test_nothing_is_left_of_a_measured_pass() -> None:
    """An output that autograd keeps for its own backward (of exp, of softmax) must not hold the graph that holds it."""
    module = nn.Linear(1000, 1000)

    def held() -> int:
        gc.collect()
        return sum(1 for thing in gc.get_objects() if isinstance(thing, torch.Tensor) and thing.shape == (7, 1000))

    assert saved_bytes(module, lambda: module(torch.randn(7, 1000)).exp().sum()) >= 2 * 7 * 1000 * 4
    assert held() == 0


def test_activations_are_counted_once_and_parameters_never() -> None:
    layer = nn.Linear(8, 8, bias=False)
    x = torch.randn(5, 8)

    def forward() -> torch.Tensor:
        hidden = layer(x)  # keeps x
        return (hidden * hidden.view(5, 8)).sum()  # keeps hidden, twice, in one storage

    memory = measure(layer, forward)
    assert memory.activations == 2 * 5 * 8 * 4
    assert (memory.gradients, memory.optimizer, memory.parameters) == (256, 512, 256)


def test_frozen_weights_have_neither_gradient_nor_state() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    model[0].requires_grad_(False)
    memory = measure(model, lambda: model(torch.randn(2, 4)).sum())
    assert (memory.gradients, memory.optimizer, memory.parameters) == (20, 40, 100)


def test_attention_s_square_dominates_long_audio() -> None:
    model, objective = FAMILIES["wav2vec2"][0], CONTRASTIVE
    unfused = [predicted_activations(model, objective, n, PLAIN)["layers"] for n in (160_000, 320_000)]
    fused = [predicted_activations(model, objective, n, CUDA)["layers"] for n in (160_000, 320_000)]
    assert unfused[1] / unfused[0] > 3.5
    assert fused[1] / fused[0] == pytest.approx(2, rel=0.01)


def test_a_mixer_without_a_rule_is_an_error() -> None:
    model, objective = NAMED["summarymixing-w2v2"].model, NAMED["summarymixing-w2v2"].objective
    model = model.model_copy(update={"encoder": model.encoder.model_copy(update={"mixer": "unknown"})})
    with pytest.raises(UserError, match="unknown"):
        predicted_activations(model, objective, 16_000)


@pytest.mark.parametrize("objective", [ClonedRegressionSettings(layers=2), DistillationSettings(teacher="a/b", layers=[2])])
def test_an_objective_without_a_rule_is_an_error_and_no_nothing(objective) -> None:
    with pytest.raises(UserError, match=f"no memory rule for {objective.name}"):
        predicted_activations(FAMILIES["hubert"][0], objective, 16_000)


def test_energy_says_why_it_is_missing(monkeypatch) -> None:
    import sys

    from sslrepro.budget.energy import measured_energy

    monkeypatch.setitem(sys.modules, "pynvml", None)
    with measured_energy() as energy:
        pass
    assert energy.joules is None and "nvidia-ml-py" in energy.reason


class Counter:
    """NVML's, of a device that draws 2,500 mJ from one look to the next; or of one that keeps no such counter."""

    class NVMLError(Exception):
        pass

    def __init__(self, kept: bool) -> None:
        self.kept, self.drawn = kept, 0

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        if not self.kept:
            raise self.NVMLError("Not Supported")
        self.drawn += 2_500
        return self.drawn


def test_energy_is_what_the_counter_moved(monkeypatch) -> None:
    import sys

    from sslrepro.budget.energy import measured_energy

    monkeypatch.setitem(sys.modules, "pynvml", Counter(kept=True))
    with measured_energy() as energy:
        assert energy.joules is None
    assert energy.joules == 2.5 and energy.reason is None
    monkeypatch.setitem(sys.modules, "pynvml", Counter(kept=False))
    with measured_energy() as energy:
        pass
    assert energy.joules is None and "Not Supported" in energy.reason


def test_cuda_peak() -> None:
    if not torch.cuda.is_available():
        assert cuda_peak(lambda: None, torch.device("cpu")) is None
        return
    device = torch.device("cuda")
    assert cuda_peak(lambda: torch.zeros(2**24, device=device).sum(), device) >= 2**26
