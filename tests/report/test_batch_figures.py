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
    accuracy, perplexity, cosine, published = batch_size.draw_codes(
        made(tmp_path, {"cost.updates": 8.0, "cost.hours_seen": 1.0, "phone.accuracy": 0.5, **CODES})
    ).axes
    assert labels(accuracy) == ["published"]
    assert labels(perplexity) == ["ours, codebook 1", "ours, codebook 2"]
    assert labels(cosine) == ["ours, codebook 1", "published, codebook 1"]
    assert labels(published) == ["published, codebook 1", "published, codebook 2"]
    assert published.lines[0].get_ydata().tolist() == [127, 103, 158, 211, 171, 136, 173]


def test_trajectories_go_through_the_snapshots(tmp_path):
    metrics = {"cost.updates": 8.0, "cost.hours_seen": 1.0, "pretrain.valid_accuracy": 0.3, "pretrain.valid_accuracy@0.5": 0.2}
    ours, *_ = figure = batch_size.draw_trajectories(made(tmp_path, metrics)).axes
    smallest = ours.lines[0]
    assert (list(smallest.get_xdata()), list(smallest.get_ydata())) == ([0.5, 1.0], [0.2, 0.3])
    assert labels(ours) == ["8", "16"] and not figure[1].lines and len(labels(figure[2])) == 7
