"""SUPERB's six tasks in the batch-size study: what the cells scored at the paper's four moments, and the paper's own numbers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sslrepro.claims.ledger import load_study, template

MOMENTS = (0.25, 0.5, 0.75, 1.0)  # of the run: 100,000 to 400,000 of the paper's updates
PROBES = {  # by the name of its published series, where it is in a claim: which cells score it, the metric, and how it is shown
    "asr": ("superb-asr-b{batch_seconds}", "asr.wer", "ASR, WER"),
    "phones": ("b{batch_seconds}", "phone_ctc.per", "PR, PER"),
    "verification": ("superb-asv-b{batch_seconds}", "verification_xvector.eer", "ASV, EER"),
    "intent": ("superb-ic-b{batch_seconds}", "intent_mean.accuracy", "IC, accuracy"),
    "emotion": ("superb-er-b{batch_seconds}", "emotion.accuracy", "ER, accuracy"),
    "mandarin": ("superb-zh-b{batch_seconds}", "asr.cer", "OOD-ASR in Mandarin, CER"),
}


def probes(folder: Path) -> pd.DataFrame:
    """One row a (task, share of the run) that was scored, a column for each batch in seconds: per cent, a mean over seeds."""
    table = pd.read_csv(folder / "metrics.csv", dtype={"cell": str})
    rows = {}
    for cells, metric, shown in PROBES.values():
        batch = table.cell.str.extract(f"^{template(cells).pattern}$")["batch_seconds"].astype(float)
        for share in MOMENTS:
            wanted = batch.notna() & (table.metric == (metric if share == 1 else f"{metric}@{share:g}"))
            if wanted.any():
                rows[shown, share] = 100 * table.value[wanted].groupby(batch[wanted]).mean()
    return _shown(pd.DataFrame(rows).T.sort_index(axis=1), ["task", "share of the run"]) if rows else pd.DataFrame()


def published_probes() -> pd.DataFrame:
    """The paper's at the end of the run: one row a task, a column for each batch in seconds, per cent."""
    claim = next(claim for claim in load_study("batch_size").claims if claim.id == "batch-13")
    batches = claim.published["asr"].points["batch_seconds"]
    values = {name: series.points[series.y] for name, series in claim.published.items()}
    values |= {fact.name: fact.value for fact in claim.facts}  # named as they are shown
    rows = {shown: pd.Series(values.get(name) or values[shown], batches) for name, (_, _, shown) in PROBES.items()}
    return _shown(pd.DataFrame(rows).T, ["task"])


def _shown(table: pd.DataFrame, index: list[str]) -> pd.DataFrame:
    return table.rename(columns=lambda batch: f"{batch:g}").rename_axis(index=index, columns="batch, seconds")
