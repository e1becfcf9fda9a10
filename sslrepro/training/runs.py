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
from sslrepro.objectives.base import Objective
from sslrepro.paths import cell_dir


def load_run(folder: Path) -> tuple[CellSettings, Objective]:
    """Settings and trained module of `runs/<profile>/<study>/<cell>/<seed>`, in evaluation mode."""
    described = folder / "settings.json"
    if not described.exists():
        raise UserError(f"{folder}: not a finished run (no settings.json); a run is runs/<profile>/<study>/<cell>/<seed>")
    settings = parse(CellSettings, json.loads(described.read_text())["cell"], str(described))
    module = objectives.build(settings)
    module.load_state_dict(load_file(folder / "model.safetensors"))
    return settings, module.eval()


def hidden_features(profile: Profile, target: TargetSettings) -> tuple[Callable[[np.ndarray], np.ndarray], int, Callable]:
    """Features of a later k-means pass: a layer of an earlier cell. Returns (waveform -> (frames, dim)), samples a frame, and their cost.

    The cost holds the teacher's forward over what is labelled, and the training of the teacher itself.
    """
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

    def flops(corpus) -> float:
        from sslrepro.budget.count import cell_cost

        metrics = json.loads((run / "metrics.json").read_text())
        second = cell_cost(settings, 10.0)
        trained = metrics["cost.hours_seen"] * 3600 / 10.0 * second.train_flops
        labelled = float(corpus.durations.sum()) / 10.0 * 2 * second.macs
        return trained + labelled + metrics.get("cost.setup_flops", 0.0)

    return features, round(16_000 / upstream.frame_rate), flops
