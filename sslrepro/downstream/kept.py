"""A fine-tuned CTC model in its run's folder, and read again: `ctc-<minutes>min.safetensors`, its symbols in the file's own header; or
`fine_tune_<minutes>min.safetensors`, what a parameter-efficient method learned, on the run's encoder."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from sslrepro.downstream.fine_tune import SYMBOLS, CTCModel
from sslrepro.downstream.parameter_efficient import Adapters, merge
from sslrepro.errors import UserError
from sslrepro.files import empty, save_weights, writing
from sslrepro.models.upstream import Upstream
from sslrepro.training.runs import load_upstream, run_settings


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
    found = _by_minutes(run, "ctc-")
    if not found and _by_minutes(run, "fine_tune_"):
        return load_adapted(run)
    if not found:
        raise UserError(
            f"{run}: no fine-tuned model was kept (ctc-*min.safetensors, or fine_tune_*min.safetensors of a parameter-efficient method); "
            "set downstream.fine_tune.keep and run the cell again"
        )
    minutes = max(found)
    with safe_open(found[minutes], "pt") as file:
        symbols = json.loads(file.metadata()["symbols"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model = SYMBOLS[settings.downstream.fine_tune.symbols][1](Upstream(settings.model), symbols)
    model.load_state_dict(weights)
    return model.eval(), minutes


def _by_minutes(run: Path, prefix: str) -> dict[float, Path]:
    paths = {path.stem.removeprefix(prefix).removesuffix("min"): path for path in run.glob(f"{prefix}*min.safetensors")}
    return {float(minutes): path for minutes, path in paths.items()}


def load_adapted(run: Path) -> tuple[CTCModel, float]:
    """The run's encoder with what a parameter-efficient fine-tuning on the most labels learned, in evaluation mode, and their minutes.

    Raises UserError for a folder that is no finished run, and for a run without such a fine-tuning.
    """
    run_settings(run)
    found = _by_minutes(run, "fine_tune_")
    if not found:
        raise UserError(
            f"{run}: no parameter-efficient fine-tuning (fine_tune_*min.safetensors); its cell needs a downstream.fine_tune.method"
        )
    minutes = max(found)
    learned = Adapters.read(found[minutes])
    model = SYMBOLS[learned.of][1](load_upstream(run), learned.symbols)
    return learned.put_on(model, str(found[minutes])), minutes


def export_merged(run: Path, folder: Path, transformers: bool = False) -> str:
    """Write a run that LoRA or AdaLoRA fine-tuned with its updates added to the weights: as a run folder with the whole fine-tuned model,
    or its encoder as a folder that transformers loads. Returns what was written, for people.

    Raises UserError for a run of another method.
    """
    empty(folder)
    model, minutes = load_adapted(run)
    merge(model)
    if transformers:
        from sslrepro.interop.transformers_out import export_transformers

        return f"{folder}: the merged encoder, a {export_transformers(model.upstream, folder)} model for AutoModel.from_pretrained"
    described = json.loads((run / "settings.json").read_text(encoding="utf-8"))
    cell = described["cell"] | {"objective": {"name": "none"}, "start": None}
    cell["downstream"]["fine_tune"]["method"] = {"kind": "full"}
    described |= {"cell": cell, "merged_from": "/".join(run.resolve().parts[-3:])}
    with writing(folder, "the merged model"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.json").write_text(json.dumps(described, indent=1, sort_keys=True))
        (folder / "metrics.json").write_text((run / "metrics.json").read_text())
        save_weights(model.upstream.state_dict(), folder / "model.safetensors")
        keep(model, folder, minutes)
    return f"{folder}: the encoder with its updates merged, and the model fine-tuned on {minutes:g} minutes whole"
