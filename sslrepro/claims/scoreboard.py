"""All rows of a profile: results/<profile>/scoreboard.json, scoreboard.md, and each study's verdicts.json."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from sslrepro.claims.judging import Row, judge_study
from sslrepro.claims.ledger import STUDIES
from sslrepro.claims.results import Counts
from sslrepro.claims.verdict import CONTRADICTED, INCONCLUSIVE, NOT_RUN, REPLICATED
from sslrepro.paths import root

_HEAD = "| claim | verdict | m | 95 % interval | seeds | metric | why |\n|---|---|---|---|---|---|---|"


def scoreboard(
    profile: str, top: Path | None = None, counts: Counts | None = None, code: str | None = None, write: bool = True
) -> list[Row]:
    """Every claim of the ledger at one profile, written beside the results. Arguments as `judging.judge_study`."""
    top = top or root()
    rows = [row for study in STUDIES for row in judge_study(study, profile, top, counts, code)]
    if write:
        folder = top / "results" / profile
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "scoreboard.json", _json(rows))
        _write(folder / "scoreboard.md", markdown(rows, profile))
        for study in STUDIES:
            if (folder / study).is_dir():
                _write(folder / study / "verdicts.json", _json([row for row in rows if row.study == study]))
    return rows


def markdown(rows: list[Row], profile: str) -> str:
    """The scoreboard as a readable table, study by study."""
    tally = Counter(row.verdict for row in rows)
    counted = ", ".join(f"{tally[name]} {name}" for name in (REPLICATED, CONTRADICTED, INCONCLUSIVE, NOT_RUN) if tally[name])
    lines = [
        f"# Scoreboard: {profile}",
        "",
        f"{len(rows)} claims: {counted}.",
        "",
        "m is the claim's margin: at or above 0 exactly when its criterion holds, in units of the criterion's thresholds (docs/claims.md).",
        "The metric named stands for the paper's at this profile; a verdict on a stand-in is not one on the paper's metric.",
    ]
    for study in dict.fromkeys(row.study for row in rows):
        lines += ["", f"## {study}", "", _HEAD, *(_line(row) for row in rows if row.study == study)]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    bounds = "" if row.effect is None or row.seeds < 2 else f"{_number(row.low, '-∞')} to {_number(row.high, '∞')}"
    stale = " (stale)" if row.stale else ""
    cells = [row.claim, f"**{row.verdict}**{stale}", _number(row.effect, ""), bounds, str(row.seeds or ""), row.metric, row.reason]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _number(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else f"{value:+.2g}"


def _json(rows: list[Row]) -> str:
    return json.dumps([row.as_dict() for row in rows], indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _write(path: Path, text: str) -> None:
    """The file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
