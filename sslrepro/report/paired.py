"""Differences between two cells, paired by seed: a seed's runs share data order and masks, so pairs differ by less than their parts."""

from __future__ import annotations

import math

import pandas as pd
from scipy.stats import t


def paired(of: pd.Series, other: pd.Series) -> tuple[float, float, float]:
    """Mean of `of` - `other` over the seeds (the index) that both have, and Student's 95 % interval; NaN without bounds for one seed."""
    apart = (of - other).dropna()
    if len(apart) < 2:
        return apart.mean(), math.nan, math.nan
    half = t.ppf(0.975, len(apart) - 1) * apart.std() / math.sqrt(len(apart))
    return apart.mean(), apart.mean() - half, apart.mean() + half


def told(difference: tuple[float, float, float], unit: str = "+.3f") -> str:
    """A difference with its interval, as text; empty where there is none."""
    mean, low, high = difference
    if math.isnan(mean):
        return ""
    return f"{mean:{unit}} (one seed)" if math.isnan(low) else f"{mean:{unit}} [{low:{unit}}, {high:{unit}}]"
