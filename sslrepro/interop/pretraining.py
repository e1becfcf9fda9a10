"""Whole pre-training models, heads included, so that pre-training goes on where another library stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from sslrepro.config import ContrastiveSettings, parse
from sslrepro.errors import UserError
from sslrepro.interop.names import Rules, load_renamed
from sslrepro.interop.torchaudio_in import MASK, RULES
from sslrepro.interop.transformers_in import PREFIXES, read_folder, rules
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.contrastive import Contrastive
from sslrepro.objectives.masked_prediction import MaskedPrediction

CODEBOOKS = "quantizer.codevectors"


def _whole(upstream: Rules, prefix: str, heads: Rules) -> Rules:
    return [*heads, *((r"upstream\." + ours, prefix + theirs) for ours, theirs in upstream)]


CONTRASTIVE_RULES = _whole(
    rules("wav2vec2"),
    PREFIXES["wav2vec2"],
    [
        (r"quantizer\.proj", "quantizer.weight_proj"),
        (r"quantizer\.codebooks", CODEBOOKS),
        ("project_q", "project_q"),
        ("final_proj", "project_hid"),
    ],
)
HUBERT_RULES = _whole(
    RULES,
    "wav2vec2.",
    [
        (r"upstream\.mask_embedding", MASK),
        ("final_proj", "logit_generator.final_proj"),
        ("label_embeddings", "logit_generator.label_embeddings"),
    ],
)


def load_contrastive_state(objective: Contrastive, state: dict[str, Tensor]) -> None:
    """Copies the state of transformers' `Wav2Vec2ForPreTraining`. Raises UserError that lists what does not fit."""
    state = dict(state)
    codebooks = objective.quantizer.codebooks
    if CODEBOOKS in state and state[CODEBOOKS].numel() == codebooks.numel():  # theirs: (1, groups x codes, dim), group after group
        state[CODEBOOKS] = state[CODEBOOKS].reshape(codebooks.shape)
    load_renamed(objective, state, CONTRASTIVE_RULES, prefix="")


def load_hubert_state(objective: MaskedPrediction, state: dict[str, Tensor]) -> None:
    """Copies the state of torchaudio's `HuBERTPretrainModel`. Raises UserError that lists what does not fit."""
    load_renamed(objective, state, HUBERT_RULES, prefix="")


def settings_from_pretraining(config: dict[str, Any]) -> ContrastiveSettings:
    """The objective of a wav2vec 2.0 `config.json`. What it does not hold (masking rule, temperatures) is at our defaults."""
    groups, codes = config["num_codevector_groups"], config["num_codevectors_per_group"]
    values = {
        "quantizer": {"groups": groups, "codes": codes, "dim": config["codevector_dim"]},
        "negatives": config["num_negatives"],
        "temperature": config["contrastive_logits_temperature"],
        "final_dim": config["proj_codevector_dim"],
        "diversity_weight": config["diversity_loss_weight"],
        "feature_weight": 0.0,  # transformers has no feature penalty
        "dropout_features": config["feat_quantizer_dropout"],
    }
    return parse(ContrastiveSettings, values, "config.json")


def load_contrastive_folder(folder: Path) -> Contrastive:
    """Upstream, quantizer and projections of a `Wav2Vec2ForPreTraining` folder, in training mode.

    Raises UserError for missing files, another kind of model and what does not fit.
    """
    config, settings, weights = read_folder(folder)
    if config["model_type"] != "wav2vec2":
        raise UserError(f"{folder}: model_type {config['model_type']!r} has no quantizer to go on with, only 'wav2vec2'")
    objective = Contrastive(settings_from_pretraining(config), Upstream(settings))
    load_contrastive_state(objective, load_file(weights))
    return objective
