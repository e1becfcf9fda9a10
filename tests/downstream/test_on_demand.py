"""A model with sampled compression, fine-tuned once: scored at every choice, kept in its run, and read within a time budget."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.functional import edit_distance

from sslrepro.cli import main
from sslrepro.config import (
    CellSettings,
    CompressionSettings,
    DownstreamSettings,
    EncoderSettings,
    Factors,
    FineTuneSettings,
    LabelShare,
    LogMelFrontEnd,
    ModelSettings,
    NoObjective,
    PositionSettings,
)
from sslrepro.data.corpus import Validation
from sslrepro.downstream import score
from sslrepro.downstream.fine_tune import _labelled
from sslrepro.downstream.kept import load_kept
from sslrepro.downstream.on_demand import Dial, transcribe
from sslrepro.errors import UserError
from sslrepro.models.upstream import Upstream

COMPRESSION = CompressionSettings(kind="stochastic", squeeze=2, squeeze_factors=[1, 2], query_factors=[1], key_value_factors=[1, 2])
ENCODER = EncoderSettings(
    layers=1, width=32, ffn=64, heads=2, dropout=0.0, compression=COMPRESSION, position=PositionSettings(kernel=8, groups=4)
)
TUNE = FineTuneSettings(
    symbols="phones", batch_seconds=20.0, micro_batch_seconds=10.0, learning_rate=1.0e-2, freeze=0.0, keep=True,
    shares=[LabelShare(minutes=0.9, updates=6)],
)  # fmt: skip
SETTINGS = CellSettings(
    model=ModelSettings(front_end=LogMelFrontEnd(mels=20), encoder=ENCODER),
    objective=NoObjective(),
    downstream=DownstreamSettings(fine_tune=TUNE),
)
NAME, CHOSEN_BY = "fine_tune_0.9min.per", "fine_tune_0.9min_valid.per"
CHOICES = [f"s{s}-q1-k{k}" for s in (1, 2) for k in (1, 2)]


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    """A finished run, with what it kept."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    upstream = Upstream(SETTINGS.model)
    scores = score(upstream, corpus, SETTINGS.downstream, 0, "cpu")
    scores.write(folder)
    (folder / "metrics.json").write_text(json.dumps(scores.metrics | {"status": "completed"}))
    (folder / "settings.json").write_text(json.dumps({"cell": SETTINGS.model_dump(mode="json")}))
    (folder / "model.safetensors").write_bytes(b"")
    return folder, scores


@pytest.fixture
def audio(corpus, tmp_path):
    files = []
    for place, row in enumerate(corpus.split("test").index[:2]):
        files.append(tmp_path / f"{place}.wav")
        soundfile.write(files[-1], np.tile(corpus.audio(int(row)), 1 + 3 * place), 16_000)
    return files


def test_one_fine_tuning_is_scored_at_every_choice(run):
    _, scores = run
    errors = {name: value for name, value in scores.metrics.items() if name.startswith(NAME)}
    assert set(errors) == {NAME} | {f"{NAME}:{choice}" for choice in CHOICES}
    assert errors[NAME] == errors[f"{NAME}:s2-q1-k1"], "what the settings run at"
    assert len(set(errors.values())) > 1
    for name, value in errors.items():
        mine = [row for row in scores.speakers if row[0] == name]
        assert sum(row[2] for row in mine) / sum(row[3] for row in mine) == pytest.approx(value)


def test_factors_are_chosen_by_the_validation_split(run, corpus):
    """Its errors are those of the model that is kept, on that split; the test split's are not looked at."""
    folder, scores = run
    chosen_by = Dial(folder).errors
    assert {str(factors): error for factors, error in chosen_by.items()} == {c: scores.metrics[f"{CHOSEN_BY}:{c}"] for c in CHOICES}
    model, _ = load_kept(folder)
    model.upstream.set_compression(2, 1, 2)
    rows = corpus.split("valid").index.tolist()
    said = [list(words) for words in _labelled(Validation(corpus.folder), TUNE, 0.9).labels.items()]
    said = {row: phones for row, phones in said if row in rows}
    read = {row: model.transcribe([corpus.audio(row)])[0] for row in said}
    errors = sum(edit_distance(read[row], phones) for row, phones in said.items()) / sum(map(len, said.values()))
    assert chosen_by[Factors(2, 1, 2)] == pytest.approx(errors, abs=2e-3)  # batches of several are padded: sums in another order
    assert not any(row[0].startswith(CHOSEN_BY) for row in scores.speakers), "no verdict is made of it"


def test_the_kept_model_is_the_scored_one(run, corpus):
    folder, scores = run
    model, minutes = load_kept(folder)
    assert minutes == 0.9 and not model.training
    theirs = scores.models[0.9]
    wave = corpus.audio(int(corpus.split("test").index[0]))
    for factors in model.upstream.choices:
        for each in (model, theirs):
            each.upstream.set_compression(*factors)
        assert np.array_equal(model.log_probs([wave])[0], theirs.log_probs([wave])[0])
    assert model.symbols == theirs.symbols


def test_the_least_error_within_the_budget(run):
    dial = Dial(run[0])
    dial.lengths = [1.0, 3.0]
    quick, slow, best = Factors(2, 1, 2), Factors(1, 1, 1), Factors(2, 1, 1)
    dial.errors = {slow: 0.3, best: 0.2, quick: 0.4, Factors(1, 1, 2): 0.2}
    dial.times = {slow: [0.010, 0.030], best: [0.008, 0.016], quick: [0.002, 0.004], Factors(1, 1, 2): [0.009, 0.018]}
    assert dial.expected(2.0, slow) == pytest.approx(0.020)
    assert dial.pick(2.0, 0.050) == best, "the quicker of two equals, though the slowest would fit"
    assert dial.pick(3.0, 0.0159) == quick
    with pytest.raises(UserError, match=r"a\.wav: 3 ms is too little for 3\.0 s .* the quickest choice, s2-q1-k2, takes 4 ms"):
        dial.pick(3.0, 0.003, "a.wav")


def test_the_command_says_what_it_picked(run, audio, capsys):
    folder, scores = run
    assert main(["transcribe", str(folder), *map(str, audio), "--budget-ms", "60000", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    least = min(value for name, value in scores.metrics.items() if name.startswith(CHOSEN_BY + ":"))
    assert told["metric"] == CHOSEN_BY and {choice["factors"] for choice in told["choices"]} == set(CHOICES)
    for file in told["files"]:
        assert file["expected_error"] == least and file["met"] and 0 < file["expected_ms"] < 60_000
    assert told["files"][1]["seconds"] == pytest.approx(4 * told["files"][0]["seconds"], rel=0.5)
    assert all(len(choice["calibrated_ms"]) == 3 for choice in told["choices"])
    assert main(["transcribe", str(folder), str(audio[0]), "--rtf", "1000"]) == 0
    said = capsys.readouterr().out
    assert "picked s" in said and "expected PER" in said and said.startswith(str(audio[0]))


def test_mistakes_are_named(run, audio, tmp_path, capsys):
    folder = run[0]

    def refused(*arguments: str) -> str:
        assert main(["transcribe", *arguments]) == 2
        return capsys.readouterr().err

    assert "is too little for" in refused(str(folder), str(audio[0]), "--budget-ms", "0.0001")
    assert "above 0" in refused(str(folder), str(audio[0]), "--rtf", "-1")
    assert "not readable" in refused(str(folder), str(tmp_path / "none.wav"), "--rtf", "1")
    (tmp_path / "text.wav").write_text("no audio")
    assert "text.wav: not readable as audio" in refused(str(folder), str(tmp_path / "text.wav"), "--rtf", "1")
    soundfile.write(tmp_path / "long.wav", np.zeros(41 * 16_000), 16_000)
    assert "long.wav: 41 s of audio; cut it" in refused(str(folder), str(tmp_path / "long.wav"), "--rtf", "1")
    assert "not a finished run" in refused(str(tmp_path), str(audio[0]), "--rtf", "1")
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("ctc-*"))
    assert "no fine-tuned model was kept" in refused(str(bare), str(audio[0]), "--rtf", "1")
    with pytest.raises(UserError, match="one budget above 0"):
        transcribe(folder, audio)
