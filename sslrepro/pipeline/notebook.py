"""A thin runner over papermill: a notebook with its parameters -> the executed notebook, and the certainty that it ran.

    python -m sslrepro.pipeline.notebook NOTEBOOK --out EXECUTED [--writes PATH] [--receipt FILE] name=value ...

Papermill alone takes a misspelt parameter for a warning, `sys.exit(0)` for success and NaN for a number. Here each of them fails.
"""

from __future__ import annotations

import argparse
import ast
import csv
import hashlib
import json
import math
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from sslrepro.errors import UserError
from sslrepro.paths import root
from sslrepro.pipeline.sources import clean

Parameter = bool | int | float | str | list
_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")


def declared(notebook: dict[str, Any], where: str) -> dict[str, Parameter]:
    """Names and defaults in the one cell tagged `parameters`: plain assignments of literals. Raises UserError otherwise."""
    tagged = [cell for cell in notebook["cells"] if "parameters" in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise UserError(f"{where}: {len(tagged)} cells are tagged `parameters`; exactly one must be")
    found: dict[str, Parameter] = {}
    for statement in ast.parse("".join(tagged[0]["source"])).body:
        plain = isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name)
        try:
            value = ast.literal_eval(statement.value) if plain else None
        except ValueError:
            value = None
        if not isinstance(value, Parameter):
            raise UserError(f"{where}: line {statement.lineno} of the parameters cell is not `name = literal`")
        found[statement.targets[0].id] = value
    return found


def checked(given: dict[str, str], defaults: dict[str, Parameter], where: str) -> dict[str, Parameter]:
    """Values from the command line, each of its default's type. Raises UserError for an unknown name or another type."""
    values = {}
    for name, value in given.items():
        if name not in defaults:
            raise UserError(f"{where}: no parameter {name!r}; it has: {', '.join(defaults)}")
        kind = type(defaults[name])
        try:
            values[name] = kind(value) if kind in (int, float, str) else json.loads(value)
            if type(values[name]) is not kind:
                raise ValueError
        except ValueError:
            raise UserError(f"{where}: parameter {name} is {value!r}, expected {kind.__name__}") from None
    return values


def execute(path: Path, out: Path, given: dict[str, str], writes: list[Path] | None = None, receipt: Path | None = None) -> None:
    """Run the notebook at `path` from the project folder and move the result to `out` whole.

    given: parameters as text. writes: the files and folders that the notebook fills: put back as they were if the run fails, checked by
    `check_results` if not. receipt: a file for the hashes of all that was written, by which later stages see whether it changed.
    What the notebook prints to stderr (progress, warnings) is shown and not kept; stdout is shown and kept.
    Raises UserError for parameters and results that are wrong, papermill's error for an exception in a cell.
    """
    if not path.exists():
        raise UserError(f"{path}: no such notebook")
    source = clean(json.loads(path.read_text(encoding="utf-8")))
    parameters = checked(given, declared(source, path.name), path.name)
    scratch = root() / ".work" / "notebooks" / f"{out.stem}-{os.getpid()}"
    scratch.mkdir(parents=True, exist_ok=True)
    failed = root() / ".work" / "failed" / out.name
    before = _set_aside(writes or [], scratch)
    try:
        executed = _run(source, scratch, parameters)
        _finished(executed, path.name)
        for written in writes or []:
            check_results(written)
    except BaseException as error:
        _put_back(before)
        if (scratch / "executed.ipynb").exists():
            failed.parent.mkdir(parents=True, exist_ok=True)
            (scratch / "executed.ipynb").replace(failed)
            error.add_note(f"the notebook as far as it ran: {failed.relative_to(root())}")
        raise
    else:
        _write_whole(stable(executed), out, scratch)
        if receipt is not None:
            _write_whole(_hashes(writes or []), receipt, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def stable(notebook: dict[str, Any]) -> dict[str, Any]:
    """The executed notebook without what differs between two identical runs: times, versions, addresses, stderr."""
    kept = clean(notebook)
    for place, (cell, executed) in enumerate(zip(kept["cells"], notebook["cells"], strict=True)):
        cell["id"] = f"cell-{place}"
        if cell["cell_type"] != "code":
            continue
        cell["execution_count"] = executed["execution_count"]
        outputs = [output for output in executed["outputs"] if output.get("name") != "stderr"]
        cell["outputs"] = [json.loads(_ADDRESS.sub(" at 0x…", json.dumps(output, ensure_ascii=False))) for output in outputs]
    return kept


def check_results(written: Path) -> None:
    """It exists; every number in its JSON files and metrics tables is finite; every run in it is completed."""
    files = [path for path in _files(written) if path.suffix in (".json", ".csv", ".md", ".png", ".svg")]
    if not files:
        raise UserError(f"{written}: the notebook ended without writing it")
    for path in files:
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name, path=path: _not_finite(path, name))
            if path.name == "metrics.json" and isinstance(content, dict) and content.get("status", "completed") != "completed":
                raise UserError(f"{path}: the run {content['status']}; see evidence.json beside it")
        elif path.name == "metrics.csv":
            with path.open(encoding="utf-8", newline="") as lines:
                for row in csv.DictReader(lines):
                    if not math.isfinite(float(row["value"] or "nan")):
                        _not_finite(path, f"{row.get('cell')} {row.get('metric')}")


def _files(written: Path) -> list[Path]:
    return [written] if written.is_file() else sorted(path for path in written.rglob("*") if path.is_file())


def _hashes(writes: list[Path]) -> dict[str, str]:
    files = [path for written in writes for path in _files(written)]
    return {path.relative_to(root()).as_posix(): hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() for path in files}


def _write_whole(content: dict[str, Any], out: Path, scratch: Path) -> None:
    ready = scratch / "ready"
    ready.write_text(json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    out.parent.mkdir(parents=True, exist_ok=True)
    ready.replace(out)


def _not_finite(path: Path, name: str) -> None:
    raise UserError(f"{path}: not a finite number: {name}")


def _run(source: dict[str, Any], scratch: Path, parameters: dict[str, Parameter]) -> dict[str, Any]:
    sys.modules.setdefault("rfc3987_syntax", None)  # jsonschema's URL grammar: a second to build, and nothing here has URLs
    import papermill  # a second: not for those who only check parameters

    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # this environment's python3 kernel, not one in the home folder
    (scratch / "source.ipynb").write_text(json.dumps(source), encoding="utf-8")
    papermill.execute_notebook(
        scratch / "source.ipynb", scratch / "executed.ipynb", parameters=parameters, kernel_name="python3", cwd=root(),
        progress_bar=False, stdout_file=sys.stdout, stderr_file=sys.stderr, start_timeout=180,
        extra_arguments=["--log-level=CRITICAL"],
    )  # fmt: skip
    return json.loads((scratch / "executed.ipynb").read_text(encoding="utf-8"))


def _finished(notebook: dict[str, Any], where: str) -> None:
    """Every code cell ran to its end. `sys.exit(0)` in a cell ends papermill as if all were well."""
    for place, cell in enumerate(notebook["cells"]):
        ran = cell["cell_type"] != "code" or not "".join(cell["source"]).strip() or cell["execution_count"] is not None
        if not ran or any(output["output_type"] == "error" for output in cell.get("outputs", [])):
            raise UserError(f"{where}: cell {place} did not run to its end (sys.exit or an error): what follows it never ran")


def _set_aside(writes: list[Path], scratch: Path) -> dict[Path, Path]:
    """Copies of what is there now, by where it belongs."""
    copies = {}
    for number, path in enumerate(path for path in writes if path.exists()):
        copies[path] = scratch / f"before-{number}"
        shutil.copytree(path, copies[path]) if path.is_dir() else shutil.copyfile(path, copies[path])
    return copies


def _put_back(copies: dict[Path, Path]) -> None:
    for path, copy in copies.items():
        if path.is_dir():
            shutil.rmtree(path)
        copy.rename(path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sslrepro.pipeline.notebook", description=__doc__.split("\n")[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the executed notebook")
    parser.add_argument("--writes", type=Path, action="append", default=[], help="a file or folder that the notebook fills")
    parser.add_argument("--receipt", type=Path, help="where to write the hashes of all that it filled")
    parser.add_argument("parameters", nargs="*", metavar="name=value")
    options = parser.parse_intermixed_args(arguments)
    try:
        pairs = [item.partition("=") for item in options.parameters]
        wrong = [name for name, equals, _ in pairs if not equals]
        if wrong:
            raise UserError(f"parameters are written name=value, got {wrong[0]!r}")
        given = {name: value for name, _, value in pairs}
        receipt = root() / options.receipt if options.receipt else None
        execute(options.notebook, root() / options.out, given, [root() / path for path in options.writes], receipt)
    except UserError as error:
        print(error, *getattr(error, "__notes__", []), sep="\n", file=sys.stderr)
        return 2
    except Exception as error:  # papermill's, with the cell's traceback in its text
        if getattr(error, "ename", None) == UserError.__name__:  # a message for people, which needs no traceback
            print(error.evalue, *error.__notes__, sep="\n", file=sys.stderr)
            return 2
        print(error, *getattr(error, "__notes__", []), sep="\n", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
