"""Tables that a notebook computes, kept beside its figures in `results/<profile>/<study>/tables/`, and shown on the page of the results."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def keep(table: pd.DataFrame, folder: Path, name: str) -> pd.DataFrame:
    """Write `<folder>/tables/<name>.csv`, numbers with six digits, a named index as columns; returns the table. An empty table has no file:
    one of an earlier run goes."""
    path = folder / "tables" / f"{name}.csv"
    if table.empty:
        path.unlink(missing_ok=True)
        return table
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=not isinstance(table.index, pd.RangeIndex), float_format="%.6g", lineterminator="\n")
    return table


def shown(folder: Path) -> list[tuple[str, str]]:
    """Name and HTML of every table that a study keeps, in order of name."""
    tables = {path.stem: pd.read_csv(path, dtype=str, keep_default_na=False) for path in sorted((folder / "tables").glob("*.csv"))}
    return [
        (name.replace("_", " "), table.rename(columns={"Unnamed: 0": ""}).to_html(index=False, border=0, classes="scores"))
        for name, table in tables.items()
    ]
