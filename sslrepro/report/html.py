"""The static report: an index with the scoreboard, the figures and kept tables, and one page an executed notebook. Opens from disk,
asks no network."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

from sslrepro.paths import results_dir, root
from sslrepro.report import kept

HERE = Path(__file__).parent
TITLES = {
    "batch_size": "The effect of batch size",
    "budget": "Training on a compute budget",
    "survey": "The efficiency survey",
    "stochastic": "On-demand compute reduction",
    "summarymixing": "Linear-complexity learning",
}
VERDICTS = {
    "replicated": "the whole 95 % interval of the margin is at or above zero",
    "contradicted": "the whole interval is below zero",
    "inconclusive": "the interval holds zero, or there are too few seeds, at this scale",
    "not run": "its cells are not part of this profile",
}


def build(profile: str) -> Path:
    """Write `report/` anew, in one move, from `artifacts/<profile>/executed` and `results/<profile>`; returns the index."""
    executed = root() / "artifacts" / profile / "executed"
    out = root() / "report"
    scratch = root() / f".report.{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        _write(profile, executed, scratch)
        shutil.rmtree(out, ignore_errors=True)
        scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return out / "index.html"


def _write(profile: str, executed: Path, out: Path) -> None:
    environment = Environment(autoescape=True, trim_blocks=True, loader=FileSystemLoader(HERE / "templates"))
    environment.filters |= {"slug": lambda name: str(name).split(" at ")[0].replace(" ", "-"), "margin": _margin}
    style = (HERE / "style.css").read_text(encoding="utf-8")
    (out / "style.css").write_text(style + HtmlFormatter(style="default").get_style_defs(".highlight"), encoding="utf-8")
    tops = sorted(executed.glob("*.ipynb"))
    pages = [{"href": "index.html", "title": "scoreboard"}]
    pages += [{"href": f"{path.stem}.html", "title": path.stem.replace("_", " ")} for path in tops if path.stem != "scoreboard"]
    cells: dict[str, list[dict[str, str]]] = {}

    def page(name: str, title: str, body: str) -> None:
        up = "../" * name.count("/")
        text = environment.get_template("page.html").render(title=title, body=Markup(body), up=up, here=name, pages=pages, profile=profile)
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text, encoding="utf-8")

    for path in tops:
        page(f"{path.stem}.html", TITLES.get(path.stem, path.stem.replace("_", " ")), _body(path))
    for path in sorted(executed.glob("*/*.ipynb")):
        name = f"cells/{path.parent.name}-{path.stem}.html"
        page(name, f"{path.parent.name}/{path.stem}", _body(path))
        cells.setdefault(path.parent.name, []).append({"href": name, "title": path.stem})
    rows = _scoreboard(profile)
    studies = [study for study in TITLES if study in cells or any(row["study"] == study for row in rows)]
    body = environment.get_template("index.html").render(
        profile=profile, titles=TITLES, verdicts=VERDICTS, cells=cells, linked={path.stem for path in tops},
        studies=[(study, [row for row in rows if row["study"] == study]) for study in studies],
        tally=[(name, sum(row["verdict"].startswith(name) for row in rows)) for name in VERDICTS],
        figures={study: _figures(profile, study, out) for study in studies},
        tables={study: [(name, Markup(table)) for name, table in kept.shown(results_dir(profile) / study)] for study in studies},
        provenance=_provenance(profile),
    )  # fmt: skip
    page("index.html", "Scoreboard", body)


def _body(path: Path) -> str:
    """An executed notebook as the body of a page."""
    exporter = HTMLExporter(template_name="basic")
    notebook = nbformat.read(path, as_version=4)
    tags = [set(cell.metadata.get("tags", [])) for cell in notebook.cells]
    if any("injected-parameters" in own for own in tags):  # the defaults that they replace would read as what was run
        notebook.cells = [cell for cell, own in zip(notebook.cells, tags, strict=True) if "parameters" not in own]
    body, _ = exporter.from_notebook_node(notebook)
    return f'<div class="notebook">{body}</div>'


def _scoreboard(profile: str) -> list[dict[str, Any]]:
    path = results_dir(profile) / "scoreboard.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def _margin(row: dict[str, Any]) -> str:
    effect, low, high = (row.get(key) for key in ("effect", "low", "high"))
    if effect is None:
        return ""
    return f"{effect:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low is not None and high is not None else "")


def _figures(profile: str, study: str, out: Path) -> list[str]:
    """Copies a study's figures into the report; SVG where there is one."""
    names = []
    folder = results_dir(profile) / study / "figures"
    for image in sorted(folder.glob("*.svg")) or sorted(folder.glob("*.png")):
        target = out / "figures" / f"{study}-{image.name}"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(image, target)
        names.append(f"figures/{target.name}")
    return names


def _provenance(profile: str) -> str:
    """Commits and machines that the results come from."""
    commits, machines = set(), set()
    for path in results_dir(profile).glob("*/runs.json"):
        for run in _runs(json.loads(path.read_text(encoding="utf-8"))):
            commits.add(str(run.get("commit", "unknown")))
            machine = run.get("machine")
            machines.add(
                ", ".join(str(machine[k]) for k in ("cpu", "cores", "gpu") if k in machine) if isinstance(machine, dict) else str(machine)
            )
    return f"Runs of commit {', '.join(sorted(commits))} on {'; '.join(sorted(machines))}." if commits else ""


def _runs(content: Any) -> list[dict[str, Any]]:
    """The runs in runs.json, however deep."""
    if isinstance(content, dict) and "commit" not in content:
        return [run for part in content.values() for run in _runs(part)]
    if isinstance(content, list):
        return [run for part in content for run in _runs(part)]
    return [content] if isinstance(content, dict) else []
