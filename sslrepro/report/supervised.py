"""Supervised CTC from scratch with attention, SummaryMixing and its lite form: error, time and memory side by side (sm-06, sm-07)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sslrepro.report.panels import wide

MIXERS = {"attention": "attention, unfused", "fused": "attention, fused", "summarymixing": "SummaryMixing", "lite": "SummaryMixing, lite"}
TUNED = r"fine_tune_(?P<minutes>[\d.]+)min\.(?:wer|per)(?:_clean)?"


def supervised(folder: Path) -> pd.DataFrame:
    """One row a model of the cells supervised-<layout>-<mixer>: its error on the most labels in per cent (mean, lowest and highest seed),
    the share of attention's gain over the better floor, and seconds and GB of an update where a cell time-<layout>-<mixer> measured them
    alone at the recipe's batch (means over repeats). Empty where the profile trains none."""
    table = wide(folder)
    trained = table[table.cell.str.startswith("supervised-")]
    tuned = trained.columns.to_series().str.extract(f"^{TUNED}$").minutes.astype(float)[trained.notna().any()].dropna()
    if tuned.empty:
        return pd.DataFrame()
    errors = 100 * table.set_index("cell")[tuned.idxmax()].dropna()
    floor = errors[errors.index.str.startswith("floor-supervised")].min()
    costs = table.groupby("cell").mean(numeric_only=True).reindex(columns=["cost.update_seconds", "cost.peak_bytes"])
    means = errors.groupby(level=0).agg(["mean", "min", "max"])
    rows = {}
    for layout in ("conformer", "branchformer"):
        attention = means["mean"].get(f"supervised-{layout}-attention", np.nan)
        for mixer, name in MIXERS.items():
            cell, timed = f"supervised-{layout}-{mixer}", f"time-{layout}-{mixer}"
            if cell in means.index or timed in costs.index:
                error, low, high = means.loc[cell] if cell in means.index else (np.nan,) * 3
                seconds, held = costs.loc[timed] if timed in costs.index else (np.nan,) * 2
                share = (floor - error) / (floor - attention) if attention < floor else np.nan
                rows[layout, name] = [error, low, high, share, seconds, held / 1e9]
    columns = ["error, %", "lowest seed", "highest seed", "share of attention's gain", "seconds an update", "memory, GB"]
    places = pd.MultiIndex.from_tuples(rows, names=["layout", "mixer"])
    return pd.DataFrame(list(rows.values()), index=places, columns=columns)
