"""Predicted bytes of the activations that one utterance leaves saved for the backward in float32, by component, from settings alone.

What a layer saves: a linear or convolution its input; a norm its input and two numbers a row; an activation its input; a dropout its mask;
attention its queries, keys, values and output, and, when it is not fused, the T x T weights of every head. A tensor that two neighbours
save counts once. On a processor our own functions save less, and make the rest again. All of it is exactly what autograd saves
(tests/budget/test_memory.py), heads to first order.
"""

from __future__ import annotations

from math import prod

from sslrepro.budget.front_end import front_end, has_weights, hop, packs, waveform_layers
from sslrepro.budget.heads import MFCC, masked_frames
from sslrepro.budget.mixer_activations import CUDA, FLOAT, MIXER_ACTIVATIONS, STATISTICS, Kernels, dropout_mask
from sslrepro.config import (
    ClonedRegressionSettings,
    ContrastiveSettings,
    DistillationSettings,
    EncoderSettings,
    FrontEnd,
    LogMelFrontEnd,
    MaskedPredictionSettings,
    ModelSettings,
    ObjectiveSettings,
    PositionSettings,
    RandomProjectionSettings,
    ReconstructionSettings,
    RegressionSettings,
    WaveformFrontEnd,
)
from sslrepro.errors import UserError


def predicted_activations(model: ModelSettings, objective: ObjectiveSettings, samples: int, kernels: Kernels = CUDA) -> dict[str, int]:
    """Bytes by component for one utterance of `samples` samples; they add up over a batch. Raises UserError for a mixer without a rule."""
    frames, channels, _ = front_end(model.front_end, samples)
    trained = has_weights(model.front_end) and model.feature_grad_mult > 0
    parts = {"feature_extractor": FLOAT * _extractor(model, samples, kernels) if trained else 0}
    if model.encoder is None:
        return parts
    s = model.encoder
    wide = frames * s.width
    projected = channels != s.width
    masks_features = model.mask_embedding == "zero"
    if model.feature_norm or (projected and not masks_features):
        parts["feature_extractor"] += FLOAT * _features(model.front_end, samples)
    normed = frames * STATISTICS if model.feature_norm else 0
    into_projection = frames * channels if projected and (model.feature_norm or masks_features) else 0
    mask = frames if model.feature_norm or trained or not masks_features else 0
    parts["projection"] = FLOAT * (normed + into_projection) + dropout_mask(wide, model.dropout_input, kernels) + mask
    squeeze = s.compression.squeeze
    parts["position"] = FLOAT * _position(s.position, s.width, frames, squeeze)
    inner = s.compression.inner(frames)
    parts["layers"] = s.layers * LAYERS[s.layout](s, inner, kernels)
    parts["norms"] = _norm(inner, s.width) + dropout_mask(inner * s.width, s.dropout, kernels)
    if s.compression.kind == "variable":
        parts["compression"] = FLOAT * _segments(frames, inner, s.width)
    elif squeeze > 1:  # what is spread, before the activation too where there is one; which frames are left over
        spread = squeeze * inner * s.width if s.compression.kind == "fixed" else 0
        parts["compression"] = FLOAT * (inner * s.width + spread) + (frames if frames % squeeze else 0)
    masked = masked_frames(objective, frames)
    parts["heads"] = FLOAT * _heads(objective, masked, s.width, channels, hop(model.front_end))
    return parts


def _norm(rows: int, width: int) -> int:
    return FLOAT * rows * (width + STATISTICS)


def _extractor(model: ModelSettings, samples: int, kernels: Kernels) -> int:
    """Numbers. Each convolution keeps its input, each activation its input, each norm its own; what comes out is not in it."""
    if not isinstance(model.front_end, WaveformFrontEnd):
        return _log_mel_conv(model, samples)
    if kernels.own and packs(model.front_end):
        return _packed(model.front_end, samples)
    kept = samples
    for frames, channels, normed in waveform_layers(model.front_end, samples):
        if normed:
            statistics = STATISTICS * (frames if model.front_end.norm == "layer" else channels)
            kept += frames * channels + statistics
        kept += 2 * frames * channels
    return kept - frames * channels


def _features(settings: FrontEnd, samples: int) -> int:
    """Numbers that come out; stacked log-mels of one utterance are a view of all of them, frames left over too."""
    if isinstance(settings, LogMelFrontEnd):
        settings = settings.model_copy(update={"stack": 1})
    frames, channels, _ = front_end(settings, samples)
    return frames * channels


def _packed(s: WaveformFrontEnd, samples: int) -> int:
    """Of each convolution what was before its activation, of the first what came out of it; the first one's windows of the waveform; its
    weights with the norm in them; and, in double precision, what the norm's gradient needs. Utterances are filled up to a whole hop."""
    frames = -(-samples // prod(s.strides)) * prod(s.strides) // s.strides[0]
    kernel, channels = s.kernels[0], s.channels[0]
    kept = frames * kernel + channels * (kernel + 1) + 2 * (kernel * kernel + 2 * channels * kernel + 2 * channels + kernel)
    for stride, channels in zip([1, *s.strides[1:]], s.channels, strict=True):
        frames //= stride
        kept += frames * channels
    return kept


def _log_mel_conv(model: ModelSettings, samples: int) -> int:
    s = model.front_end
    mel_frames = front_end(s.model_copy(update={"channels": [], "kernels": [], "strides": []}), samples)[0]
    kept, frames = mel_frames * s.mels, mel_frames
    for channels, kernel, stride in zip(s.channels, s.kernels, s.strides, strict=True):
        frames = (frames - kernel) // stride + 1
        kept += frames * (3 * channels + STATISTICS)
    return kept - frames * channels


def _position(s: PositionSettings, width: int, frames: int, squeeze: int) -> int:
    """Numbers."""
    if s.kind != "conv":
        return 0
    more = 1 - s.kernel % 2  # an even kernel gives one frame too many, which is kept with the others
    computed = (frames - 1 + more) // squeeze + 1 - more
    if s.layers > 1:  # each: the convolution's input, the norm's, the activation's
        inputs = frames + (s.layers - 1) * computed
        return width * (inputs + s.layers * (2 * computed + more)) + s.layers * STATISTICS * computed
    weights = width * width // s.groups * s.kernel  # the product of direction and gain
    return width * (frames + computed + more) + weights + s.kernel  # the lengths of the directions


def _segments(frames: int, inner: int, width: int) -> int:
    """Numbers: changes and their size, the averaged frames and those to spread; shares, unclamped, and over the weights; what leads from
    the changes to the shares."""
    return 3 * frames * width + inner * width + 3 * inner * frames + 7 * frames + 2 * inner + 9


def _mixer(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    if s.mixer not in MIXER_ACTIVATIONS:
        raise UserError(f"model.encoder.mixer: no memory rule for {s.mixer!r}; there are: {', '.join(sorted(MIXER_ACTIVATIONS))}")
    return MIXER_ACTIVATIONS[s.mixer](s, frames, kernels)


def _feed_forward(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    inside = frames * s.ffn
    kept = 1 if kernels.own else 2  # what the activation gives is made again
    return kept * FLOAT * inside + dropout_mask(inside, s.activation_dropout, kernels) + dropout_mask(frames * s.width, s.dropout, kernels)


def _transformer(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    wide = frames * s.width
    norms = 2 * (_norm(frames, s.width) + FLOAT * wide)
    return norms + _mixer(s, frames, kernels) + _feed_forward(s, frames, kernels) + dropout_mask(wide, s.dropout, kernels)


def _conformer(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    wide = frames * s.width
    norms = 5 * _norm(frames, s.width) + 4 * FLOAT * wide
    convolution = FLOAT * wide * (2 + 1 + 1 + 1 + 1) + STATISTICS * FLOAT * frames
    forwards = 2 * _feed_forward(s, frames, kernels)
    return norms + _mixer(s, frames, kernels) + convolution + forwards + 2 * dropout_mask(wide, s.dropout, kernels)


def _branchformer(s: EncoderSettings, frames: int, kernels: Kernels) -> int:
    wide, half = frames * s.width, frames * (s.ffn // 2)
    norms = FLOAT * (3 * wide + 3 * STATISTICS * frames)
    gate = FLOAT * (2 * frames * s.ffn + 3 * half) + dropout_mask(half, s.dropout, kernels)
    return norms + _mixer(s, frames, kernels) + gate + FLOAT * 2 * wide + 3 * dropout_mask(wide, s.dropout, kernels)


LAYERS = {"transformer": _transformer, "conformer": _conformer, "branchformer": _branchformer}


def _heads(objective: ObjectiveSettings, masked: int, width: int, channels: int, hop: int) -> int:
    """Numbers, not bytes."""
    if isinstance(objective, ContrastiveSettings):
        q = objective.quantizer
        quantizer = 2 * channels + 3 * q.groups * q.codes + q.dim
        hidden = 0 if objective.head == "linear" else 8 * objective.head_hidden  # two heads: into the norm, its products, ReLU
        return masked * (quantizer + width + 7 * objective.final_dim + 2 * masked + hidden)
    if isinstance(objective, MaskedPredictionSettings):
        projected = 3 * objective.final_dim if objective.head == "cosine" else 0
        return masked * (width + projected + 2 * objective.classes)
    if isinstance(objective, ReconstructionSettings):
        return masked * (width + MFCC * (hop // 160))
    if isinstance(objective, (ClonedRegressionSettings, DistillationSettings)):
        raise UserError(f"no memory rule for {objective.name}; budget.memory measures it on the built model")
    if isinstance(objective, RegressionSettings):
        return masked * 2 * width
    if isinstance(objective, RandomProjectionSettings):
        return masked * (width + 2 * objective.codes)
    return 0
