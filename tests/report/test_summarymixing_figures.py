"""What the SummaryMixing notebook reads off a table: slopes and crossovers known beforehand."""

import json

import pandas as pd
import pytest

from sslrepro.report import summarymixing
from sslrepro.report.supervised import supervised


@pytest.fixture
def folder(tmp_path):
    rows = []
    for seed in range(2):
        for length in (500, 1000, 2000, 4000):
            for cell, seconds in (
                ("mixer-summarymixing", 2e-3 * length),
                ("mixer-unfused", 1e-6 * length**2),
                ("mixer-fnet", 9.0 * length),
            ):
                rows.append(("summarymixing", cell, seed, f"cost.mixer_seconds_{length}", seconds * (1 + 0.1 * seed)))
    rows.append(("summarymixing", "mixer-unfused", 0, "cost.mixer_seconds", 1.0))
    pd.DataFrame(rows, columns=["study", "cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    return tmp_path


def test_slopes_are_of_the_logarithms_from_the_least_length_on(folder):
    found = summarymixing.slopes(folder, "mixer", 1000).loc["mixer_seconds"].slope
    assert found["SummaryMixing"] == pytest.approx(1) and found["attention, unfused"] == pytest.approx(2)


def test_slopes_have_students_interval_over_seeds(tmp_path):
    powers = (0.9, 1.0, 1.2)
    rows = [("cost-x", seed, f"cost.peak_bytes_{n}", float(n) ** power) for seed, power in enumerate(powers) for n in (10, 20, 40)]
    pd.DataFrame(rows, columns=["cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    slope, low, high = summarymixing.slopes(tmp_path, "cost", 0).loc[("peak_bytes", "x")]
    half = 4.302653 * pd.Series(powers).std() / 3**0.5  # t(0.975; 2)
    assert (slope, low, high) == pytest.approx((31 / 30, 31 / 30 - half, 31 / 30 + half))


def test_the_crossover_lies_between_measured_lengths_or_is_said_to_be_outside(folder):
    found = summarymixing.crossover(folder, "mixer", "mixer_seconds")["attention, unfused"]
    assert float(found["SummaryMixing"]) == pytest.approx(2000, rel=0.01) and found["FNet"] == "> 4000"
    table = pd.read_csv(folder / "metrics.csv")
    swapped = {"mixer-summarymixing": "mixer-unfused-same-params", "mixer-unfused": "mixer-summarymixing"}
    table.assign(cell=table.cell.replace(swapped)).to_csv(folder / "metrics.csv", index=False)
    said = summarymixing.crossover(folder, "mixer", "mixer_seconds").loc["SummaryMixing", "attention, unfused, equal parameters"]
    assert said.startswith("until ") and float(said.removeprefix("until ")) == pytest.approx(2000, rel=0.01)


def test_figures_have_a_line_a_mixer_and_say_what_is_not_there(folder):
    axis = summarymixing.draw_mixers(folder, {}).axes[0]
    assert {"SummaryMixing", "attention, unfused", "FNet"} == {text.get_text() for text in axis.get_legend().get_texts()}
    empty = summarymixing.draw_quality(folder, {"phone_ctc.per": ("phone error rate, %", 100.0)}).axes[0]
    assert "scores nothing" in empty.texts[0].get_text()


def test_costs_stand_over_attention_as_of_the_day_and_as_of_today(tmp_path):
    rows = []
    for seed in (0, 1):
        for seconds in (20, 80):
            for cell, time in (("bestrq-summarymixing", 1.0), ("bestrq-attention", seconds / 10), ("bestrq-fused", 2.0 + 2.0 * seed)):
                rows.append(("summarymixing", cell, seed, f"cost.update_seconds_{seconds}", time))
        rows.append(("summarymixing", "time-conformer-summarymixing", seed, "cost.peak_bytes", 3e9))
        rows.append(("summarymixing", "time-conformer-attention", seed, "cost.peak_bytes", 4e9))
    pd.DataFrame(rows, columns=["study", "cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    table = summarymixing.conditions(tmp_path)
    long = table.loc[("sm-08: BEST-RQ", "80")]
    assert long["time, over attention of the papers' day"] == "0.12 [0.12, 0.12]"
    assert long["time, over attention today"] == "0.38 [0.25, 0.50]"
    assert table.loc[("sm-06: supervised", "")].to_list() == ["0.75 [0.75, 0.75]", "", ""]
    assert list(table.index.get_level_values("seconds")) == ["", "20", "80"]
    pd.DataFrame(rows[:0], columns=["study", "cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    assert summarymixing.conditions(tmp_path).empty


def test_the_share_kept_is_of_the_gain_over_the_better_floor(tmp_path):
    errors = {
        "floor-logmel": 0.9, "floor-random": 0.8, "floor-supervised-logmel": 0.1, "wav2vec2-attention": 0.4, "wav2vec2-summarymixing": 0.5,
        "wav2vec2-summarymixing-equal-compute": 0.3, "wav2vec2-fnet": 0.6, "floor-second-logmel": 0.7, "second-attention": 0.7,
        "second-summarymixing": 0.6,
    }  # fmt: skip
    rows = [(cell, seed, "phone_ctc.per", value) for cell, value in errors.items() for seed in (0, 1)]
    rows += [(cell, seed, "intent.accuracy", 1 - value) for cell, value in errors.items() for seed in (0, 1) if "second" not in cell]
    pd.DataFrame(rows, columns=["cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    table = summarymixing.kept(tmp_path, {"phone_ctc.per": "phones", "intent.accuracy": "intents", "verification.eer": "voices"})
    assert table.loc[("at equal data", "phones", "SummaryMixing")].to_list() == pytest.approx([80, 40, 50, 0.75])
    assert table.loc[("at equal data", "phones", "FNet")].to_list() == pytest.approx([80, 40, 60, 0.5])
    assert table.loc[("at equal compute", "intents", "SummaryMixing"), "share kept"] == pytest.approx(1.25)
    assert table.loc["in a second language"].index.to_list() == [("phones", "SummaryMixing")]
    assert table.loc[("in a second language", "phones", "SummaryMixing")].isna().to_list() == [False, False, False, True], "no gain to keep"
    assert summarymixing.kept(tmp_path, {"verification.eer": "voices"}).empty


def test_the_longest_utterance_and_what_a_batch_keeps(tmp_path):
    """Five minutes at inference over the first cell's; MACs that grow with attention's square; activations without 16 bytes a weight."""
    from sslrepro.pipeline.profile import expand

    cells = expand("gpu").studies["summarymixing"].cells
    rows, params = [], {"cost-summarymixing": 1e6, "cost-unfused": 2e6}
    for cell, kept in (("cost-summarymixing", 3e8), ("cost-unfused", 4e8)):
        rows += [(cell, 0, "cost.params", params[cell]), (cell, 0, "cost.peak_bytes_20", kept + 16 * params[cell])]
        rows += [(cell, 0, "cost.peak_bytes_5", kept / 4 + 16 * params[cell])]
    for cell in ("cost-summarymixing", "cost-attention"):
        rows += [(cell, seed, "cost.inference_seconds_300", 2.0 + seed) for seed in (0, 1)]
        rows += [(cell, 0, "cost.inference_seconds_20", 0.5), (cell, 0, "cost.inference_peak_bytes_20", 3e9)]
    pd.DataFrame(rows, columns=["cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    machine = {"machine": {"gpu": "none"}}
    (tmp_path / "runs.json").write_text(json.dumps({cell: {"0": machine} for cell in params}))
    found = summarymixing.inference(tmp_path, cells)
    assert found.loc[(300.0, "SummaryMixing")].to_list()[:3] == [2.5, 2.0, 3.0]
    assert found.loc[(300.0, "attention, fused"), "GMAC, first = 1"] > 2 > found.loc[(20.0, "attention, fused"), "GMAC, first = 1"]
    assert found.loc[(20.0, "SummaryMixing"), ["seconds taken", "memory, GB"]].to_list() == [0.5, 3.0]
    text = "dropout 0.1, attention's 0.1; utterances side by side: 1; threads of a processor: 1"
    assert summarymixing.measured_with(cells, "cost") == text
    assert len(summarymixing.draw_cost(tmp_path, cells, "inference").axes) == 4
    both = summarymixing.macs(cells)
    assert (both.loc["update"].drop(columns="M parameters") > 2 * both.loc["forward"].drop(columns="M parameters")).all(axis=None)
    counted = both.loc["forward"].T
    grown = counted.loc["300 s"] / counted.loc["2 s"]
    assert grown["SummaryMixing"] == pytest.approx(150, rel=0.1) and grown["attention, unfused"] > 300
    assert counted.loc["M parameters", "attention, unfused, equal parameters"] == pytest.approx(
        counted.loc["M parameters", "SummaryMixing"], rel=0.01
    )
    assert summarymixing.activations(tmp_path).loc["SummaryMixing"].to_dict() == {"5 s": 0.75, "20 s": 0.75}


def test_quality_has_a_panel_for_each_head(tmp_path):
    rows = [("wav2vec2-attention", 0, "phone_ctc.per", 0.4), ("wav2vec2-attention", 0, "intent.accuracy", 0.8)]
    rows += [("heads-attention", 0, "phone_lstm.per", 0.3), ("floor-heads-logmel", 0, "phone_lstm.per", 0.7)]
    rows += [(cell, 0, "cost.macs", 1e9) for cell in ("wav2vec2-attention", "heads-attention")]
    pd.DataFrame(rows, columns=["cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    names = {"phone_ctc.per": "phones", "phone_lstm.per": "second head", "intent.accuracy": "intent errors"}
    axes = summarymixing.draw_quality(tmp_path, {name: (label, 100) for name, label in names.items()}).axes
    assert [axis.get_ylabel() for axis in axes] == list(names.values())
    heights = [axis.containers[0].lines[0].get_ydata()[0] for axis in axes]
    assert heights == pytest.approx([40, 30, 20]), "an accuracy is drawn as its errors"
    assert [text.get_text() for text in axes[1].texts] == ["floor-heads-logmel"]


def test_second_languages_have_panels_of_their_own(tmp_path):
    """Their metrics have the first language's names, and their floors theirs."""
    errors = {"wav2vec2-summarymixing": 0.1, "second-cy-summarymixing": 0.6, "second-eu-attention": 0.7, "floor-second-cy-logmel": 0.9}
    rows = [(cell, 0, "asr.wer", value) for cell, value in errors.items()] + [(cell, 0, "cost.macs", 1e9) for cell in errors]
    rows += [("second-summarymixing", 0, "phone_ctc.per", 0.5), ("second-summarymixing", 0, "cost.macs", 1e9)]
    rows += [("emotion-attention", 0, "emotion_ecapa.accuracy", 0.7), ("emotion-attention", 0, "cost.macs", 1e9)]
    pd.DataFrame(rows, columns=["cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    figure = summarymixing.draw_quality(tmp_path, {name: (label, 100) for name, (label, _) in summarymixing.SCORES.items()})
    axes = [axis for axis in figure.axes if axis.containers]
    assert {axis.get_ylabel(): round(float(axis.containers[0].lines[0].get_ydata()[0])) for axis in axes} == {
        "word error rate, BiLSTM, %": 10, "emotion errors, ECAPA-TDNN, %": 30, "second language:\nphone error rate, %": 50,
        "Welsh:\nword error rate, BiLSTM, %": 60, "Basque:\nword error rate, BiLSTM, %": 70,
    }  # fmt: skip
    assert [[text.get_text() for text in axis.texts] for axis in axes] == [[], [], [], ["floor-second-cy-logmel"], []]


def test_supervised_models_stand_side_by_side(tmp_path):
    """Errors on the most labels, over seeds; the share of attention's gain; costs of the cells that measure alone; the better floor."""
    errors = {
        "supervised-conformer-attention": (0.2, 0.2), "supervised-conformer-lite": (0.2, 0.4), "floor-supervised-logmel": (0.9, 0.9),
        "floor-supervised-random": (0.5, 0.5), "supervised-branchformer-attention": (0.6, 0.6),
    }  # fmt: skip
    rows = [(cell, s, "fine_tune_50min.per", value) for cell, each in errors.items() for s, value in enumerate(each)]
    rows += [(cell, s, "fine_tune_10min.per", 0.9) for cell in errors for s in (0, 1)]
    rows += [("time-conformer-lite", 0, "cost.update_seconds", 2.0), ("time-conformer-lite", 0, "cost.peak_bytes", 3e9)]
    pd.DataFrame(rows, columns=["cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    table = supervised(tmp_path)
    assert table.loc[("conformer", "SummaryMixing, lite")].to_list() == pytest.approx([30, 20, 40, 2 / 3, 2.0, 3.0])
    assert table.loc[("branchformer", "attention, unfused")].isna().to_list() == [False] * 3 + [True] * 3  # no gain, not timed
    pd.DataFrame(rows[-2:], columns=["cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    assert supervised(tmp_path).empty
