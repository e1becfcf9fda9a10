"""The closing lines of the compute-budget notebook say what the tables say, whichever way that is."""

from __future__ import annotations

import pandas as pd
import pytest

from sslrepro.report import budget_closing as closing


def test_verdicts_are_the_ledgers():
    judged = pd.DataFrame({"verdict": ["replicated", "not run"]}, index=["budget-01", "budget-02"])
    assert closing.verdicts(judged, "budget-02", "budget-01") == "budget-02 not run; budget-01 replicated."


def test_arms():
    row = {"budget": "full", "metric": "validation loss", "best between": "50 %", "both": "yes"}
    arms = pd.DataFrame([row, row | {"both": "no"}, row | {"budget": "half"}], index=["HuBERT", "TERA", "TERA"])
    said = closing.of_arms(arms)
    assert said.endswith("interval: HuBERT (validation loss, best at 50 %). Not so: TERA (validation loss, best at 50 %).")
    arms.loc["wav2vec 2.0"] = row | {"metric": "equal error rate", "both": "no gain over random weights"}
    assert closing.of_arms(arms).endswith("says nothing of training: wav2vec 2.0 (equal error rate, best at 50 %).")
    assert closing.of_arms(arms[:0]).startswith("This profile")


@pytest.mark.parametrize(("free", "said"), [("50 %", "does not move with its share"), ("30 %", "at 30 % with log-mels: the optimum moves")])
def test_the_front_ends_share(free, said):
    best = pd.DataFrame({"front end": ["convolutions", "log-mels"], "best size, of Slim": ["50 %", free]}, index=["HuBERT"] * 2)
    found = closing.of_shares(best.assign(**{"largest above it": ["+14%", "+20%"]}).rename_axis("objective"))
    assert said in found and found.endswith("above the best by +14% with convolutions; +20% with log-mels.")


def test_shapes():
    table = pd.DataFrame({"metric": ["loss", "loss", "error"], "better": ["Small", "not told", "Small"]}, index=["HuBERT", "TERA", "TERA"])
    assert closing.of_shapes(table) == "Slim better: nowhere. Small better: HuBERT (loss), TERA (error). not told apart: TERA (loss)."


def test_objectives():
    assert closing.of_objectives(pd.Series({"HuBERT": 0.6, "TERA": 0.5}), "phone error rate") == (
        "phone error rate: lowest 0.5 (TERA), highest 0.6 (HuBERT), 20% above it."
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("+0.13 [+0.06, +0.21]", "augmentation does not replace data"),
        ("+0.01 [-0.06, +0.09]", "not told apart"),
        ("-0.13 [-0.21, -0.06]", "better than all the hours"),
        ("+0.1 (one seed)", "one seed"),
    ],
)
def test_augmentation_for_data(text, said):
    table = pd.DataFrame({"validation loss": [text, "+9 [+8, +9]"]}, index=["1 h augmented - 960 h", "960 h augmented - 960 h"])
    assert closing.of_hours(table) == f"1 h augmented - 960 h: validation loss {text}, {said}."


def test_bottoms_and_powers():
    vertices = pd.DataFrame({"whose": ["ours", "ours", "published"], "lies": ["inside", "no minimum", "inside"]})
    index = pd.MultiIndex.from_tuples([("ours", "HuBERT", "loss"), ("published", "HuBERT", "loss")], names=["whose", "objective", "metric"])
    powers = pd.DataFrame({"power of the budget": ["not identified", "+0.40 [+0.32, +0.49]"]}, index=index)
    assert closing.of_vertices(vertices, powers) == (
        "Ours: 1 of 2 bottoms are identified; published: 1 of 1 bottoms are identified; "
        "best size as budget to the power +0.40 (1 of 1 pairs of budgets)."
    )
