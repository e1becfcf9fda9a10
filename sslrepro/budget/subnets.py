"""The smaller models inside a supernet (LightHuBERT, arXiv 2203.15610, section 3.2), from settings alone."""

from __future__ import annotations

import itertools

from sslrepro.config import ModelSettings, SupernetSettings
from sslrepro.errors import UserError


def subnets(model: ModelSettings, supernet: SupernetSettings) -> list[ModelSettings]:
    """Every combination of width, heads, feed-forward ratio and depth, in the order of the lists.

    Raises UserError for a choice that the model is too small for, and for models that cannot be cut.
    """
    encoder = model.encoder
    if encoder is None or encoder.layout != "transformer" or encoder.mixer != "attention" or encoder.position.kind == "sinusoidal":
        raise UserError("objective.supernet: a supernet is a Transformer with attention, without sinusoidal positions")
    size = encoder.attended // encoder.heads
    found = []
    for width, heads, ratio, layers in itertools.product(supernet.widths, supernet.heads, supernet.ffn_ratios, supernet.layers):
        changes = {"width": width, "heads": heads, "head_dim": size, "ffn": round(ratio * width), "layers": layers}
        for name in ("width", "heads", "ffn", "layers"):
            if changes[name] > getattr(encoder, name):
                raise UserError(f"objective.supernet: {name} {changes[name]} is more than the model's {getattr(encoder, name)}")
        found.append(model.model_copy(update={"encoder": encoder.model_copy(update=changes)}))
    return found
