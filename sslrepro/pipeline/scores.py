"""Verdicts on the results of a profile: with exact counts from the papers' own models, and stale where other code made the runs."""

from __future__ import annotations

import json

import pandas as pd

from sslrepro.budget import cell_cost
from sslrepro.budget.counted import counted
from sslrepro.claims.judging import Row, judge_study
from sslrepro.claims.ledger import load_study
from sslrepro.claims.scoreboard import markdown, scoreboard
from sslrepro.errors import UserError
from sslrepro.paths import results_dir
from sslrepro.pipeline.profile import expand
from sslrepro.training.identity import code_hash

COUNTED_SECONDS = 15.625  # of an utterance, where a count's name gives no length


def paper_count(name: str) -> float | None:
    """`measure:study/cell` or `measure:study/cell@seconds` of a cell at its published size: as the profile paper has it, or as the
    named model that the cell trains; None for any other name.

    measure: params, upstream_params, macs, train_flops.
    """
    measure, _, rest = name.partition(":")
    place, _, seconds = rest.partition("@")
    study, _, cell = place.partition("/")
    block = expand("paper").studies.get(study)
    if block is None or cell not in block.cells:
        return counted(name)
    return float(getattr(cell_cost(block.cells[cell], float(seconds or COUNTED_SECONDS)), measure))


def write_verdicts(profile: str, study: str) -> pd.DataFrame:
    """Judge a study's collected results, write its `verdicts.json`, and return them for people."""
    rows = judge_study(study, profile, counts=paper_count, code=code_hash())
    text = json.dumps([row.as_dict() for row in rows], indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    (results_dir(profile) / study / "verdicts.json").write_text(text, encoding="utf-8")
    return table(rows)


def write_scoreboard(profile: str) -> pd.DataFrame:
    """Every claim at a profile, as `scoreboard.json` and `scoreboard.md`; returns it for people."""
    return table(scoreboard(profile, counts=paper_count, code=code_hash()))


def show_scoreboard(profile: str, as_json: bool) -> int:
    """`sslrepro verify`: judge what is in `results/<profile>` now and print it; writes nothing."""
    if not results_dir(profile).is_dir():
        raise UserError(f"{results_dir(profile)}: no results yet; make repro PROFILE={profile}")
    rows = scoreboard(profile, counts=paper_count, code=code_hash(), write=False)
    print(json.dumps([row.as_dict() for row in rows], indent=1) if as_json else markdown(rows, profile))
    return 0


def table(rows: list[Row]) -> pd.DataFrame:
    """Claim, verdict, margin with its interval (text, empty where there is none), metric and reason."""
    shown = [
        {
            "claim": r.claim, "verdict": r.verdict, "margin": _number(r.effect), "low": _number(r.low), "high": _number(r.high),
            "metric": r.metric, "why": r.reason,
        }
        for r in rows
    ]  # fmt: skip
    return pd.DataFrame(shown).set_index("claim")


def missing(study: str) -> pd.DataFrame:
    """The numbers of a study's papers that a reader would look for and no source of ours shows, by claim. `evidence`: UNVERIFIED, read
    nowhere; S, in a secondary digest alone. docs/claims.md"""
    rows = [(claim.id, lack.what, lack.evidence, lack.note) for claim in load_study(study).claims for lack in claim.missing]
    table = pd.DataFrame(rows, columns=["claim", "missing", "evidence", "note"]).set_index("claim")
    return table.loc[:, (table != "").any()]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:+.3g}"
