"""An upstream as a transformers folder, which `AutoModel.from_pretrained` loads without sslrepro."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sslrepro.config import ModelSettings
from sslrepro.errors import UserError
from sslrepro.files import empty, writing
from sslrepro.interop.names import peer_names
from sslrepro.interop.transformers_in import ACTIVATIONS, rules
from sslrepro.models.upstream import Upstream
from sslrepro.training.runs import load_upstream


def family_of(settings: ModelSettings) -> str:
    """The transformers `model_type` that computes the same. Raises UserError that names what none of them has."""
    front_end, encoder = settings.front_end, settings.encoder
    if front_end.kind != "waveform":
        raise UserError(f"transformers has no {front_end.kind} front end: this model cannot be exported")
    reasons = {
        "a front end without encoder": encoder is None,
        "padded convolutions in the front end": any(front_end.padding),
    }
    if encoder is not None:
        squeezed = encoder.compression.kind == "fixed"
        several = encoder.position.layers > 1
        reasons |= {
            f"a {encoder.layout} of this form": encoder.layout != "transformer",
            f"the mixer {encoder.mixer!r}": encoder.mixer != "attention",
            "heads whose sizes do not add up to the width": encoder.attended != encoder.width,
            f"positions of kind {encoder.position.kind!r}": encoder.position.kind != "conv",
            f"compression {encoder.compression.kind!r}": encoder.compression.kind not in ("none", "fixed"),
            "compression with pre-norm": squeezed and encoder.norm == "pre",
            "compression with several position layers": squeezed and several,
            "several position layers with pre-norm": several and encoder.norm == "pre",
            "several position layers with a group-normed front end": several and front_end.norm == "group",
            "compression without the feature norm": squeezed and not settings.feature_norm,
            "several position layers without the feature norm": several and not settings.feature_norm,
        }
    missing = [reason for reason, holds in reasons.items() if holds]
    if missing:
        raise UserError(f"transformers has no {'; no '.join(missing)}: this model cannot be exported")
    if encoder.compression.kind == "fixed":
        return "sew"
    if encoder.position.layers > 1:
        return "data2vec-audio"
    return "wav2vec2" if settings.feature_norm else "hubert"


def export_transformers(upstream: Upstream, folder: Path, family: str | None = None) -> str:
    """Writes `config.json`, `model.safetensors` and `preprocessor_config.json`; returns the `model_type`.

    `family="hubert"` names a plain wav2vec 2.0 encoder a HuBERT one: same layers. Outputs are equal for utterances alone. In a padded batch
    they are too, unless the first layer is group-normed: transformers then counts padding into its statistics (`padding: peer`).
    Raises UserError, and writes nothing, when the folder has content or the model has no equal.
    """
    kind = family_of(upstream.settings)
    if family is not None and family != kind:
        if (family, kind) != ("hubert", "wav2vec2"):
            raise UserError(f"this model is a {kind} for transformers, not a {family}")
        kind = family
    empty(folder)
    with writing(folder, "the model"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _write(upstream, folder, kind)
    return kind


def _write(upstream: Upstream, folder: Path, kind: str) -> None:
    """All of it in one rename."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        part = Path(scratch) / "part"
        part.mkdir()
        _config(upstream.settings, kind).save_pretrained(part)
        save_file(_tensors(upstream, kind), part / "model.safetensors", metadata={"format": "pt"})
        _preprocessor(upstream.settings).save_pretrained(part)
        if folder.exists():
            folder.rmdir()
        part.rename(folder)


def export_run(run: Path, folder: Path) -> str:
    """The upstream of a finished run, `runs/<profile>/<study>/<cell>/<seed>`, as `export_transformers`; returns the `model_type`.

    Raises UserError also for a run that is not there or did not end well.
    """
    upstream = load_upstream(run)
    status = json.loads((run / "metrics.json").read_text())["status"]
    if status != "completed":
        raise UserError(f"{run}: this run is {status}, and only completed ones are exported; see {run / 'evidence.json'}")
    return export_transformers(upstream, folder)


def _tensors(upstream: Upstream, kind: str) -> dict[str, Tensor]:
    parameters = dict(upstream.named_parameters())
    names = peer_names(parameters, rules(kind))
    tensors = {peer: parameters[ours].detach().cpu().contiguous() for peer, ours in names.items()}
    if upstream.proj is None and kind != "sew":  # theirs always projects: by the identity
        tensors["feature_projection.projection.weight"] = torch.eye(upstream.dim)
        tensors["feature_projection.projection.bias"] = torch.zeros(upstream.dim)
    return tensors


def _config(settings: ModelSettings, kind: str) -> Any:
    import transformers  # heavy, and only needed here

    classes = {
        "wav2vec2": (transformers.Wav2Vec2Config, "Wav2Vec2Model"),
        "hubert": (transformers.HubertConfig, "HubertModel"),
        "sew": (transformers.SEWConfig, "SEWModel"),
        "data2vec-audio": (transformers.Data2VecAudioConfig, "Data2VecAudioModel"),
    }
    front_end, encoder = settings.front_end, settings.encoder
    channels, kernels, strides = [], [], []
    for i, (c, k, s) in enumerate(zip(front_end.channels, front_end.kernels, front_end.strides, strict=True)):
        pointwise = front_end.pointwise and i > 0
        channels += [c, c] if pointwise else [c]
        kernels += [k, 1] if pointwise else [k]
        strides += [s, 1] if pointwise else [s]
    position = encoder.position
    values = {
        "conv_dim": channels,
        "conv_kernel": kernels,
        "conv_stride": strides,
        "conv_bias": front_end.bias,
        "feat_extract_norm": front_end.norm,
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.layers,
        "intermediate_size": encoder.ffn,
        "num_attention_heads": encoder.heads,
        "hidden_act": next(theirs for theirs, ours in ACTIVATIONS.items() if ours == encoder.activation),
        "num_conv_pos_embeddings": position.kernel,
        "num_conv_pos_embedding_groups": position.groups,
        "hidden_dropout": encoder.dropout,
        "attention_dropout": encoder.attention_dropout,
        "activation_dropout": encoder.activation_dropout,
        "layerdrop": encoder.layer_drop,
        "feat_proj_dropout": settings.dropout_input,
    }
    if settings.mask_embedding == "zero":
        values["mask_time_prob"] = 0.0  # no mask vector
    if kind in ("wav2vec2", "hubert"):
        values["do_stable_layer_norm"] = encoder.norm == "pre"
    if kind == "hubert":
        values["feat_proj_layer_norm"] = settings.feature_norm
    if kind == "sew":
        values["squeeze_factor"] = encoder.compression.squeeze
    if kind == "data2vec-audio":
        values |= {"num_conv_pos_embeddings": position.layers, "conv_pos_kernel_size": position.kernel}
    config_class, model = classes[kind]
    return config_class(architectures=[model], **values)


def _preprocessor(settings: ModelSettings) -> Any:
    import transformers

    group = settings.front_end.norm == "group"
    return transformers.Wav2Vec2FeatureExtractor(do_normalize=settings.normalize_waveform, return_attention_mask=not group)
