"""The scoreboard in README.md, computed: `python -m sslrepro.report.readme` writes it anew, and docs/scaling.md; tests hold both to what it
would write."""

from __future__ import annotations

import json
from collections import Counter

from sslrepro.claims.ledger import load_ledger
from sslrepro.claims.published import verify_published
from sslrepro.claims.scoreboard import scoreboard
from sslrepro.claims.verdict import CONTRADICTED, REPLICATED
from sslrepro.paths import results_dir, root
from sslrepro.pipeline.scores import paper_count
from sslrepro.report import scaling

BEGIN, END = "<!-- scoreboard: python -m sslrepro.report.readme -->", "<!-- end of scoreboard -->"
KEPT = ("laptop", "gpu")  # the profiles whose results are in git


def section() -> str:
    """What stands between the marks: the check on published tables, the claims that are counts, and the profiles whose results are kept."""
    lines, right = verify_published()
    judged = sum(line.table is not None for line in lines)
    total = sum(len(study.claims) for study in load_ledger())
    text = [
        f"Of {total} claims, {judged} have published numbers to judge; all of their tables and counter-tables come out "
        f"{'right' if right else 'WRONG'}. Decided by exact counts at the papers' full sizes, on any machine:",
        "",
        "| claim | what it says | verdict | margin |",
        "|---|---|---|---|",
    ]
    counted = [
        row for row in scoreboard("paper", counts=paper_count, write=False) if row.verdict in (REPLICATED, CONTRADICTED) and not row.seeds
    ]
    text += [f"| {row.claim} | {row.statement} | **{row.verdict}** | {row.effect:+.2g} |" for row in counted]
    for profile in KEPT:
        path = results_dir(profile) / "scoreboard.json"
        if path.exists():
            tally = Counter(row["verdict"] for row in json.loads(path.read_text(encoding="utf-8")))
            said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(tally.items()))
            text += ["", f"[results/{profile}](results/{profile}/scoreboard.md): {said}."]
    return "\n".join([BEGIN, "", *text, "", END])


def rewritten(readme: str) -> str:
    """README.md with the section anew."""
    before, _, rest = readme.partition(BEGIN)
    return before + section() + rest.partition(END)[2]


if __name__ == "__main__":
    page = root() / "README.md"
    page.write_text(rewritten(page.read_text(encoding="utf-8")), encoding="utf-8")
    scaling.write()
