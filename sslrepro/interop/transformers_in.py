"""Weights and configurations of Hugging Face transformers: Wav2Vec2, Hubert, SEW, Data2VecAudio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from sslrepro.config import ModelSettings, parse
from sslrepro.errors import UserError
from sslrepro.interop.names import BLOCKS, Loaded, Rules, layer_rules, load_renamed
from sslrepro.models.upstream import Upstream

PREFIXES = {"wav2vec2": "wav2vec2.", "hubert": "hubert.", "sew": "sew.", "data2vec-audio": "data2vec_audio."}
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "silu": "swish", "swish": "swish"}


def rules(family: str) -> Rules:
    """Our names and transformers', for one of its `model_type`s."""
    if family not in PREFIXES:
        raise UserError(f"transformers model type {family!r} is not one of {', '.join(PREFIXES)}")
    sew, data2vec = family == "sew", family == "data2vec-audio"
    position = (r"encoder\.position\.convs\.0", "encoder.pos_conv_embed.conv")
    if data2vec:
        position = (r"encoder\.position\.convs\.(\d+)", r"encoder.pos_conv_embed.layers.\1.conv")
    return [
        *BLOCKS,
        ("feature_norm", "layer_norm" if sew else "feature_projection.layer_norm"),
        (r"proj\.", "feature_projection." if sew else "feature_projection.projection."),
        ("mask_embedding", "masked_spec_embed"),
        position,
        (r"encoder\.norm", "encoder.layer_norm"),
        *layer_rules("encoder.layers"),
        (r"encoder\.upsample\.proj", "encoder.upsample.projection"),
    ]


def load_transformers_state(upstream: Upstream, state: dict[str, Tensor], family: str) -> Loaded:
    """Copies a state dict of the family's bare model or of one with heads; returns the names of the heads that were
    left out.

    `family` is transformers' `model_type`. Raises UserError that lists missing, unexpected and misshapen tensors.
    """
    return load_renamed(upstream, state, rules(family), PREFIXES[family])


def settings_from_transformers(config: dict[str, Any], normalize_waveform: bool = False) -> ModelSettings:
    """Our settings for a `config.json`. Raises UserError for what they cannot express, by name."""
    family = config.get("model_type")
    if family not in PREFIXES:
        raise UserError(f"config.json: model_type {family!r} is not one of {', '.join(PREFIXES)}")
    data2vec = family == "data2vec-audio"
    for key, wanted in {
        "feat_extract_activation": "gelu",
        "add_adapter": False,
        "adapter_attn_dim": None,
        "conv_pos_batch_norm": False,
    }.items():
        if config.get(key, wanted) != wanted:
            raise UserError(f"config.json: {key} {config[key]!r} is not supported, only {wanted!r}")
    if config.get("layer_norm_eps", 1e-5) != 1e-5:
        raise UserError(f"config.json: layer_norm_eps {config['layer_norm_eps']} is not supported, only 1e-05")
    if config.get("hidden_act", "gelu") not in ACTIVATIONS:
        raise UserError(f"config.json: hidden_act {config['hidden_act']!r} is not one of {', '.join(ACTIVATIONS)}")
    position = {"kernel": config["num_conv_pos_embeddings"], "groups": config["num_conv_pos_embedding_groups"]}
    if data2vec:
        position |= {"kernel": config["conv_pos_kernel_size"], "layers": config["num_conv_pos_embeddings"]}
    factor = config["squeeze_factor"] if family == "sew" else None
    values = {
        "front_end": {
            "kind": "waveform",
            "channels": config["conv_dim"],
            "kernels": config["conv_kernel"],
            "strides": config["conv_stride"],
            "padding": [0] * len(config["conv_dim"]),
            "norm": "layer" if data2vec else config["feat_extract_norm"],
            "bias": config["conv_bias"],
        },
        "encoder": {
            "layers": config["num_hidden_layers"],
            "width": config["hidden_size"],
            "ffn": config["intermediate_size"],
            "heads": config["num_attention_heads"],
            "norm": "pre" if config.get("do_stable_layer_norm") else "post",
            "activation": ACTIVATIONS[config.get("hidden_act", "gelu")],
            "position": {"kind": "conv", **position},
            "compression": {"kind": "none"} if factor is None else {"kind": "fixed", "squeeze": factor},
            "dropout": config["hidden_dropout"],
            "attention_dropout": config["attention_dropout"],
            "activation_dropout": config["activation_dropout"],
            "layer_drop": config["layerdrop"],
        },
        "normalize_waveform": normalize_waveform,
        "feature_norm": config.get("feat_proj_layer_norm", True),
        "dropout_input": config["feat_proj_dropout"],
    }
    return parse(ModelSettings, values, "config.json")


def load_folder(folder: Path) -> tuple[Upstream, Loaded]:
    """The upstream of a transformers folder (`config.json` and `model.safetensors`), in eval mode.

    `preprocessor_config.json`, when there, says whether waveforms are normalised. Raises UserError for missing files,
    other model types, and settings that have no equal here. Pickled weights (`pytorch_model.bin`) are not read.
    """
    config, settings, weights = read_folder(folder)
    upstream = Upstream(settings)
    loaded = load_transformers_state(upstream, load_file(weights), config["model_type"])
    return upstream.eval(), loaded


def read_folder(folder: Path) -> tuple[dict[str, Any], ModelSettings, Path]:
    """A folder's `config.json`, our settings for it, and the path of its weights; raises as `load_folder`."""
    config = _json(folder / "config.json")
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise UserError(f"{weights}: no such file; save the model with safetensors (pickled weights are not read)")
    preprocessor = folder / "preprocessor_config.json"
    normalise = bool(_json(preprocessor).get("do_normalize", True)) if preprocessor.is_file() else False
    return config, settings_from_transformers(config, normalise), weights


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
