"""Settings of the upstream: front end, sequence compression, context encoder."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from sslrepro.config.base import Positive, Settings, Share, ascending, distinct


class WaveformFrontEnd(Settings):
    """Strided convolutions on the waveform (wav2vec 2.0, HuBERT; compact as SEW's WFE-C)."""

    kind: Literal["waveform"] = "waveform"
    channels: list[Positive] = [512] * 7
    kernels: list[Positive] = [10, 3, 3, 3, 3, 2, 2]
    strides: list[Positive] = [5, 2, 2, 2, 2, 2, 2]
    padding: list[int] = [0] * 7  # batch-size paper: 3, 1, 1, 1, 1, 0, 0; fairseq: none
    norm: Literal["group", "layer"] = "group"  # group: on the first layer alone (base); layer: on every layer (large)
    bias: bool = False
    pointwise: bool = False  # SEW's compact extractor: one more 1x1 convolution after each stage from the second on

    @model_validator(mode="after")
    def _lengths(self) -> WaveformFrontEnd:
        n = len(self.channels)
        for name in ("kernels", "strides", "padding"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries, channels has {n}")
        return self


class LogMelFrontEnd(Settings):
    """Log-mel filterbank, normalised over each utterance's own frames, `stack` consecutive frames side by side (MelHuBERT)."""

    kind: Literal["logmel"] = "logmel"
    mels: Positive = 80
    stack: Positive = 2  # 10 ms frames; 2 gives 50 Hz


class LogMelConvFrontEnd(Settings):
    """Log-mels through strided convolutions with layer norm and GELU (SummaryMixing's SSL recipe)."""

    kind: Literal["logmel_conv"] = "logmel_conv"
    mels: Positive = 80
    channels: list[Positive] = [512, 512]
    kernels: list[Positive] = [3, 3]
    strides: list[Positive] = [2, 1]


FrontEnd = Annotated[WaveformFrontEnd | LogMelFrontEnd | LogMelConvFrontEnd, Field(discriminator="kind")]


class PositionSettings(Settings):
    """`conv`: grouped, weight-normed convolution added to the input (wav2vec 2.0: one layer of kernel 128; data2vec: five of 19)."""

    kind: Literal["conv", "sinusoidal", "none"] = "conv"
    kernel: Positive = 128
    groups: Positive = 16
    layers: Positive = 1


class Factors(NamedTuple):
    """By how much sequences are shortened: the encoder's input, and inside each layer the queries, and the keys and values."""

    squeeze: int = 1
    query: int = 1
    key_value: int = 1

    def __str__(self) -> str:
        return f"s{self.squeeze}-q{self.query}-k{self.key_value}"


FactorSet = Annotated[list[Positive], Field(min_length=1), AfterValidator(distinct)]
Rate = Annotated[float, Field(ge=1)]
MEAN_POINTS = 16  # a cost that is a mean over a range of rates is taken at so many, evenly spread


def segment_count(frames: int, rate: float) -> int:
    """How many segments `frames` frames make at `rate` frames a segment on average; at least one."""
    return max(1, int(frames / rate + 0.5))


class CompressionSettings(Settings):
    """Sequence compression. `fixed`: SEW's squeeze by one factor. `stochastic`: one set of weights for every factor of the sets.
    `variable`: segments of `rate` frames on average, short where the input changes (models.segments).

    `squeeze`, `query`, `key_value` are what the model runs at; a `sampled` one trains at factors drawn anew for each update. The paper's
    sets are in no source that we could read: these are ours. A model with a range of `rates` trains at a rate drawn evenly from it for
    each update, and runs at `rate`, any of the range.
    """

    kind: Literal["none", "fixed", "stochastic", "variable"] = "none"
    squeeze: Positive = 1
    query: Positive = 1
    key_value: Positive = 1
    sampled: bool = True
    squeeze_factors: FactorSet = [1, 2, 3, 4]
    query_factors: FactorSet = [1, 2]
    key_value_factors: FactorSet = [1, 2, 4]
    rate: Rate = 1.0
    rates: Annotated[list[Rate], Field(min_length=2, max_length=2), AfterValidator(ascending)] | None = None  # null: `rate` alone

    @model_validator(mode="after")
    def _possible(self) -> CompressionSettings:
        for name, value in self.factors._asdict().items():
            known = {"none": [1], "fixed": [value if name == "squeeze" else 1], "variable": [1]}
            allowed = known.get(self.kind, getattr(self, f"{name}_factors"))
            if value not in allowed:
                raise ValueError(f"{name} {value} is not possible with kind {self.kind!r}: only {', '.join(map(str, allowed))}")
        if self.kind != "variable" and (self.rate != 1 or self.rates is not None):
            raise ValueError(f"rate and rates are of kind 'variable', not {self.kind!r}")
        self.check_rate(self.rate)
        return self

    def check_rate(self, rate: float) -> None:
        """Raises ValueError for a rate outside the range that was trained."""
        if self.rates is not None and not self.rates[0] <= rate <= self.rates[1]:
            raise ValueError(f"rate {rate:g} is outside the range of rates {self.rates[0]:g} to {self.rates[1]:g}")

    @property
    def spread_rates(self) -> list[float]:
        """Rates whose mean cost stands for the range that training draws from; none where one rate is trained."""
        if self.rates is None:
            return []
        low, high = self.rates
        return [low + (high - low) * (i + 0.5) / MEAN_POINTS for i in range(MEAN_POINTS)]

    @property
    def factors(self) -> Factors:
        """What the model runs at."""
        return Factors(self.squeeze, self.query, self.key_value)

    @property
    def choices(self) -> list[Factors]:
        """Every combination that the model can run at; one where nothing can be chosen."""
        if self.kind != "stochastic":
            return [self.factors]
        sets = itertools.product(self.squeeze_factors, self.query_factors, self.key_value_factors)
        return [Factors(*factors) for factors in sets]

    def inner(self, frames: int) -> int:
        """How many frames the layers see of so many."""
        if self.kind == "variable":
            return segment_count(frames, self.rate)
        return max(frames // self.squeeze, 1)

    @property
    def trained(self) -> list[Factors]:
        """The combinations that training draws from."""
        return self.choices if self.sampled else [self.factors]


MixerName = Literal[
    "attention", "unfused", "summary_mixing", "summary_mixing_lite", "summary_mixing_fast", "summary_mixing_decay", "fnet", "sumformer",
    "hyena",
]  # fmt: skip


class EncoderSettings(Settings):
    """The context encoder: layout x mixer x norm."""

    layers: Annotated[int, Field(ge=1)] = 12
    width: Positive = 768
    ffn: Positive = 3072
    heads: Positive = 12
    head_dim: Positive | None = None  # of attention; null: width / heads
    layout: Literal["transformer", "conformer", "branchformer"] = "transformer"
    norm: Literal["post", "pre"] = "post"
    mixer: MixerName = "attention"  # models.mixers.MIXERS
    activation: Literal["gelu", "gelu_tanh", "swish"] = "gelu"
    conv_kernel: Positive = 31  # the convolution module of Conformer and Branchformer
    position: PositionSettings = PositionSettings()
    compression: CompressionSettings = CompressionSettings()
    dropout: Share = 0.1
    attention_dropout: Share = 0.1
    activation_dropout: Share = 0.0
    layer_drop: Share = 0.0

    @model_validator(mode="after")
    def _divides(self) -> EncoderSettings:
        if self.head_dim is None and self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide by heads {self.heads}")
        if self.head_dim is not None and self.mixer not in ("attention", "unfused"):
            raise ValueError(f"head_dim is of attention alone, not of mixer {self.mixer!r}")
        return self

    @property
    def attended(self) -> int:
        """The width of queries, keys and values, all heads together."""
        return self.width if self.head_dim is None else self.heads * self.head_dim

    def at_rate(self, rate: float) -> EncoderSettings:
        """The same encoder, running at this mean length of segments."""
        return self.model_copy(update={"compression": self.compression.model_copy(update={"rate": rate})})

    def at(self, factors: Factors) -> EncoderSettings:
        """The same encoder, running at these factors."""
        return self.model_copy(update={"compression": self.compression.model_copy(update=factors._asdict())})


class ModelSettings(Settings):
    """The upstream: front end, projection, context encoder. `encoder: null` is the front end alone (the log-mel floor)."""

    front_end: FrontEnd = WaveformFrontEnd()
    encoder: EncoderSettings | None = EncoderSettings()
    normalize_waveform: bool = False  # each utterance to zero mean and unit variance, over its true length
    feature_norm: bool = True  # layer norm between front end and projection
    dropout_input: Share = 0.1
    feature_grad_mult: Share = 0.1  # gradient into the front end, scaled
    mask_embedding: Literal["learned", "zero"] = "learned"
    padding: Literal["exact", "peer"] = "exact"  # exact: no padding frame touches anything; peer: as transformers, leak included

    def at(self, factors: Factors) -> ModelSettings:
        """The same model, running at these factors."""
        return self.model_copy(update={"encoder": self.encoder.at(factors)})
