"""The notebook runner: what papermill lets pass fails here, and two identical runs leave the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sslrepro.errors import UserError
from sslrepro.pipeline import notebook, sources

REPOSITORY = Path(__file__).resolve().parents[2]
PARAMETERS = 'count = 2\nrate = 0.1\nflag = False\nname = "x"\nsome = [1, 2]'


def write(path: Path, *cells: str, parameters: str | None = PARAMETERS, kernel: str = "my-env") -> Path:
    """A notebook as Jupyter leaves it: with counts, outputs and another kernel's name."""
    code = [{"cell_type": "code", "metadata": {}, "source": cell, "execution_count": 7, "outputs": []} for cell in cells]
    if parameters is not None:
        tagged = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": parameters, "execution_count": 1, "outputs": []}
        code.insert(0, tagged)
    kernelspec = {"name": kernel, "display_name": kernel, "language": "python"}
    path.write_text(json.dumps({"cells": code, "metadata": {"kernelspec": kernelspec}, "nbformat": 4, "nbformat_minor": 5}))
    return path


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLREPRO_ROOT", str(tmp_path))
    return tmp_path


def test_two_runs_leave_the_same_bytes_and_parameters_arrive_typed(project):
    """Times, kernels, addresses, stderr are gone; stdout, results and figures stay. Runs where the project is, on kernel python3."""
    home_kernel = project / "home" / "share" / "jupyter" / "kernels" / "python3"
    home_kernel.mkdir(parents=True)
    (home_kernel / "kernel.json").write_text(json.dumps({"argv": ["/bin/false"], "display_name": "not this", "language": "python"}))
    path = write(
        project / "a.ipynb",
        "import os, sys, time, tqdm\nprint(count + 1, rate, flag, name)\nprint(os.getcwd() == os.environ['SSLREPRO_ROOT'])",
        "print('12 of', '20', time.time(), file=sys.stderr); object()",
        "import matplotlib.pyplot as plt\nplt.figure(figsize=(1, 1)); plt.plot([1, 2]);",
    )
    environment = os.environ | {"JUPYTER_DATA_DIR": str(project / "home" / "share" / "jupyter"), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "sslrepro.pipeline.notebook", str(path), "count=3", "rate=1e-4", "flag=true", "name=1.5"]
    written = []
    for out in ("one.ipynb", "two.ipynb"):
        run = subprocess.run([*command, "--out", out], env=environment, cwd="/", capture_output=True, text=True, timeout=120)
        assert run.returncode == 0, run.stderr
        assert "12 of 20" in run.stderr and "4 0.0001 True 1.5" in run.stdout, "shown while it runs"
        written.append((project / out).read_bytes())
    assert written[0] == written[1]
    outputs = [output for cell in json.loads(written[0])["cells"] for output in cell.get("outputs", [])]
    assert outputs[0]["text"] == ["4 0.0001 True 1.5\n", "True\n"] or outputs[0]["text"] == "4 0.0001 True 1.5\nTrue\n"
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert "12 of 20" not in written[0].decode() and "object at 0x…" in written[0].decode()
    assert not list((project / ".work" / "notebooks").glob("*")), "scratch was left"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"cuont": "3"}, "no parameter 'cuont'; it has: count, rate, flag, name, some"),
        ({"count": "3.5"}, "count is '3.5', expected int"),
        ({"rate": "fast"}, "rate is 'fast', expected float"),
        ({"flag": "1"}, "flag is '1', expected bool"),
        ({"flag": "maybe"}, "flag is 'maybe', expected bool"),
        ({"some": "b16"}, "some is 'b16', expected list"),
    ],
)
def test_a_misspelt_or_mistyped_parameter_fails_before_anything_runs(project, given, named):
    path = write(project / "a.ipynb", "raise AssertionError('ran')")
    with pytest.raises(UserError, match=named):
        notebook.execute(path, project / "out.ipynb", given)
    assert not (project / "out.ipynb").exists()


@pytest.mark.parametrize("parameters", [None, "count = 2\nrate = count * 2", "import os", "a, b = 1, 2", "a = None"])
def test_parameters_are_one_cell_of_literals(project, parameters):
    with pytest.raises(UserError, match="parameters"):
        notebook.execute(write(project / "a.ipynb", "1", parameters=parameters), project / "out.ipynb", {})


def test_two_parameters_cells_are_refused():
    cell = {"metadata": {"tags": ["parameters"]}, "source": "a = 1"}
    with pytest.raises(UserError, match="2 cells are tagged"):
        notebook.declared({"cells": [cell, cell]}, "a.ipynb")


@pytest.mark.parametrize(
    ("last", "status", "said"),
    [
        ("import sys; sys.exit(0)", 2, "did not run to its end"),
        ("raise ValueError('wrong batch')", 1, "wrong batch"),
        ("(out / 'metrics.json').write_text('{\"loss\": NaN}')", 2, "not a finite number: NaN"),
        ("(out / 'metrics.json').write_text('{\"status\": \"collapsed\"}')", 2, "the run collapsed"),
    ],
)
def test_a_run_that_went_wrong_fails_and_what_was_there_before_stays(project, capsys, last, status, said):
    results, executed = project / "results", project / "out.ipynb"
    results.mkdir()
    (results / "metrics.json").write_text('{"loss": 1.0}')
    executed.write_text("the good one")
    start = f"from pathlib import Path\nout = Path({str(results)!r})\n(out / 'half.json').write_text('{{}}')"
    path = write(project / "a.ipynb", start, last, "print('after')")
    assert notebook.main([str(path), "--out", "out.ipynb", "--writes", "results"]) == status
    assert said in capsys.readouterr().err
    assert executed.read_text() == "the good one"
    assert [p.name for p in results.iterdir()] == ["metrics.json"] and json.loads((results / "metrics.json").read_text()) == {"loss": 1.0}
    assert (project / ".work" / "failed" / "out.ipynb").exists(), "the failed notebook is kept to be looked at"


def test_a_mistake_of_the_user_in_a_cell_is_its_message_alone(project, capsys):
    path = write(project / "a.ipynb", "from sslrepro.errors import UserError\nraise UserError('no cell b: it has a')")
    assert notebook.main([str(path), "--out", "out.ipynb"]) == 2
    assert capsys.readouterr().err.splitlines() == ["no cell b: it has a", "the notebook as far as it ran: .work/failed/out.ipynb"]


def test_results_are_checked(project):
    folder = project / "r"
    folder.mkdir()
    with pytest.raises(UserError, match="without writing"):
        notebook.check_results(folder)
    (folder / "metrics.csv").write_text("cell,metric,value\nb16,loss,1.0\nb32,loss,inf\n")
    with pytest.raises(UserError, match="b32 loss"):
        notebook.check_results(folder)
    (folder / "metrics.csv").write_text("cell,metric,value\nb16,loss,\n")
    with pytest.raises(UserError, match="not a finite number"):
        notebook.check_results(folder)


def test_opening_and_running_a_notebook_changes_nothing_in_its_source(tmp_path):
    written, seen = tmp_path / "written", tmp_path / "seen"
    written.mkdir()
    path = write(written / "a.ipynb", "1 + 1")
    sources.write_clean(written, seen)
    before = (seen / "a.ipynb").read_bytes()
    content = json.loads(path.read_text())
    content["cells"][1] |= {"execution_count": 99, "outputs": [{"output_type": "stream", "name": "stdout", "text": "2"}], "id": "3f2"}
    content["cells"][1]["metadata"] = {"execution": {"start": "now"}, "collapsed": True}
    content["metadata"] = {"kernelspec": {"name": "other"}, "widgets": {}}
    path.write_text(json.dumps(content))
    sources.write_clean(written, seen)
    assert (seen / "a.ipynb").read_bytes() == before
    content["cells"][1]["source"] = "1 + 2"
    path.write_text(json.dumps(content))
    sources.write_clean(written, seen)
    assert (seen / "a.ipynb").read_bytes() != before
    assert sources.clean(json.loads(before)) == json.loads(before), "cleaning twice changes nothing"


@pytest.mark.parametrize("name", sorted(path.name for path in (REPOSITORY / "notebooks").glob("*.ipynb")))
def test_committed_notebooks_are_source(name):
    """One parameters cell, kernel python3, no outputs, in what git holds."""
    shown = subprocess.run(["git", "show", f":notebooks/{name}"], cwd=REPOSITORY, capture_output=True, text=True)
    content = json.loads(shown.stdout if shown.returncode == 0 else (REPOSITORY / "notebooks" / name).read_text())
    assert notebook.declared(content, name)
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in content["cells"] if cell["cell_type"] == "code")
