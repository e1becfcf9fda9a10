"""MP3S's cells at `paper`: each encoder at its real size, each head at its recipe's, one update and a score on utterances of 2 seconds."""

from __future__ import annotations

import math

import pytest
import torch

from sslrepro.config.downstream import LabelledFolders
from sslrepro.data.corpus import Corpus
from sslrepro.downstream import TASKS, score
from sslrepro.models.upstream import Upstream
from sslrepro.pipeline.profile import expand

CELLS = expand("paper").studies["summarymixing"].cells
KINDS = ("wav2vec2", "second-cy", "second-eu", "intent", "verification", "emotion")


@pytest.fixture(scope="module")
def labelled(two_second_corpus) -> Corpus:
    """Four training utterances of two voices, one for validation, four of two voices for test, with text, intent and emotion."""
    columns = {"split": ["train"] * 4 + ["valid"] + ["test"] * 4, "speaker": list("aabbcddee")}
    columns |= {"text": ["un dau", "dau tri", "tri un", "un", "dau", "un tri", "dau", "tri", "un"]}
    columns |= {"intent": ["music", "alarm", "music"] * 3, "emotion": ["angry", "happy", "angry"] * 3}
    corpus = two_second_corpus(columns)
    assert set(corpus.trials("test")["left"]) <= set(corpus.utterances["utterance"])  # names of digits alone are names
    return corpus


@pytest.mark.slow
@pytest.mark.parametrize("floor", [False, True], ids=["summarymixing", "logmel"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_update_of_both_heads(kind, floor, labelled, monkeypatch):
    """The layers' weights and the head move, each at its own rate, and every score is finite."""
    cell = CELLS[f"floor-{kind}-logmel".replace("-wav2vec2", "") if floor else f"{kind}-summarymixing"]
    settings, rates, moved = cell.downstream.model_copy(update={"updates": 1, "select_every": None, "folders": LabelledFolders()}), [], []

    class Watched(torch.optim.AdamW):
        def step(self, closure=None):
            before = [[p.detach().clone() for p in group["params"]] for group in self.param_groups]
            super().step(closure)
            rates.append([group["peak"] for group in self.param_groups])
            after = [group["params"] for group in self.param_groups]
            moved.append([any(not torch.equal(a, b) for a, b in zip(x, y, strict=True)) for x, y in zip(before, after, strict=True)])

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    torch.manual_seed(0)
    found = score(Upstream(cell.model), labelled, settings, 0, "cpu")
    assert not found.unavailable and {TASKS[task].metric for task in settings.tasks} <= set(found.metrics)
    assert all(math.isfinite(value) for value in found.metrics.values())
    assert rates == [[settings.mix_learning_rate, settings.learning_rate]] * 2
    assert moved == [[not floor, True]] * 2  # log-mels are one state: its weight is 1
