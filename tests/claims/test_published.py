"""Published tables replicate, counter-tables contradict, and a table that does not is caught."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from sslrepro.claims import published
from sslrepro.claims.ledger import load_study
from sslrepro.errors import UserError

CLAIMS = Path(__file__).parents[2] / "claims"
NO_TABLE = {
    *("budget-08", "budget-11", "stoch-01", "stoch-02", "stoch-03", "stoch-04"),
    *("sm-03", "sm-05", "survey-06", "survey-09"),
}


@pytest.fixture(scope="module")
def verified():
    return published.verify_published()


def test_all_right(verified):
    lines, ok = verified
    assert ok
    assert {line.claim for line in lines if line.ok is None} == NO_TABLE
    assert all(line.reason for line in lines if line.ok is None)
    for line in lines:
        if line.ok is not None:
            assert (line.table, line.counter) == ("replicated", "contradicted"), line.claim
            assert line.effect >= 0 > line.counter_effect, line.claim
            assert 0 <= line.shuffles_replicated < 1, line.claim


def test_shuffles_of_a_trend_hardly_ever_replicate(verified):
    shares = {line.claim: line.shuffles_replicated for line in verified[0]}
    # six points in order by chance: 1 / 720
    assert shares["batch-02"] < 0.01 and shares["batch-01"] < 0.01
    # a U over seven points is commoner, and that is worth seeing
    assert 0.05 < shares["budget-01"] < 0.9


def test_command(capsys):
    assert published.main() == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 49 and out[-1].startswith("38 of 38")
    assert published.main(json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True and len(told["claims"]) == 48


def changed(tmp_path, study, change):
    folder = tmp_path / "claims"
    shutil.copytree(CLAIMS, folder)
    values = yaml.safe_load((folder / f"{study}.yaml").read_text())
    change({claim["id"]: claim for claim in values["claims"]})
    (folder / f"{study}.yaml").write_text(yaml.safe_dump(values))
    return folder


def test_a_wrong_table_is_caught(tmp_path):
    def swap(claims):
        claims["sm-06"]["published"]["mixing_time"]["value"] = 120

    lines, ok = published.verify_published(changed(tmp_path, "summarymixing", swap))
    assert not ok
    assert [line.claim for line in lines if line.ok is False] == ["sm-06"]
    assert "WRONG" in next(line.text() for line in lines if line.ok is False)


def test_a_counter_table_that_still_replicates_is_caught(tmp_path):
    def weaken(claims):
        claims["batch-02"]["counter"] = {"kind": "other", "series": {}}

    _, ok = published.verify_published(changed(tmp_path, "batch_size", weaken))
    assert not ok


def test_a_selection_that_keeps_nothing_is_an_error(tmp_path):
    def lose(claims):
        claims["budget-01"]["published"]["curve"]["where"] = {"objective": "hubret"}

    with pytest.raises(UserError, match="keeps no rows"):
        published.verify_published(changed(tmp_path, "budget", lose))


def test_law_interval_is_the_papers():
    """The ratio a / b and its interval, derived once elsewhere from the same table: 1.04 [0.94, 1.16] and 1.12 [0.94, 1.36]."""
    claim = next(c for c in load_study("batch_size").claims if c.id == "batch-05")
    frame = published.published_frame(claim.published)
    ends = {part.name: part.value[0] for part in claim.tests[0].parts(frame)}
    assert ends["100 hours of labels: a / b, lower end"] == pytest.approx(0.94, abs=0.02)
    assert ends["100 hours of labels: a / b, upper end"] == pytest.approx(1.16, abs=0.02)
    assert ends["10 minutes of labels: a / b, lower end"] == pytest.approx(0.94, abs=0.02)
    assert ends["10 minutes of labels: a / b, upper end"] == pytest.approx(1.36, abs=0.03)
