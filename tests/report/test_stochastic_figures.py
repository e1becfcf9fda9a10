"""Tables of the on-demand study: the front, what stands beside it, and what one pre-training saves."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from sslrepro.budget.updates import flops_for
from sslrepro.pipeline.profile import expand
from sslrepro.report import stochastic as figures


@pytest.fixture
def folder(tmp_path):
    """Two seeds, four choices, two lengths; models of a factor, tuned ones, a floor, and a cell timed in batches of eight."""
    rows = []
    for seed in (0, 1):
        for squeeze in (1, 2):
            for pool in (1, 2):
                choice = f":s{squeeze}-q1-k{pool}"
                rows.append(("stochastic", seed, f"fine_tune_10min.per{choice}", 0.3 + 0.1 * squeeze + 0.02 * (pool - 1) + 0.01 * seed))
                for length in (2, 10):
                    seconds = length / squeeze / 100 - 0.001 * (pool - 1)
                    rows.append(("time-b1", seed, f"cost.inference_seconds_{length}{choice}", seconds))
                    rows.append(("time-b1", seed, f"cost.inference_macs_{length}{choice}", 1e9 * length / squeeze))
                    rows.append(("time-t1-b8", seed, f"cost.inference_seconds_{length}{choice}", 8 * seconds))
                    rows.append(("time-t1-b8", seed, f"cost.inference_macs_{length}{choice}", 1e9 * length / squeeze))
        rows.append(("stochastic", seed, "fine_tune_10min.per", 0.4 + 0.01 * seed))
        rows += [("fixed-s2", seed, "fine_tune_10min.per", 0.45), ("tuned-s2", seed, "fine_tune_10min.per", 0.47)]
        rows += [("floor-random", seed, "fine_tune_10min.per", 0.99), ("floor-random-s2", seed, "fine_tune_10min.per", 0.98)]
    rows += [("sew", 0, "fine_tune_10min.per", 0.98), ("wav2vec2", 0, "fine_tune_10min.per", 0.5)]
    rows += [("sew", 0, "cost.inference_seconds_10", 0.01), ("wav2vec2", 0, "cost.inference_seconds_10", 0.03)]
    pd.DataFrame(rows, columns=["cell", "seed", "metric", "value"]).assign(study="stochastic").to_csv(tmp_path / "metrics.csv", index=False)
    (tmp_path / "runs.json").write_text(json.dumps({"time-b1": {"0": {"machine": {"gpu": "none"}}}}))
    return tmp_path


def test_the_front_is_what_nothing_beats():
    cost, error = np.array([1.0, 2.0, 3.0, 2.0, 4.0]), np.array([5.0, 3.0, 3.0, 4.0, 1.0])
    assert figures.pareto(cost, error).tolist() == [True, True, False, False, True]


def test_choices_have_errors_times_and_macs(folder):
    every = figures.choices(folder)
    assert len(every) == 2 * 4 * 2 and figures.at(every) == 10
    one = every.query("seed == 1 and choice == 's2-q1-k2' and length == 10").iloc[0]
    assert (one.error, one.seconds, one.gmacs) == (pytest.approx(53), pytest.approx(0.049), 5.0)
    batched = figures.choices(folder, "time-t1-b8")
    assert len(batched) == 16 and batched.seconds.max() == pytest.approx(0.8)
    assert figures._described("time-t2-b1", False) == "2 threads, batch 1" and figures._described("time-b16", True) == "GPU, batch 16"
    assert figures._described("time-b1", figures.on_gpu(folder)) == "one thread, batch 1"


def test_models_of_one_factor_stand_beside(folder):
    rows = figures.by_factor(figures.read(folder)).groupby(["kind", "squeeze"], dropna=False).error.mean()
    assert rows["stochastic"].to_dict() == {1.0: pytest.approx(40.5), 2.0: pytest.approx(50.5)}
    assert rows["fixed"].to_dict() == {2.0: pytest.approx(45)} and rows["tuned"].to_dict() == {2.0: pytest.approx(47)}
    assert rows["floor"].to_dict() == {1.0: pytest.approx(99), 2.0: pytest.approx(98)}, "a floor at each factor"
    drawn = figures.draw_trade_off(folder).axes
    assert drawn[0].get_xlabel() == "time, ms, for 10 s of audio" and drawn[0].get_ylabel() == "phone error rate, %"
    assert len(figures.draw_by_factor(folder).axes[0].lines) == 4


def test_times_stand_beside_macs_on_one_scale(folder):
    alone, batched, macs = figures.draw_times(folder).axes
    assert alone.get_ylim() == batched.get_ylim() != macs.get_ylim() and macs.get_ylabel() == "MMAC a second of audio"
    every = [y for axis in (alone, batched) for line in axis.lines for y in line.get_ydata()]
    assert alone.get_ylim()[0] < min(every) and max(every) < alone.get_ylim()[1], "nothing is cut"
    assert max(y for line in macs.lines for y in line.get_ydata()) == pytest.approx(1000)  # 1 GMAC a second of audio, unsqueezed


def test_errors_of_models_that_do_not_read_compare_nothing(folder):
    assert figures.recipes(folder).speed_up["sew"] == pytest.approx(3)
    assert "sew (98%)" in figures.unread(folder) and "wav2vec2" not in figures.unread(folder)


def test_one_pre_training_instead_of_many():
    profile = expand("gpu")
    saved = figures.compute_saved(profile)
    cells = profile.studies["stochastic"].cells
    fixed = [flops_for(cells[f"fixed-s{s}"], 1600) for s in (1, 2, 3, 4)]
    ratio = saved["against the stochastic one"]["every fixed factor together"]
    assert ratio == pytest.approx(sum(fixed) / flops_for(cells["stochastic"], 1600)) and ratio > 3


def test_a_corpus_without_labels_is_timed_all_the_same(folder):
    table = pd.read_csv(folder / "metrics.csv")
    table[table.metric.str.startswith("cost.")].to_csv(folder / "metrics.csv", index=False)
    for figure in (figures.draw_trade_off(folder), figures.draw_by_factor(folder)):
        assert [text.get_text() for text in figure.axes[0].texts] == [figures.UNSCORED]
    assert all(len(axis.lines) for axis in figures.draw_times(folder).axes)


def test_the_error_is_the_study_s_own_and_words_have_a_figure_of_theirs(folder):
    """Other cells may be fine-tuned on other labels (SEW's on 100 h) and to words."""
    table = pd.read_csv(folder / "metrics.csv")
    words = table[(table.cell == "stochastic") & table.metric.str.contains("per")].assign(cell=figures.WORDS)
    words = words.assign(metric=words.metric.str.replace(".per", ".wer"), value=words.value + 0.2)
    other = words[:1].assign(cell="sew", metric="fine_tune_100min.wer_clean")
    pd.concat([table, words, other]).to_csv(folder / "metrics.csv", index=False)
    assert figures.error_name(figures.read(folder)) == "fine_tune_10min.per"
    assert figures.unit(figures.read(folder)) == "phone error rate, %"
    read = figures.choices(folder, scored=figures.WORDS)
    assert read.error.mean() == pytest.approx(figures.choices(folder).error.mean() + 20)
    assert figures.draw_trade_off(folder, figures.WORDS).axes[0].get_ylabel() == "word error rate, %"
    fixed = table[(table.cell == "fixed-s2")].assign(cell="fixed-s2-words", metric="fine_tune_10min.wer", value=0.7)
    pd.concat([table, words, fixed]).to_csv(folder / "metrics.csv", index=False)
    rows = figures.by_factor(figures.read(folder), figures.WORDS)
    assert rows[rows.kind == "fixed"].error.tolist() == pytest.approx([70, 70]), "references in words"


def test_every_point_of_the_front_is_named(folder):
    for axis in figures.draw_trade_off(folder).axes:
        front = next(line for line in axis.lines if line.get_label() == "Pareto front")
        assert [tuple(text.xy) for text in axis.texts] == [pytest.approx(point) for point in front.get_xydata()]
        assert axis.containers[0].has_yerr, "with its error over seeds"


def test_the_dial_reads_words_where_they_are_kept():
    assert figures.dial_cell(expand("gpu")) == figures.WORDS and figures.dial_cell(expand("quick")) == figures.STUDY


def test_random_weights_that_read_better_are_told(folder):
    assert figures.worse_than_random(folder) == ""
    table = pd.read_csv(folder / "metrics.csv")
    table.loc[table.cell == "floor-random", "value"] = 0.3
    table.to_csv(folder / "metrics.csv", index=False)
    assert figures.worse_than_random(folder).endswith("at squeeze 1 (40.5 % against 30.0 %).")
