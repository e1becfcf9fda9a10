"""Measuring cells: which metrics they give, that they time what they say, and that measuring changes nothing."""

from __future__ import annotations

import json

import pytest
import torch

from sslrepro import objectives
from sslrepro.budget.memory import inference_peak, weight_memory
from sslrepro.errors import UserError
from sslrepro.models.mixers import MIXERS, SelfAttention
from sslrepro.pipeline import machine
from sslrepro.pipeline.sweep import is_finished
from sslrepro.training import cell as cells
from sslrepro.training import measure
from sslrepro.training.cell import run_cell

torch.set_num_threads(1)
QUICK = {"warmup": 1, "repeats": 1}


def module_of(settings):
    torch.manual_seed(0)
    return objectives.build(settings)


def test_one_length_has_the_plain_name_and_several_carry_theirs(make_cell):
    one = make_cell(measure={**QUICK, "inference": [1.0], "encoder": [1.0], "mixer": [50], "update": [1.0]})
    names = {"inference_seconds", "inference_peak_bytes", "encoder_seconds", "mixer_seconds", "update_seconds", "peak_bytes"}
    assert set(measure.measured(module_of(one), one, 0)) == {f"cost.{name}" for name in names}
    two = make_cell(measure={**QUICK, "mixer": [50, 100], "update": [1.0, 2.5]})
    wanted = {"mixer_seconds_50", "mixer_seconds_100", "update_seconds_1", "update_seconds_2.5", "peak_bytes_1", "peak_bytes_2.5"}
    assert set(measure.measured(module_of(two), two, 0)) == {f"cost.{name}" for name in wanted}


@pytest.mark.parametrize(
    "kind", ["contrastive", "masked_prediction", "reconstruction", "regression", "cloned_regression", "random_projection", "none"]
)
def test_an_update_is_measured_for_every_objective_and_the_module_stays_as_it_was(make_cell, kind):
    settings = make_cell(kind, measure={**QUICK, "update": [1.0, 2.0], "batch": 2})
    module = module_of(settings)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = measure.measured(module, settings, 0)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    weights = sum(weight_memory(sum(p.numel() for p in module.parameters())))
    short, long = (found[f"cost.peak_bytes_{s}"] for s in (1, 2))
    assert long > short > (0.9 * weights if kind != "none" else 0)  # CTC adds a head and freezes the front end
    assert 1.5 < (long - weights) / (short - weights) < 4.5  # activations; attention and negatives have squares


def test_the_memory_of_inference_is_what_is_alive_at_once():
    weight, x = torch.randn(100, 100), torch.randn(50, 100)

    def call():
        a = x @ weight  # 20 kB
        b = torch.cat([a, a])  # 40 kB beside it
        del a
        return b.exp()  # 40 kB beside the 40

    assert inference_peak(call, torch.device("cpu")) == 80_000


@pytest.mark.parametrize("mixer", ["summary_mixing", "unfused"])
def test_attention_written_out_needs_the_square_of_the_frames(make_cell, mixer):
    settings = make_cell(model={"encoder": {"mixer": mixer}}, measure={**QUICK, "inference": [4.0, 16.0]})
    found = measure.measured(module_of(settings), settings, 0)
    ratio = found["cost.inference_peak_bytes_16"] / found["cost.inference_peak_bytes_4"]
    assert 3.5 < ratio < 4.5 if mixer == "summary_mixing" else ratio > 6


def test_what_is_timed_is_what_the_name_says(make_cell, monkeypatch):
    """On a clock that only the mixer moves: once in its own time, once a layer in the model's."""
    settings = make_cell(measure={**QUICK, "inference": [1.0], "encoder": [1.0], "mixer": [30]})
    now = [0.0]

    class Slow(SelfAttention):
        def forward(self, x, padding):
            now[0] += 1.0
            return super().forward(x, padding)

    monkeypatch.setitem(MIXERS, "attention", Slow)
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    found = measure.measured(module_of(settings), settings, 0)
    assert found.pop("cost.inference_peak_bytes") > 0
    assert found == {"cost.inference_seconds": 2.0, "cost.encoder_seconds": 2.0, "cost.mixer_seconds": 1.0}


def test_every_choice_of_factors_is_timed_and_counted(make_cell, monkeypatch):
    """The rest is measured at what the settings run at, whatever was timed before."""
    sampled = {"kind": "stochastic", "squeeze": 2, "squeeze_factors": [1, 2], "query_factors": [1], "key_value_factors": [1, 2]}
    settings = make_cell(model={"encoder": {"compression": sampled}}, measure={**QUICK, "inference": [1.0], "encoder": [1.0]})
    seen = []
    monkeypatch.setattr(measure, "_encoder", lambda upstream, noise: lambda: seen.append(upstream.encoder.factors))
    found = measure.measured(module_of(settings), settings, 0)
    choices = {f":s{s}-q1-k{k}" for s in (1, 2) for k in (1, 2)}
    inferences = {f"cost.inference_{what}{end}" for what in ("seconds", "peak_bytes") for end in {"", *choices}}
    assert set(found) == inferences | {"cost.encoder_seconds"}
    assert {str(factors) for factors in seen} == {"s2-q1-k1"}
    macs = measure.inference_macs(settings)
    assert set(macs) == {f"cost.inference_macs{end}" for end in {"", *choices}}
    assert macs["cost.inference_macs"] == macs["cost.inference_macs:s2-q1-k1"] < macs["cost.inference_macs:s1-q1-k1"]


def test_a_median_of_turns(monkeypatch):
    """Lengths take turns, and an outlier does not show."""
    order = []
    times = {"a": iter([1, 1, 5, 90, 7]), "b": iter([2, 2, 3, 3, 3])}
    wanted = measure.MeasureSettings(mixer=[1, 2], warmup=2, repeats=3)
    timer = measure._Clock(wanted, torch.device("cpu"), half=False)
    monkeypatch.setattr(measure._Clock, "_seconds", lambda self, call, runs: (order.append(call()), next(times[call()]))[1])
    found = timer.medians({"x_1": lambda: "a", "x_2": lambda: "b"})
    assert found == {"x_1": 7, "x_2": 3} and order == ["a", "a", "b", "b"] + ["a", "b"] * 3


def test_a_cell_may_only_measure_and_is_run_again_on_another_machine(project, make_cell, make_profile, monkeypatch):
    profile = make_profile(a=make_cell("none", seeds=[0, 1], measure={**QUICK, "inference": [1.0]}))
    folder = run_cell(profile, "trial", "a")
    for seed in ("0", "1"):
        assert json.loads((folder / seed / "metrics.json").read_text())["cost.inference_seconds"] > 0
    assert is_finished(profile, "trial", "a")
    monkeypatch.setattr(cells, "fingerprint", lambda: machine.fingerprint() | {"cpu": "another"})
    assert not is_finished(profile, "trial", "a")


def test_alone_an_objective_s_update_is_measured_and_nothing_is_trained(project, make_cell, make_profile):
    folder = run_cell(make_profile(a=make_cell(measure={**QUICK, "update": [1.0], "alone": True})), "trial", "a") / "0"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["cost.update_seconds"] > 0 and metrics["cost.updates"] == 0 and "pretrain.valid_loss" not in metrics
    assert not (folder / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"measure": {}}, "nothing to measure"),
        ({"measure": {"mixer": [50, 50]}}, "mixer: a length occurs twice"),
        ({"measure": {"mixer": [50], "alone": True}, "downstream": {"tasks": ["phone"]}}, "measure.alone"),
        ({"measure": {"update": [1.0]}, "model": {"encoder": None}}, "only `inference`"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_runs(make_cell, changes, said):
    with pytest.raises(UserError, match=said):
        make_cell("none", **changes)
