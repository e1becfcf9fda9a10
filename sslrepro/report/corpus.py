"""What a corpus is made of: one utterance seen with its phones, statistics, nested subsets, and what each task starts from."""

from __future__ import annotations

import math
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sslrepro.config import CorpusSettings, DownstreamSettings, EncoderSettings, LogMelFrontEnd, ModelSettings
from sslrepro.data.corpus import SAMPLE_RATE, Corpus
from sslrepro.data.embedded import build_embedded
from sslrepro.models.logmel import HOP, WINDOW, log_mel, mel_filters
from sslrepro.paths import corpus_dir, root

MELS = 80
# what an encoder must rise above: what it hears, and itself before it has learned
FLOORS = {
    "log-mels": ModelSettings(front_end=LogMelFrontEnd(), encoder=None),
    "random encoder": ModelSettings(front_end=LogMelFrontEnd(stack=2), encoder=EncoderSettings(layers=3, width=128, ffn=512, heads=4)),
}
_SPLITS = ("train", "valid", "test")


def open_corpus(profile: str) -> Corpus:
    """The corpus of a profile where it has been made, else a minute or two of the embedded one, made in seconds and kept."""
    folder = corpus_dir(profile)
    if not (folder / "corpus.json").is_file():
        folder = root() / ".work" / "corpus-to-look-at"
        if not (folder / "corpus.json").is_file():
            build_embedded(CorpusSettings(hours=0.02, voices=6), folder)
    return Corpus(folder)


def overview(corpus: Corpus) -> pd.DataFrame:
    """Utterances, hours and speakers of each split; of each language, where there are several."""
    languages = corpus.info.get("languages", {})
    parts = {name: pd.DataFrame(splits).T for name, splits in languages.items()}
    table = pd.concat(parts, names=["language", "split"]) if len(parts) > 1 else pd.DataFrame(corpus.info["splits"]).T
    return table.astype({"utterances": int, "speakers": int})


def in_each_language(corpus: Corpus) -> list[Corpus]:
    """The same corpus, each of its languages chosen in turn."""
    return [Corpus(corpus.folder, [name]) for name in corpus.info.get("languages", {})] or [corpus]


def training_hours(corpus: Corpus) -> float:
    """Of the corpus's chosen language."""
    return float(corpus.durations[corpus.split("train").index].sum()) / 3600


def one_of_each_voice(corpus: Corpus, split: str = "train", most: int = 6) -> list[int]:
    """The first utterance of the first voices of a split."""
    return corpus.split(split).drop_duplicates("speaker").index[:most].tolist()


def draw_utterance(corpus: Corpus, index: int) -> Figure:
    """Waveform and log-mel energies over one time axis, phone boundaries and words where they are known."""
    audio, line = corpus.audio(index), corpus.utterances.iloc[index]
    table = corpus.alignment()
    table = table[table["utterance"] == line["utterance"]]
    mels = log_mel(torch.from_numpy(audio)[None], mel_filters(MELS))[0].T.numpy()
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(11, 5), sharex=True, layout="constrained", height_ratios=[1, 2])
    top.plot(np.arange(len(audio)) / SAMPLE_RATE, audio, linewidth=0.4)
    top.set(ylabel="amplitude", title=f"{line['utterance']} ({line['split']}): {line['text'] or 'no transcript'}")
    start, hop = (WINDOW - HOP) / 2 / SAMPLE_RATE, HOP / SAMPLE_RATE  # a frame is drawn about the middle of its window
    extent = (start, start + mels.shape[1] * hop, 0, MELS)
    low, high = np.quantile(mels, [0.02, 0.999])
    bottom.imshow(mels, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=low, vmax=high)
    bottom.set(xlabel="seconds", ylabel="mel channel", xlim=(0, len(audio) / SAMPLE_RATE), ylim=(0, MELS + 12))
    for phone in table[table["tier"] == "phone"].itertuples():
        bottom.axvline(phone.start / SAMPLE_RATE, color="white", linewidth=0.6, ymax=MELS / (MELS + 12))
        middle = (phone.start + phone.end) / 2 / SAMPLE_RATE
        bottom.text(middle, MELS + 5, phone.label, ha="center", va="center", fontsize=8)
    for word in table[table["tier"] == "word"].itertuples():
        top.axvspan(word.start / SAMPLE_RATE, word.end / SAMPLE_RATE, color="C1", alpha=0.15, linewidth=0)
        top.axvline(word.start / SAMPLE_RATE, color="C1", linewidth=0.8)
    plt.close(figure)
    return figure


def draw_statistics(corpus: Corpus) -> Figure:
    """Durations by split, hours by speaker, phones by frequency, and words against Zipf's law, of the corpus's chosen languages."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), layout="constrained")
    table = corpus.utterances.assign(seconds=corpus.durations).loc[corpus.rows]
    sns.histplot(table, x="seconds", hue="split", hue_order=_SPLITS, stat="density", common_norm=False, element="step", ax=axes[0, 0])
    axes[0, 0].set(title="Duration of utterances")
    minutes = table.groupby("speaker", observed=True).agg(minutes=("seconds", lambda s: s.sum() / 60), split=("split", "first"))
    order = minutes.sort_values("minutes", ascending=False).reset_index()
    sns.scatterplot(order.reset_index(), x="index", y="minutes", hue="split", hue_order=_SPLITS, ax=axes[0, 1])
    sns.move_legend(axes[0, 1], "lower left")
    axes[0, 1].set(title=f"Speech of each of {len(order)} speakers", xlabel="speaker, by minutes", ylim=(0, None))
    _draw_phones(corpus, axes[1, 0])
    _draw_words(corpus, axes[1, 1])
    plt.close(figure)
    return figure


def _draw_phones(corpus: Corpus, axis: Axes) -> None:
    alignment = corpus.alignment()
    phones = alignment[(alignment["tier"] == "phone") & alignment["utterance"].isin(corpus.utterances.loc[corpus.rows, "utterance"])]
    axis.set(title="Phone times are not known" if phones.empty else "Share of time of each phone")
    if phones.empty:
        return
    share = (phones["end"] - phones["start"]).groupby(phones["label"].astype(str)).sum().sort_values(ascending=False)
    share /= share.sum()
    axis.bar(range(len(share)), share, color="C0")
    axis.set(ylabel="share", xlim=(-0.6, len(share) - 0.4))
    axis.set_xticks(range(len(share)), share.index, fontsize=7, rotation=90)


def _draw_words(corpus: Corpus, axis: Axes) -> None:
    counts = Counter(word for text in corpus.utterances.loc[corpus.rows, "text"] for word in text.split())
    axis.set(title="Words are not known" if not counts else f"{len(counts)} words by rank")
    if not counts:
        return
    frequency = np.array(sorted(counts.values(), reverse=True))
    rank = np.arange(1, len(frequency) + 1)
    axis.loglog(rank, frequency, marker=".", linestyle="none")
    axis.loglog(rank, frequency[0] / rank, linestyle="--", color="0.4", label="Zipf: 1 / rank")
    axis.set(xlabel="rank", ylabel="occurrences")
    axis.legend()


def nested_subsets(corpus: Corpus, steps: int = 4) -> pd.DataFrame:
    """Halves of halves of the training hours, both ways: with speakers added as hours grow, and with every speaker kept."""
    total = training_hours(corpus)
    rows = []
    for hours in [math.floor(total * 1e4 / 2**i) / 1e4 for i in reversed(range(steps))]:
        for fixed in (False, True):
            chosen = corpus.subset(hours, fixed_speakers=fixed)
            speakers = corpus.utterances["speaker"].iloc[chosen].nunique()
            rows.append(
                {"hours asked for": hours, "speakers": "kept" if fixed else "added", "hours": corpus.durations[chosen].sum() / 3600}
            )
            rows[-1] |= {"utterances": len(chosen), "distinct speakers": speakers}
    return pd.DataFrame(rows).set_index(["speakers", "hours asked for"]).sort_index()


def task_levels(corpus: Corpus, tasks: list[str], updates: int, hours: float | None = None) -> pd.DataFrame:
    """What each task starts from: the score of knowing nothing but the most frequent class (where that is a score), the floors that its
    own head reaches, after so many updates on `hours` of training audio (None: half an hour, or what there is), on log-mel energies and
    on a small encoder with random weights, and the best score that there is.
    """
    from sslrepro.downstream.registry import available, find_task
    from sslrepro.downstream.scores import score
    from sslrepro.models.upstream import Upstream

    hours = hours or min(0.5, math.floor(training_hours(corpus) * 1e4) / 1e4)
    settings = DownstreamSettings(tasks=tasks, updates=updates, train_hours=hours)
    scores = {}
    for name, model in FLOORS.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            upstream = Upstream(model).eval()
        scores[name] = score(upstream, corpus, settings, seed=0)
    rows = []
    for task in map(find_task, tasks):
        why = available(task.name, corpus, settings) or scores["log-mels"].unavailable.get(task.name, "")
        row = {"task": task.name, "metric": task.metric, "better": task.direction, "most frequent class": np.nan}
        row |= dict.fromkeys(FLOORS, np.nan)
        if not why:
            row["most frequent class"] = _most_frequent(task.data(corpus, settings), task.name)
            row |= {name: floor.metrics[task.metric] for name, floor in scores.items()}
        rows.append(row | {"best": 1.0 if task.direction == "higher" else 0.0, "left out because": why})
    return pd.DataFrame(rows).set_index("task")


def _most_frequent(data, name: str) -> float:
    """Accuracy on the test rows of always giving the class that is most frequent in training. Frames are weighed by their time."""
    if name.startswith("verification"):
        return 0.5
    if name not in ("phone", "keyword", "intent", "keyword_mean", "intent_mean", "emotion", "speaker"):
        return 1.0  # error rate of saying nothing
    counts = {"train": Counter(), "test": Counter()}
    for split, rows in (("train", data.train), ("test", data.test)):
        for row in rows.tolist():
            label = data.labels[row]
            if name == "phone":
                for start, end, phone in zip(label.starts, label.ends, label.names, strict=True):
                    counts[split][str(phone)] += int(end - start)
            else:
                counts[split][label] += 1
    common = counts["train"].most_common(1)[0][0]
    return counts["test"][common] / sum(counts["test"].values())
