"""An update that is not finite: made again in float32 where the run is in 16 bits, else the end; either way the weights never see it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sslrepro import objectives
from sslrepro.data.corpus import Corpus
from sslrepro.draws import key64
from sslrepro.objectives.base import LossOutput
from sslrepro.training import checkpoint, loop
from sslrepro.training.loop import State, train
from sslrepro.training.meter import Health, Progress

BAD = 5  # the update that goes wrong


class Scale(torch.autograd.Function):
    """The loss as it is, its gradient times infinity."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * torch.inf


@pytest.fixture
def health():
    """Of an objective whose chance level is 1.5 nats."""
    return Health(SimpleNamespace(chance=lambda: {"loss": 1.5}), lambda members: [f"u{i}" for i in members])


def suspected(health: Health, losses: list[float]) -> int | None:
    """The update that the rule names."""
    state = State()
    for update, loss in enumerate(losses):
        health.after_update(loss, update, np.arange(3), state)
    return state.suspicion.get("update")


def test_the_rule_of_divergence(health):
    """The mean of 20 losses above twice the best such mean and above chance + 1: neither alone, and no spike that passes."""
    calm = [1.4] * 40
    assert suspected(health, [*calm, *[5.0] * 7, *calm]) is None
    assert suspected(health, [*calm, *[5.0] * 20]) == 40 + 7  # 12 x 1.4 + 8 x 5 are above 20 x 2.8
    assert suspected(health, [1.0] * 40 + [2.4] * 60) is None, "more than twice the best, but hardly above chance"
    assert suspected(health, [3.0] * 40 + [5.0] * 60) is None, "above chance, but not twice the best"


def test_a_spike_is_named_and_let_pass(health):
    """The update and its utterances, also before the twentieth; a divergence has those that led to it."""
    state = State()
    for update, loss in enumerate([4.0] * 10 + [40.0] + [4.0] * 40 + [2.6] * 5, start=1):
        health.after_update(loss, update, np.array([update]), state)
    assert state.spikes == [{"update": 11, "loss": 40.0, "utterances": ["u11"]}] and not state.suspicion
    state = State()
    for update, loss in enumerate([4.0] * 40 + [12.0] * 20, start=1):
        health.after_update(loss, update, np.array([update]), state)
    led = state.suspicion["spikes"]
    assert state.suspicion["update"] == 51 and led[0] == {"update": 41, "loss": 12.0, "utterances": ["u41"]}


def run(corpus_dir, settings, folder, spoil=None):
    folder.mkdir()
    torch.manual_seed(key64(0, "init"))
    objective = objectives.build(settings)
    if spoil is not None:
        forward = objective.forward

        def spoiled(batch, totals) -> LossOutput:
            output = forward(batch, totals)
            return output._replace(loss=spoil(output.loss)) if totals.update == BAD and objective.training else output

        objective.forward = spoiled
    state = train(objective, Corpus(corpus_dir), None, settings, 0, folder, Progress("test", None, every=1e9))
    return objective.state_dict(), state


@pytest.mark.parametrize("spoil", [lambda loss: loss * torch.nan, Scale.apply], ids=["loss", "gradient"])
def test_in_float32_it_ends_the_run_before_the_weights(spoil, tiny_corpus_dir, make_cell, tmp_path):
    weights, state = run(tiny_corpus_dir, make_cell(), tmp_path / "spoiled", spoil)
    assert state.status == "non_finite" and state.evidence["update"] == BAD + 1 and len(state.evidence["utterances"]) >= 4
    assert all(value.isfinite().all() for value in weights.values())
    assert len(state.evidence["losses_before"]) == BAD


def test_in_16_bits_it_is_made_again_in_float32(tiny_corpus_dir, make_cell, tmp_path):
    def overflow(loss):
        return loss * torch.inf if torch.is_autocast_enabled("cpu") else loss

    settings = make_cell(training={"precision": "bf16"})
    _, reference = run(tiny_corpus_dir, settings, tmp_path / "whole")
    weights, state = run(tiny_corpus_dir, settings, tmp_path / "spoiled", overflow)
    assert state.status == "completed" and state.update == reference.update
    assert all(value.isfinite().all() for value in weights.values())
    same = [a == b for a, b in zip(state.losses, reference.losses, strict=True)]
    assert all(same[:BAD]) and not same[BAD] and state.losses[BAD] == pytest.approx(reference.losses[BAD], rel=0.02)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["contrastive", "regression"])
def test_read_later_it_ends_the_same(kind, precision, tiny_corpus_dir, make_cell, tmp_path, monkeypatch):
    """Weights, teacher, losses and evidence are those of a run whose every update is read at once."""

    def overflow(loss):
        return loss * torch.inf if torch.is_autocast_enabled("cpu") or precision == "fp32" else loss

    settings = make_cell(kind, training={"precision": precision})
    results = []
    for name, logs in (("each", 100), ("few", 2)):
        monkeypatch.setattr(loop, "LOGS", logs)
        results.append(run(tiny_corpus_dir, settings, tmp_path / name, overflow))
    (weights, state), (weights_later, later) = results
    assert state.status == later.status == ("non_finite" if precision == "fp32" else "completed")
    for name in ("update", "used", "hours_seen", "padded_hours", "losses", "evidence", "best_loss", "valid"):
        assert getattr(state, name) == getattr(later, name), name
    assert all(torch.equal(value, weights_later[name]) for name, value in weights.items())


def test_a_rate_far_too_high_ends_as_diverged(tiny_corpus_dir, make_cell, tmp_path):
    """The rate climbs until the weights run away; the evidence says when, from what, and with which utterances."""
    schedule = {"kind": "linear", "warmup": 0.9}
    training = {"budget": {"unit": "updates", "amount": 150.0}, "batch_seconds": 4.0, "micro_batch_seconds": 4.0, "learning_rate": 30.0}
    settings = make_cell("reconstruction", training=training | {"schedule": schedule, "clip_norm": None})
    _, state = run(tiny_corpus_dir, settings, tmp_path / "run")
    evidence = state.evidence
    assert state.status == "diverged" and 20 < evidence["update"] <= state.update < 150
    assert len(evidence["losses"]) == 20 and evidence["mean_of_last_20"] == pytest.approx(sum(evidence["losses"]) / 20)
    assert evidence["mean_of_last_20"] > 2 * evidence["best_mean_of_20"]
    corpus = Corpus(tiny_corpus_dir)
    assert set(evidence["utterances"]) <= {corpus.name(row) for row in corpus.rows} and evidence["utterances"]
    _, _, kept = checkpoint.load_latest(tmp_path / "run" / "checkpoints")
    assert kept["status"] == "diverged" and kept["evidence"] == evidence
