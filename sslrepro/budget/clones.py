"""What data2vec 2.0's clones cost: the encoder on unmasked frames and the decoder on all, once for every clone; the rest once."""

from __future__ import annotations

from dataclasses import replace

from sslrepro.budget.encoder import encoder, position
from sslrepro.budget.ops import Part, conv1d, linear
from sslrepro.config import ClonedRegressionSettings, EncoderSettings


def repeated(part: Part, times: int) -> Part:
    """The same weights at work so many times."""
    work = {name: times * getattr(part, name) for name in ("macs", "training", "unseen", "grouped_excess", "unseen_training")}
    return replace(part, **work)


def cloned_encoder(settings: EncoderSettings, objective: ClonedRegressionSettings, frames: int, masked: int) -> dict[str, Part]:
    """The encoder's components for all clones of an utterance, `masked` of whose frames are left out behind the position embedding."""
    parts = encoder(settings, frames - masked) | {"position": position(settings.position, settings.width, frames)}
    return {name: repeated(part, objective.clones) for name, part in parts.items()}


def decoder(objective: ClonedRegressionSettings, frames: int, width: int) -> Part:
    """Convolutions and one linear, on all frames of every clone."""
    part, inputs = Part(), width
    for _ in range(objective.decoder_layers):
        part += conv1d(frames, inputs, objective.decoder_width, objective.decoder_kernel)
        inputs = objective.decoder_width
    return repeated(part + linear(frames, inputs, width), objective.clones)
