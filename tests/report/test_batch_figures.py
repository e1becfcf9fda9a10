"""Curves of the batch-size study: over the run, and of every codebook that has a metric."""

import pandas as pd

from sslrepro.report import batch_size

CODES = {"pretrain.valid_code_perplexity_1": 30.0, "pretrain.valid_code_perplexity_2": 40.0, "pretrain.codeword_cosine_1": 0.7}


def made(folder, metrics):
    rows = [(cell, 0, name, value) for cell in ("b8", "b16") for name, value in metrics.items()]
    pd.DataFrame(rows, columns=["cell", "seed", "metric", "value"]).to_csv(folder / "metrics.csv", index=False)
    return folder


def labels(axis):
    return axis.get_legend_handles_labels()[1]


def test_each_codebook_is_drawn_where_its_metric_exists(tmp_path):
    folder = made(tmp_path, {"cost.updates": 8.0, "cost.hours_seen": 1.0, "phone.accuracy": 0.5, **CODES})
    accuracy, perplexity, cosine = batch_size.draw_codes(folder, codes=64).axes
    assert labels(accuracy) == ["published"]
    assert labels(perplexity) == ["ours, codebook 1", "ours, codebook 2", "published, codebook 1", "published, codebook 2"]
    assert labels(cosine) == ["ours, codebook 1", "published, codebook 1"]
    ours, theirs = (next(line for line in perplexity.lines if line.get_label() == f"{who}, codebook 1") for who in ("ours", "published"))
    assert ours.get_ydata().tolist() == [30 / 64] * 2 and (320 * theirs.get_ydata()).tolist() == [127, 103, 158, 211, 171, 136, 173]


def test_trajectories_go_through_the_snapshots(tmp_path):
    metrics = {"cost.updates": 8.0, "cost.hours_seen": 1.0, "pretrain.valid_accuracy": 0.3, "pretrain.valid_accuracy@0.5": 0.2}
    ours, *_ = figure = batch_size.draw_trajectories(made(tmp_path, metrics)).axes
    smallest = ours.lines[0]
    assert (list(smallest.get_xdata()), list(smallest.get_ydata())) == ([0.5, 1.0], [0.2, 0.3])
    assert labels(ours) == ["8", "16"] and not figure[1].lines and len(labels(figure[2])) == 7


def test_what_is_watched_goes_through_the_snapshots(tmp_path):
    metrics = {"cost.updates": 8.0, "cost.hours_seen": 1.0, "pretrain.valid_loss": 3.0, "pretrain.valid_loss@0.5": 4.0}
    loss, *others = batch_size.draw_monitored(made(tmp_path, metrics)).axes
    assert (list(loss.lines[0].get_xdata()), list(loss.lines[0].get_ydata())) == ([0.5, 1.0], [4.0, 3.0])
    assert others[0].texts[0].get_text() == "no soft perplexity, codebook 1 along the way"


def test_a_main_cell_has_the_constant_rate_where_another_has_the_root(tmp_path):
    cells = {"b1200": 3.0, "lr-linear-b1200": 3.1, "lr-constant-b1200": 3.2, "b2400": 2.5, "lr-sqrt-b2400": 2.6, "lr-linear-b2400": 2.7}
    rows = [(cell, 0, "pretrain.valid_loss", loss) for cell, loss in cells.items()]
    pd.DataFrame(rows, columns=["cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    axis = batch_size.draw_rules(tmp_path).axes[0]
    drawn = {name: line.get_ydata().tolist() for name, line in zip(labels(axis), axis.lines, strict=False)}
    assert drawn["sqrt"] == [3.0, 2.6] and drawn["constant"] == [3.2, 2.5]


def test_what_is_scored_along_the_way_at_paper_is_followed_over_the_hours(tmp_path):
    """The paper's own figure: errors after fine-tuning of several checkpoints. Not those of one checkpoint alone, nor with an n-gram."""
    over_time = {
        "fine_tune_10min.wer_clean": 0.5,
        "fine_tune_10min.wer_clean@0.5": 0.7,
        "fine_tune_10min.wer@0.5": 0.8,
        "fine_tune_10min.wer": 0.6,
    }
    once = {
        "fine_tune_60min.wer_clean": 0.4,
        "fine_tune_10min.wer_lm_clean": 0.3,
        "fine_tune_10min.wer_lm_clean@0.5": 0.4,
        "phone.accuracy": 0.5,
    }
    folder = made(tmp_path, {"cost.updates": 8.0, "cost.hours_seen": 1.0} | over_time | once)
    found = batch_size.scored_over_time(batch_size.checkpoints(folder))
    assert found == {"fine_tune_10min.wer_clean": "WER, 10 min of labels"}
    ours = batch_size.draw_against_hours(folder, found).axes[0]
    assert [sorted(line.get_ydata().tolist()) for line in ours.lines[:1]] == [[0.5, 0.7]]


def test_the_smallest_batch_at_other_rates_is_among_the_rules(tmp_path):
    cells = {"b87.5": 3.0, "smallest87.5-linear": 3.6, "smallest87.5-constant": 3.3, "b150": 2.9, "lr-linear-b150": 3.1}
    rows = [
        (cell, 0, name, value) for cell, loss in cells.items() for name, value in (("pretrain.valid_loss", loss), ("cost.hours_seen", 2.0))
    ]
    pd.DataFrame(rows, columns=["cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    axis = batch_size.draw_rules(tmp_path).axes[0]
    drawn = {name: line.get_ydata().tolist() for name, line in zip(labels(axis), axis.lines, strict=False)}
    assert drawn["linear"] == [3.6, 3.1] and drawn["constant"] == [3.3] and drawn["sqrt"] == [3.0, 2.9]
    ends = batch_size._rule_ends(tmp_path, "pretrain.valid_loss")
    assert sorted(zip(ends["rule"], ends["pretrain.valid_loss"], strict=True)) == [("constant", 3.3), ("linear", 3.1), ("linear", 3.6)]
