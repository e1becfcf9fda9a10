"""What is planted in the states is found, what is not there is not; rows agree with metrics; nothing depends on chance or memory."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from sslrepro.config import DownstreamSettings
from sslrepro.data.corpus import Corpus
from sslrepro.downstream import TASKS, Scores, available, score
from sslrepro.downstream.convolutional import ECAPA, ContextNet, ECAPAEmbedding
from sslrepro.downstream.ctc import OneHidden, Padded
from sslrepro.downstream.features import FrozenStates, frame_grid
from sslrepro.downstream.frames import frame_labels
from sslrepro.downstream.labels import Intervals, known_speakers
from sslrepro.downstream.probe import LayerMix, train_probe
from sslrepro.downstream.utterances import MeanRecurrent
from sslrepro.downstream.verification import DilatedSpeakerEmbedding, SpeakerEmbedding
from sslrepro.errors import UserError

HOURS = 0.045
SETTINGS = DownstreamSettings(
    tasks=["phone", "keyword", "keyword_mean", "speaker", "verification", "verification_tdnn"], updates=200, batch=8, train_hours=HOURS,
)  # fmt: skip


@pytest.fixture(scope="module")
def scores(corpus, fresh_planted):
    upstream = fresh_planted()
    return score(upstream, corpus, SETTINGS, seed=0, device="cpu"), upstream.calls


def test_what_is_planted_is_found(scores):
    metrics = scores[0].metrics
    assert metrics["phone.accuracy"] > 0.95  # the other state is noise, and its weight falls slowly
    assert metrics["keyword.accuracy"] > 0.8 > metrics["keyword_mean.accuracy"]  # at any one place: the mean hardly hears it
    assert metrics["speaker.accuracy"] == 1
    assert metrics["verification.eer"] < 0.1 and metrics["verification_tdnn.eer"] < 0.1


def test_the_dilated_head_hears_no_neighbour_in_its_batch_and_more_than_a_frame():
    torch.manual_seed(0)
    head, lengths = DilatedSpeakerEmbedding(8, 3), np.array([9, 30, 17])
    x = torch.randn(int(lengths.sum()), 8)
    together = head(x, lengths)
    for embedding, part in zip(together, x.split(lengths.tolist()), strict=True):
        torch.testing.assert_close(embedding, head(part, np.array([len(part)]))[0])
    torch.testing.assert_close(SpeakerEmbedding.frames(head, x, lengths), x)  # the other head pools single frames
    turned = torch.cat([part.flip(0) for part in x.split(lengths.tolist())])
    assert (head(turned, lengths) - together).abs().min() > 1e-6


HEADS = {  # MP3S's second heads, and the classes, dimensions or, for CTC, classes of each frame that they give
    "asr_conv": lambda: Padded(ContextNet(8, 5, 16)),
    "asr_linear": lambda: Padded(OneHidden(8, 5, 16)),
    "intent_lstm": lambda: MeanRecurrent(8, 5, 16),
    "emotion_ecapa": lambda: ECAPA(8, 5, 16),
    "verification_ecapa": lambda: ECAPAEmbedding(8, 3, 16),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_second_head_hears_no_neighbour_in_its_batch(name):
    """Scored beside longer ones, an utterance has the score that it has alone; what the norms learned is of true frames alone."""
    torch.manual_seed(0)
    head, lengths = HEADS[name](), np.array([9, 30, 17])
    pieces = torch.randn(int(lengths.sum()), 8).split(lengths.tolist())
    head(torch.cat(pieces), lengths).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)
    norms = [m for m in head.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    assert bool(norms) == (name in ("asr_conv", "emotion_ecapa", "verification_ecapa"))
    together = head.eval()(torch.cat(pieces), lengths)
    assert together.shape == ((3, 30, 5) if name.startswith("asr") else (3, 16 if name.startswith("verification") else 5))
    for scored, piece in zip(together, pieces, strict=True):
        alone = head(piece, np.array([len(piece)]))[0]
        torch.testing.assert_close(scored[: len(piece)] if name.startswith("asr") else scored, alone)


def test_batch_norms_learn_from_true_frames_alone():
    torch.manual_seed(0)
    head, lengths = ContextNet(8, 5, 16), torch.tensor([9, 30])
    padded = torch.randn(2, 30, 8)
    padded[0, 9:] = 0
    head(padded, lengths)
    norm = head.first.norm
    own = torch.cat([head.first.pointwise(head.first.depthwise(padded[i : i + 1, :n].mT))[0] for i, n in enumerate(lengths)], dim=1)
    torch.testing.assert_close(norm.running_mean, 0.1 * own.mean(1))


def test_the_second_heads_at_mp3s_size():
    """Shapes of its recipes: 21 blocks of 256 and 512 channels and 640 at the end; 512 channels and 1536; both on states of 768."""
    with torch.device("meta"):
        net, speakers = ContextNet(768, 30, 512), ECAPAEmbedding(768, 1211, 512)
    assert [block.layers[-1].pointwise.out_channels for block in net.blocks] == [256] * 10 + [512] * 11
    assert {len(block.layers) for block in net.blocks} == {5} and (net.out.in_features, net.out.out_features) == (640, 30)
    assert [block.parts[0].conv.dilation for block in speakers.blocks] == [(2,), (3,), (4,)] and len(speakers.blocks[0].parts) == 7
    assert (speakers.merge.conv.out_channels, speakers.out.out_features, speakers.voices.shape) == (1536, 512, (1211, 512))


def test_a_margin_is_of_the_right_voice_alone():
    head = ECAPAEmbedding(8, 2, 8)
    with torch.no_grad():
        head.voices.copy_(torch.eye(2, 8))
    embeddings, angle = torch.tensor([[2.0, 0.0] + [0.0] * 6]), 0.2
    wanted = torch.tensor([[math.cos(angle), 0.0]]) * 30
    torch.testing.assert_close(head.loss(embeddings, torch.tensor([0])), wanted.logsumexp(1)[0] - wanted[0, 0], rtol=1e-3, atol=1e-3)


def test_layers_may_have_a_rate_of_their_own(corpus, planted):
    """At a rate too small to move anything the weights stay where they began; null is the head's rate."""
    rows = np.arange(8)
    frozen = FrozenStates(planted, corpus, rows, torch.device("cpu"))

    def trained(**rates):
        settings = DownstreamSettings(tasks=["phone"], updates=5, batch=4, **rates)
        return train_probe(TASKS["phone"], 2, frozen, rows, settings, 0, lambda probe, batch: probe(frozen.states(batch)).var())

    still, alike, plain = trained(mix_learning_rate=1e-12), trained(mix_learning_rate=3e-2), trained()
    assert still.mix.scores.abs().max() < 1e-9 < plain.mix.scores.abs().max()
    assert torch.equal(alike.mix.scores, plain.mix.scores) and torch.equal(alike.head.weight, plain.head.weight)


def test_a_linear_head_reads_phones(corpus, planted):
    planted.voices.zero_()  # five voices are too few to learn what to ignore in others
    settings = DownstreamSettings(tasks=["phone_ctc"], updates=200, batch=8, train_hours=HOURS, learning_rate=5.0e-2)
    assert score(planted, corpus, settings, seed=0, device="cpu").metrics["phone_ctc.per"] < 0.1


def test_the_bilstm_learns_to_spell(corpus, planted):
    settings = DownstreamSettings(tasks=["asr"], updates=220, batch=8, train_hours=HOURS, lstm_width=32)
    found = score(planted, corpus, settings, seed=0, device="cpu")
    assert found.metrics["asr.cer"] < 0.2 and found.metrics["asr.wer"] < 0.7
    assert {row[0] for row in found.speakers} == {"asr.cer", "asr.wer"}


def test_contextnet_learns(monkeypatch):
    """A class of each frame; narrow, and so without dropout."""
    monkeypatch.setattr("sslrepro.downstream.convolutional.DROPOUT", 0.0)
    torch.manual_seed(0)
    head, lengths, losses = ContextNet(6, 6, 32), torch.tensor([60, 41, 33, 60]), []
    own = torch.arange(60) < lengths[:, None]
    optimizer = torch.optim.Adam(head.parameters(), lr=3.0e-3)
    for _ in range(40):
        wanted = torch.randint(6, (4, 15)).repeat_interleave(4, 1)
        states = (torch.eye(6)[wanted] + 0.3 * torch.randn(4, 60, 6)) * own[..., None]
        losses.append(torch.nn.functional.cross_entropy(head(states, lengths)[own], wanted[own]))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert sum(losses[-5:]) / 5 < 1.2 < 1.7 < losses[0]


@pytest.mark.parametrize(("name", "rate", "updates", "enough"), [
    ("asr_linear", 3.0e-2, 600, ("asr_linear.cer", 0.1)), ("intent_lstm", 3.0e-2, 150, ("intent_lstm.accuracy", 0.5)),
    ("verification_ecapa", 3.0e-3, 10, ("verification_ecapa.eer", 0.1)),
])  # fmt: skip
def test_the_second_heads_learn(corpus, planted, name, rate, updates, enough):
    settings = DownstreamSettings(
        tasks=[name], updates=updates, batch=8, train_hours=HOURS, lstm_width=64 if name == "asr_linear" else 16, conv_width=8,
        learning_rate=rate, learning_rates={},
    )  # fmt: skip
    metric, bound = enough
    value = score(planted, corpus, settings, seed=0, device="cpu").metrics[metric]
    assert value > bound if metric.endswith("accuracy") else value < bound


def test_one_extraction_serves_all_tasks(scores, corpus, planted):
    FrozenStates(planted, corpus, np.arange(len(corpus)), torch.device("cpu"))
    assert scores[1] <= planted.calls


def test_a_constant_upstream_gets_the_majority(corpus, ignorant):
    settings = DownstreamSettings(tasks=["phone", "speaker", "verification"], updates=60, train_hours=HOURS)
    metrics = score(ignorant, corpus, settings, seed=0, device="cpu").metrics
    data = TASKS["phone"].data(corpus, settings)
    names = [data.labels[row].names.repeat((data.labels[row].ends - data.labels[row].starts) // 320) for row in data.test.tolist()]
    counts = pd.Series(np.concatenate(names)).value_counts(normalize=True)
    assert metrics["phone.accuracy"] == pytest.approx(counts.iloc[0], abs=0.005)
    assert metrics["speaker.accuracy"] <= 0.4
    assert metrics["verification.eer"] == pytest.approx(0.5, abs=0.05)  # cosines of 1, give or take a rounding


def test_rows_of_speakers_give_the_metrics(scores):
    rows = pd.DataFrame(scores[0].speakers, columns=["metric", "speaker", "errors", "units"])
    for metric, part in rows.groupby("metric"):
        rate = part["errors"].sum() / part["units"].sum()
        assert scores[0].metrics[metric] == pytest.approx(1 - rate if metric.endswith("accuracy") else rate)
        assert set(part["speaker"]) <= ({f"v{i}" for i in range(5)} if metric == "speaker.accuracy" else {"v5", "v6", "v7"})
    assert set(rows["metric"]) == set(scores[0].metrics) - {"verification.eer", "verification_tdnn.eer"}


def test_trials_give_the_equal_error_rate(scores, corpus):
    from sslrepro.downstream.metrics import equal_error_rate

    trials = pd.DataFrame(scores[0].trials, columns=["metric", "speaker", "score", "same"])
    for metric in ("verification.eer", "verification_tdnn.eer"):
        mine = trials[trials.metric == metric]
        assert len(mine) == len(corpus.trials("test"))
        assert scores[0].metrics[metric] == pytest.approx(equal_error_rate(mine["score"], mine["same"]))


def test_a_seed_gives_its_scores_again_and_another_others(corpus, planted):
    settings = DownstreamSettings(tasks=["phone", "keyword"], updates=5, batch=4, train_hours=HOURS)
    torch.manual_seed(1)
    first = score(planted, corpus, settings, seed=3, device="cpu")
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert score(planted, corpus, settings, seed=3, device="cpu") == first
    assert torch.equal(torch.get_rng_state(), state)
    assert score(planted, corpus, settings, seed=4, device="cpu") != first


def test_states_that_do_not_fit_are_computed_again_with_the_same_numbers(corpus, planted):
    rows = np.arange(7)
    kept = FrozenStates(planted, corpus, rows, torch.device("cpu"))
    streamed = FrozenStates(planted, corpus, rows, torch.device("cpu"), limit=kept.bytes - 1)
    assert kept.stored and not streamed.stored
    some = np.array([5, 1, 6])
    known = slice(0, 6)  # the phones: the rest is noise drawn by the batch's shape
    picked = [s.states(some)[:, 1, known].float().argmax(-1) for s in (kept, streamed)]
    assert torch.equal(*picked)
    assert len(kept.states(some)) == kept.frames(some).sum() == len(streamed.states(some))


def test_a_corpus_without_labels_says_why(silent, planted):
    settings = DownstreamSettings(tasks=list(TASKS), updates=2, train_hours=HOURS, lstm_width=4, conv_width=8)
    found = score(planted, silent, settings, seed=0, device="cpu")
    spelt = {"asr", "asr_conv", "asr_linear"}
    assert set(found.metrics) == {f"{task}.{rate}er" for task in spelt for rate in "wc"} | {"speaker.accuracy"}
    assert set(found.unavailable) == set(TASKS) - spelt - {"speaker"}
    assert "phone times" in available("phone", silent, settings) and "trials" in available("verification", silent, settings)
    assert available("asr", silent, settings) is None


def test_a_task_that_does_not_exist(corpus):
    with pytest.raises(UserError, match=r"no task 'phones'.*verification"):
        available("phones", corpus, DownstreamSettings())


def test_speakers_are_tested_on_utterances_that_were_not_learned(corpus):
    small, large = (known_speakers(corpus, DownstreamSettings(train_hours=hours)) for hours in (HOURS / 2, HOURS))
    for data in (small, large):
        assert not set(data.train) & set(data.test)
        assert {data.labels[row] for row in data.test} <= set(data.classes)
    assert set(small.train) | set(small.test) < set(large.train) | set(large.test)


def test_labels_of_frames_are_those_at_their_middle():
    phones = Intervals(np.array([0, 500]), np.array([400, 900]), np.array(["x", "unknown"]))
    got = frame_labels(phones, {"x": 0}, frames=4, hop=320, centre=200.0)  # 200, 520, 840, 1160
    assert got.tolist() == [0, 1, 1, -1]


def test_the_grid_of_wav2vec_frames():
    from sslrepro.config import ModelSettings, WaveformFrontEnd
    from sslrepro.models.upstream import Upstream

    front = WaveformFrontEnd(channels=[8] * 7)
    assert frame_grid(Upstream(ModelSettings(front_end=front, encoder=None))) == (320, 200.0)


def test_layers_start_uniform_and_states_are_standardised():
    x = torch.tensor([[[2.0], [10.0]], [[4.0], [30.0]]])
    assert LayerMix(2)(x).squeeze().tolist() == [6.0, 17.0]
    moments = (torch.tensor([[3.0], [20.0]]), torch.tensor([[1.0], [10.0]]))
    assert LayerMix(2, moments)(x).squeeze().tolist() == [-1.0, 1.0]


def test_states_that_are_not_finite_are_an_error(corpus, planted):
    planted.voices[:] = torch.inf
    with pytest.raises(UserError, match="not finite"):
        score(planted, corpus, DownstreamSettings(tasks=["phone"], train_hours=HOURS), seed=0, device="cpu")


def test_scores_add_up_and_are_written(tmp_path):
    one = Scores({"a.accuracy": 0.5}, [("a.accuracy", "v", 1.0, 2.0)], [], {})
    both = one.at("@0.5") + one + Scores({}, [], [("verification.eer", "v", 0.1, 1)], {"b": "no labels"})
    both.write(tmp_path)
    assert list(pd.read_csv(tmp_path / "speakers.csv")["metric"]) == ["a.accuracy@0.5", "a.accuracy"]
    assert list(pd.read_csv(tmp_path / "trials.csv")) == ["metric", "speaker", "score", "same"]
    assert both.unavailable == {"b": "no labels"}


def test_an_emotion_that_is_heard_all_along_is_found(folder, planted, tmp_path):
    """The corpus with a column `emotion`, which the voice tells."""
    table = pd.read_csv(folder / "manifest.tsv", sep="\t", keep_default_na=False)
    table["emotion"] = table["speaker"].map(lambda voice: "loud" if voice in ("v3", "v4", "v7") else "low")
    table = table[~table["speaker"].isin(["v5", "v6", "v7"])].reset_index(drop=True)
    table.loc[table.index % 4 == 3, "split"] = "test"  # of the voices that are known
    for name in ("alignment", "trials", "corpus"):
        path = next(folder.glob(f"{name}.*"))
        (tmp_path / path.name).write_text(path.read_text())
    table.to_csv(tmp_path / "manifest.tsv", sep="\t", index=False)
    (tmp_path / "corpus.json").write_text((folder / "corpus.json").read_text().replace('"."', f'"{folder}"'))
    settings = DownstreamSettings(tasks=["emotion"], updates=100, batch=8, train_hours=None)
    found = score(planted, Corpus(tmp_path), settings, seed=0, device="cpu")
    assert found.metrics == {"emotion.accuracy": 1.0} and not found.unavailable
    assert {metric for metric, *_ in found.speakers} == {"emotion.accuracy"}
