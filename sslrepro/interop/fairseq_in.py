"""Weights of fairseq's wav2vec 2.0, HuBERT and data2vec (audio) checkpoints, read without unpickling objects.

Newer checkpoints hold tensors and plain settings only, and are read. Older ones hold pickled objects (argparse.Namespace, omegaconf,
fairseq's own dictionaries). torch can be told to trust such classes (`torch.serialization.safe_globals`), but what the file then builds
from them is the file's choice; so they are refused, with the line that writes the weights alone.
"""

from __future__ import annotations

import ast
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslrepro.config import ModelSettings, parse
from sslrepro.errors import UserError
from sslrepro.interop.names import Loaded, Rules, load_renamed
from sslrepro.models.upstream import Upstream

LAYER = r"encoder\.layers\.(\d+)\."
RULES: Rules = [
    (r"front_end\.stack\.blocks\.(\d+)\.conv", r"feature_extractor.conv_layers.\1.0"),
    ("feature_norm", "layer_norm"),
    (r"proj\.", "post_extract_proj."),
    ("mask_embedding", "mask_emb"),
    (r"encoder\.norm", "encoder.layer_norm"),
    (LAYER + r"mixer\.", r"encoder.layers.\1.self_attn."),
    (LAYER + r"mixer_norm", r"encoder.layers.\1.self_attn_layer_norm"),
    (LAYER + r"feed_forward\.up", r"encoder.layers.\1.fc1"),
    (LAYER + r"feed_forward\.down", r"encoder.layers.\1.fc2"),
    (LAYER + r"feed_forward_norm", r"encoder.layers.\1.final_layer_norm"),
]
HEADS = ("quantizer.", "project_q.", "final_proj.", "label_embs_concat", "_ema", "target_glu.", "w2v_encoder.proj.")
DEFAULT_LAYERS = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] + [(512, 2, 2)]"  # of all three models


def load_fairseq(path: Path, settings: ModelSettings | None = None) -> tuple[Upstream, Loaded]:
    """The upstream of a checkpoint, in eval mode, and the names of the heads that were left out.

    `settings`: needed where the file does not hold its own as plain values. Raises UserError for files that hold pickled objects, are not
    checkpoints, or do not fit.
    """
    checkpoint = read_checkpoint(path)
    if settings is None:
        settings = settings_from_fairseq(checkpoint.get("cfg"), str(path))
    upstream = Upstream(settings)
    return upstream.eval(), load_fairseq_state(upstream, checkpoint["model"])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The file's dictionary, with `model` a state dict."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: not read, because it holds pickled objects, which run code of the file's choice ({_object(error)}). "
            "Where you trust it, write its weights alone: "
            'python -c "import torch, sys; c = torch.load(sys.argv[1], weights_only=False); '
            "torch.save({'model': c['model']}, sys.argv[2])\" OLD NEW"
        ) from None
    except (RuntimeError, EOFError, zipfile.BadZipFile, ValueError) as error:
        raise UserError(f"{path}: not a whole torch checkpoint: {error}") from None
    model = checkpoint.get("model") if isinstance(checkpoint, dict) else None
    if not isinstance(model, dict) or not all(isinstance(value, Tensor) for value in model.values()):
        raise UserError(f"{path}: not a fairseq checkpoint: no state dict under 'model'")
    return checkpoint


def load_fairseq_state(upstream: Upstream, state: dict[str, Tensor]) -> Loaded:
    """Copies fairseq's names into `upstream`; pre-trained models as they are, fine-tuned ones under `w2v_encoder.w2v_model.`."""
    encoder = upstream.settings.encoder
    layer_norm = upstream.settings.front_end.norm == "layer" if upstream.settings.front_end.kind == "waveform" else False
    several = encoder is not None and encoder.position.layers > 1
    rules = [
        (r"front_end\.stack\.blocks\.(\d+)\.norm", r"feature_extractor.conv_layers.\1." + ("2.1" if layer_norm else "2")),
        (r"encoder\.position\.convs\.(\d+)", r"encoder.pos_conv.\1.0")
        if several
        else (r"encoder\.position\.convs\.0", "encoder.pos_conv.0"),
        *RULES,
    ]
    return load_renamed(upstream, state, rules, "w2v_encoder.w2v_model.", heads=HEADS)


def settings_from_fairseq(cfg: Any, where: str) -> ModelSettings:
    """Our settings for the checkpoint's `cfg`. Raises UserError when it has none as plain values or they have no equal here."""
    model = cfg.get("model") if isinstance(cfg, dict) else None
    if not isinstance(model, dict) or "encoder_layers" not in model:
        raise UserError(f"{where}: holds no settings as plain values; give the model settings beside it")
    if model.get("layer_type", "transformer") != "transformer":
        raise UserError(f"{where}: layer_type {model['layer_type']!r} is not supported")
    blocks = conv_layers(model.get("conv_feature_layers", DEFAULT_LAYERS), where)
    depth = model.get("pos_conv_depth", 1)
    kernel = model.get("conv_pos", 128)
    values = {
        "front_end": {
            "kind": "waveform",
            "channels": [c for c, _, _ in blocks],
            "kernels": [k for _, k, _ in blocks],
            "strides": [s for _, _, s in blocks],
            "padding": [0] * len(blocks),
            "norm": "layer" if model.get("extractor_mode") == "layer_norm" else "group",
            "bias": model.get("conv_bias", False),
        },
        "encoder": {
            "layers": model["encoder_layers"],
            "width": model["encoder_embed_dim"],
            "ffn": model["encoder_ffn_embed_dim"],
            "heads": model["encoder_attention_heads"],
            "norm": "pre" if model.get("layer_norm_first") else "post",
            "activation": model.get("activation_fn", "gelu"),
            "position": {
                "kernel": max(3, kernel // depth) if depth > 1 else kernel,
                "groups": model.get("conv_pos_groups", 16),
                "layers": depth,
            },
            "dropout": model.get("dropout", 0.1),
            "attention_dropout": model.get("attention_dropout", 0.1),
            "activation_dropout": model.get("activation_dropout", 0.0),
            "layer_drop": model.get("encoder_layerdrop", 0.0),
        },
        "normalize_waveform": bool((cfg.get("task") or {}).get("normalize", False)),
        "dropout_input": model.get("dropout_input", 0.0),
        "feature_grad_mult": model.get("feature_grad_mult", 1.0),
    }
    return parse(ModelSettings, values, where)


def conv_layers(text: str, where: str) -> list[tuple[int, int, int]]:
    """fairseq writes its convolutions as a Python expression, such as `[(512, 10, 5)] + [(512, 3, 2)] * 4`, and evaluates it.

    Here it is read as sums and repetitions of lists of three whole numbers, and nothing else.
    """

    def value(node: ast.expr) -> list[tuple[int, int, int]]:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return value(node.left) + value(node.right)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and 0 < ast.literal_eval(node.right) < 100:
            return value(node.left) * ast.literal_eval(node.right)
        layers = [tuple(item) for item in ast.literal_eval(node)]
        if not all(len(layer) == 3 and all(type(n) is int and n > 0 for n in layer) for layer in layers):
            raise ValueError
        return layers

    try:
        return value(ast.parse(text.strip(), mode="eval").body)
    except (ValueError, TypeError, SyntaxError, AttributeError):
        raise UserError(f"{where}: conv_feature_layers {text!r} is not a list of (channels, kernel, stride)") from None


def _object(error: Exception) -> str:
    """The class that torch would not build, from its message."""
    words = str(error).split("GLOBAL ")
    return words[1].split(" ")[0] if len(words) > 1 else str(error).splitlines()[0]
