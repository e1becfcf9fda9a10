import importlib
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from sslrepro.config import (
    DownstreamSettings,
    EncoderSettings,
    FineTuneSettings,
    LabelShare,
    LanguageModelSettings,
    LogMelConvFrontEnd,
    LogMelFrontEnd,
    ModelSettings,
    PositionSettings,
)
from sslrepro.data.corpus import Corpus
from sslrepro.downstream import fine_tune, score
from sslrepro.downstream.ctc import ctc_loss, greedy, too_few_frames
from sslrepro.models.upstream import Upstream

ENCODER = EncoderSettings(layers=1, width=32, ffn=64, heads=2, dropout=0.0, layer_drop=0.2, position=PositionSettings(kernel=8, groups=4))
SETTINGS = FineTuneSettings(symbols="phones", batch_seconds=20.0, micro_batch_seconds=10.0, learning_rate=1.0e-2, freeze=0.1)
MINUTES = 0.9


def errors(metrics):
    """Without what the fine-tuning cost."""
    return {name: value for name, value in metrics.items() if not name.startswith("cost.")}


def updates(count):
    return LabelShare(minutes=MINUTES, updates=count)


def upstream(front=None):
    torch.manual_seed(0)
    return Upstream(ModelSettings(front_end=front or LogMelFrontEnd(mels=20), encoder=ENCODER))


def test_it_learns_the_phones(corpus):
    model = upstream()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tuned, result = fine_tune(model, corpus, SETTINGS, updates(60), 0, "cpu")
    assert result.metrics["fine_tune_0.9min.per"] < 0.2
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    rows = result.speakers
    assert sum(r[2] for r in rows) / sum(r[3] for r in rows) == pytest.approx(result.metrics["fine_tune_0.9min.per"])
    audio = corpus.audio(int(corpus.split("train").index[0]))
    alone, padded = tuned.transcribe([audio])[0], tuned.transcribe([audio, np.tile(audio, 2)])[0]
    assert alone == padded and set(alone) <= set("abcde")


def test_what_is_frozen_stays(corpus):
    model = upstream(LogMelConvFrontEnd(mels=20, channels=[16, 16]))
    settings = SETTINGS.model_copy(update={"freeze": 0.5})
    tuned, _ = fine_tune(model, corpus, settings, updates(2), 0, "cpu")
    late, _ = fine_tune(model, corpus, settings.model_copy(update={"freeze": 1.0}), updates(2), 0, "cpu")
    old = model.state_dict()
    changed = {name for name, tensor in tuned.upstream.state_dict().items() if not torch.equal(tensor, old[name])}
    assert any(name.startswith("encoder.layers") for name in changed)
    assert not any(name.startswith(("front_end", "feature_norm")) for name in changed)
    assert all(torch.equal(tensor, old[name]) for name, tensor in late.upstream.state_dict().items())


def test_a_seed_repeats_and_masks_matter(corpus):
    plain = SETTINGS.model_copy(update={"learning_rate": 1e-3, "mask": SETTINGS.mask.model_copy(update={"share": 0.0})})
    one, two = (fine_tune(upstream(), corpus, plain, updates(3), 5, "cpu")[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    settings = SETTINGS.model_copy(update={"learning_rate": 1e-3})
    masked = fine_tune(upstream(), corpus, settings, updates(3), 5, "cpu")[0].state_dict()
    assert not torch.equal(one["out.weight"], masked["out.weight"])


SHARES = [LabelShare(minutes=0.3, updates=1), LabelShare(minutes=0.6, updates=2, snapshots=True)]


def test_scores_hold_each_share_of_the_labels(corpus, silent):
    settings = DownstreamSettings(fine_tune=FineTuneSettings(shares=SHARES, batch_seconds=5.0, micro_batch_seconds=5.0))
    found = score(upstream(), silent, settings, seed=0, device="cpu")
    assert errors(found.metrics).keys() == {f"fine_tune_{m}min.{x}" for m in ("0.3", "0.6") for x in ("wer", "cer")}
    early = score(upstream(), silent, settings.at_snapshots(), 0, "cpu")
    assert errors(early.metrics) == {name: value for name, value in found.metrics.items() if name.startswith("fine_tune_0.6min")}
    phones = DownstreamSettings(fine_tune=settings.fine_tune.model_copy(update={"symbols": "phones"}))
    assert set(score(upstream(), silent, phones, 0, "cpu").unavailable) == {"fine_tune_0.3min", "fine_tune_0.6min"}


def test_each_share_has_its_own_updates(corpus, monkeypatch):
    rates = []
    module = importlib.import_module("sslrepro.downstream.fine_tune")  # the package has the function under this name
    monkeypatch.setattr(module, "learning_rate", lambda schedule, peak, progress, updates: rates.append((progress, updates)) or peak)
    settings = FineTuneSettings(shares=SHARES, batch_seconds=5.0, micro_batch_seconds=5.0)
    score(upstream(), corpus, DownstreamSettings(fine_tune=settings), 0, "cpu")
    assert rates == [(0.5, 1), (0.25, 2), (0.75, 2)]


def test_the_same_minutes_twice_are_refused():
    with pytest.raises(ValueError, match="the same minutes twice"):
        FineTuneSettings(shares=[SHARES[0], SHARES[0]])


def test_a_language_model_reads_beside_and_parts_of_the_test_split_count_alone(folder, corpus, tmp_path):
    """One test voice's file lies in test-other, the others in test-clean, however deep."""
    (tmp_path / "in").mkdir()
    (tmp_path / "test-clean").symlink_to(folder), (tmp_path / "in" / "test-other").symlink_to(folder)
    table = pd.read_csv(folder / "manifest.tsv", sep="\t", keep_default_na=False)
    test = table["split"] == "test"
    places = np.where(table["speaker"] == table[test]["speaker"].iloc[0], "in/test-other/", "test-clean/")
    table["path"] = np.where(test, places + table["path"], str(folder) + "/" + table["path"])
    table.to_csv(tmp_path / "manifest.tsv", sep="\t", index=False)
    for name in ("alignment.tsv", "trials.tsv", "corpus.json"):
        shutil.copy(folder / name, tmp_path / name)
    settings = SETTINGS.model_copy(update={"lm": LanguageModelSettings(order=3, beam=8, weight=1.0)})
    metrics, rows = (lambda r: (errors(r.metrics), r.speakers))(fine_tune(upstream(), Corpus(tmp_path), settings, updates(25), 0, "cpu")[1])
    name = "fine_tune_0.9min.per"
    assert set(metrics) == {name + lm + part for lm in ("", "_lm") for part in ("", "_clean", "_other")}
    for metric, value in metrics.items():
        mine = [row for row in rows if row[0] == metric]
        assert value == pytest.approx(sum(r[2] for r in mine) / sum(r[3] for r in mine))
        assert len(mine) == {"clean": 2, "other": 1}.get(metric.rpartition("_")[2], 3)
    assert metrics[name + "_lm"] < metrics[name] < 0.9  # half learned: there the words help


def test_greedy_merges_and_drops_blanks():
    best = [0, 1, 1, 0, 1, 2, 2, 0]
    assert greedy([np.eye(3)[best]], ["x", "y"]) == [["x", "x", "y"]]
    assert greedy([np.eye(3)[[0, 0]]], ["x", "y"]) == [[]]


def test_loss_is_that_of_all_paths():
    log_probs = torch.randn(1, 3, 3).log_softmax(-1)
    paths = [[1, 2, 2], [1, 1, 2], [0, 1, 2], [1, 0, 2], [1, 2, 0]]
    total = torch.logsumexp(torch.stack([sum(log_probs[0, t, s] for t, s in enumerate(path)) for path in paths]), 0)
    got = ctc_loss(log_probs, torch.tensor([3]), [["x", "y"]], {"x": 1, "y": 2})
    assert got.item() == pytest.approx(-total.item() / 2, rel=1e-5)


def test_too_few_frames():
    assert not too_few_frames(3, ["x", "x"]) and too_few_frames(2, ["x", "x"])


def test_a_class_is_learned_where_it_is_heard(corpus):
    settings = SETTINGS.model_copy(update={"symbols": "keyword"})
    tuned, result = fine_tune(upstream(), corpus, settings, updates(60), 0, "cpu")
    assert result.metrics["fine_tune_0.9min.error"] < 0.4, "a third of the utterances have each keyword"
    assert sum(r[3] for r in result.speakers) == len(corpus.split("test"))
    audio = corpus.audio(int(corpus.split("train").index[0]))
    alone, padded = tuned.transcribe([audio])[0], tuned.transcribe([audio, np.tile(audio, 2)])[0]
    assert alone == padded and len(alone) <= 1


def test_a_class_has_its_largest_score_and_costs_its_cross_entropy(corpus):
    module = importlib.import_module("sslrepro.downstream.fine_tune")
    model = module.ClassModel(upstream(), ["x", "y"]).eval()
    waveforms = torch.randn(2, 8_000, generator=torch.Generator().manual_seed(0))
    log_probs, lengths = model(waveforms, torch.tensor([8_000, 5_000]))
    assert log_probs.shape == (2, 1, 3) and lengths.tolist() == [1, 1]
    short = model.out(model.upstream(waveforms[1:, :5_000]).output)[0].amax(0)
    torch.testing.assert_close(log_probs[1, 0], short.log_softmax(-1))
    loss = ctc_loss(log_probs, lengths, [["x"], ["y"]], {"x": 1, "y": 2})
    wanted = torch.nn.functional.cross_entropy(log_probs[:, 0], torch.tensor([1, 2]), reduction="sum")
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)


def test_a_class_is_no_text():
    with pytest.raises(ValueError, match="a class is no text"):
        FineTuneSettings(symbols="intent", lm=LanguageModelSettings())
