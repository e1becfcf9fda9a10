"""Weights of torchaudio's Wav2Vec2Model and HuBERTPretrainModel."""

from __future__ import annotations

from torch import Tensor

from sslrepro.interop.names import BLOCKS, Loaded, Rules, layer_rules, load_renamed
from sslrepro.models.upstream import Upstream

RULES: Rules = [
    *BLOCKS,
    ("feature_norm", "encoder.feature_projection.layer_norm"),
    (r"proj\.", "encoder.feature_projection.projection."),
    (r"encoder\.position\.convs\.0", "encoder.transformer.pos_conv_embed.conv"),
    (r"encoder\.norm", "encoder.transformer.layer_norm"),
    *layer_rules("encoder.transformer.layers"),
]
MASK = "mask_generator.mask_embedding"  # only the pre-training model has it, beside its wav2vec2


def load_torchaudio_state(upstream: Upstream, state: dict[str, Tensor]) -> Loaded:
    """Copies the state of a `Wav2Vec2Model` (which has no mask embedding: ours is kept) or a `HuBERTPretrainModel`.

    Returns the names of heads that were left out and of ours that were kept. Raises UserError that lists what does not
    fit.
    """
    state = dict(state)
    if MASK in state:
        state["wav2vec2.mask_embedding"] = state.pop(MASK)
    return load_renamed(upstream, state, [*RULES, ("mask_embedding", "mask_embedding")], "wav2vec2.", optional=("mask_embedding",))
