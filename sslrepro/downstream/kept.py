"""A fine-tuned CTC model in its run's folder, and read again: `ctc-<minutes>min.safetensors`, its symbols in the file's own header."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from sslrepro.downstream.fine_tune import CTCModel
from sslrepro.errors import UserError
from sslrepro.models.upstream import Upstream
from sslrepro.training.runs import run_settings


def keep(model: CTCModel, folder: Path, minutes: float) -> Path:
    """Write the model; the settings of its upstream are the run's own."""
    path = folder / f"ctc-{minutes:g}min.safetensors"
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path, metadata={"symbols": json.dumps(model.symbols)})
    return path


def load_kept(run: Path) -> tuple[CTCModel, float]:
    """The model of `runs/<profile>/<study>/<cell>/<seed>` that was fine-tuned on the most labels, in evaluation mode, and their minutes.

    Raises UserError for a folder that is no finished run, and for a run that kept no fine-tuned model.
    """
    settings = run_settings(run)
    found = {float(path.stem.removeprefix("ctc-").removesuffix("min")): path for path in run.glob("ctc-*min.safetensors")}
    if not found:
        raise UserError(f"{run}: no fine-tuned model was kept (ctc-*min.safetensors); set downstream.fine_tune.keep and run the cell again")
    minutes = max(found)
    with safe_open(found[minutes], "pt") as file:
        symbols = json.loads(file.metadata()["symbols"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model = CTCModel(Upstream(settings.model), symbols)
    model.load_state_dict(weights)
    return model.eval(), minutes
