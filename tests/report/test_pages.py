"""The static pages and DVC's tables, from a small finished project."""

import csv
import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest

from sslrepro.report import curves, html, kept, tables


def executed(path: Path, text: str) -> None:
    output = {"output_type": "stream", "name": "stdout", "text": text}
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": "print(1)", "execution_count": 1, "outputs": [output]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


@pytest.fixture
def finished(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SSLREPRO_ROOT", str(tmp_path))
    for name, text in (("batch_size", "of the study"), ("scoreboard", "all"), ("batch_size/b16", "of the cell <script>")):
        executed(tmp_path / "artifacts/tiny/executed" / f"{name}.ipynb", text)
    results = tmp_path / "results/tiny"
    (results / "batch_size/figures").mkdir(parents=True)
    (results / "batch_size/figures/law.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    run = {"status": "completed", "commit": "abc123", "machine": {"cpu": "a processor", "cores": 2}}
    (results / "batch_size/runs.json").write_text(json.dumps({"b16": {"0": run}}))
    row = {"study": "batch_size", "metric": "phone.accuracy", "criterion": "a < b", "effect": 0.25, "low": 0.1, "high": None, "seeds": 3}
    rows = [
        row | {"claim": "batch-01", "verdict": "replicated", "high": 0.4, "reason": "", "stale": True},
        row | {"claim": "batch-02", "verdict": "not run", "effect": None, "reason": "no <cell>"},
    ]
    (results / "scoreboard.json").write_text(json.dumps(rows))
    for seed, value in ((0, 2.0), (1, 4.0)):
        folder = tmp_path / f"runs/tiny/batch_size/b16/{seed}"
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"loss": value, "status": "completed"}))
        lines = f"update,hours_seen,metric,value\n1,0.5,train.loss,{value}\n1,0.5,train.other,9\n2,1.0,valid.loss,{value}\n"
        (folder / "history.csv").write_text(lines)
        (folder / "settings.json").write_text(json.dumps({"chance": {"loss": 4.5}}))
    return tmp_path


def test_pages_link_to_what_is_there_and_ask_no_network(finished):
    index = html.build("tiny")
    pages = list((finished / "report").rglob("*.html"))
    assert {p.relative_to(index.parent).as_posix() for p in pages} == {
        "index.html",
        "batch_size.html",
        "scoreboard.html",
        "cells/batch_size-b16.html",
    }
    for page in pages:
        text = page.read_text()
        for target in re.findall(r'(?:href|src)="([^"#]+)"', text):
            assert "://" not in target, f"{page.name} asks the network for {target}"
            assert (page.parent / target).resolve().exists(), f"{page.name} links to {target}"
        assert "<script" not in text
    assert "of the cell &lt;script&gt;" in (index.parent / "cells/batch_size-b16.html").read_text()


def test_the_index_holds_verdicts_intervals_figures_and_where_they_come_from(finished):
    text = html.build("tiny").read_text()
    for shown in (
        "batch-01",
        "0.25 [0.10, 0.40]",
        "stale",
        "no &lt;cell&gt;",
        "1 claims not run",
        "abc123",
        "a processor, 2",
        "law.svg",
        "a &lt; b",
    ):
        assert shown in text, shown


def test_the_same_results_give_the_same_pages(finished):
    first = {p.name: p.read_bytes() for p in html.build("tiny").parent.rglob("*") if p.is_file()}
    assert {p.name: p.read_bytes() for p in html.build("tiny").parent.rglob("*") if p.is_file()} == first
    assert not list(finished.glob(".report*")), "scratch was left"


def test_tables_are_means_over_seeds(finished):
    tables.write("tiny")
    assert json.loads((finished / "artifacts/tiny/metrics/batch_size.json").read_text()) == {"b16": {"loss": 3.0}}
    with (finished / "artifacts/tiny/curves/batch_size/b16.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["update"] for row in rows] == ["1", "2"] and rows[0]["train_loss"] == "3.0" and rows[0]["valid_loss"] == ""
    assert rows[1]["valid_loss"] == "3.0" and rows[1]["hours_seen"] == "1.0" and rows[1]["chance_loss"] == "4.5"


def test_curves_are_the_loss_and_a_panel_a_codebook(finished):
    folder = finished / "runs/tiny/batch_size/b16"
    with (folder / "0/history.csv").open("a") as lines:
        lines.write("2,1.0,valid.code_perplexity_1,7\n2,1.0,valid.code_perplexity_2,8\n2,1.0,valid.soft_perplexity_1,9\n")
    panels = {axis.get_ylabel(): axis for axis in curves.draw_curves(folder).axes}
    assert list(panels) == ["loss", "code perplexity 1", "code perplexity 2"]
    assert [list(line.get_ydata()) for line in panels["code perplexity 2"].lines] == [[8]]
    assert any(line.get_label() == "chance" for line in panels["loss"].lines)


def test_what_a_notebook_computes_is_kept_and_shown(finished):
    """Beside the figures, numbers with six digits; shown on the index with its text escaped; a table that is empty now leaves no file."""
    folder = finished / "results/tiny/batch_size"
    table = pd.DataFrame({"objective": ["a<b"], "margin": [1 / 3], "none": [math.nan]}).set_index("objective")
    assert kept.keep(table, folder, "both_arms") is table
    assert (folder / "tables/both_arms.csv").read_text() == "objective,margin,none\na<b,0.333333,\n"
    kept.keep(pd.DataFrame({"hours": [1]}), folder, "gone")
    kept.keep(pd.DataFrame({"hours": []}), folder, "gone")
    text = html.build("tiny").read_text()
    assert "<summary>both arms</summary>" in text and "a&lt;b" in text and "0.333333" in text
    assert "gone" not in text and not (folder / "tables/gone.csv").exists()


def test_cells_are_small_multiples_by_family(finished):
    """Sizes in rising order in one panel; what is alone is with the others of its objective."""
    trained = dict.fromkeys(["hubert-slim", "hubert-size1582", "hubert-size30", "hubert-size30-half", "hubert-size50-half"], "masked")
    found = curves.families(trained | {"tera-slim": "reconstruction", "hubert2-slim": "masked"})
    assert found == {
        "hubert-size #": ["hubert-size30", "hubert-size1582"],
        "hubert-size # -half": ["hubert-size30-half", "hubert-size50-half"],
        "others, masked": ["hubert-slim", "hubert2-slim"],
        "others, reconstruction": ["tera-slim"],
    }
