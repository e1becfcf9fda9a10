"""The ledger: complete, typed, and unable to show an unverified number as the paper's."""

import copy
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sslrepro.claims.ledger import STUDIES, Claim, StudyClaims, load_ledger, load_study, template
from sslrepro.config import parse
from sslrepro.errors import UserError
from sslrepro.pipeline.scores import missing

FACTS = Path(__file__).parents[2].parent / "shared" / "facts"
COUNTS = {"budget": 12, "batch_size": 13, "stochastic": 6, "summarymixing": 8, "survey": 9}


def test_every_claim_parses_and_is_there():
    ledger = load_ledger()
    assert {study.study: len(study.claims) for study in ledger} == COUNTS
    ids = [claim.id for study in ledger for claim in study.claims]
    assert len(set(ids)) == 48
    for study in ledger:
        for claim in study.claims:
            assert claim.statement and claim.criterion and claim.ours, claim.id


@pytest.mark.skipif(not FACTS.exists(), reason="the facts are not at hand")
def test_statements_are_the_facts():
    facts = {fact["id"]: fact for fact in yaml.safe_load((FACTS / "claims.yaml").read_text())}
    claims = {claim.id: claim for study in load_ledger() for claim in study.claims}
    assert set(facts) == set(claims)
    assert [i for i in facts if " ".join(facts[i]["statement"].split()) != claims[i].statement] == []
    unverified = {i for i, fact in facts.items() if fact["paper_values"] == "UNVERIFIED"}
    assert [i for i in unverified if claims[i].published or claims[i].facts] == []
    for name in ("size_sweep.csv", "batch_size_wer_final.csv", "batch_size_wer_over_time.csv"):
        ours = Path(__file__).parents[2] / "claims" / "published" / name
        assert ours.read_text() == (FACTS / "published" / name).read_text()


def claim_values() -> dict:
    return copy.deepcopy(yaml.safe_load((Path(__file__).parents[2] / "claims" / "budget.yaml").read_text())["claims"][0])


@pytest.mark.parametrize("tag", ["UNVERIFIED", "S"])
def test_only_what_was_read_is_the_papers(tag):
    values = claim_values()
    values["published"]["curve"]["tag"] = tag
    with pytest.raises(UserError, match="tag"):
        parse(Claim, values, "here")
    values = claim_values()
    values["missing"] = [{"what": "a number", "evidence": tag, "value": 3.0}]
    with pytest.raises(UserError, match="value: no such setting"):
        parse(Claim, values, "here")


def test_a_table_needs_a_counter_table():
    values = claim_values()
    del values["counter"]
    with pytest.raises(UserError, match="counter-table"):
        parse(Claim, values, "here")


def test_a_test_names_known_series():
    values = claim_values()
    values["tests"][0]["of"] = "curv"
    with pytest.raises(UserError, match="curv"):
        parse(Claim, values, "here")


def test_a_test_uses_coordinates_that_our_cells_will_have():
    values = claim_values()
    values["ours"]["curve"]["cells"] = "{objective}-size{size}"
    with pytest.raises(UserError, match="size_pct"):
        parse(Claim, values, "here")


def test_a_series_names_a_known_metric():
    values = yaml.safe_load((Path(__file__).parents[2] / "claims" / "budget.yaml").read_text())
    values["claims"][0]["ours"]["curve"]["y"] = "contnet"
    with pytest.raises(UserError, match="contnet"):
        parse(StudyClaims, values, "here")


def test_unknown_study_and_missing_table(tmp_path):
    with pytest.raises(UserError, match="batchsize"):
        load_study("batchsize")
    for study in STUDIES:
        (tmp_path / f"{study}.yaml").write_text((Path(__file__).parents[2] / "claims" / f"{study}.yaml").read_text())
    with pytest.raises(UserError, match=r"size_sweep\.csv"):
        load_ledger(tmp_path)


def test_template():
    assert template("{objective}-size{size_pct}").fullmatch("hubert-size70").groupdict() == {"objective": "hubert", "size_pct": "70"}
    assert template("{objective}-size{size_pct}").fullmatch("hubert-size70-half") is None
    assert template("b{batch}").fullmatch("b87.5")["batch"] == "87.5"


def test_what_no_source_shows_is_listed_for_readers():
    listed = missing("stochastic")
    assert {"stoch-01", "stoch-02", "stoch-03", "stoch-04"} <= set(listed.index) and (listed["missing"] != "").all()
    assert set(pd.concat([missing(study) for study in STUDIES])["evidence"]) == {"UNVERIFIED", "S"}
