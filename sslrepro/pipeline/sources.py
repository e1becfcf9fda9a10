"""Notebooks as source: what a person wrote, without what running them left. Stages depend on these copies, so that opening and running a
notebook reruns nothing, and editing it does. Standard library only: this stage takes a fraction of a second. As the first stage of every
cell it also sees to `artifacts/machine.json`, which `make repro` writes before DVC begins and a plain `dvc repro` of a fresh clone lacks.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sslrepro.pipeline import machine


def clean(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook without outputs, counts, widget states and times; kernel `python3`; cells named by their place."""
    cells = []
    for place, cell in enumerate(notebook["cells"]):
        kept = {"cell_type": cell["cell_type"], "id": f"cell-{place}", "metadata": _tags(cell), "source": _lines(cell["source"])}
        if cell["cell_type"] == "code":
            kept |= {"execution_count": None, "outputs": []}
        cells.append(kept)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _tags(cell: dict[str, Any]) -> dict[str, Any]:
    tags = cell.get("metadata", {}).get("tags")
    return {"tags": tags} if tags else {}


def _lines(source: str | list[str]) -> list[str]:
    return ("".join(source)).splitlines(keepends=True)


def write_clean(notebooks: Path, out: Path) -> list[Path]:
    """Clean copies of all notebooks of a folder."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for path in sorted(notebooks.glob("*.ipynb")):
        content = clean(json.loads(path.read_text(encoding="utf-8")))
        target = out / path.name
        target.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        written.append(target)
    return written


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sslrepro.pipeline.sources", description="Clean copies of all notebooks of a folder.")
    parser.add_argument("notebooks", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    write_clean(options.notebooks, options.out)
    machine.write()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
