import numpy as np
import pytest
import torch

from sslrepro.config import (
    DownstreamSettings,
    EncoderSettings,
    FineTuneSettings,
    LogMelConvFrontEnd,
    LogMelFrontEnd,
    ModelSettings,
    PositionSettings,
)
from sslrepro.downstream import fine_tune, score
from sslrepro.downstream.ctc import ctc_loss, greedy, too_few_frames
from sslrepro.models.upstream import Upstream

ENCODER = EncoderSettings(layers=1, width=32, ffn=64, heads=2, dropout=0.0, layer_drop=0.2, position=PositionSettings(kernel=8, groups=4))
SETTINGS = FineTuneSettings(
    minutes=[0.9], symbols="phones", updates=60, batch_seconds=20.0, micro_batch_seconds=10.0, learning_rate=1.0e-2, freeze=0.1
)


def upstream(front=None):
    torch.manual_seed(0)
    return Upstream(ModelSettings(front_end=front or LogMelFrontEnd(mels=20), encoder=ENCODER))


def test_it_learns_the_phones(corpus):
    model = upstream()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tuned, result = fine_tune(model, corpus, SETTINGS, 0.9, 0, "cpu")
    assert result.metrics["fine_tune_0.9min.per"] < 0.2
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    rows = result.speakers
    assert sum(r[2] for r in rows) / sum(r[3] for r in rows) == pytest.approx(result.metrics["fine_tune_0.9min.per"])
    audio = corpus.audio(int(corpus.split("train").index[0]))
    alone, padded = tuned.transcribe([audio])[0], tuned.transcribe([audio, np.tile(audio, 2)])[0]
    assert alone == padded and set(alone) <= set("abcde")


def test_what_is_frozen_stays(corpus):
    model = upstream(LogMelConvFrontEnd(mels=20, channels=[16, 16]))
    settings = SETTINGS.model_copy(update={"updates": 2, "freeze": 0.5})
    tuned, _ = fine_tune(model, corpus, settings, 0.9, 0, "cpu")
    late, _ = fine_tune(model, corpus, settings.model_copy(update={"freeze": 1.0}), 0.9, 0, "cpu")
    old = model.state_dict()
    changed = {name for name, tensor in tuned.upstream.state_dict().items() if not torch.equal(tensor, old[name])}
    assert any(name.startswith("encoder.layers") for name in changed)
    assert not any(name.startswith(("front_end", "feature_norm")) for name in changed)
    assert all(torch.equal(tensor, old[name]) for name, tensor in late.upstream.state_dict().items())


def test_a_seed_repeats_and_masks_matter(corpus):
    plain = SETTINGS.model_copy(update={"updates": 3, "learning_rate": 1e-3, "mask": SETTINGS.mask.model_copy(update={"share": 0.0})})
    one, two = (fine_tune(upstream(), corpus, plain, 0.9, 5, "cpu")[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    masked = fine_tune(upstream(), corpus, SETTINGS.model_copy(update={"updates": 3, "learning_rate": 1e-3}), 0.9, 5, "cpu")[0].state_dict()
    assert not torch.equal(one["out.weight"], masked["out.weight"])


def test_scores_hold_each_share_of_the_labels(corpus, silent):
    settings = FineTuneSettings(minutes=[0.3, 0.6], updates=1, batch_seconds=5.0, micro_batch_seconds=5.0)
    found = score(upstream(), silent, DownstreamSettings(fine_tune=settings), seed=0, device="cpu")
    assert set(found.metrics) == {f"fine_tune_{m}min.{x}" for m in ("0.3", "0.6") for x in ("wer", "cer")}
    phones = settings.model_copy(update={"symbols": "phones"})
    assert set(score(upstream(), silent, DownstreamSettings(fine_tune=phones), 0, "cpu").unavailable) == {
        "fine_tune_0.3min",
        "fine_tune_0.6min",
    }


def test_greedy_merges_and_drops_blanks():
    best = [0, 1, 1, 0, 1, 2, 2, 0]
    assert greedy(np.eye(3)[best], ["x", "y"]) == ["x", "x", "y"]
    assert greedy(np.eye(3)[[0, 0]], ["x", "y"]) == []


def test_loss_is_that_of_all_paths():
    log_probs = torch.randn(1, 3, 3).log_softmax(-1)
    paths = [[1, 2, 2], [1, 1, 2], [0, 1, 2], [1, 0, 2], [1, 2, 0]]
    total = torch.logsumexp(torch.stack([sum(log_probs[0, t, s] for t, s in enumerate(path)) for path in paths]), 0)
    got = ctc_loss(log_probs, torch.tensor([3]), [["x", "y"]], {"x": 1, "y": 2})
    assert got.item() == pytest.approx(-total.item() / 2, rel=1e-5)


def test_too_few_frames():
    assert not too_few_frames(3, ["x", "x"]) and too_few_frames(2, ["x", "x"])
