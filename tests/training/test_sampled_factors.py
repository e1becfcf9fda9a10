"""Sampled factors: one draw an update for all of its micro-batches, the settings' factors wherever nothing is learned."""

from __future__ import annotations

import torch

from sslrepro import objectives
from sslrepro.config import Factors, FineTuneSettings, LabelShare
from sslrepro.data.corpus import Corpus
from sslrepro.downstream import fine_tune
from sslrepro.models.upstream import Upstream
from sslrepro.training.loop import train
from sslrepro.training.meter import Progress

STOCHASTIC = {"encoder": {"compression": {"kind": "stochastic", "squeeze": 2}}}


def watched(upstream: Upstream) -> list[tuple[bool, Factors]]:
    """(training, factors) of every forward of the encoder from now on."""
    seen = []
    upstream.encoder.register_forward_pre_hook(lambda encoder, _: seen.append((encoder.training, encoder.factors)))
    return seen


def drawn(upstream: Upstream, *key: int | str) -> Factors:
    upstream.draw_compression(*key)
    return upstream.encoder.drawn


def test_pre_training(tiny_corpus_dir, make_cell, tmp_path):
    settings = make_cell(model=STOCHASTIC, training={"budget": {"amount": 8.0}, "micro_batch_seconds": 3.0})
    torch.manual_seed(0)
    objective = objectives.build(settings)
    seen = watched(objective.upstream)
    state = train(objective, Corpus(tiny_corpus_dir), None, settings, 5, tmp_path, Progress("test", None))
    assert state.status == "completed"
    learning = [factors for training, factors in seen if training]
    assert learning == [drawn(objective.upstream, 5, update) for update in range(8) for _ in range(4)], "four micro-batches an update"
    assert len(set(learning)) > 3
    validating = [factors for training, factors in seen if not training]
    assert validating and set(validating) == {Factors(squeeze=2)}


def test_fine_tuning(tiny_corpus_dir, make_cell):
    torch.manual_seed(0)
    upstream = Upstream(make_cell(model=STOCHASTIC).model)
    seen = watched(upstream)  # a copy keeps the hook
    settings = FineTuneSettings(symbols="phones", batch_seconds=12.0, micro_batch_seconds=6.0, freeze=0.0)
    model, _ = fine_tune(upstream, Corpus(tiny_corpus_dir), settings, LabelShare(minutes=0.5, updates=4), 5, "cpu")
    measured, *updates = [factors for training, factors in seen if training]
    assert measured == Factors(squeeze=2), "the step whose memory is measured is not one of the updates"
    learning = list(dict.fromkeys(updates))
    assert learning == list(dict.fromkeys(drawn(model.upstream, 5, "fine_tune", update) for update in range(4)))
    assert {factors for training, factors in seen if not training} == set(upstream.choices), "scored at every choice"
    assert model.upstream.encoder.fixed == Factors(squeeze=2)
