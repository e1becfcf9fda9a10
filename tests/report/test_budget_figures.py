"""Figures and tables of the compute-budget study from made-up results whose answers are known."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest

from sslrepro.budget.count import cell_cost
from sslrepro.budget.published import sweep_vertex
from sslrepro.data.corpus import Corpus
from sslrepro.paths import root
from sslrepro.pipeline.profile import expand
from sslrepro.report import budget, guideline, objectives, shapes, unique_hours
from sslrepro.report.paired import paired, told

BEST = 150.0  # per cent of Slim: where every curve made here is lowest


@pytest.fixture(scope="module")
def laptop():
    return expand("laptop")


@pytest.fixture
def folder(tmp_path, laptop):
    """A U in log size around BEST, at half the budget around BEST / 2, at four times around 2 BEST; Small and fewer hours are worse."""
    random, rows = np.random.default_rng(0), []
    for cell, settings in laptop.studies["budget"].cells.items():
        params = cell_cost(settings, 8.0).params
        bottom = BEST / 2 if cell.endswith("-half") else 2 * BEST if cell.endswith("-fourfold") else BEST
        size = float((re.findall(r"(?:size|logmel|free)(\d+)", cell) or [100])[0])
        loss = 3.0 + 0.1 * math.log(size / bottom) ** 2 + (0.2 if cell.endswith("-small") else 0.0)
        loss += 0.1 * math.log10(14 / (settings.data.hours or 14))
        for seed in settings.seeds:
            noisy = loss + 0.005 * random.normal()
            values = {"pretrain.valid_loss": noisy, "phone_ctc.per": noisy / 10, "verification.eer": noisy / 20, "cost.params": params}
            values |= {"cost.setup_flops": 3e10} if cell.startswith("hubert") else {}
            rows += [("budget", cell, seed, name, value) for name, value in values.items()]
    pd.DataFrame(rows, columns=["study", "cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    return tmp_path


def parameters(profile, objective, per_cent):
    """On the line between the two nearest sizes, both axes logarithmic."""
    cells = {size: "slim" if size == 100 else f"size{size}" for size in (50, 100, 473)}
    params = [cell_cost(profile.studies["budget"].cells[f"{objective}-{cell}"], 8.0).params for cell in cells.values()]
    return math.exp(np.interp(math.log(per_cent), np.log(list(cells)), np.log(params)))


def test_names_carry_the_coordinates():
    cells = ["hubert-size30", "tera-slim", "wav2vec2-size473-half", "hubert-logmel30", "hubert-free30", "hubert-small", "unique10-fixed"]
    sweep = budget.coordinates(cells, budget.SWEEP).set_index("cell")
    assert sweep.size_pct.tolist() == [30, 100, 473, 30, 30]
    assert sweep.budget.to_dict()["wav2vec2-size473-half"] == "half"
    assert sweep.family[["hubert-logmel30", "hubert-free30"]].tolist() == ["log-mels", "free"]
    assert budget.coordinates(cells, unique_hours.UNIQUE).to_dict("records") == [
        {"cell": "unique10-fixed", "hours": 10.0, "variant": "as many speakers as fit, fewer sentences"}
    ]


def test_vertices_are_found_where_they_were_put(folder, laptop):
    table = guideline.vertices(folder, laptop)
    ours = table[(table.whose == "ours") & (table.budget == "full")]
    assert set(zip(ours.objective, ours.metric, strict=True)) == {
        (o, m) for o in ("hubert", "wav2vec2", "tera") for m in ("loss", "content", "speaker")
    }
    assert ours.inside.all() and (ours.flops == laptop.studies["budget"].cells["hubert-slim"].training.budget.amount).all()
    for objective, found in ours.groupby("objective")["size"]:
        assert found.to_numpy() == pytest.approx(parameters(laptop, objective, BEST), rel=0.1)
    assert ((ours.low < ours["size"]) & (ours["size"] < ours.high)).all()
    half = table.query("whose == 'ours' and budget == 'half'")
    assert set(half.objective) == {"hubert", "wav2vec2"} and half.inside.all()
    assert half["size"].to_numpy() == pytest.approx([parameters(laptop, o, BEST / 2) for o in half.objective], rel=0.1)
    published = table.query("whose == 'published' and objective == 'hubert' and budget == 'full' and metric == 'content'")
    assert published["size"].item() == pytest.approx(sweep_vertex("hubert", "full", "asr_wer").size)


def test_a_size_of_one_budget_alone_moves_no_vertex(folder, laptop):
    table = pd.read_csv(folder / "metrics.csv").query("cell != 'hubert-size1582-half'")
    table.to_csv(folder / "metrics.csv", index=False)
    before = guideline.vertices(folder, laptop).query("whose == 'ours' and objective == 'hubert'")
    table.loc[table.cell == "hubert-size1582", "value"] *= 3
    table.to_csv(folder / "metrics.csv", index=False)
    pd.testing.assert_frame_equal(guideline.vertices(folder, laptop).query("whose == 'ours' and objective == 'hubert'"), before)


def test_the_parametric_loss_is_fitted_where_both_budgets_ran(tmp_path):
    """Runs that obey E + A / N^alpha + B / D^beta give its exponents back, and the best size is that of the law."""
    random, rows = np.random.default_rng(1), []
    for budget_name, scale in (("", 1.0), ("-half", 0.5)):
        for size, params in zip((30, 200, 473, 1582), (1e5, 4e5, 1e6, 4e6), strict=True):
            for seed in range(2):
                hours = 1e6 * scale / params
                loss = (2.0 + 40 / params**0.3 + 1.2 / hours**0.4) * math.exp(0.001 * random.normal())
                values = {"pretrain.valid_loss": loss, "cost.params": params, "cost.hours_seen": hours}
                rows += [("budget", f"hubert-size{size}{budget_name}", seed, name, value) for name, value in values.items()]
    pd.DataFrame(rows, columns=["study", "cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    fit = guideline.fitted_losses(tmp_path).loc["hubert"]
    for name, wanted in (("floor", 2.0), ("alpha", 0.3), ("beta", 0.4)):
        assert float(fit[name].split()[0]) == pytest.approx(wanted, rel=0.15)
    law = [2.0 + 40 / p**0.3 + 1.2 / (1e6 / p) ** 0.4 for p in (1e5, 4e5, 1e6, 4e6)]
    assert float(fit["best size"].split()[0]) == (1e5, 4e5, 1e6, 4e6)[int(np.argmin(law))]
    assert float(fit["power of the budget"].split()[0]) == pytest.approx(0.4 / 0.7, rel=0.1) and fit["lies"] == "inside"


def test_the_power_of_the_budget_has_an_interval_and_knows_its_bounds(folder, laptop):
    """Made so that the best size halves in per cent with the budget, in parameters by what the family has there; published beside it."""
    table = guideline.exponents(folder, laptop)
    assert table.loc[("ours", "HuBERT", "validation loss"), "budgets"].tolist() == ["half to full", "full to fourfold"]
    table = table[table.budgets == "half to full"]
    power, low, high = (
        float(value.strip("[],")) for value in table.loc[("ours", "HuBERT", "validation loss"), "power of the budget"].split()
    )
    wanted = math.log(parameters(laptop, "hubert", BEST) / parameters(laptop, "hubert", BEST / 2)) / math.log(2)
    assert power == pytest.approx(wanted, rel=0.2) and low <= power <= high and high - low < 1
    assert {"ours", "published"} == set(table.index.get_level_values("whose"))
    assert (table.loc["ours", ["lower budget's lies", "higher budget's lies"]] == "inside").all(axis=None)
    sizes = pd.Series([1.0, 2.0, 3.0])
    said = [guideline.lies(size, sizes) for size in (0.5, 1.0, 2.5, 3.0, math.nan)]
    assert said == ["on the bound: smallest", "on the bound: smallest", "inside", "on the bound: largest", "no minimum"]


def test_every_curve_is_over_its_own_best(folder):
    figure = budget.draw_u_curves(folder)
    assert len(figure.axes) == 9
    for axis in figure.axes:
        for line in axis.get_lines():
            y = np.asarray(line.get_ydata(), float)
            assert len(y) < 3 or line.get_marker() == "x" or y.min() == pytest.approx(1.0)  # but random weights
    assert figure.axes[0].get_title() == "HuBERT" and len(figure.axes[2].containers) == 2  # TERA: not half the budget


def test_labels_are_added_to_the_budget(folder, laptop):
    table = budget.with_flops(budget.results(folder, {"{objective}-slim": {}}), laptop).groupby("objective")[["flops", "whole"]].mean()
    full = laptop.studies["budget"].cells["hubert-slim"].training.budget.amount
    assert table.loc["hubert"].tolist() == [full, full + 3e10] and table.loc["tera"].tolist() == [full, full]


def test_every_figure_draws(folder, laptop):
    drawn = [
        budget.draw_shares(folder), shapes.draw_shapes(folder, laptop), unique_hours.draw_unique(folder),
        objectives.draw_objectives(folder, laptop), guideline.draw_guideline(folder, laptop),
    ]  # fmt: skip
    for figure in drawn:
        assert any(axis.get_lines() for axis in figure.axes)
    points = [line for line in drawn[1].axes[0].get_lines() if line.get_alpha() == 0.3]  # a pale point a seed
    both = [cell for name, cell in laptop.studies["budget"].cells.items() if name.endswith("-small")]
    assert sum(len(line.get_ydata()) for line in points) == sum(len(cell.seeds) for cell in both)
    assert all((line.get_ydata() < 0).all() for line in points)  # Slim is better


def test_a_profile_that_runs_little_says_so(tmp_path, laptop):
    rows = [("budget", "hubert-slim", 0, name, value) for name, value in (("pretrain.valid_loss", 4.0), ("cost.params", 1e5))]
    pd.DataFrame(rows, columns=["study", "cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    for figure in (budget.draw_shares(tmp_path), unique_hours.draw_unique(tmp_path)):
        assert figure.axes[0].texts[0].get_text().startswith("this profile")
    assert guideline.fitted_losses(tmp_path).empty
    assert budget.draw_u_curves(tmp_path).axes and (guideline.vertices(tmp_path, laptop).whose == "published").all()


def test_subsets_count_speakers_and_sentences(tiny_corpus_dir, laptop, tmp_path):
    corpus = Corpus(tiny_corpus_dir)
    study = laptop.studies["budget"]
    data = study.cells["unique10"].data
    cells = {
        "unique960": study.cells["unique960"],
        "unique10": study.cells["unique10"].model_copy(update={"data": data.model_copy(update={"hours": 0.005})}),
        "unique10-fixed": study.cells["unique10-fixed"].model_copy(
            update={"data": data.model_copy(update={"hours": 0.005, "fixed_speakers": True})}
        ),
    }
    profile = laptop.model_copy(update={"studies": {"budget": study.model_copy(update={"cells": cells})}})
    heard = [("budget", "unique10", seed, "cost.hours_seen", seen) for seed, seen in ((0, 0.09), (1, 0.11))]
    heard += [("budget", cell, 0, "cost.hours_seen", 0.1) for cell in ("unique960", "unique10-fixed")]
    pd.DataFrame(heard, columns=["study", "cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    table = unique_hours.subsets(profile, corpus, tmp_path)
    train = corpus.split("train")
    assert table.loc["unique960", ["utterances", "speakers"]].tolist() == [len(train), train.speaker.nunique()]
    assert table.speakers["unique10"] < table.speakers["unique10-fixed"] <= table.speakers["unique960"]
    assert table.hours["unique10"] == pytest.approx(0.005, rel=0.4)
    assert table["times heard"].tolist() == pytest.approx((0.1 / table.hours).tolist())


def test_augmentation_is_contrasted_with_data_seed_by_seed(tmp_path):
    """Every seed has a level of its own, which pairs take out: 960 hours give 0.3, augmentation 0.1 of it."""
    better = {"unique960": 0.3, "unique10": 0.0, "unique10-augmented": 0.1}
    rows = [("budget", cell, s, "pretrain.valid_loss", 3.0 + s - gain + 0.01 * (s - 1)) for cell, gain in better.items() for s in range(3)]
    pd.DataFrame(rows, columns=["study", "cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    table = unique_hours.contrasts(tmp_path)
    assert table["validation loss"].to_dict() == {
        "960 h - 10 h": "-0.300 [-0.300, -0.300]",
        "10 h augmented - 10 h": "-0.100 [-0.100, -0.100]",
        "10 h augmented - 960 h": "+0.200 [+0.200, +0.200]",
    }


def test_a_subset_of_every_speaker_alone_is_contrasted_too(tmp_path):
    losses = {"unique960": 2.0, "unique100-fixed": 2.5, "unique100-augmented": 2.4, "unique10": 3.0, "unique10-fixed": 2.9, "unique1": 4.0}
    rows = [("budget", cell, 0, "pretrain.valid_loss", loss) for cell, loss in losses.items()]
    pd.DataFrame(rows, columns=["study", "cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    assert unique_hours.contrasts(tmp_path)["validation loss"].to_dict() == {
        "960 h - 10 h": "-1.000 (one seed)",
        "10 h of as many speakers as fit - 10 h": "-0.100 (one seed)",
        "960 h - 100 h of as many speakers as fit": "-0.500 (one seed)",
        "100 h augmented - 100 h of as many speakers as fit": "-0.100 (one seed)",
        "100 h augmented - 960 h": "+0.400 (one seed)",
    }


def test_the_best_size_has_an_interval_over_seeds(tmp_path):
    """Of three sizes 50 % is best in the mean, and 100 % for one of three seeds; log-mels have one seed and no interval."""
    losses = {"hubert-size30": (3.3, 3.3, 3.3), "hubert-size50": (3.0, 3.0, 3.0), "hubert-slim": (3.3, 3.3, 2.9)}
    losses |= {"hubert-logmel30": (3.3,), "hubert-logmel50": (3.0,), "hubert-free30": (2.0,), "hubert-free50": (3.0,), "tera-slim": (1.0,)}
    rows = [("budget", cell, s, "pretrain.valid_loss", loss) for cell, each in losses.items() for s, loss in enumerate(each)]
    pd.DataFrame(rows, columns=["study", "cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    table = budget.best_by_share(tmp_path).set_index("front end")
    assert table.loc["convolutions, the paper's share"].tolist()[:3] == ["50 %", "50 %, 100 %", "+10.0% [+10.0%, +10.0%]"]
    assert table.loc["log-mels, paid for", "smallest above it"] == "+10.0% (one seed)"
    assert table["best size, of Slim"].tolist() == ["50 %", "50 %", "30 %"] and "log-mels, not counted" in table.index[2]


def test_updates_and_warm_up_a_size(tmp_path):
    rows = [
        ("budget", "hubert-size1582", s, name, v) for s in (0, 1) for name, v in (("cost.updates", 80 + 4 * s), ("cost.hours_seen", 0.2))
    ]
    pd.DataFrame(rows, columns=["study", "cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    assert budget.updates(tmp_path, expand("laptop")).loc["hubert-size1582"].tolist() == pytest.approx([82, 8.2, 0.2])


def test_costs_are_counted_at_the_mean_length(tiny_corpus_dir, laptop):
    corpus = Corpus(tiny_corpus_dir)
    seconds, every = budget.mean_seconds(laptop, corpus), corpus.durations[corpus.split("train").index]
    assert seconds == pytest.approx(np.minimum(every[every >= 1.0], 8.0).mean())
    short, long = (budget.costs(laptop, ["hubert-slim"], s).loc["hubert-slim", "front end"] for s in (3.0, 8.0))
    assert short == pytest.approx(0.67, abs=0.01) and long < short - 0.1


def test_how_teras_targets_are_normalised_is_told(laptop):
    assert objectives.reconstructed(laptop).endswith("tera-original; as they are: tera-raw.")
    paper = objectives.reconstructed(expand("paper"))
    assert paper.startswith("MFCC normalised over the utterance: tera-original; as they are: tera-size30, ")


def test_pairs_have_students_interval():
    of, other = pd.Series([1.0, 2.0, 3.0], index=[0, 1, 2]), pd.Series([0.5, 1.0, 2.5, 9.0], index=[0, 1, 2, 3])
    mean, low, high = paired(of, other)  # differences 0.5, 1, 0.5
    half = 4.3027 * 0.288675 / 3**0.5
    assert [mean, low, high] == pytest.approx([2 / 3, 2 / 3 - half, 2 / 3 + half], abs=1e-4)
    assert told(paired(of[:1], other)) == "+0.500 (one seed)" and told(paired(of[:0], other)) == ""


def test_both_arms_of_the_u_in_the_kept_results():
    """At laptop the smallest and the largest size lie above the best between them in validation loss, beyond the interval."""
    table = budget.arms(root() / "results" / "laptop" / "budget").reset_index()
    both = table[(table.metric == "validation loss") & (table.both == "yes")].objective
    assert {"HuBERT", "wav2vec 2.0"} <= set(both)


def test_arms_are_told_from_noise(tmp_path):
    """HuBERT's smallest size is 5 % above the best in every seed; TERA's in the mean alone."""
    rows = []
    for objective, spread in (("hubert", 0.001), ("tera", 0.5)):
        for size, loss in ((30, 2.1), (100, 2.0), (473, 2.4)):
            cell = f"{objective}-slim" if size == 100 else f"{objective}-size{size}"
            rows += [("budget", cell, s, "pretrain.valid_loss", loss + spread * (s - 1) * (size == 30)) for s in range(3)]
    pd.DataFrame(rows, columns=["study", "cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    table = budget.arms(tmp_path)
    assert table.both.to_dict() == {"HuBERT": "yes", "TERA": "no"} and set(table["best between"]) == {"100 %"}
    assert table.loc["HuBERT", "smallest above it"].startswith("+5.0%")


def test_gains_are_over_random_weights_of_the_same_shape(tmp_path):
    """The large size has the lower error, the small one the larger gain; and a curve above all random weights has no arms to speak of."""
    trained = {"hubert-size30": 0.5, "hubert-slim": 0.45, "hubert-size473": 0.4}
    random = {"floor-random-size30": 0.9, "floor-random": 0.7, "floor-random-size473": 0.5}
    rows = [("budget", cell, s, "phone_ctc.per", per + 0.01 * s) for cell, per in (trained | random).items() for s in range(3)]
    rows += [("budget", cell, s, "verification.eer", per) for cell, per in trained.items() for s in range(3)]
    rows += [("budget", "floor-random", s, "verification.eer", 0.3) for s in range(3)]
    pd.DataFrame(rows, columns=["study", "cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    found = budget.gains(tmp_path).loc[("phone error rate", "HuBERT")]
    assert [text.split()[0] for text in found] == ["+0.400", "+0.250", "+0.100"] and list(found.index) == ["30 %", "100 %", "473 %"]
    both = budget.arms(tmp_path).set_index("metric").both
    assert both.to_dict() == {"phone error rate": "no", "equal error rate": "no gain over random weights"}


def test_a_half_budget_that_was_not_scored_is_not_in_the_legend(folder):
    table = pd.read_csv(folder / "metrics.csv")
    half = table.cell.str.endswith("-half") & (table.metric == "verification.eer")
    table[~half].to_csv(folder / "metrics.csv", index=False)
    axes = budget.draw_u_curves(folder).axes
    assert "ours, half budget" in axes[0].get_legend_handles_labels()[1]
    assert "ours, half budget" not in axes[6].get_legend_handles_labels()[1]


def test_variants_stand_beside_the_family(folder):
    """A warm-up of other length at one size, over the family's best; originals among the objectives."""
    table = pd.read_csv(folder / "metrics.csv").query("cell != 'floor-random'").reset_index(drop=True)
    best = (
        table[table.cell.str.fullmatch("hubert-(size[0-9]+|slim)") & (table.metric == "pretrain.valid_loss")]
        .groupby("cell")
        .value.mean()
        .min()
    )
    table = table[~table.cell.str.match("hubert-size1582-fixed|.*-original|floor-")].reset_index(drop=True)
    table.loc[len(table)] = ["budget", "hubert-size1582-fixed", 0, "pretrain.valid_loss", 2 * best]
    table.loc[len(table)] = ["budget", "floor-random", 0, "phone_ctc.per", 0.9]
    table.loc[len(table)] = ["budget", "floor-random-size1582", 0, "phone_ctc.per", 0.8]
    table.loc[len(table)] = ["budget", "tera-original", 0, "phone_ctc.per", 0.4]
    table.to_csv(folder / "metrics.csv", index=False)
    axis = budget.draw_u_curves(folder).axes[0]
    star = next(bar for bar in axis.containers if bar[0].get_marker() == "*")
    assert star[0].get_xdata().tolist() == [1582] and star[0].get_ydata().tolist() == pytest.approx([2]) and star.has_yerr
    gpu = expand("gpu")
    figure = objectives.draw_objectives(folder, gpu)
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert {"TERA (12)", "TERA, original (1)"} <= {re.sub("14", "12", name) for name in names}
    assert [text.get_text() for text in figure.legends[0].get_texts()].count(
        "random weights"
    ) == 1  # of the size that is compared, not Large
    assert any(line.get_xdata()[0] == pytest.approx(0.9) for line in figure.axes[0].get_lines() if line.get_linestyle() == "--")
    floor = next(line for line in budget.draw_u_curves(folder).axes[3].get_lines() if line.get_marker() == "x")
    assert floor.get_xdata().tolist() == [100, 1582] and floor.get_ydata()[0] == pytest.approx(0.9 / best_error(folder))


def best_error(folder):
    table = pd.read_csv(folder / "metrics.csv")
    family = table[table.cell.str.fullmatch("hubert-(size[0-9]+|slim)") & (table.metric == "phone_ctc.per")]
    return family.groupby("cell").value.mean().min()


def test_the_scaled_families_keep_the_papers_share(laptop):
    """Encoder over front end, in MACs: the paper's shapes at 30 % of Slim to Large, and ours named after them."""
    paper = {30: 0.057, 50: 0.165, 100: 0.466, 200: 0.977, 473: 2.131, 1582: 7.128}  # docs/accounting.md, from the published configurations
    for profile in (laptop, expand("gpu")):
        cells = profile.studies["budget"].cells
        named = {size: "hubert-slim" if size == 100 else f"hubert-size{size}" for size in paper}
        assert sum(name in cells for name in named.values()) == 5
        for size, ratio in paper.items():
            if named[size] not in cells:
                continue
            cost = cell_cost(cells[named[size]], 3.0)
            assert cost.macs / cost.components["feature_extractor"].macs - 1 == pytest.approx(ratio, rel=0.2, abs=0.07), size


def test_slim_and_small_are_of_one_size_and_one_rule_holds_for_the_rate():
    for name, rule in (("laptop", lambda width: 0.006 * (32 / width) ** 0.5), ("gpu", lambda width: 0.002 * (96 / width) ** 0.5)):
        cells = dict(expand(name).studies["budget"].cells)
        slim, small = (cell_cost(cells[f"hubert-{shape}"], 3.0) for shape in ("slim", "small"))  # 3 s: about the mean
        assert small.params == pytest.approx(slim.params, rel=0.05) and small.macs == pytest.approx(slim.macs, rel=0.1)
        del cells["hubert-base"]  # which follows the survey's
        for cell, settings in cells.items():
            assert settings.training.learning_rate == pytest.approx(rule(settings.model.encoder.width), rel=0.04), cell


def test_a_corpus_that_no_task_can_score_draws_what_there_is(folder, laptop):
    """Real speech without phone times and trials: losses alone."""
    table = pd.read_csv(folder / "metrics.csv")
    table[~table.metric.isin(["phone_ctc.per", "verification.eer"])].to_csv(folder / "metrics.csv", index=False)
    assert [text.get_text() for text in objectives.draw_objectives(folder, laptop).axes[0].texts] == [
        "nothing of this corpus could be scored"
    ]
    assert len(budget.draw_u_curves(folder).axes) == 3  # a row of losses, a column an objective
    for figure in (
        budget.draw_shares(folder),
        shapes.draw_shapes(folder, laptop),
        unique_hours.draw_unique(folder),
        guideline.draw_guideline(folder, laptop),
    ):
        assert figure.axes
