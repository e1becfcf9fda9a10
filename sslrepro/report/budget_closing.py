"""The line that closes each section of the compute-budget notebook, computed from the section's tables and the ledger's verdicts."""

from __future__ import annotations

import math

import pandas as pd

from sslrepro.report.guideline import INSIDE


def verdicts(judged: pd.DataFrame, *claims: str) -> str:
    """These claims, each with its verdict. judged: a row a claim, as `pipeline.scores.table`."""
    return "; ".join(f"{claim} {judged.verdict[claim]}" for claim in claims) + "."


def of_arms(arms: pd.DataFrame) -> str:
    """Of which curves at the full budget both arms are there, and where they are lowest."""
    full = arms[arms.budget == "full"] if len(arms) else arms
    if full.empty:
        return "This profile has no curve of three sizes."
    curves = [(f"{objective} ({row.metric}, best at {row['best between']})", row.both) for objective, row in full.iterrows()]
    told = {both: ", ".join(name for name, its in curves if its == both) or "none" for both in ("yes", "no")}
    idle = ", ".join(name for name, its in curves if its not in told)
    said = f" No better than random weights, so that its shape says nothing of training: {idle}." if idle else ""
    return f"Both arms lie above the best between them beyond the interval: {told['yes']}. Not so: {told['no']}.{said}"


def of_shares(best: pd.DataFrame) -> str:
    """Whether the best size moves with the front end's share, and how steep the arm of the large ones is. best: `budget.best_by_share`."""
    said = []
    for objective, part in best.groupby("objective"):
        sizes = dict(zip(part["front end"], part["best size, of Slim"], strict=True))
        if len(sizes) < 2:
            continue
        if len(set(sizes.values())) == 1:
            size = next(iter(sizes.values()))
            said.append(f"{objective}: best at {size} with each front end: on this grid the optimum does not move with its share.")
        else:
            said.append(f"{objective}: best at {'; at '.join(f'{size} with {front}' for front, size in sizes.items())}: the optimum moves.")
        ends = zip(part["largest above it"], part["front end"], strict=True)
        said.append(f"The largest size lies above the best by {'; '.join(f'{above} with {front}' for above, front in ends)}.")
    return " ".join(said) or "This profile does not run two families."


def of_shapes(contrasts: pd.DataFrame) -> str:
    """Which of Slim and Small is better where, beyond the interval. contrasts: `shapes.contrasts`."""
    if contrasts.empty:
        return "This profile has no pair of Slim and Small."
    parts = []
    for better in ("Slim", "Small", "not told"):
        where = ", ".join(f"{objective} ({row.metric})" for objective, row in contrasts[contrasts.better == better].iterrows())
        parts.append(f"{better}{' better' if better != 'not told' else ' apart'}: {where or 'nowhere'}.")
    return " ".join(parts)


def of_objectives(errors: pd.Series, name: str) -> str:
    """The best and the worst of the objectives by one error, and their distance. errors: means by objective."""
    if len(errors) < 2:
        return "This profile has no two objectives with an error."
    apart = errors.max() / errors.min() - 1
    return f"{name}: lowest {errors.min():.3g} ({errors.idxmin()}), highest {errors.max():.3g} ({errors.idxmax()}), {apart:.0%} above it."


def of_hours(contrasts: pd.DataFrame, most: float = 960) -> str:
    """Whether a small augmented subset comes up to all the hours, by each metric. contrasts: `unique_hours.contrasts`."""
    said = []
    for row in contrasts.index:
        if row.endswith(f" augmented - {most:g} h"):
            for metric, text in contrasts.loc[row].items():
                said += [f"{row}: {metric} {text}, {_replaces(text)}"] if text and not row.startswith(f"{most:g} h") else []
    return "; ".join(said) + "." if said else "This profile has no augmented subset beside all the hours."


def _replaces(text: str) -> str:
    """What a difference `+0.13 [+0.06, +0.21]` says of augmentation for data."""
    if "[" not in text:
        return "one seed"
    low, high = (float(end) for end in text.partition("[")[2].rstrip("]").split(","))
    return "augmentation does not replace data" if low > 0 else "better than all the hours" if high < 0 else "not told apart"


def of_vertices(vertices: pd.DataFrame, exponents: pd.DataFrame) -> str:
    """How many of our curves have a bottom that the fit identifies, and what our budgets and the published ones say of its power."""
    said = []
    for whose in ("ours", "published"):
        mine = vertices[vertices.whose == whose]
        if len(mine):
            said.append(f"{whose}: {(mine.lies == INSIDE).sum()} of {len(mine)} bottoms are identified")
        rows = exponents.loc[[whose]] if whose in exponents.index.get_level_values("whose") else exponents[:0]
        known = [float(text.split()[0]) for text in rows["power of the budget"] if text != "not identified"]
        if known:
            ends = f"{min(known):+.2f} to {max(known):+.2f}" if not math.isclose(min(known), max(known)) else f"{known[0]:+.2f}"
            said.append(f"best size as budget to the power {ends} ({len(known)} of {len(rows)} pairs of budgets)")
    return "; ".join(said).capitalize() + "."
