"""The tables of docs/accounting.md: published against counted. `python -m sslrepro.budget.table` writes them; a test keeps them fresh."""

from __future__ import annotations

from pathlib import Path

from sslrepro.budget.names import NAMED, named
from sslrepro.budget.published import published_vertices, size_sweep
from sslrepro.budget.updates import PAPER_SECONDS, equal_compute_updates
from sslrepro.config import read_yaml
from sslrepro.paths import root

BEGIN, END = "<!-- begin: python -m sslrepro.budget.table -->", "<!-- end -->"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sizes() -> str:
    """Published and counted parameters of the size sweep."""
    full = size_sweep().query("budget == 'full'").dropna(subset="params_m")
    rows = [
        [row.objective, row.model, f"{row.params_m:.1f} M", f"{row.params / 1e6:.1f} M", f"{row.params:,}"] for row in full.itertuples()
    ]
    stack = _ledger("summarymixing", "sm-04")
    mixing = next(fact["value"] for fact in stack["facts"] if fact["name"].startswith("parameters derived"))
    for name, published in (
        ("summarymixing-w2v2", mixing),
        ("mhsa-w2v2-conformer", stack["published"]["attention"]["value"] / 1e6),
    ):
        params = named(name).cost(PAPER_SECONDS).params
        rows.append(["wav2vec2", name, f"{published:.1f} M", f"{params / 1e6:.1f} M", f"{params:,}"])
    return markdown(["objective", "model", "published", "counted", "exactly"], rows)


def updates() -> str:
    """Published updates against those that equal forward MACs imply. HuBERT's Large ran with half the batch."""
    rows = []
    for objective in ("hubert", "wav2vec2"):
        full = size_sweep().query(f"budget == 'full' and objective == '{objective}'").set_index("model")
        reference = full.loc["slim-100"]
        for model, row in full.iterrows():
            implied = equal_compute_updates(reference.updates, reference.macs, row.macs)
            off = f"{100 * (implied / row.updates - 1):+.1f} %"
            note = " (half the batch: not comparable)" if (objective, model) == ("hubert", "large") else ""
            rows.append([objective, str(model), f"{row.macs / 1e9:.1f}", f"{row.updates:,}", f"{implied:,}", off + note])
    return markdown(["objective", "model", "GMAC at 15.625 s", "published updates", "from equal MACs", "difference"], rows)


def reductions() -> str:
    """Headline figures of the survey's methods that are counts."""
    base = NAMED["hubert-base"].cost(PAPER_SECONDS)
    wanted = (
        ("survey-01", "student_size", "distilhubert", "upstream_params", "parameters without heads"),
        ("survey-02", "subnet", "lighthubert-base", "upstream_params", "parameters without heads"),
        ("survey-03", "mel", "melhubert-20ms", "macs", "MACs"),
    )
    rows = []
    for claim, series, name, quantity, words in wanted:
        published = _ledger("survey", claim)["published"][series]["reduced_pct"]
        ours = 1 - getattr(NAMED[name].cost(PAPER_SECONDS), quantity) / getattr(base, quantity)
        rows.append([name, f"{words}, against hubert-base", f"-{published:g} %", f"-{100 * ours:.1f} %", claim])
    size = next(fact["value"] for fact in _ledger("survey", "survey-09")["facts"] if fact["name"].startswith("size in %"))
    ours = 1 - NAMED["fithubert"].cost(PAPER_SECONDS).upstream_params / base.upstream_params
    words = "parameters without heads, against hubert-base"
    rows.append(["fithubert", words, f"-{100 - size:.1f} %", f"-{100 * ours:.1f} %", "survey-09"])
    return markdown(["model", "what", "published", "counted", "claim"], rows)


def named_models() -> str:
    """Every named model at 15.625 s."""
    rows = []
    for name, model in NAMED.items():
        cost = model.cost(PAPER_SECONDS)
        millions = (f"{cost.params / 1e6:.1f}", f"{cost.upstream_params / 1e6:.1f}")
        rows.append([f"`{name}`", *millions, f"{cost.macs / 1e9:.1f}", f"{cost.train_flops / 1e9:.0f}", model.note])
    return markdown(["name", "M parameters", "without heads", "GMAC", "GFLOP to train", "what"], rows)


def vertices() -> str:
    """Best size on the published sweep, by objective, budget and metric."""
    table = published_vertices()
    cells = table.assign(text=[f"{s / 1e6:.0f} [{a / 1e6:.0f}, {b / 1e6:.0f}]" for s, a, b in table[["size", "low", "high"]].to_numpy()])
    wide = cells.pivot(index=["objective", "budget"], columns="metric", values="text")
    metrics = list(dict.fromkeys(table.metric))
    curves = dict.fromkeys(zip(table.objective, table.budget, strict=True))
    rows = [[*curve, *(wide.loc[curve, metric] for metric in metrics)] for curve in curves]
    return markdown(["objective", "budget", *metrics], rows)


def _ledger(study: str, claim: str) -> dict:
    claims = read_yaml(root() / "claims" / f"{study}.yaml")["claims"]
    return next(entry for entry in claims if entry["id"] == claim)


def tables() -> str:
    """All of them, as they stand between the marks in docs/accounting.md."""
    sections = {
        "Parameters": sizes(),
        "Updates of the compute-budget paper": updates(),
        "Reductions": reductions(),
        "Named models, one utterance of 15.625 s": named_models(),
        "Best size on the published sweep, in M parameters with 95 % intervals": vertices(),
    }
    return "\n\n".join(f"### {title}\n\n{table}" for title, table in sections.items())


def page() -> Path:
    return root() / "docs" / "accounting.md"


def refreshed(text: str) -> str:
    """The page with its tables as they are counted now."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


if __name__ == "__main__":
    page().write_text(refreshed(page().read_text(encoding="utf-8")), encoding="utf-8")
