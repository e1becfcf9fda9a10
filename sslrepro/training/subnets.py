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
from sslrepro.budget.updates import PAPER_SECONDS
from sslrepro.config import CellSettings, ModelSettings, NoObjective
from sslrepro.data.corpus import Corpus
from sslrepro.data.loading import SAMPLE_RATE, Shapes
from sslrepro.errors import UserError
from sslrepro.files import empty, writing
from sslrepro.models.slices import cut
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.distillation import Distillation
from sslrepro.training.loop import validate
from sslrepro.training.runs import load_run

TABLE = "subnets.csv"
TIMED_SECONDS, REPEATS = 5.0, 5


def validated(objective: Distillation, corpus: Corpus, settings: CellSettings) -> pd.DataFrame:
    """Every subnet: width, heads, ffn, layers, params, macs (a second of an utterance of PAPER_SECONDS) and its loss on
    training.valid_seconds of the validation split."""
    rows = []
    for model in objective.subnets:
        objective.chosen = model
        metrics, _ = validate(objective, corpus, None, settings, Shapes.of(objective), settings.training.valid_seconds)
        cost, encoder = count(model, NoObjective(), round(PAPER_SECONDS * SAMPLE_RATE)), model.encoder
        sizes = {"width": encoder.width, "heads": encoder.heads, "ffn": encoder.ffn, "layers": encoder.layers}
        rows.append(sizes | {"params": cost.params, "macs": cost.macs / PAPER_SECONDS, "valid_loss": metrics["loss"]})
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

    Raises UserError for a run without subnets and for a budget below the smallest, which it names, or the fastest that was timed.
    """
    _, objective = load_run(run)
    if not getattr(objective, "subnets", None) or not (run / TABLE).exists():
        raise UserError(f"{run}: --macs and --rtf are for the run of a supernet (objective.supernet)")
    table, fastest = pd.read_csv(run / TABLE), float("inf")
    for place in table.sort_values("valid_loss").index:
        if macs is not None and table.macs[place] > macs:
            continue
        model = objective.subnets[place]
        alone = cut(objective.upstream, model).eval()
        if rtf is None:
            return model, alone
        taken = seconds_a_second(alone)
        if taken <= rtf:
            return model, alone
        fastest = min(fastest, taken)
    limits = " and ".join(f"{name} {limit:g}" for name, limit in (("--macs", macs), ("--rtf", rtf)) if limit is not None)
    least = f"the smallest has {table.macs.min():.4g} MACs a second"
    if fastest < float("inf"):
        least = f"the fastest that was timed takes {fastest:.3g} s a second of speech on this machine"
    raise UserError(f"{run}: no subnet keeps {limits}; {least}")


def export_subnet(run: Path, folder: Path, macs: float | None, rtf: float | None, transformers: bool = False) -> str:
    """Write the best subnet within a budget as a run folder, which all that reads a run accepts, or as one that transformers loads;
    returns what was chosen, for people. `cut_from` in its settings: study/cell/seed."""
    empty(folder)
    model, alone = best_subnet(run, macs, rtf)
    cost, encoder = count(model, NoObjective(), round(PAPER_SECONDS * SAMPLE_RATE)), model.encoder
    said = (
        f"{folder}: {encoder.layers} layers of {encoder.width}, {encoder.heads} heads, feed-forward {encoder.ffn}; "
        f"{cost.params:,} parameters, {cost.macs / PAPER_SECONDS:.4g} MACs a second of an utterance of {PAPER_SECONDS:g} s"
    )
    if transformers:
        from sslrepro.interop.transformers_out import export_transformers

        return f"{said}; a {export_transformers(alone, folder)} model for transformers' AutoModel.from_pretrained"
    described = json.loads((run / "settings.json").read_text(encoding="utf-8"))
    cell = described["cell"] | {"model": model.model_dump(mode="json"), "objective": {"name": "none"}, "start": None}
    described |= {"cell": cell, "cut_from": "/".join(run.resolve().parts[-3:])}
    metrics = {"cost.hours_seen": 0.0, "cost.params": float(cost.params), "status": "completed"}
    with writing(folder, "the subnet"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.json").write_text(json.dumps(described, indent=1, sort_keys=True))
        save_file({name: tensor.contiguous() for name, tensor in alone.state_dict().items()}, folder / "model.safetensors")
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
    return said
