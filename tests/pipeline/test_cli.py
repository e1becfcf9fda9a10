"""The command line: fast, one line for a mistake, exit codes."""

import json
import os
import subprocess
import sys

import pytest

from sslrepro import cli


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(list(arguments))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_help_imports_nothing_heavy():
    heavy = "[m for m in ('torch', 'pandas', 'pydantic') if m in sys.modules]"
    code = f"import sys; from sslrepro.cli import parser; parser().format_help(); print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_reader_that_leaves_is_no_traceback():
    """`sslrepro … | head -1`, whose reader has gone before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "sslrepro", "count", "slim-100"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (
            ["cell", "budget", "nothing", "--profile", "tiny"],
            "no cell 'nothing' in study budget of profile tiny; it has: hubert-slim, tera-slim",
        ),
        (["cell", "bugdet", "hubert-slim", "--profile", "tiny"], "no study 'bugdet'"),
        (["sweep", "surveys", "--profile", "tiny", "--minutes", "1"], "'surveys' has no cells"),
        (["sweep", "budget", "--profile", "tiny", "--minutes", "-1"], "--minutes -1"),
        (["verify", "--profile", "huge"], "no profile 'huge'"),
        (["plan", "--profile", "huge"], "no profile 'huge'"),
        (["plan", "--gpu", "H200"], "--hours"),
        (["plan", "--flops", "0"], "above 0"),
        (["plan", "--flops", "2e11"], "nothing to plan"),
        (
            ["count", "budget/nothing", "--profile", "tiny"],
            "no cell 'nothing' in study budget of profile tiny; it has: hubert-slim",
        ),
        (["data", "prepare", "--profile", "tiny", "--targets", "mel"], "no targets 'mel'"),
        (["data", "check", "/nowhere"], "/nowhere"),
        (["count", "wav2vec9"], "wav2vec9"),
    ],
)
def test_a_mistake_is_one_message_and_exit_2(capsys, arguments, named):
    code, out, err = run(capsys, *arguments)
    assert code == 2 and named in err and err.startswith("sslrepro: ") and "Traceback" not in err and out == ""


def test_a_cell_of_a_profile_is_counted(capsys):
    """As its settings say, not as the paper's model of that name."""
    from sslrepro.budget.count import cell_cost
    from sslrepro.pipeline.profile import load

    code, out, _ = run(capsys, "count", "budget/hubert-slim", "--profile", "tiny", "--json", "--seconds", "2")
    cost = cell_cost(load("tiny").studies["budget"].cells["hubert-slim"], 2.0)
    assert code == 0 and json.loads(out)["params"] == cost.params and json.loads(out)["macs"] == cost.macs


def test_plan_tells_what_a_profile_costs(capsys):
    code, out, _ = run(capsys, "plan", "--profile", "tiny", "--json")
    planned = json.loads(out)
    assert code == 0
    cells = {(c["study"], c["cell"]): c for c in planned["cells"]}
    b16 = cells["batch_size", "b16"]
    assert b16["updates"] == 12 and b16["hours"] == pytest.approx(12 * 16 / 3600)
    assert b16["flops"] > 0 and b16["seconds"] > 0 and b16["megabytes"] > 0
    for key in ("flops", "hours", "seconds"):
        assert planned["total"][key] == pytest.approx(sum(c[key] for c in cells.values()))
    assert planned["total"]["cells"] == len(cells)
    code, out, _ = run(capsys, "plan", "--profile", "tiny")
    assert code == 0 and "batch_size/b16" in out and "all" in out


def test_doctor_reports_and_fails_only_for_what_is_missing(capsys, monkeypatch):
    code, out, _ = run(capsys, "doctor", "--json")
    report = json.loads(out)
    assert code == (1 if report["missing"] else 0)
    assert report["versions"]["torch"] and report["espeak"] is True and report["cores"] >= 1 and "cpu" in report["devices"][0]
    from sslrepro.pipeline import doctor

    monkeypatch.setattr(doctor, "_dependencies", lambda: ["torch", "no-such-package"])
    code, out, _ = run(capsys, "doctor")
    assert code == 1 and "MISSING: no-such-package is not installed: make setup" in out


def test_count_speaks_json(capsys):
    code, out, _ = run(capsys, "count", "slim-100", "--json")
    assert code == 0 and json.loads(out)["params"] > 1e7
