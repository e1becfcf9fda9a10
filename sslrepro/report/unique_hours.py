"""Unique hours against repeats at a fixed number of updates: figure, subsets, and what augmentation gives of what data give."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sslrepro.config import Profile
from sslrepro.data.corpus import Corpus
from sslrepro.report.budget import METRICS, coordinates, names_of, results
from sslrepro.report.paired import paired, told
from sslrepro.report.panels import done, nothing

PLAIN, FIXED, AUGMENTED = "speakers one after another", "as many speakers as fit, fewer sentences", "audio augmented"
ALONE = {name: f"{said} alone" for name, said in {"speed": "speed", "room": "room", "noise": "noise", "masked": "masking"}.items()}
UNIQUE = {
    "unique{hours}": {"variant": PLAIN},
    "unique{hours}-fixed": {"variant": FIXED},
    "unique{hours}-augmented": {"variant": AUGMENTED},
} | {f"unique{{hours}}-{name}": {"variant": said} for name, said in ALONE.items()}
STYLES = dict(zip((PLAIN, FIXED, AUGMENTED, *ALONE.values()), ("o-", "s", "X", "^", "v", "<", ">"), strict=True))


def draw_unique(folder: Path) -> Figure:
    """What fewer unique hours cost at a fixed number of updates, with one standard deviation over seeds; x is the share of the corpus, as
    hours of 960, and what is changed in the audio stands beside it."""
    table = results(folder, UNIQUE)
    names = names_of(folder)
    metrics = [name for name in METRICS if name in table and table[name].notna().any()]
    figure, axes = plt.subplots(1, max(len(metrics), 1), figsize=(4.2 * max(len(metrics), 1), 3.4), squeeze=False, layout="constrained")
    if table.empty:
        return nothing(figure, axes[0, 0], "this profile varies no hours")
    hours = sorted(table.hours.unique())
    for axis, metric in zip(axes[0], metrics, strict=True):
        ran = [variant for variant in STYLES if (table.variant == variant).any()]
        for number, variant in enumerate(ran):
            mine = table[table.variant == variant].groupby("hours")[metric].agg(["mean", "std"]).dropna(subset="mean")
            if len(mine):
                beside = mine.index * 1.13**number  # so that bars stand side by side
                style = {"fmt": STYLES[variant], "color": sns.color_palette("tab10")[number], "capsize": 3, "markersize": 6}
                axis.errorbar(beside, mine["mean"], mine["std"].fillna(0.0), label=variant, **style)
        axis.set(xscale="log", xlabel="unique hours, of 960", ylabel=names[metric])
        axis.set_xticks(hours, [f"{value:g}" for value in hours])
        axis.minorticks_off()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    return done(figure)


def subsets(profile: Profile, corpus: Corpus, folder: Path) -> pd.DataFrame:
    """Hours, utterances, speakers and different sentences of the training data of each cell that varies them, and how many times over a run
    hears them: below one, the run does not get through them once, and the hours left over can change nothing."""
    rows = {}
    table = results(folder, UNIQUE)
    seen = table.groupby("cell")["cost.hours_seen"].mean() if "cost.hours_seen" in table else pd.Series(dtype=float)
    for cell in coordinates(list(profile.studies["budget"].cells), UNIQUE).cell:
        data = profile.studies["budget"].cells[cell].data
        index = corpus.subset(data.hours, data.fixed_speakers)
        part = corpus.utterances.loc[index]
        hours = corpus.durations[index].sum() / 3600
        rows[cell] = [hours, len(index), part.speaker.nunique(), part.text.nunique(), seen.get(cell, float("nan")) / hours]
    found = pd.DataFrame.from_dict(rows, orient="index", columns=["hours", "utterances", "speakers", "sentences", "times heard"])
    return found.astype({"utterances": int, "speakers": int, "sentences": int})


def contrasts(folder: Path) -> pd.DataFrame:
    """What all the hours, as many speakers as fit and augmented audio (all changes together, and each alone) give of what fewer hours lose:
    differences paired by seed, with Student's 95 % intervals. Rows for each number of hours that has such a variant; below 0 is better. A
    subset that ran with as many speakers as fit alone is compared with that. Augmentation replaces data if a small subset with it comes up
    to all the hours."""
    table, names = results(folder, UNIQUE), names_of(folder)
    if table.empty:
        return pd.DataFrame()
    ran = set(zip(table.variant, table.hours, strict=True))
    most = table[table.variant == PLAIN].hours.max()
    pairs = []
    for hours in sorted({hours for variant, hours in ran if variant != PLAIN}):
        plain = (PLAIN if (PLAIN, hours) in ran else FIXED, hours)
        pairs += [((PLAIN, most), plain), ((AUGMENTED, hours), plain), *(((alone, hours), plain) for alone in ALONE.values())]
        pairs += [((FIXED, hours), plain), ((AUGMENTED, hours), (PLAIN, most)), ((AUGMENTED, hours), (AUGMENTED, most))]
    rows = {}
    for of, other in pairs:
        if of != other and {of, other} <= ran:
            mine, its = _by_seed(table, *of), _by_seed(table, *other)
            rows[f"{_said(*of)} - {_said(*other)}"] = {names[m]: told(paired(mine[m], its[m])) for m in METRICS if m in table}
    found = pd.DataFrame.from_dict(rows, orient="index")
    return found.loc[:, found.ne("").any()] if len(found) else found


def _said(variant: str, hours: float) -> str:
    return f"{hours:g} h" + {PLAIN: "", FIXED: " of as many speakers as fit", AUGMENTED: " augmented"}.get(variant, f", {variant}")


def _by_seed(table: pd.DataFrame, variant: str, hours: float) -> pd.DataFrame:
    return table[(table.variant == variant) & (table.hours == hours)].set_index("seed")
