"""Models by name, at their published sizes, as settings. Sources: the authors' configurations (docs/accounting.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from sslrepro.budget.count import Cost, cell_cost, count
from sslrepro.budget.front_end import SAMPLE_RATE
from sslrepro.budget.ops import Part, linear
from sslrepro.config import (
    CellSettings,
    CompressionSettings,
    ContrastiveSettings,
    EncoderSettings,
    LogMelConvFrontEnd,
    LogMelFrontEnd,
    MaskedPredictionSettings,
    MaskSettings,
    ModelSettings,
    NoObjective,
    ObjectiveSettings,
    PositionSettings,
    QuantizerSettings,
    WaveformFrontEnd,
    parse,
    read_yaml,
)
from sslrepro.errors import UserError


@dataclass(frozen=True)
class NamedModel:
    """A published model. teacher: the model whose forward its training needs; prediction_heads: how many layers of the teacher it
    predicts, each by a head of its own that is thrown away (DistilHuBERT)."""

    model: ModelSettings
    objective: ObjectiveSettings
    note: str
    teacher: ModelSettings | None = None
    prediction_heads: int = 0

    def cost(self, seconds: float) -> Cost:
        """Of one utterance."""
        cost = count(self.model, self.objective, round(seconds * SAMPLE_RATE))
        extra = {}
        if self.prediction_heads:
            extra["heads"] = _prediction_heads(cost.frames, self.model.encoder.width, self.prediction_heads)
        if self.teacher is not None:
            teacher = count(self.teacher, NoObjective(), cost.samples)
            extra["teacher"] = Part(training=teacher.macs)  # forward alone
        return replace(cost, components=cost.components | extra, trained=True)


def _prediction_heads(frames: int, width: int, heads: int) -> Part:
    """DistilHuBERT (arXiv 2110.01900; s3prl/pretrain/distiller): one linear to all heads side by side, GELU, one linear a head."""
    return linear(frames, width, heads * width) + linear(frames, heads * width, heads * width, blocks=heads)


def transformer(layers: int, width: int, ffn: int, heads: int, **changes) -> ModelSettings:
    """wav2vec 2.0's composition: seven convolutions, convolutional position, post-norm Transformer (fairseq's base configuration)."""
    return ModelSettings(encoder=EncoderSettings(layers=layers, width=width, ffn=ffn, heads=heads), **changes)


# HuBERT's published counts hold 500 clusters and the four special symbols of fairseq's dictionary
HUBERT = MaskedPredictionSettings(mask=MaskSettings(share=0.8), classes=504)
HUBERT_LARGE = MaskedPredictionSettings(mask=MaskSettings(share=0.8), classes=504, final_dim=768)
WAV2VEC2 = ContrastiveSettings()
WAV2VEC2_LARGE = ContrastiveSettings(quantizer=QuantizerSettings(dim=768), final_dim=768)
MELHUBERT = MaskedPredictionSettings(mask=MaskSettings(share=0.7, length=5), classes=512, head="linear")
SUMMARY_MIXING = ContrastiveSettings(quantizer=QuantizerSettings(temperature_end=0.25), feature_weight=0.0)

# layers, width, feed-forward, heads: the compute-budget paper's family (its authors' fairseq configurations)
SHAPES = {
    "slim-30": (4, 192, 320, 4),
    "slim-50": (5, 320, 768, 8),
    "slim-70": (7, 384, 768, 8),
    "slim-100": (12, 384, 768, 8),
    "slim-200": (15, 528, 1024, 12),
    "small": (3, 640, 2048, 8),
}
BASE = transformer(12, 768, 3072, 12)
LARGE = transformer(24, 1024, 4096, 16)
LARGE_PRE_NORM = ModelSettings(
    front_end=WaveformFrontEnd(norm="layer"),
    encoder=EncoderSettings(layers=24, width=1024, ffn=4096, heads=16, norm="pre"),
    feature_grad_mult=1.0,
)


def _sew(layers: int, width: int, heads: int) -> NamedModel:
    model = ModelSettings(
        front_end=WaveformFrontEnd(channels=[64, 128, 128, 256, 256, 512, 512], pointwise=True),
        encoder=EncoderSettings(
            layers=layers,
            width=width,
            ffn=4 * width,
            heads=heads,
            position=PositionSettings(kernel=31),
            compression=CompressionSettings(kind="fixed", squeeze=2),
        ),
    )
    note = "SEW (arXiv 2109.06870) with wav2vec 2.0's quantizer and its own MLP heads, as its authors' code"
    return NamedModel(model, ContrastiveSettings(head="mlp"), note)


def _melhubert(stack: int) -> NamedModel:
    model = ModelSettings(
        front_end=LogMelFrontEnd(mels=40, stack=stack),
        encoder=BASE.encoder,
        feature_norm=False,
        mask_embedding="zero",
    )
    return NamedModel(model, MELHUBERT, f"MelHuBERT (arXiv 2211.09944), {10 * stack} ms frames, 512 clusters, plain softmax")


def _conformer(mixer: str, note: str) -> NamedModel:
    encoder = EncoderSettings(
        layers=12,
        width=768,
        ffn=3072,
        heads=8,
        layout="conformer",
        norm="pre",
        mixer=mixer,
        activation="swish",
        position=PositionSettings(kind="sinusoidal"),
    )
    return NamedModel(ModelSettings(front_end=LogMelConvFrontEnd(), encoder=encoder), SUMMARY_MIXING, note)


def _lighthubert(width: int, heads: int) -> NamedModel:
    note = "LightHuBERT's default subnet (arXiv 2203.15610), the encoder alone; a HuBERT Base forward in training"
    return NamedModel(transformer(12, width, 4 * width, heads), NoObjective(), note, teacher=BASE)


NAMED: dict[str, NamedModel] = {
    "wav2vec2-base": NamedModel(BASE, WAV2VEC2, "wav2vec 2.0 Base with quantizer and projections"),
    "wav2vec2-large": NamedModel(
        LARGE, WAV2VEC2_LARGE, "wav2vec 2.0 Large as the compute-budget paper has it: post-norm, group norm, 768-wide targets"
    ),
    "hubert-base": NamedModel(BASE, HUBERT, "HuBERT Base, second iteration, with projection and label embeddings"),
    "hubert-large": NamedModel(LARGE_PRE_NORM, HUBERT_LARGE, "HuBERT Large: pre-norm, layer norm in the extractor"),
    **{
        name: NamedModel(transformer(*shape), HUBERT, "compute-budget paper (arXiv 2409.16295), HuBERT's heads")
        for name, shape in SHAPES.items()
    },
    "sew-tiny": _sew(12, 512, 8),
    "sew-small": _sew(12, 768, 12),
    "sew-mid": _sew(24, 768, 12),
    "melhubert-10ms": _melhubert(1),
    "melhubert-20ms": _melhubert(2),
    "distilhubert": NamedModel(
        transformer(2, 768, 3072, 12),
        NoObjective(),
        "DistilHuBERT (arXiv 2110.01900): two layers, heads for layers 4 and 12 of HuBERT Base, thrown away after training",
        teacher=BASE,
        prediction_heads=2,
    ),
    "fithubert": NamedModel(
        transformer(12, 480, 480, 12),
        NoObjective(),
        "FitHuBERT (arXiv 2207.00555), the encoder alone; a HuBERT Base forward in training",
        teacher=BASE,
    ),
    "lighthubert-base": _lighthubert(640, 10),
    "lighthubert-small": _lighthubert(384, 6),
    "summarymixing-w2v2": _conformer("summary_mixing", "SummaryMixing's SSL model (arXiv 2407.13377)"),
    "mhsa-w2v2-conformer": _conformer("attention", "the same stack with self-attention"),
}


def named(name: str) -> NamedModel:
    """A model by its name. Raises UserError with the known names."""
    if name not in NAMED:
        raise UserError(f"{name}: no model of that name, and no such file; the models are: {', '.join(NAMED)}")
    return NAMED[name]


def cost_of(name_or_yaml: str, seconds: float) -> Cost:
    """Cost of a named model, or of the cell settings in a YAML file (`model`, `objective`), for one utterance of so many seconds."""
    if not 0 < seconds < math.inf:
        raise UserError(f"--seconds: {seconds} is not a length; give a positive number of seconds")
    path = Path(name_or_yaml)
    if name_or_yaml not in NAMED and (path.suffix in (".yaml", ".yml") or path.is_file()):
        cost = cell_cost(parse(CellSettings, read_yaml(path) or {}, str(path)), seconds)
    else:
        cost = named(name_or_yaml).cost(seconds)
    if cost.frames < 1:
        raise UserError(f"--seconds: {seconds} is too short for {name_or_yaml}: it makes no frame of it; give more")
    return cost
