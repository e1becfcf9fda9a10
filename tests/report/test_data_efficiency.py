"""Scores against hours and labels, and the second language's contrasts, by hand from metrics alone."""

import pandas as pd
import pytest

from sslrepro.pipeline.profile import expand
from sslrepro.report import data_efficiency as report


def write(folder, rows):
    pd.DataFrame(rows, columns=["cell", "seed", "metric", "value"]).to_csv(folder / "metrics.csv", index=False)
    return folder


@pytest.fixture
def folder(tmp_path):
    rows = []
    for seed in (0, 1, 2):
        for cell, accuracy in (("hours-0", 0.5), ("hours-0.5", 0.6), ("hours-5", 0.7)):
            rows.append((cell, seed, "phone.accuracy", accuracy + 0.01 * seed))
            rows += [(cell, seed, f"fine_tune_{minutes}min.per", 0.9 - 0.1 * (minutes == 10)) for minutes in (1, 10)]
        for cell, accuracy, hours in (
            ("scratch-second", 0.6, 1.5), ("continued-second", 0.7, 1.5), ("english-second", 0.695 + 0.005 * seed, 0.0),
            ("mono-first", 0.66, 3.0), ("bilingual-first", 0.62, 0.0), ("bilingual", None, 3.0), ("hubert", 0.7, 0.0),
        ):  # fmt: skip
            rows += [(cell, seed, "phone.accuracy", accuracy + 0.02 * seed)] if accuracy else []
            rows.append((cell, seed, "cost.hours_seen", hours))
    for study in ("survey", "budget"):
        (tmp_path / study).mkdir()
    write(tmp_path / "budget", [("hubert-base", seed, "cost.hours_seen", 3.0) for seed in range(3)])
    return write(tmp_path / "survey", rows)


def test_hours_and_labels_by_hand(folder):
    table = report.efficiency(folder)
    assert len(table) == 9 and set(table.seeds) == {3}
    probe = table[table.minutes.isna()].set_index("hours")
    assert probe.error.tolist() == pytest.approx([49.0, 39.0, 29.0])
    half = 4.302652729911275 / 3**0.5  # Student's at two degrees of freedom; the spread is one point
    assert probe.loc[0.5, ["low", "high"]].tolist() == pytest.approx([39 - half, 39 + half])
    tuned = table[table.minutes == 10]
    assert tuned.error.tolist() == pytest.approx([80.0] * 3) and set(tuned.measure) == {"phone error rate"}


def test_what_was_heard_counts_the_cells_that_one_starts_from(folder):
    table = report.languages(folder, expand("laptop").studies["survey"].cells)
    heard = table["hours heard"].to_dict()
    assert heard == {
        "english-second": 3.0, "scratch-second": 1.5, "continued-second": 4.5, "mono-first": 3.0, "bilingual-first": 3.0,
    }  # fmt: skip
    assert table.loc["scratch-second", "error"] == pytest.approx(38.0)
    assert table["scored on"].to_dict()["bilingual-first"] == "English"


def test_contrasts_are_paired_by_seed_and_said_in_words(folder):
    table = report.contrasts(folder)
    assert table.reading.tolist() == ["better", "not told apart", "worse"]
    assert table.points.tolist() == pytest.approx([10.0, 0.0, -4.0]) and (table.high - table.low).iloc[0] == pytest.approx(0.0)
    said = report.statement(folder)
    assert "**lower** phone error, a gain of +10.00 points [+10.00, +10.00] over 3 seed(s)" in said
    assert "against English as it stands: not told apart" in said and "on English: **higher** phone error" in said


def test_figures_show_their_points(folder):
    left, right = report.draw_efficiency(folder).axes
    assert left.containers[0][0].get_ydata().tolist() == pytest.approx([39.0, 29.0])  # random weights are a line, not a point
    assert [line.get_label() for line in right.containers] == ["none", "0.5 h", "5 h"]
    names = [
        label.get_text() for label in report.draw_languages(folder, expand("laptop").studies["survey"].cells).axes[0].get_yticklabels()
    ]
    assert names[0] == "a little of it, continued from English (4.5 h)" and len(names) == 3


def test_a_profile_without_such_cells_says_so(tmp_path):
    write(tmp_path, [("student", 0, "phone.accuracy", 0.5)])
    said = [report.draw_efficiency(tmp_path), report.draw_languages(tmp_path, {})]
    assert [figure.axes[0].texts[0].get_text() for figure in said] == [
        "this profile varies no data", "this profile scores nothing on a second language",
    ]  # fmt: skip
    assert report.statement(tmp_path).startswith("This profile compares nothing") and report.contrasts(tmp_path).empty


def test_one_seed_tells_nothing_apart(tmp_path):
    write(tmp_path, [("continued-second", 0, "phone.accuracy", 0.9), ("scratch-second", 0, "phone.accuracy", 0.5)])
    assert report.contrasts(tmp_path).reading.tolist() == ["one seed: not told apart"]


@pytest.mark.parametrize("profile", ["laptop", "gpu"])
def test_profiles_have_every_cell_that_is_asked_for(profile):
    cells = expand(profile).studies["survey"].cells
    assert {*report.SECOND, *report.FIRST} <= set(cells)
    for cell in report.SECOND:
        assert cells[cell].data.languages == ["de"] and cells[cell].downstream.tasks == ["phone"]
    for _, cell, other in report.QUESTIONS:
        assert cells[cell].seeds == cells[other].seeds
    teacher = expand(profile).studies["budget"].cells[cells["hubert"].start.removeprefix("budget/")]
    hours = teacher.training.budget.amount + cells["continued-second"].training.budget.amount
    assert cells["scratch-longer-second"].training.budget.amount == hours
    assert cells["mono-second"].training == cells["bilingual"].training == cells["mono-first"].training
