"""Slim against Small, the depths, three budgets, single augmentations: tables of the compute-budget study from made-up rows."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from sslrepro.budget.fits import Vertex, u_curve
from sslrepro.pipeline.profile import expand
from sslrepro.report import budget, guideline, objectives, shapes, unique_hours
from sslrepro.report.unscored import not_run


@pytest.fixture(scope="module")
def laptop():
    return expand("laptop")


def write(folder, cells, metric="pretrain.valid_loss", **others):
    """metrics.csv of cells with a value a seed each; others: further metrics of every run."""
    rows = [("budget", cell, seed, metric, value) for cell, values in cells.items() for seed, value in enumerate(values)]
    rows += [
        ("budget", cell, s, name.replace("__", "."), v) for cell, vs in cells.items() for s in range(len(vs)) for name, v in others.items()
    ]
    pd.DataFrame(rows, columns=["study", "cell", "seed", "metric", "value"]).to_csv(folder / "metrics.csv", index=False)
    return folder


def test_slim_less_small_is_paired_by_seed(tmp_path):
    """Every seed has a level of its own; HuBERT's Slim is 0.1 better in each, TERA's is in the mean alone."""
    levels = np.array([3.0, 4.0, 5.0])
    cells = {"hubert-slim": levels - 0.1, "hubert-small": levels, "tera-slim": levels + np.array([-0.5, 0.4, 0.0]), "tera-small": levels}
    table = shapes.contrasts(write(tmp_path, cells | {"wav2vec2-slim": levels}))
    assert table.loc["HuBERT", "Slim - Small"] == "-0.1000 [-0.1000, -0.1000]" and table.loc["HuBERT", "relative to Small"].startswith(
        "-2.5%"
    )
    assert table.better.to_dict() == {"HuBERT": "Slim", "TERA": "not told"} and (table.seeds == 3).all()


@pytest.mark.parametrize(("losses", "said"), [
    ((1.0, 2.0, 3.0, 4.0), "lowest at depth 1, the shallowest that ran, an edge"),
    ((4.0, 2.0, 3.0, 4.0), "lowest at depth 2, inside (1 layers are +2.0000 (one seed) above it; 3"),
    ((4.0, 3.0, 2.0, 1.0), "lowest at depth 24, the deepest that ran, an edge"),
])  # fmt: skip
def test_where_the_depths_are_lowest(tmp_path, laptop, losses, said):
    cells = dict(zip(("hubert-depth1", "hubert-small", "hubert-depth3", "hubert-depth24"), ([loss] for loss in losses), strict=True))
    assert said in shapes.depth_optimum(write(tmp_path, cells), laptop)
    assert shapes.depth_optimum(write(tmp_path, {"hubert-small": [1.0]}), laptop) == "This profile runs no family of depths."


def test_each_augmentation_stands_beside_all_together(tmp_path):
    """All together give 0.3 at 1 h, masking alone 0.1; all the hours 1, and 0.1 more with augmentation: it does not replace data."""
    losses = {
        "unique960": 3.0,
        "unique960-augmented": 2.9,
        "unique1": 4.0,
        "unique1-augmented": 3.7,
        "unique1-masked": 3.9,
        "unique1-room": 4.0,
    }
    folder = write(tmp_path, {cell: [loss + s for s in range(3)] for cell, loss in losses.items()})
    table = unique_hours.contrasts(folder)["validation loss"].str.split().str[0].to_dict()
    assert table == {
        "960 h - 1 h": "-1.000", "1 h augmented - 1 h": "-0.300", "1 h, masking alone - 1 h": "-0.100", "1 h, room alone - 1 h": "+0.000",
        "1 h augmented - 960 h": "+0.700", "1 h augmented - 960 h augmented": "+0.800", "960 h augmented - 960 h": "-0.100",
    }  # fmt: skip
    names = {text.get_text() for text in unique_hours.draw_unique(folder).legends[0].get_texts()}
    assert names == {unique_hours.PLAIN, unique_hours.AUGMENTED, "masking alone", "room alone"}


def curves(half, full, fourfold=None):
    """Three seeds of five sizes of HuBERT at two budgets or three; parameters grow with the size."""
    found = {}
    for end, values in (("-half", half), ("", full), ("-fourfold", fourfold)):
        for size, value in zip((30, 50, 100, 473, 1582), values or (), strict=values is not None):
            name = "hubert-slim" if size == 100 and not end else f"hubert-size{size}{end}"
            found[name] = [value, value + 0.01, value - 0.01]
    return found


def sized(folder):
    table = pd.read_csv(folder / "metrics.csv")
    size = table.cell.str.extract(r"size(\d+)")[0].fillna(100).astype(float)
    more = table.assign(metric="cost.params", value=1e4 * size)
    pd.concat([table, more]).to_csv(folder / "metrics.csv", index=False)
    return folder


U = (3.5, 3.2, 3.0, 3.2, 3.6)


def test_a_third_budget_is_in_curves_arms_and_vertices(tmp_path, laptop):
    folder = sized(write(tmp_path, curves((3.2, 3.0, 3.1, 3.4, 3.8), U, (3.6, 3.3, 3.05, 3.0, 3.2))))
    assert "ours, fourfold budget" in budget.draw_u_curves(folder).axes[0].get_legend_handles_labels()[1]
    assert set(budget.arms(folder).budget) == {"half", "full", "fourfold"} and budget.arms(folder).budget.iloc[0] == "full"
    ours = guideline.vertices(folder, laptop).query("whose == 'ours'").set_index("budget")
    assert ours["size"]["half"] < ours["size"]["full"] < ours["size"]["fourfold"]
    assert ours.flops["fourfold"] == 4 * ours.flops["full"]
    said = guideline.exponents(folder, laptop).loc["ours"]
    assert said.budgets.tolist() == ["half to full", "full to fourfold"] and (said["power of the budget"] != "not identified").all()


def test_two_sizes_of_a_third_budget_narrow_no_other(tmp_path, laptop):
    cells = curves(U, U, U)
    few = {name: values for name, values in cells.items() if not name.endswith("-fourfold") or "size30" in name}
    ours = guideline.vertices(sized(write(tmp_path, few)), laptop).query("whose == 'ours'")
    assert set(ours.budget) == {"half", "full"} and ours.inside.all()


def test_a_vertex_that_the_runs_do_not_show_has_no_number(tmp_path, laptop):
    """Right arm alone: the parabola is lowest past the smallest while 50 % is best of the runs."""
    lopsided = (3.03, 3.0, 3.06, 3.2, 3.27)
    ours = guideline.vertices(sized(write(tmp_path, curves(U, lopsided))), laptop).query("whose == 'ours'").set_index("budget")
    assert np.isnan(ours["size"]["full"]) and ours.lies["full"].startswith("not identified: the fit is lowest past the smallest")
    assert ours.lies["half"] == "inside" and ours["size"]["half"] > 0
    assert guideline.exponents(tmp_path, laptop).loc["ours", "power of the budget"].tolist() == ["not identified"]
    assert guideline.draw_guideline(tmp_path, laptop).axes


OPEN = "not identified: the interval is open, or reaches past the sizes that ran"


def test_standing_of_a_vertex():
    means = pd.Series([3.0, 2.0, 2.1, 4.0], index=[1.0, 2.0, 4.0, 8.0])
    draws = np.zeros(3)
    told = {size: guideline.standing(Vertex(size, low, high, 2.0, 1.0, 1 < size < 8, draws), means) for size, low, high in
            ((2.5, 2.0, 3.0), (7.5, 7.0, 9.0), (9.0, 8.0, 10.0), (3.0, 0.0, np.inf), (2.6, 2.0, 9.0))}  # fmt: skip
    assert told == {
        2.5: "inside", 7.5: "not identified: the fit is lowest at 7.5, the runs at 2",
        9.0: "not identified: the fit is lowest past the largest, the runs at 2", 3.0: OPEN, 2.6: OPEN,
    }  # fmt: skip
    falling = pd.Series([3.0, 2.0, 1.5, 1.2], index=means.index)
    assert guideline.standing(u_curve(means.index, falling), falling) in ("on the bound: largest", "not identified: the interval is open")


def test_a_parametric_fit_on_its_bound_shows_no_numbers(tmp_path):
    """Loss that knows nothing of the size: its exponent runs to a bound."""
    cells = curves((3.2,) * 5, (3.0,) * 5)
    folder = sized(write(tmp_path, cells, cost__hours_seen=1.0))
    row = guideline.fitted_losses(folder).loc["hubert"]
    assert (row[:-1] == "not identified").all() and row["lies"].startswith("not identified: ")


def test_tera_on_coefficients_as_they_are_is_a_row_of_its_own(tmp_path, laptop):
    folder = write(tmp_path, {"tera-slim": [0.7, 0.71], "tera-raw": [0.8]}, "phone_ctc.per")
    figure = objectives.draw_objectives(folder, laptop)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["TERA (2)", "TERA, coefficients as they are (1)"]
    before = laptop.studies["budget"].cells["tera-raw"].training.budget.amount
    assert figure.axes[-1].patches[1].get_width() == pytest.approx(before)


def test_what_has_not_run_is_named_and_the_rest_draws(tmp_path, laptop):
    """Results from before cells were added: figures and tables show the rest, and one sentence says what is missing."""
    names = [cell for cell in laptop.studies["budget"].cells if not cell.endswith("-fourfold") and cell != "tera-raw"]
    (tmp_path / "runs.json").write_text(json.dumps({name: {} for name in names}))
    said = not_run(tmp_path, laptop, "budget")
    assert "hubert-size30-fourfold" in said and said.endswith("tera-raw.")
    folder = sized(write(tmp_path, curves(U, U) | {"unique1": [3.0], "unique960": [2.0]}))
    assert "ours, fourfold budget" not in budget.draw_u_curves(folder).axes[0].get_legend_handles_labels()[1]
    assert len(guideline.vertices(folder, laptop).query("whose == 'ours'")) == 2
    assert unique_hours.draw_unique(folder).axes and unique_hours.contrasts(folder).empty
