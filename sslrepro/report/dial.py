"""The dial of a fine-tuned model with sampled compression: what it reads, how long it takes and what it costs at each setting."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sslrepro.budget.count import count
from sslrepro.config import NoObjective, Profile
from sslrepro.data.corpus import Corpus
from sslrepro.downstream.on_demand import Dial
from sslrepro.errors import UserError
from sslrepro.paths import cell_dir, corpus_dir
from sslrepro.training.runs import run_settings

COLUMNS = ["factors", "text", "ms", "mmacs", "error"]


def settings_of(profile: Profile, study: str, cell: str) -> tuple[pd.DataFrame, str]:
    """Every choice of factors on the Pareto front of (time here, expected error), quickest first, and the words that were said.

    The first seed's model reads the first utterance of the test split. Columns: factors, text, ms, mmacs, error (per cent). No rows, and
    the reason in place of the words, where the corpus had no labels to fine-tune on.
    """
    run = cell_dir(profile.profile, study, cell) / str(profile.studies[study].cells[cell].seeds[0])
    try:
        dial = Dial(run)
    except UserError as reason:
        return pd.DataFrame(columns=COLUMNS), f"nothing: {reason}"
    corpus, model = Corpus(corpus_dir(profile.profile)), run_settings(run).model
    row = int(corpus.split("test").index[0])
    waveform, seconds = corpus.audio(row), float(corpus.durations[row])
    dial.calibrate([seconds])
    rows = []
    for factors, error in dial.errors.items():
        macs = count(model.at(factors), NoObjective(), len(waveform)).macs
        _, text = dial.run(waveform, factors)
        rows.append((str(factors), text, 1e3 * dial.expected(seconds, factors), macs / 1e6, 100 * error))
    table = pd.DataFrame(rows, columns=COLUMNS).sort_values("ms", ignore_index=True)
    return table[table.error < table.error.cummin().shift(fill_value=float("inf"))].reset_index(drop=True), corpus.utterances.loc[
        row, "text"
    ]


def slider(table: pd.DataFrame) -> Any:
    """A slider over the rows of `settings_of`, with text, time and MACs under it. It needs a running kernel: show the table too."""
    import ipywidgets

    if table.empty:
        return ipywidgets.HTML("no fine-tuned model, no dial")
    last = len(table) - 1
    knob = ipywidgets.IntSlider(value=last, min=0, max=last, description="budget", readout=False)
    shown = ipywidgets.HTML()

    def turn(place: int) -> None:
        one = table.iloc[place]
        shown.value = (
            f"<b>{one.factors}</b> · {one.ms:.1f} ms · {one.mmacs:.0f} MMAC · expected error {one.error:.1f} %"
            f"<br><span style='font-family: monospace'>{one.text or '(nothing)'}</span>"
        )

    knob.observe(lambda change: turn(change["new"]), names="value")
    turn(last)
    return ipywidgets.VBox([knob, shown])
