"""SUPERB's recipes for probes: constant rates, selection by validation, slots, folds, folders, its heads, batches and SpecAugment."""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from sslrepro.config import DownstreamSettings, LabelledFolders
from sslrepro.config.base import parse
from sslrepro.data.corpus import Corpus
from sslrepro.downstream import TASKS, ctc, labels, probe, score, utterances
from sslrepro.downstream.ctc import END, BiLSTM, SuperbBiLSTM
from sslrepro.downstream.features import FrozenStates
from sslrepro.downstream.spec_augment import DIM_WIDTH, TIME_WIDTH, spec_augment
from sslrepro.downstream.task import Labelled, TaskResult, Unavailable
from sslrepro.downstream.verification import XVector
from sslrepro.errors import UserError

NO_ROWS = np.empty(0, dtype=np.int64)


def changed(folder, target, change) -> Corpus:
    """The corpus with another manifest."""
    table = change(pd.read_csv(folder / "manifest.tsv", sep="\t", keep_default_na=False))
    for name in ("alignment.tsv", "trials.tsv"):
        (target / name).write_text((folder / name).read_text())
    (target / "corpus.json").write_text((folder / "corpus.json").read_text().replace('"."', f'"{folder}"'))
    table.to_csv(target / "manifest.tsv", sep="\t", index=False)
    return Corpus(target)


class OneFrame:
    """States of one frame and one layer: the row's number, twice."""

    layers, dim, device = 1, 2, torch.device("cpu")

    def __init__(self) -> None:
        speakers = pd.DataFrame({"speaker": ["v"] * 40})
        self.corpus, self.asked = SimpleNamespace(utterances=speakers, name=lambda row: f"u{row}"), []

    def states(self, rows):
        self.asked.append(rows.tolist())
        return torch.from_numpy(np.asarray(rows, dtype=np.float32))[:, None, None].expand(-1, 1, 2)

    def frames(self, rows):
        return np.ones(len(rows), dtype=np.int64)


def trained(settings: DownstreamSettings, error=None) -> tuple[probe.Probe, list[dict], list[float]]:
    """A linear probe on OneFrame, and its weights and rate after each update."""
    frozen, weights, rates = OneFrame(), [], []

    def loss(head, rows):
        return (head(frozen.states(rows)) ** 2).mean()

    def watched(optimizer, *_):
        rates.append(optimizer.param_groups[0]["lr"])
        weights.append([p.detach().clone() for group in optimizer.param_groups for p in group["params"]])

    hook = register_optimizer_step_post_hook(watched)
    try:
        found = probe.train_probe(TASKS["phone"], 3, frozen, np.arange(8), settings, 0, loss, error)
    finally:
        hook.remove()
    return found, weights, rates


def test_a_constant_rate_stays_and_a_linear_one_falls():
    plain = {"updates": 4, "batch": 2, "learning_rate": 0.5, "standardise": False}
    assert trained(DownstreamSettings(**plain, schedule="constant"))[2] == [0.5] * 4
    assert trained(DownstreamSettings(**plain))[2] == pytest.approx([0.4375, 0.3125, 0.1875, 0.0625])


def test_the_best_validation_head_is_returned_the_first_of_equals():
    settings = DownstreamSettings(updates=9, batch=2, select_every=2, standardise=False)
    errors, training = iter([0.5, 0.2, 0.2, 0.4]), []

    def error(head):
        training.append(head.training)
        return next(errors)

    found, weights, _ = trained(settings, error)
    assert not found.training and training == [False] * 4 and len(weights) == 9
    for parameter, kept, last in zip(found.parameters(), weights[3], weights[-1], strict=True):
        assert torch.equal(parameter, kept) and (parameter.numel() == 1 or not torch.equal(parameter, last))


def test_gradients_are_clipped_and_weights_decay():
    plain = {"updates": 1, "batch": 8, "learning_rate": 1.0e-3, "standardise": False}
    free, clipped = (trained(DownstreamSettings(**plain, clip_norm=clip))[1][0] for clip in (None, 1.0e-12))
    assert not all(torch.equal(a, b) for a, b in zip(free, clipped, strict=True))  # Adam's eps shows
    decayed = trained(DownstreamSettings(**plain, weight_decay=0.5))[1][0]
    assert not all(torch.equal(a, b) for a, b in zip(free, decayed, strict=True))


@pytest.mark.parametrize("task", ["phone", "keyword_mean", "phone_ctc", "asr"])
def test_validation_is_read_to_select_and_the_test_split_once(corpus, planted, monkeypatch, task):
    asked, states = [], FrozenStates.states
    monkeypatch.setattr(FrozenStates, "states", lambda self, rows: (asked.extend(np.asarray(rows).tolist()), states(self, rows))[1])
    settings = DownstreamSettings(tasks=[task], updates=6, batch=4, train_hours=0.01, lstm_width=4, standardise=False)
    splits = corpus.utterances["split"].to_numpy()
    for every, times in ((None, 0), (2, 3)):
        asked.clear()
        score(planted, corpus, settings.model_copy(update={"select_every": every}), seed=0, device="cpu")
        counts = pd.Series(asked).value_counts()
        of = {split: set(counts[splits[counts.index] == split]) for split in ("valid", "test")}
        assert of["test"] == {1} and of["valid"] == ({times} if times else set())
        assert (splits[counts.index] == "valid").sum() == (48 if times else 0)


def test_selection_without_validation_labels_says_so(corpus, folder, tmp_path):
    bare = changed(folder, tmp_path, lambda table: table.assign(keyword=table["keyword"].where(table["split"] != "valid", "")))
    settings = DownstreamSettings(tasks=["keyword"], select_every=5, train_hours=None)
    with pytest.raises(Unavailable, match="no validation utterance"):
        TASKS["keyword"].data(bare, settings)
    assert len(TASKS["keyword"].data(corpus, settings).valid) == 48
    assert not len(TASKS["keyword"].data(corpus, settings.model_copy(update={"select_every": None})).valid)


def test_three_slots_by_hand(monkeypatch):
    """Two actions, three objects, one location; the loss is the sum of three cross-entropies; right means all three."""
    said = ["on|lamp|hall", "off|lamp|hall", "on|tv|hall", "off|fan|hall", "on|lamp|attic", "on|fan|hall", "off|tv|hall"]
    data = Labelled(np.arange(4), np.arange(4, 7), {row: tuple(text.split("|")) for row, text in enumerate(said)}, [])
    scores = torch.randn(7, 2 + 3 + 1, generator=torch.Generator().manual_seed(0))
    # actions: off, on; objects: fan, lamp, tv; of 5 all is picked, of 6 the object is wrong, the location of 4 was never learned
    scores[4:] = torch.tensor([[0.0, 1, 0, 1, 0, 5], [0, 1, 1, 0, 0, 5], [1, 0, 0, 1, 0, 5]])
    outputs = {}

    def fake(task, width, frozen, rows, settings, seed, loss, error):
        outputs.update(width=width, loss=loss)
        return lambda states, lengths: scores[states[:, 0, 0].long()]

    monkeypatch.setattr(utterances, "train_probe", fake)
    found = utterances.utterance_accuracy(TASKS["intent_mean"], data, OneFrame(), DownstreamSettings(), 0)
    assert found.metrics == {"intent_mean.accuracy": pytest.approx(1 / 3)} and found.speakers == [("intent_mean.accuracy", "v", 2.0, 3.0)]
    assert outputs["width"] == 6
    loss = outputs["loss"](lambda states, lengths: scores[states[:, 0, 0].long()], np.array([0, 3]))
    rows = scores[[0, 3]]
    right = torch.tensor([[1, 1, 0], [0, 0, 0]])
    parts = [F.cross_entropy(part, right[:, i]) for i, part in enumerate((rows[:, :2], rows[:, 2:5], rows[:, 5:]))]
    torch.testing.assert_close(loss, sum(parts))


def test_slots_are_those_of_the_manifest(folder, tmp_path, planted):
    corpus = changed(folder, tmp_path, lambda table: table.assign(intent=table["intent"] + " | " + table["keyword"]))
    settings = DownstreamSettings(tasks=["intent"], updates=150, batch=8, train_hours=None)
    data = TASKS["intent"].data(corpus, settings)
    assert data.labels == {row: tuple(corpus.utterances["intent"][row].split(" | ")) for row in [*data.train.tolist(), *data.test.tolist()]}
    assert score(planted, corpus, settings, seed=0, device="cpu").metrics["intent.accuracy"] > 0.4  # of 4 x 3


@pytest.mark.parametrize("intent", ["on|lamp", "on||hall"])
def test_slots_that_do_not_fit_are_named(folder, tmp_path, intent):
    def change(table):
        table["intent"] = "on|lamp|hall"
        table.loc[5, "intent"] = intent
        return table

    with pytest.raises(UserError, match=rf"manifest.tsv: intent '{intent.replace('|', '[|]')}' of v0-5, 'on\|lamp\|hall' of v0-0: every"):
        TASKS["intent_mean"].data(changed(folder, tmp_path, change), DownstreamSettings(train_hours=None))


def with_folds(table: pd.DataFrame) -> pd.DataFrame:
    """Emotions by the voice; voices 0 to 4 are a fold each, in one split; the others have no emotion."""
    table["emotion"] = table["speaker"].map({"v0": "loud", "v1": "low", "v2": "loud", "v3": "low", "v4": "low"}).fillna("")
    table["fold"] = table["speaker"].where(table["emotion"] != "", "")
    return table


def test_each_fold_is_tested_once_by_a_head_of_the_others(folder, tmp_path):
    corpus = changed(folder, tmp_path, with_folds)
    data = TASKS["emotion"].data(corpus, DownstreamSettings(train_hours=None, select_every=5, folds=True))
    assert len(data.folds) == 5 * 48
    with pytest.raises(Unavailable, match="no test utterance"):  # by the splits
        TASKS["emotion"].data(corpus, DownstreamSettings(train_hours=None))
    frozen = SimpleNamespace(corpus=corpus)
    seen, accuracies = [], iter([1.0, 0.5, 0.5, 0.0, 0.25])

    def protocol(task, part, *_):
        seen.append(part)
        right, units = next(accuracies), len(part.test)
        rows = [("emotion.accuracy", str(corpus.utterances["speaker"][part.test[0]]), (1 - right) * units, float(units))]
        return TaskResult({"emotion.accuracy": right}, rows)

    data = data.within(np.array([row for row in range(len(corpus)) if row >= 40]))  # the first fold is smaller: its weight is not
    found = utterances.over_folds(protocol)(TASKS["emotion"], data, frozen, DownstreamSettings(), 0)
    assert found.metrics == {"emotion.accuracy": pytest.approx(0.45)}
    errors, units = (sum(row[i] for row in found.speakers) for i in (2, 3))
    assert errors / units == pytest.approx(1 - 0.45) and units == pytest.approx(8 + 4 * 48)
    assert np.concatenate([part.test for part in seen]).tolist() == data.train.tolist()
    for part in seen:
        fold = {data.folds[row] for row in part.test.tolist()}
        rest = np.concatenate([part.train, part.valid])
        assert len(fold) == 1 and fold.isdisjoint({data.folds[row] for row in rest.tolist()})
        assert sorted([*rest, *part.test]) == data.train.tolist() and len(part.train) == int(0.8 * len(rest)) and part.folds is None


def test_folds_are_scored_whatever_the_splits(folder, tmp_path, planted):
    settings = DownstreamSettings(tasks=["emotion"], updates=60, batch=8, train_hours=None, select_every=20, folds=True)
    found = score(planted, changed(folder, tmp_path, with_folds), settings, seed=0, device="cpu")
    assert {speaker for _, speaker, *_ in found.speakers} == {f"v{i}" for i in range(5)}
    errors, units = (sum(row[i] for row in found.speakers) for i in (2, 3))
    assert found.metrics["emotion.accuracy"] == pytest.approx(1 - errors / units)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.assign(fold=t["fold"].where(t.index != 7, "")), "v0-7 has an emotion, no fold"),
        (lambda t: t.assign(fold=t["fold"].where(t["fold"] == "", "one")), "all emotions are in one fold, 'one'"),
        (lambda t: t.drop(columns="fold"), r"the corpus has no folds \(manifest.tsv, fold\), which downstream.folds asks for"),
        (lambda t: t.drop(columns="emotion"), "the corpus has no emotions"),
    ],
)
def test_folds_that_cannot_be_are_named(folder, tmp_path, change, said):
    corpus = changed(folder, tmp_path, lambda table: change(with_folds(table)))
    with pytest.raises((UserError, Unavailable), match=said):
        TASKS["emotion"].data(corpus, DownstreamSettings(train_hours=None, folds=True))


def test_labels_of_some_folders_alone(folder, tmp_path):
    def change(table):
        kind = np.where(table.index % 2 == 0, "clean", "other")
        table["path"] = [f"{split}-{which}/x/{path}" for split, which, path in zip(table["split"], kind, table["path"], strict=True)]
        return table

    corpus = changed(folder, tmp_path, change)
    folders = {"train": ["train-clean"], "valid": ["valid-clean"], "test": ["test-clean"]}
    settings = DownstreamSettings(train_hours=None, select_every=1, folders=LabelledFolders(**folders))
    for task in ("asr", "phone_ctc", "keyword"):
        data = TASKS[task].data(corpus, settings)
        for split, rows in (("train", data.train), ("valid", data.valid), ("test", data.test)):
            wanted = (corpus.utterances["split"] == split) & (corpus.utterances.index % 2 == 0)
            assert rows.tolist() == np.flatnonzero(wanted).tolist()
    missing = settings.model_copy(update={"folders": LabelledFolders(test=["test-clean", "tset-other"])})
    with pytest.raises(
        Unavailable, match=r"downstream.folders.test: no utterance .* 'tset-other'; its folders: test-clean, test-other, x$"
    ):
        TASKS["asr"].data(corpus, missing)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tasks": ["asr"], "updates": 10, "select_every": 11}, "select_every: 11 is more than the 10 updates"),
        ({"tasks": ["phone", "speaker"], "select_every": 1}, "select_every: 'speaker' has no labels in the validation split"),
        ({"tasks": ["asr", "phone"], "spec_augment": True}, "spec_augment: it is for tasks read by CTC, and 'phone' is not one"),
        ({"tasks": ["keyword"], "lstm_layers": "dropped"}, "lstm_layers: .*'keyword' is not one"),
        ({"tasks": ["asr"], "batch": 20, "ctc_recipe": "s3prl_asr"}, "batch: 20 is not a multiple of 16"),
        ({"tasks": ["asr"], "crop_seconds": 8.0}, "crop_seconds: it is for tasks of verification, and 'asr' is not one"),
        ({"tasks": ["asr"], "folders": {"train": ["a"]}}, "folders.train: .* train_hours must be null"),
        ({"tasks": ["keyword"], "folds": True, "train_hours": None}, "folds: it is for tasks of emotion, and 'keyword' is not one"),
        ({"tasks": ["emotion"], "folds": True}, "folds: a head learns from all of the other folds"),
        ({"tasks": ["emotion"], "folds": True, "train_hours": None, "folders": {"test": ["a"]}}, "folds: a head learns from all of the"),
        ({"tasks": ["asr"], "folders": {"valid": ["a"]}}, "folders.valid: nothing is selected"),
        ({"tasks": ["verification"], "folders": {"test": ["a"]}}, "folders: 'verification' is not tested"),
        ({"tasks": ["asr"], "folders": {"test": []}}, "folders.test: .*at least 1 item"),
        ({"tasks": ["asr"], "schedule": "cosine"}, "schedule: .*'linear' or 'constant'"),
    ],
)
def test_settings_that_no_task_would_follow_are_named(given, said):
    with pytest.raises(UserError, match=said):
        parse(DownstreamSettings, given, "mine.yaml")


def test_buckets_are_neighbours_in_length():
    rows, sizes = np.arange(100, 120), np.arange(20)
    tiles = [ctc._buckets(np.arange(n), np.arange(n), np.arange(n), overlapping=False) for n in (59, 64, 20)]
    assert [[len(piece) for piece in pieces] for pieces in tiles] == [[16, 16, 27], [16] * 4, [20]]
    assert np.concatenate(tiles[0]).tolist() == list(range(58, -1, -1))
    windows = ctc._buckets(rows, sizes, sizes, overlapping=True)
    assert [piece[0] for piece in windows] == [119, 118, 117, 116, *[115] * 16] and {len(piece) for piece in windows} == {16}
    halved = ctc._buckets(rows, sizes, np.where(sizes == 19, 300_001, 1), overlapping=True)
    assert [len(piece) for piece in halved[:2]] == [8, 16]
    batches = list(probe._batches(rows, windows, 32, 3, (0, "order")))
    assert [len(batch) for batch in batches] == [32] * 3
    assert all(any(np.array_equal(half, piece) for piece in windows) for batch in batches for half in np.split(batch, 2))


@pytest.mark.parametrize(("recipe", "ends", "read"), [("plain", "", "abba"), ("s3prl_asr", f" {END}", "abba"), ("s3prl_ctc", END, "aba")])
def test_targets_end_as_in_the_recipe_and_what_is_read_has_no_end(monkeypatch, recipe, ends, read):
    """The frames say a, b, blank, b, a and, where there is one, the end."""
    closing = [*(" " if recipe == "s3prl_asr" else ""), *([END] if ends else [])]
    known, targets, frozen = ["a", "b"], [], OneFrame()
    frozen.corpus.samples, frozen.frames = (lambda row: 100), (lambda rows: np.full(len(rows), 9))
    symbols = [*known, *closing]
    places = [1 + symbols.index(s) if s else 0 for s in ["a", "b", "", "b", "a", *closing, *[""] * (4 - len(closing))]]

    def fake(task, width, frozen, rows, settings, seed, loss, error, wrap, buckets):
        assert width == 1 + len(symbols) and (buckets is None) == (recipe == "plain")
        picked = torch.eye(width)[places]

        def head(states, lengths):
            return picked.expand(len(lengths), -1, -1)

        monkeypatch.setattr(ctc, "ctc_loss", lambda scores, lengths, references, code: targets.extend(references) or torch.zeros(()))
        loss(head, rows)
        return head

    monkeypatch.setattr(ctc, "train_probe", fake)
    data = Labelled(np.array([0]), np.array([1]), {0: list("ab"), 1: list("abba")}, known)
    settings = DownstreamSettings(ctc_recipe=recipe)
    found = TASKS["phone_ctc"].protocol(TASKS["phone_ctc"], data, frozen, settings, 0)
    assert targets == [["a", "b", *closing]]
    assert found.metrics["phone_ctc.per"] == (4 - len(read)) / 4 + (recipe == "s3prl_asr") / 4  # phones have no spaces to be dropped


def test_superbs_lstm_is_torchs_with_more_dropout():
    torch.manual_seed(0)
    plain, superb = BiLSTM(6, 5, 4).eval(), SuperbBiLSTM(6, 5, 4, projected=False).eval()
    for name, weight in plain.lstm.named_parameters():
        stem, layer = name.replace("_l1", "_l0"), int("_l1" in name)
        superb.lstms[layer].get_parameter(stem).data = weight.data
    superb.out.load_state_dict(plain.out.state_dict())
    x, lengths = torch.randn(2, 9, 6), torch.tensor([9, 5])
    torch.testing.assert_close(superb(x, lengths), plain(x, lengths))
    projected = SuperbBiLSTM(6, 5, 4, projected=True)
    assert sum(p.numel() for p in projected.after.parameters()) == 2 * (8 * 8 + 8) and projected(x, lengths).shape == (2, 9, 5)


def test_spec_augment_masks_within_its_widths_and_only_in_training():
    torch.manual_seed(0)
    x, lengths = torch.ones(300, 250), np.array([100, 90, 110])
    for _ in range(5):
        out = spec_augment(x, lengths)
        zeros = out == 0
        assert out.shape == x.shape and 0 < zeros.float().mean() < 1 and torch.allclose(out[~zeros], torch.ones(()))
        for piece in zeros.split(lengths.tolist()):
            dims, times = piece.all(0), piece.all(1)
            assert dims.sum() <= 4 * (DIM_WIDTH - 1) and times.sum() <= 2 * (TIME_WIDTH - 1)
            assert torch.equal(piece, dims | times[:, None])  # nothing else
    ramp = torch.arange(60.0)[:, None].expand(-1, 200)
    warped = [spec_augment(ramp, np.array([60])) for _ in range(8)]
    assert any((line[line != 0] - line[line != 0].round()).abs().max() > 1e-3 for line in warped)
    head = probe.Probe(probe.LayerMix(1), None, nn.Identity(), augmented=True)
    head.head.forward = lambda x, lengths: x
    assert not torch.equal(head(x[:, None], lengths), x) and torch.equal(head.eval()(x[:, None], lengths), x)


def test_the_x_vector_sees_15_frames_of_one_utterance():
    torch.manual_seed(0)
    head, lengths = XVector(8, 3), np.array([16, 40, 23])
    assert head.needs == 16
    x = torch.randn(int(lengths.sum()), 8)
    together = head(x, lengths)
    for embedding, part in zip(together, x.split(lengths.tolist()), strict=True):
        torch.testing.assert_close(embedding, head(part, np.array([len(part)]))[0])
    torch.testing.assert_close(F.relu(head.second(head.eval()(x, lengths))), together)
    superbs = XVector(512, 1211)
    frame = 5 * 512 * 512 + 2 * 3 * 512 * 512 + 512 * 512 + 4 * 512 + 512 * 1500 + 1500
    assert sum(p.numel() for p in superbs.parameters()) == frame + 3000 * 512 + 512 * 512 + 2 * 512 + 1211 * 512


def test_am_softmax_by_hand():
    from sslrepro.downstream.verification import am_softmax

    loss = am_softmax(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), torch.tensor([[1.0, 0.0], [0.0, 3.0]]), 0.4, 30.0)
    assert loss.item() == pytest.approx(-np.log(np.exp(18) / (np.exp(18) + 1)), abs=1e-6)


def test_the_x_vector_tells_voices_by_pieces_of_them(corpus, planted):
    settings = DownstreamSettings(
        tasks=["verification_xvector"], updates=60, batch=16, train_hours=None, learning_rate=1.0e-3, project=64, crop_seconds=0.4
    )
    found = score(planted, corpus, settings, seed=0, device="cpu")
    assert found.metrics["verification_xvector.eer"] < 0.2 and len(found.trials) == len(corpus.trials("test"))


def test_an_utterance_too_short_for_the_x_vector_is_named(folder, tmp_path, planted):
    def change(table):
        table.loc[table["split"] == "test", "frames"] = 15 * 320
        return table

    settings = DownstreamSettings(tasks=["verification_xvector"], updates=1, batch=8, train_hours=None, project=4)
    with pytest.raises(UserError, match=r"verification_xvector: v5-\d+ has 15 frames, the head needs 16: leave it out of the manifest"):
        score(planted, changed(folder, tmp_path, change), settings, seed=0, device="cpu")


def test_pieces_too_short_for_the_x_vector_are_named(corpus, planted):
    settings = DownstreamSettings(tasks=["verification_xvector"], updates=1, train_hours=None, project=4, crop_seconds=0.3)
    with pytest.raises(UserError, match=r"downstream.crop_seconds: 0.3 s: fewer frames than verification_xvector needs, 16"):
        score(planted, corpus, settings, seed=0, device="cpu")


def test_pieces_are_what_the_encoder_hears_of_them(corpus, planted):
    planted.voices.zero_()
    frozen = FrozenStates(planted, corpus, np.arange(4), torch.device("cpu"))
    rows, starts, samples = np.array([2, 0, 3]), np.array([640, 0, 320]), 10 * 320
    states, frames = frozen.pieces(rows, starts, samples)
    assert frames.tolist() == [10, 10, 10] and states.shape == (30, 2, 14)
    whole = [frozen.states(rows[i : i + 1])[start // 320 :][:10] for i, start in enumerate(starts)]
    assert torch.equal(states[:, 1, :6].float().argmax(-1), torch.cat(whole)[:, 1, :6].float().argmax(-1))


def test_every_recipe_scores(corpus, planted):
    """All of the settings of the paper's six probes together, on this corpus."""
    common = {"updates": 4, "batch": 16, "train_hours": None, "standardise": False, "schedule": "constant", "clip_norm": 1.0, "project": 6}
    for recipe, layers in itertools.product(("s3prl_asr", "s3prl_ctc"), ("dropped", "projected")):
        settings = DownstreamSettings(
            **common, tasks=["asr", "phone_lstm"], ctc_recipe=recipe, lstm_layers=layers, lstm_width=4, spec_augment=True, select_every=2
        )
        found = score(planted, corpus, settings, seed=0, device="cpu")
        assert set(found.metrics) == {"asr.wer", "asr.cer", "phone_lstm.per"} and not found.unavailable
        assert score(planted, corpus, settings, seed=0, device="cpu") == found
    assert labels.SLOT == "|"
