"""profiles/<name>.yaml, which hold what differs -> params.yaml, the experiment in full, which `dvc repro` runs.

A profile file has `data`, `targets` and `studies`; a study has `base` and `cells`, and the file may have a `base` of its own for all
studies. A cell is base of the file, then base of the study, then the cell, merged key by key. Where a merged part names another `kind` or
`name` than what it overrides, it replaces it: a log-mel front end inherits nothing from a waveform one.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

import yaml

from sslrepro.config import CellSettings, Profile, parse, read_yaml
from sslrepro.errors import UserError
from sslrepro.paths import cell_dir, corpus_dir, results_dir, root, targets_dir
from sslrepro.pipeline import machine

STUDIES = ("batch_size", "budget", "survey", "stochastic", "summarymixing")
_TAGS = ("kind", "name", "unit")


def names() -> list[str]:
    """The profiles that there are."""
    return sorted(path.stem for path in (root() / "profiles").glob("*.yaml"))


def expand(name: str) -> Profile:
    """The profile of that name, every setting written out. Raises UserError naming file and key for anything unknown."""
    path = root() / "profiles" / f"{name}.yaml"
    if name not in names():
        raise UserError(f"no profile {name!r} in {path.parent}; it has: {', '.join(names())}")
    source = _mapping(read_yaml(path), {"data", "targets", "base", "studies"}, path.name)
    base = source.get("base") or {}
    studies: dict[str, Any] = {study: {"cells": {}} for study in STUDIES}
    for study, block in (source.get("studies") or {}).items():
        where = f"{path.name}: studies.{study}"
        if study not in STUDIES:
            raise UserError(f"{where}: no such study; there are: {', '.join(STUDIES)}")
        block = _mapping(block, {"base", "cells"}, where)
        shared = merge(base, block.get("base") or {})
        cells = _mapping(block.get("cells") or {}, None, f"{where}.cells")
        studies[study] = {"cells": {cell: merge(shared, own or {}) for cell, own in cells.items()}}
    values = {
        "profile": name,
        "data": source.get("data") or {},
        "targets": source.get("targets") or {},
        "studies": studies,
        "with_cells": [study for study in STUDIES if studies[study]["cells"]],
    }
    return _with_inputs(parse(Profile, values, path.name), path.name)


def load(name: str) -> Profile:
    """The profile as it is to be run: from params.yaml where that holds this profile (hand-edited perhaps), else as shipped."""
    path = root() / "params.yaml"
    if path.exists():
        values = read_yaml(path)
        if isinstance(values, dict) and values.get("profile") == name:
            profile = parse(Profile, values, path.name)
            if _with_inputs(profile, path.name) != profile:
                raise UserError(f"{path}: an `input` no longer fits its cell's objective, or `with_cells` its cells; start from a profile")
            return profile
    return expand(name)


def merge(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`own` over `base`, key by key; a part that names another kind, name or unit replaces what it overrides."""
    merged = dict(base)
    for key, value in own.items():
        old = merged.get(key)
        same = isinstance(value, dict) and isinstance(old, dict)
        if same and not any(tag in value and value[tag] != old.get(tag, value[tag]) for tag in _TAGS):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def position(profile: Profile, study: str, cell: str) -> str:
    """Where a cell stands among all of the profile's, as `2/6`."""
    order = [(s, c) for s, block in profile.studies.items() for c in block.cells]
    return f"{order.index((study, cell)) + 1}/{len(order)}" if (study, cell) in order else ""


def text(profile: Profile) -> str:
    """What params.yaml holds. Its first lines say where it comes from and carry a checksum, by which a hand edit is seen."""
    body = yaml.dump(profile.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return (
        f"# The experiment that `dvc repro` runs: profile {profile.profile}, every setting written out by `make repro`.\n"
        f"# Try a setting with `dvc exp run -S key=value`; change it for good in profiles/{profile.profile}.yaml.\n"
        f"# checksum {_checksum(body)}\n" + body
    )


def write(name: str, force: bool = False) -> str:
    """Write params.yaml from a profile and say what was done. A file that was edited by hand is only overwritten by force."""
    path = root() / "params.yaml"
    new = text(expand(name))
    old = path.read_text(encoding="utf-8") if path.exists() else None
    if old == new:
        return f"params.yaml holds profile {name}"
    if old is not None and not force and not _is_ours(old):
        raise UserError(
            f"{path} was edited by hand: `dvc repro` runs it as it is, `git diff params.yaml` shows the edits, "
            f"`make repro PROFILE={name} FORCE=1` overwrites them"
        )
    scratch = path.with_suffix(".yaml.tmp")
    scratch.write_text(new, encoding="utf-8")
    scratch.replace(path)
    return f"params.yaml written from profiles/{name}.yaml"


def where() -> str:
    """What the last run of the pipeline wrote, for people to open."""
    name = read_yaml(root() / "params.yaml")["profile"]
    pages = [results_dir(name) / "scoreboard.md", root() / "report" / "index.html"]
    missing = [str(page) for page in pages if not page.exists()]
    if missing:
        raise UserError(f"not written: {', '.join(missing)}; `dvc status` shows what is left to run")
    return f"Scoreboard: {pages[0].relative_to(root())}\nReport:     {pages[1].relative_to(root())}"


def _with_inputs(profile: Profile, where: str) -> Profile:
    """The profile with `input` of every cell and target set: the folder that its stage reads, which is how DVC orders the stages."""
    for name, target in profile.targets.items():
        if (target.source == "hidden") != (target.cell is not None):
            raise UserError(f"{where}: targets.{name}: `cell` is given exactly when source is hidden")
    targets = {
        name: target.model_copy(update={"input": _run(profile, target.cell, f"{where}: targets.{name}.cell") if target.cell else
                                        _relative(corpus_dir(profile.profile))})
        for name, target in profile.targets.items()
    }  # fmt: skip
    studies = {}
    for study, block in profile.studies.items():
        cells = {}
        for key, cell in block.cells.items():
            cells[key] = cell.model_copy(update=_inputs(profile, cell, f"{where}: studies.{study}.cells.{key}"))
        studies[study] = block.model_copy(update={"cells": cells})
    return profile.model_copy(update={"targets": targets, "studies": studies, "with_cells": [s for s in studies if studies[s].cells]})


def _inputs(profile: Profile, cell: CellSettings, where: str) -> dict[str, Any]:
    """What the cell's stage reads; the corpus, which every stage reads, stands where there is nothing else. And a teacher's settings,
    which its student's cost depends on."""
    corpus = _relative(corpus_dir(profile.profile))
    named, teacher = getattr(cell.objective, "targets", None), getattr(cell.objective, "teacher", None)
    if named is not None and named not in profile.targets:
        raise UserError(f"{where}.objective.targets: no targets {named!r}; the profile has: {', '.join(profile.targets) or 'none'}")
    if not cell.is_trained:
        kept = _snapshots(profile, cell.start, f"{where}.start")
        if lacking := [share for share in cell.training.snapshots if share not in kept]:
            lacks = f"{cell.start} keeps none at {lacking[0]:g}" if cell.start else "it starts with none"
            raise UserError(
                f"{where}.training.snapshots: the cell trains nothing, so they are those of the run that it starts with, and {lacks}"
            )
    inputs: dict[str, Any] = {}
    if hasattr(cell.objective, "teacher_model"):
        _run(profile, teacher, f"{where}.objective.teacher")
        study, _, other = teacher.partition("/")
        model = profile.studies[study].cells[other].model
        inputs["objective"] = cell.objective.model_copy(update={"teacher_model": model})
    return inputs | {
        "input": corpus if named is None else _relative(targets_dir(profile.profile, named)),
        "start_input": corpus if cell.start is None else _run(profile, cell.start, f"{where}.start"),
        "teacher_input": corpus if teacher is None else _run(profile, teacher, f"{where}.objective.teacher"),
        "measure_input": corpus if cell.measure is None else _relative(machine.path()),
    }


def _snapshots(profile: Profile, named: str | None, where: str) -> list[float]:
    """The shares of its run at which a cell keeps its weights."""
    if named is None:
        return []
    _run(profile, named, where)
    study, _, cell = named.partition("/")
    start = profile.studies[study].cells[cell]
    return start.training.snapshots if start.is_trained else []


def _run(profile: Profile, named: str, where: str) -> str:
    study, _, cell = named.partition("/")
    if study not in profile.studies or cell not in profile.studies[study].cells:
        raise UserError(f"{where}: no cell {named!r}; write study/cell of the same profile")
    return _relative(cell_dir(profile.profile, study, cell))


def _relative(path: Path) -> str:
    return path.relative_to(root()).as_posix()


def _mapping(value: Any, keys: set[str] | None, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected keys and values, got {value!r}")
    unknown = set(value) - keys if keys is not None else set()
    if unknown:
        raise UserError(f"{where}: no such setting: {', '.join(sorted(map(str, unknown)))}; there are: {', '.join(sorted(keys))}")
    return value


def _checksum(body: str) -> str:
    return hashlib.blake2b(body.encode(), digest_size=6).hexdigest()


def _is_ours(content: str) -> bool:
    """Whether the body is still the one that the checksum in the header was taken of."""
    header, _, body = content.partition("# checksum ")
    checksum, _, body = body.partition("\n")
    return bool(header) and checksum == _checksum(body)


class _Dumper(yaml.SafeDumper):
    """Lists on one line: a cell is read at a glance."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _list(dumper: yaml.SafeDumper, data: list) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


def _float(dumper: yaml.SafeDumper, data: float) -> yaml.Node:
    """With a point: YAML 1.1 takes 1e-06 for text, and DVC reads YAML 1.2."""
    shown = repr(data)
    if "e" in shown and "." not in shown:
        shown = shown.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", shown)


_Dumper.add_representer(list, _list)
_Dumper.add_representer(float, _float)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sslrepro.pipeline.profile", description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    writing = verbs.add_parser("write", help="write params.yaml from a profile")
    writing.add_argument("name")
    writing.add_argument("--force", action="store_true", help="overwrite a file that was edited by hand")
    verbs.add_parser("where", help="name the scoreboard and the report of the last run")
    options = parser.parse_args(arguments)
    try:
        if options.verb == "write":
            print(write(options.name, options.force), flush=True)
            machine.write()
        else:
            print(where(), flush=True)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
