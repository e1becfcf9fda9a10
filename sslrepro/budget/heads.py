"""What pre-training heads cost. They run on masked frames alone (sslrepro.objectives); `masked` is how many there are."""

from __future__ import annotations

from sslrepro.budget.clones import decoder
from sslrepro.budget.masked import expected_masked
from sslrepro.budget.ops import Part, linear, parameters, product
from sslrepro.config import (
    ClonedRegressionSettings,
    ContrastiveSettings,
    DistillationSettings,
    MaskedPredictionSettings,
    ObjectiveSettings,
    RandomProjectionSettings,
    ReconstructionSettings,
    RegressionSettings,
)
from sslrepro.errors import UserError

MFCC = 39  # with first and second differences, of each 10 ms frame that a frame of the model holds
Parts = dict[str, Part]


def masked_frames(settings: ObjectiveSettings, frames: int) -> int:
    """The expected number of masked frames, rounded: what a cost from settings alone uses; all frames where the heads read them all."""
    if isinstance(settings, DistillationSettings) and settings.mask.share == 0:
        return frames
    mask = getattr(settings, "mask", None)
    return 0 if mask is None else round(expected_masked(mask, frames))


def heads(
    settings: ObjectiveSettings, masked: int, width: int, channels: int, features_need_grad: bool, hop: int = 320, frames: int = 0
) -> Parts:
    """By component. width: the encoder's; channels: the front end's; features_need_grad: whether the quantizer's input leads to weights;
    hop: samples a frame; frames: all of the utterance's, for a decoder."""
    if isinstance(settings, ContrastiveSettings):
        return _contrastive(settings, masked, width, channels, features_need_grad)
    if isinstance(settings, MaskedPredictionSettings):
        return _masked_prediction(settings, masked, width)
    if isinstance(settings, DistillationSettings):
        return _distillation(settings, masked, width)
    if isinstance(settings, ReconstructionSettings):
        return {"heads": linear(masked, width, MFCC * (hop // 160))}
    if isinstance(settings, ClonedRegressionSettings):
        return {"heads": decoder(settings, frames, width)}
    if isinstance(settings, RegressionSettings):
        return {"heads": linear(masked, width, width)}
    if isinstance(settings, RandomProjectionSettings):
        return {"heads": linear(masked, width, settings.codes)}
    return {}


def _contrastive(s: ContrastiveSettings, masked: int, width: int, channels: int, features_need_grad: bool) -> Parts:
    """wav2vec 2.0: code logits and codebook product (the picks are one-hot rows times the codebooks), one projection a side, and the
    similarity of all masked frames with all masked frames, which holds every negative however many are drawn."""
    q = s.quantizer
    logits = linear(masked, channels, q.groups * q.codes, input_grad=features_need_grad)
    return {
        "quantizer": logits + linear(masked, q.codes, q.dim, bias=False),
        "heads": _projection(s, masked, q.dim) + _projection(s, masked, width),
        "negatives": product(masked, masked, s.final_dim),
    }


def _projection(s: ContrastiveSettings, masked: int, inputs: int) -> Part:
    """One linear, or SEW's two with a batch norm between them."""
    if s.head == "linear":
        return linear(masked, inputs, s.final_dim)
    norm = parameters(2 * s.head_hidden)
    return linear(masked, inputs, s.head_hidden, bias=False) + norm + linear(masked, s.head_hidden, s.final_dim)


def _masked_prediction(s: MaskedPredictionSettings, masked: int, width: int) -> Parts:
    """HuBERT: projection, and its similarity with every class embedding. MelHuBERT (`linear`): one linear layer to the classes."""
    if s.head == "linear":
        return {"heads": linear(masked, width, s.classes)}
    return {"heads": linear(masked, width, s.final_dim) + linear(masked, s.final_dim, s.classes, bias=False)}


def _distillation(s: DistillationSettings, frames: int, width: int) -> Parts:
    """DistilHuBERT: one linear to all heads side by side, one linear a head to the teacher's width; or one linear a layer."""
    if s.teacher_model is None or s.teacher_model.encoder is None:
        raise UserError("objective.teacher: its settings come from the profile that names its cell; count a cell of a profile")
    n, dim = len(s.layers), s.teacher_model.encoder.width
    if s.heads == "layers":
        return {"heads": n * linear(frames, width, dim)}
    return {"heads": linear(frames, width, n * width) + linear(frames, n * width, n * dim, blocks=n)}
