import pandas as pd

from sslrepro.report import batch_size


def made(folder, rows):
    pd.DataFrame(rows, columns=["cell", "seed", "metric", "value"]).to_csv(folder / "metrics.csv", index=False)
    return folder


def test_fine_tunings_are_read_by_their_names(tmp_path):
    rows = [
        ("b16", 0, "fine_tune_0.5min.per", 0.25),
        ("b16", 0, "fine_tune_0.5min.per_lm", 0.2),
        ("b16", 0, "fine_tune_0.5min.per@0.5", 0.9),
        ("scratch", 0, "fine_tune_0.5min.per", 1.0),
        ("floor-logmel", 0, "fine_tune_0.5min.per", 0.8),
        ("lr-linear-b16", 0, "fine_tune_0.5min.per", 0.7),
        ("b16", 0, "phone_ctc.per", 0.6),
    ]
    table = batch_size.fine_tunings(made(tmp_path, rows))
    got = {(row.batch_seconds, row.decoder): (row.minutes, round(row.error, 9), row.unit) for row in table.fillna(-1).itertuples()}
    assert got == {(16.0, "greedy"): (0.5, 25.0, "PER"), (16.0, "n-gram"): (0.5, 20.0, "PER"), (-1, "greedy"): (0.5, 100.0, "PER")}
    (panel, _) = batch_size.draw_labels(tmp_path).axes
    assert panel.get_ylabel() == "PER, %"


def test_the_clean_part_is_what_the_paper_shows(tmp_path):
    rows = [("b150", 0, f"fine_tune_600min.wer{part}", value) for part, value in (("", 0.4), ("_clean", 0.3), ("_other", 0.5))]
    assert batch_size.fine_tunings(made(tmp_path, rows)).error.tolist() == [30.0]


def test_published_shares_and_a_profile_without_fine_tunings(tmp_path):
    table = batch_size.published_fine_tunings()
    assert sorted(table.minutes.unique()) == [10, 60, 600, 6000, 57600]
    row = table.query("batch_seconds == 2400 and minutes == 600").set_index("decoder").error
    assert dict(row) == {"greedy": 11.11, "n-gram": 6.59}
    assert len(table[table.batch_seconds.isna()]) == 10
    replaced = table.query("batch_seconds == 87.5 and minutes == 600").set_index("decoder").error
    assert dict(replaced) == {"greedy": 47.74, "n-gram": 29.81}, "the corrected run"
    figure = batch_size.draw_labels(made(tmp_path, [("b16", 0, "phone.accuracy", 0.5)]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["this profile fine-tunes nothing"]


def test_reading_with_an_n_gram_stands_beside_the_same_run_read_greedily(tmp_path):
    """A run that was read greedily alone, here seed 0, is not among them; nothing is drawn where all were."""
    rows = [(cell, seed, "fine_tune_3min.per", 0.5) for cell in ("b8", "scratch") for seed in (0, 3)]
    assert batch_size.decoders(made(tmp_path, rows)).empty
    assert [text.get_text() for text in batch_size.draw_decoders(tmp_path).axes[0].texts] == ["no run was read with a language model"]
    rows += [(cell, 3, "fine_tune_3min.per_lm", 0.4) for cell in ("b8", "scratch")]
    table = batch_size.decoders(made(tmp_path, rows))
    assert table[["batch_seconds", "seed", "greedy", "n-gram"]].to_numpy().tolist() == [[0.0, 3, 50.0, 40.0], [8.0, 3, 50.0, 40.0]]
    ours, theirs = batch_size.draw_decoders(tmp_path).axes
    assert ours.get_title() == "ours: PER (seeds: 1)" and sum(len(line.get_xdata()) for line in theirs.lines[:-1]) == 40
    assert batch_size.draw_labels(tmp_path).axes[0].get_title() == "ours; up to 2 seeds"
