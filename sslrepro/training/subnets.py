"""The subnets of a trained supernet (LightHuBERT): each validated, the best within a budget found and written as a run of its own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import median

import pandas as pd
import torch
from safetensors.torch import save_file

from sslrepro.budget.count import count
from sslrepro.config import CellSettings, ModelSettings, NoObjective
from sslrepro.data.corpus import Corpus
from sslrepro.data.loading import SAMPLE_RATE, Shapes
from sslrepro.errors import UserError
from sslrepro.models.slices import cut
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.distillation import Distillation
from sslrepro.training.loop import validate
from sslrepro.training.runs import load_run

TABLE = "subnets.csv"
SECONDS = 15.625  # of the utterance that is counted
TIMED_SECONDS, REPEATS = 5.0, 5


def validated(objective: Distillation, corpus: Corpus, settings: CellSettings) -> pd.DataFrame:
    """Every subnet: width, heads, ffn, layers, params, macs (a second of speech) and its loss on training.valid_seconds of the
    validation split."""
    rows = []
    for model in objective.subnets:
        objective.chosen = model
        metrics, _ = validate(objective, corpus, None, settings, Shapes.of(objective), settings.training.valid_seconds)
        cost, encoder = count(model, NoObjective(), round(SECONDS * SAMPLE_RATE)), model.encoder
        sizes = {"width": encoder.width, "heads": encoder.heads, "ffn": encoder.ffn, "layers": encoder.layers}
        rows.append(sizes | {"params": cost.params, "macs": cost.macs / SECONDS, "valid_loss": metrics["loss"]})
    objective.chosen = None
    return pd.DataFrame(rows)


def seconds_a_second(upstream: Upstream) -> float:
    """Measured inference time of one utterance on this machine, over its length: the median of a few."""
    waveform = torch.randn(1, round(TIMED_SECONDS * SAMPLE_RATE), generator=torch.Generator().manual_seed(0))
    taken = []
    with torch.no_grad():
        for _ in range(REPEATS + 1):
            began = time.perf_counter()
            upstream(waveform)
            taken.append(time.perf_counter() - began)
    return median(taken[1:]) / TIMED_SECONDS


def best_subnet(run: Path, macs: float | None = None, rtf: float | None = None) -> tuple[ModelSettings, Upstream]:
    """The subnet of lowest validation loss within `macs` a second of speech and `rtf` seconds a second, and its weights cut out.

    Raises UserError for a run without subnets and for a budget below the smallest.
    """
    _, objective = load_run(run)
    if not getattr(objective, "subnets", None) or not (run / TABLE).exists():
        raise UserError(f"{run}: --macs and --rtf are for the run of a supernet (objective.supernet)")
    table = pd.read_csv(run / TABLE)
    for place in table.sort_values("valid_loss").index:
        if macs is not None and table.macs[place] > macs:
            continue
        model = objective.subnets[place]
        alone = cut(objective.upstream, model).eval()
        if rtf is None or seconds_a_second(alone) <= rtf:
            return model, alone
    least = f"the smallest has {table.macs.min():.4g} MACs a second"
    raise UserError(f"{run}: no subnet keeps --macs {macs} and --rtf {rtf}; {least}")


def export_subnet(run: Path, folder: Path, macs: float | None, rtf: float | None) -> str:
    """Write the best subnet within a budget as a run folder, which all that reads a run accepts; returns what was chosen, for people."""
    model, alone = best_subnet(run, macs, rtf)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: exists already and is not empty; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    described = json.loads((run / "settings.json").read_text(encoding="utf-8"))
    cell = described["cell"] | {"model": model.model_dump(mode="json"), "objective": {"name": "none"}, "start": None}
    (folder / "settings.json").write_text(json.dumps(described | {"cell": cell, "cut_from": run.name}, indent=1, sort_keys=True))
    save_file({name: tensor.contiguous() for name, tensor in alone.state_dict().items()}, folder / "model.safetensors")
    cost, encoder = count(model, NoObjective(), round(SECONDS * SAMPLE_RATE)), model.encoder
    metrics = {"cost.hours_seen": 0.0, "cost.params": float(cost.params), "status": "completed"}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
    return (
        f"{folder}: {encoder.layers} layers of {encoder.width}, {encoder.heads} heads, feed-forward {encoder.ffn}; "
        f"{cost.params:,} parameters, {cost.macs / SECONDS:.4g} MACs a second"
    )
