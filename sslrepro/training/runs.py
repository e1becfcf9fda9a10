"""Finished runs, read again: a seed's settings and weights, as a teacher or to be scored, exported or looked at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from sslrepro import objectives
from sslrepro.config import CellSettings, Profile, TargetSettings, parse
from sslrepro.errors import UserError
from sslrepro.models.slices import cut
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.base import Objective
from sslrepro.paths import cell_dir


def load_run(folder: Path, weights: str = "model.safetensors") -> tuple[CellSettings, Objective]:
    """Settings and trained module of `runs/<profile>/<study>/<cell>/<seed>`, in evaluation mode; `weights`: or those of a snapshot."""
    settings = run_settings(folder)
    path = folder / weights
    if not path.exists():
        raise UserError(f"{path}: no such file; fetch it from the pipeline's cache (dvc pull) or train the cell again")
    module = objectives.build(settings)
    module.load_state_dict(load_file(path))
    return settings, module.eval()


def run_settings(folder: Path) -> CellSettings:
    """The settings of a finished run. Raises UserError for a folder that is none."""
    described = folder / "settings.json"
    if not described.exists():
        raise UserError(f"{folder}: not a finished run (no settings.json); a run is runs/<profile>/<study>/<cell>/<seed>")
    return parse(CellSettings, json.loads(described.read_text())["cell"], str(described))


def load_upstream(folder: Path) -> Upstream:
    """The upstream of a finished run, in evaluation mode; of a run that learned nothing too."""
    _, module = load_run(folder)
    return module if isinstance(module, Upstream) else module.upstream


def hidden_features(profile: Profile, target: TargetSettings) -> tuple[Callable[[np.ndarray], np.ndarray], int, CellSettings, float]:
    """Features of a later k-means pass: a layer of an earlier cell. Returns (waveform -> (frames, dim)), samples a frame, the cell's
    settings, and the FLOPs of its training and its own labels."""
    study, _, cell = (target.cell or "").partition("/")
    run = cell_dir(profile.profile, study, cell) / str(target.seed)
    settings, objective = load_run(run)
    upstream = objective.upstream
    if target.layer is None or not 0 <= target.layer <= settings.model.encoder.layers:
        raise UserError(f"targets from {target.cell}: layer {target.layer} does not exist; it has 0 to {settings.model.encoder.layers}")

    @torch.no_grad()
    def features(waveform: np.ndarray) -> np.ndarray:
        output = upstream(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]))
        return output.hidden_states[target.layer][0].numpy()

    return features, round(16_000 / upstream.frame_rate), settings, spent_flops(run)


def spent_flops(folder: Path) -> float:
    """FLOPs that a finished run took: its training and what had been spent before it (labels, teachers, earlier iterations)."""
    return flops_of(run_settings(folder), json.loads((folder / "metrics.json").read_text()))


def flops_of(settings: CellSettings, metrics: dict[str, float]) -> float:
    """The same of a run's settings and metrics: a budget in FLOPs is what it took, else its audio in utterances of the longest length."""
    training = settings.training
    if settings.is_trained and training.budget.unit == "flops":
        trained = training.budget.amount
    else:
        trained = metrics["cost.hours_seen"] * 3600 / training.max_seconds * metrics["cost.train_flops"]
    return trained + metrics.get("cost.setup_flops", 0.0)


def begin_with(upstream: Upstream, folder: Path, weights: str = "model.safetensors") -> None:
    """Give an upstream the weights of a finished run's, or of a snapshot of it; those of a supernet are cut to its shape.

    Raises UserError naming the first weights that do not fit.
    """
    settings, module = load_run(folder, weights)
    given = module if isinstance(module, Upstream) else module.upstream
    if getattr(settings.objective, "supernet", None) is not None:
        try:
            given = cut(given, upstream.settings)
        except UserError as reason:
            raise UserError(f"{folder}: this cell is no part of its supernet: {reason}") from None
    tensors, own = given.state_dict(), upstream.state_dict()
    differ = sorted(set(tensors) ^ set(own)) + sorted(n for n in set(tensors) & set(own) if tensors[n].shape != own[n].shape)
    if differ:
        raise UserError(f"{folder}: its upstream is not of this cell's shape: {len(differ)} weights differ, the first is {differ[0]}")
    upstream.load_state_dict(tensors)
