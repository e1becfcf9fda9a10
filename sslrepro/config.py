"""Typed settings. An unknown key, a wrong type or an impossible value is an error that names the key.

One tree a cell: `CellSettings` = data, model, objective, training, downstream. `profiles/*.yaml` hold what differs; `params.yaml` holds
the chosen profile written out in full (`sslrepro.pipeline.profile`).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from sslrepro.errors import UserError

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


def _distinct(values: list[int]) -> list[int]:
    if len(set(values)) < len(values):
        raise ValueError(f"a value occurs twice in {values}")
    return values


def _ascending(values: list[float]) -> list[float]:
    if not 0 < values[0] <= values[1]:
        raise ValueError(f"{values} is not a range of positive numbers from low to high")
    return values


class Settings(BaseModel):
    """Strict: no unknown keys, and a string is never taken for a number (PyYAML reads `1e-4` as one; write `1.0e-4`)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# ---------------------------------------------------------------- model


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


FactorSet = Annotated[list[Positive], Field(min_length=1), AfterValidator(_distinct)]


class CompressionSettings(Settings):
    """Sequence compression. `fixed`: SEW's squeeze by one factor. `stochastic`: one set of weights for every factor of the sets.

    `squeeze`, `query`, `key_value` are what the model runs at; a `sampled` one trains at factors drawn anew for each update. The paper's
    sets are in no source that we could read: these are ours.
    """

    kind: Literal["none", "fixed", "stochastic"] = "none"
    squeeze: Positive = 1
    query: Positive = 1
    key_value: Positive = 1
    sampled: bool = True
    squeeze_factors: FactorSet = [1, 2, 3, 4]
    query_factors: FactorSet = [1, 2]
    key_value_factors: FactorSet = [1, 2, 4]

    @model_validator(mode="after")
    def _possible(self) -> CompressionSettings:
        for name, value in self.factors._asdict().items():
            allowed = {"none": [1], "fixed": [value if name == "squeeze" else 1]}.get(self.kind, getattr(self, f"{name}_factors"))
            if value not in allowed:
                raise ValueError(f"{name} {value} is not possible with kind {self.kind!r}: only {', '.join(map(str, allowed))}")
        return self

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

    @property
    def trained(self) -> list[Factors]:
        """The combinations that training draws from."""
        return self.choices if self.sampled else [self.factors]


class EncoderSettings(Settings):
    """The context encoder: layout x mixer x norm."""

    layers: Annotated[int, Field(ge=1)] = 12
    width: Positive = 768
    ffn: Positive = 3072
    heads: Positive = 12
    head_dim: Positive | None = None  # of attention; null: width / heads
    layout: Literal["transformer", "conformer", "branchformer"] = "transformer"
    norm: Literal["post", "pre"] = "post"
    mixer: str = "attention"  # a name in models.mixers.MIXERS
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


# ---------------------------------------------------------------- objectives


class MaskSettings(Settings):
    """Spans of masked frames; see `data.masking` for the two rules by name."""

    rule: Literal["fairseq", "batch_size_paper"] = "fairseq"
    share: Share = 0.65  # fairseq: start probability x length; batch-size paper: its 0.5
    length: Positive = 10


class QuantizerSettings(Settings):
    """Gumbel product quantizer (wav2vec 2.0, section 2)."""

    groups: Positive = 2
    codes: Positive = 320
    dim: Positive = 256  # all groups together
    temperature_start: PositiveFloat = 2.0
    temperature_end: PositiveFloat = 0.5
    # share of the run after which the floor is reached; null: `temperature_decay` a step, as the papers give it
    anneal_share: Annotated[float, Field(gt=0, le=1)] | None = None
    temperature_decay: PositiveFloat = 0.999995
    input: Literal["after_norm", "before_norm"] = "after_norm"  # fairseq: after the layer norm; batch-size paper: before


class ContrastiveSettings(Settings):
    """wav2vec 2.0's objective. `weighting` says what multiplies the diversity and feature terms (see objectives.contrastive)."""

    name: Literal["contrastive"] = "contrastive"
    mask: MaskSettings = MaskSettings()
    quantizer: QuantizerSettings = QuantizerSettings()
    negatives: Positive = 100
    # fairseq draws from the other masked frames; the batch-size paper from all, and drops hits on the positive
    negative_rule: Literal["fairseq", "batch_size_paper"] = "fairseq"
    temperature: PositiveFloat = 0.1
    final_dim: Positive = 256
    head: Literal["linear", "mlp"] = "linear"  # of context and targets; mlp: SEW's, with batch norm
    head_hidden: Positive = 4096  # of mlp
    diversity_weight: Annotated[float, Field(ge=0)] = 0.1
    feature_weight: Annotated[float, Field(ge=0)] = 10.0
    weighting: Literal["fairseq", "batch_size_paper"] = "fairseq"
    # the diversity term's mean code distribution: over the whole update (exact under accumulation) or over each micro-batch
    diversity_scope: Literal["update", "micro_batch"] = "update"
    dropout_features: Share = 0.1


class MaskedPredictionSettings(Settings):
    """HuBERT: predict the cluster of each masked frame. `targets` names an entry of the profile's `targets`."""

    name: Literal["masked_prediction"] = "masked_prediction"
    mask: MaskSettings = MaskSettings(share=0.8)
    targets: str = "mfcc"
    classes: Positive = 100
    head: Literal["cosine", "linear"] = "cosine"  # cosine / temperature (HuBERT) or plain softmax (MelHuBERT)
    temperature: PositiveFloat = 0.1
    final_dim: Positive = 256
    feature_weight: Annotated[float, Field(ge=0)] = 10.0
    dropout_features: Share = 0.1


class SupernetSettings(Settings):
    """Once for all (LightHuBERT): every update trains one smaller student, whose weights are the leading part of the model's. One choice
    of each list, the same for all layers (the paper chooses heads and ratio layer by layer); the size of a head stays."""

    widths: Annotated[list[Positive], Field(min_length=1)]
    heads: Annotated[list[Positive], Field(min_length=1)]
    ffn_ratios: Annotated[list[PositiveFloat], Field(min_length=1)]
    layers: Annotated[list[Positive], Field(min_length=1)]


class DistillationSettings(Settings):
    """A student of a frozen teacher, which is another cell of the profile (see objectives.distillation)."""

    name: Literal["distillation"] = "distillation"
    teacher: str  # study/cell
    teacher_model: ModelSettings | None = None  # of that cell; filled in by the profile
    layers: Annotated[list[Positive], Field(min_length=1)] = [4, 8, 12]  # of the teacher, that are predicted
    heads: Literal["output", "layers"] = "output"  # all from the student's output, or each from the layer at its relative depth
    initialise: Literal["teacher", "random"] = "teacher"  # teacher: the student's weights are the teacher's of the same name
    normalise: bool = True  # the teacher's states to zero mean and unit variance over their channels; DistilHuBERT: as they are
    cosine_weight: Annotated[float, Field(ge=0)] = 1.0
    mask: MaskSettings = MaskSettings(share=0.0)  # share 0: nothing is masked, and the loss is over all frames
    supernet: SupernetSettings | None = None

    @model_validator(mode="after")
    def _hints(self) -> DistillationSettings:
        if self.supernet is not None and self.heads != "layers":
            raise ValueError("a supernet needs heads: layers")
        return self


class ReconstructionSettings(Settings):
    """TERA: L1 on the masked frames' MFCC. The defaults are the compute-budget paper's (time alteration alone, after the front end).

    The original (Liu 2021) alters log-mels, the model's input: `mask` 0.15 with spans of 7, `frequency` 0.2, `noise_share` 0.15 and
    model.mask_embedding zero, on a front end of log-mels.
    """

    name: Literal["reconstruction"] = "reconstruction"
    mask: MaskSettings = MaskSettings(share=0.8)
    frequency: Share = 0.0  # the widest band of mel channels that an utterance may lose, as a share of all
    noise_share: Share = 0.0  # utterances whose input gets Gaussian noise
    noise_std: PositiveFloat = 0.2
    # each coefficient to zero mean and unit variance over the utterance, as the original; the compute-budget paper's go as they are, whose
    # scale (tens) a run of a few hundred updates does not reach
    normalise: bool = False
    feature_weight: Annotated[float, Field(ge=0)] = 10.0


class RegressionSettings(Settings):
    """data2vec: predict the mean of the last `layers` feed-forward outputs of a teacher that follows the encoder's weights.

    The teacher is an exponential mean over a horizon of updates: shares of the run, or updates when above 1. The paper: 0.999 to 0.9999 an
    update, so 1,000 to 10,000, over the first 30,000 of 400,000 updates.
    """

    name: Literal["regression"] = "regression"
    mask: MaskSettings = MaskSettings(share=0.65)
    layers: Positive = 8
    horizon_start: PositiveFloat = 1000.0
    horizon_end: PositiveFloat = 10_000.0
    horizon_anneal: PositiveFloat = 30_000.0  # how long the horizon takes from start to end


class ClonedRegressionSettings(RegressionSettings):
    """data2vec 2.0: several masked clones of one teacher pass, an encoder on unmasked frames alone, a convolutional decoder."""

    name: Literal["cloned_regression"] = "cloned_regression"
    mask: MaskSettings = MaskSettings(share=0.5, length=5)
    clones: Positive = 8
    decoder_layers: Positive = 4
    decoder_width: Positive = 384
    decoder_kernel: Positive = 7

    @model_validator(mode="after")
    def _odd(self) -> ClonedRegressionSettings:
        if self.decoder_kernel % 2 == 0:
            raise ValueError(f"decoder_kernel must be odd, so that frames keep their place; got {self.decoder_kernel}")
        return self


class RandomProjectionSettings(Settings):
    """BEST-RQ: name the random codeword that is nearest to a random projection of each masked frame's normalised log-mels."""

    name: Literal["random_projection"] = "random_projection"
    mask: MaskSettings = MaskSettings(share=0.65)
    codes: Positive = 8192
    dim: Positive = 16
    mels: Positive = 80
    codebook_seed: int = 0  # the same codebook for all runs, so that their losses compare
    # the original masks the log-mels that are the input: Gaussian noise of 0.1 in their place; null: the model's mask after the front end
    noise_std: PositiveFloat | None = None
    feature_weight: Annotated[float, Field(ge=0)] = 10.0


class NoObjective(Settings):
    """Nothing is learned: a floor, scored as it was initialised."""

    name: Literal["none"] = "none"


ObjectiveSettings = Annotated[
    ContrastiveSettings
    | MaskedPredictionSettings
    | DistillationSettings
    | ReconstructionSettings
    | RegressionSettings
    | ClonedRegressionSettings
    | RandomProjectionSettings
    | NoObjective,
    Field(discriminator="name"),
]


# ---------------------------------------------------------------- training


class ScheduleSettings(Settings):
    """Learning rate over the fraction of the budget that is used. Shares of the run, or updates when above 1 (the papers' own)."""

    kind: Literal["linear", "tri_stage", "cyclic", "constant"] = "linear"
    warmup: Annotated[float, Field(ge=0)] = 0.08
    hold: Annotated[float, Field(ge=0)] = 0.0  # tri-stage
    cycles: Positive = 8  # cyclic: triangles between peak / 100 and peak
    final_scale: Share = 0.0  # tri-stage: the last rate as a share of the peak


class BudgetSettings(Settings):
    """How long to train: exactly one unit."""

    unit: Literal["updates", "hours", "flops"] = "updates"
    amount: PositiveFloat = 400_000.0


class RateScaling(Settings):
    """How the peak learning rate follows the batch: rate x (batch / reference) ^ power, power 1 (linear), 1/2 (square root) or 0."""

    rule: Literal["linear", "square_root", "constant"] = "square_root"
    reference_seconds: PositiveFloat = 6000.0  # the batch for which learning_rate is meant (batch-size paper: 100 minutes)


class TrainingSettings(Settings):
    budget: BudgetSettings = BudgetSettings()
    batch_seconds: PositiveFloat = 5600.0  # audio in one update, all devices and micro-batches together
    micro_batch_seconds: PositiveFloat = 87.5  # audio at most in one forward pass of one device
    min_seconds: Annotated[float, Field(ge=0)] = 2.0  # shorter utterances are left out, and counted
    max_seconds: PositiveFloat = 15.625  # longer ones are cropped at random
    learning_rate: PositiveFloat = 5.0e-4
    rate_scaling: RateScaling | None = None  # null: learning_rate is the peak as it stands
    schedule: ScheduleSettings = ScheduleSettings()
    betas: list[float] = [0.9, 0.98]
    eps: PositiveFloat = 1.0e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: PositiveFloat | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_seconds: PositiveFloat = 60.0  # wall time between checkpoints
    keep_checkpoints: Positive = 2
    valid_every: Share = 0.1  # share of the run between validations
    valid_seconds: PositiveFloat | None = None  # audio of the validations along the way; the last one uses all of the split
    workers: Annotated[int, Field(ge=0)] = 0
    snapshots: list[Share] = []  # shares of the run at which the weights are kept, to be scored like the last
    dispersion_batches: Literal[0] | Annotated[int, Field(ge=2)] = 0  # gradients compared at start, snapshots and end; 0: none

    @property
    def peak_rate(self) -> float:
        """The peak learning rate after scaling with the batch."""
        if self.rate_scaling is None:
            return self.learning_rate
        power = {"linear": 1.0, "square_root": 0.5, "constant": 0.0}[self.rate_scaling.rule]
        return self.learning_rate * (self.batch_seconds / self.rate_scaling.reference_seconds) ** power


# ---------------------------------------------------------------- data and downstream


class CorpusSettings(Settings):
    """The embedded corpus, spoken by eSpeak NG (data.embedded). The same settings give the same manifest anywhere."""

    hours: PositiveFloat = 3.0  # of the training split; validation and test come on top
    voices: Positive = 48
    words: Positive = 250
    seed: int = 1


class DataSettings(Settings):
    root: str | None = None  # LibriSpeech or Libri-Light as unpacked, any folder of audio, or a manifest; null: the embedded corpus
    corpus: CorpusSettings = CorpusSettings()


Range = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ascending)]


class AugmentSettings(Settings):
    """Changes of the training audio (data.augment). Each share is that of the utterances it befalls; validation hears none."""

    speed_share: Share = 0.0
    speed: Range = [0.9, 1.1]  # times as fast, in steps of 0.05
    room_share: Share = 0.0
    room_seconds: Range = [0.1, 0.6]  # until echoes have fallen by 60 dB
    noise_share: Share = 0.0
    noise_decibels: Range = [5.0, 20.0]  # speech above noise
    mask_share: Share = 0.0
    mask_spans: Positive = 2
    mask_seconds: PositiveFloat = 0.3  # the longest


class CellData(Settings):
    """Which part of the training split a cell sees."""

    hours: PositiveFloat | None = None  # nested subsets; null: all
    fixed_speakers: bool = False  # the subset keeps every speaker
    augment: AugmentSettings = AugmentSettings()


class LabelShare(Settings):
    """One fine-tuning: how much labelled speech, and how long."""

    minutes: PositiveFloat
    updates: Positive
    snapshots: bool = False  # the weights kept along the run are fine-tuned as well as the last


class LanguageModelSettings(Settings):
    """N-gram language model and beam search. The batch-size paper: torchaudio's decoder, LibriSpeech's 4-gram, beam 50, weight 2."""

    order: Positive = 4
    beam: Positive = 50
    weight: Annotated[float, Field(ge=0)] = 2.0  # of log10 probabilities, as in that decoder with KenLM
    word_score: float = 0.0


class FullTuning(Settings):
    kind: Literal["full"] = "full"


class FrozenTuning(Settings):
    """The output layer alone learns."""

    kind: Literal["frozen"] = "frozen"


class LoRATuning(Settings):
    """Low-rank updates alpha / rank x B A of the linears of these names."""

    kind: Literal["lora"] = "lora"
    rank: Positive = 8
    alpha: Positive = 16
    dropout: Share = 0.0
    linears: list[str] = ["q_proj", "v_proj"]


class AdaLoRATuning(Settings):
    """Low-rank updates whose ranks fall from `initial_rank` to `rank` on average, between two shares of the run (updates above 1)."""

    kind: Literal["adalora"] = "adalora"
    initial_rank: Positive = 12
    rank: Positive = 8
    begin: Annotated[float, Field(ge=0)] = 0.1
    end: Annotated[float, Field(ge=0)] = 0.6
    alpha: Positive = 16
    dropout: Share = 0.0
    orthogonality: Annotated[float, Field(ge=0)] = 0.5  # weight of the regulariser, PEFT's default
    linears: list[str] = ["q_proj", "v_proj"]


class AdapterTuning(Settings):
    kind: Literal["adapter"] = "adapter"
    width: Positive = 64  # of the bottleneck


class LadderTuning(Settings):
    kind: Literal["ladder"] = "ladder"
    reduction: Positive = 8  # the side network is 1 / reduction as wide


TuningMethod = Annotated[FullTuning | FrozenTuning | LoRATuning | AdaLoRATuning | AdapterTuning | LadderTuning, Field(discriminator="kind")]


class FineTuneSettings(Settings):
    """CTC fine-tuning of the whole encoder with shares of the labels (the batch-size paper's recipe). The front end stays frozen."""

    shares: list[LabelShare] = []  # one fine-tuning each
    method: TuningMethod = FullTuning()  # what of the encoder learns, and what is added to it
    symbols: Literal["phones", "characters"] = "characters"
    batch_seconds: PositiveFloat = 180.0
    micro_batch_seconds: PositiveFloat = 90.0
    learning_rate: PositiveFloat = 5.0e-5
    schedule: ScheduleSettings = ScheduleSettings(kind="tri_stage", warmup=0.1, hold=0.4, final_scale=0.05)
    freeze: Annotated[float, Field(ge=0)] = 5_000.0  # full: the encoder learns after this share of the run, or updates above 1
    mask: MaskSettings = MaskSettings(rule="batch_size_paper", share=0.05)  # spans of time; share 0: none
    lm: LanguageModelSettings | None = None  # null: read greedily alone; else both ways
    keep: bool = False  # the last fine-tuned model of each share stays in the run's folder, for `sslrepro transcribe`

    @model_validator(mode="after")
    def _once(self) -> FineTuneSettings:
        minutes = [share.minutes for share in self.shares]
        if len(set(minutes)) < len(minutes):
            raise ValueError(f"shares: the same minutes twice: {minutes}")
        if self.keep and self.method.kind != "full":
            raise ValueError(f"keep: only fully fine-tuned models are kept whole; of method {self.method.kind!r} what it learned always is")
        return self


class DownstreamSettings(Settings):
    """Which tasks score the encoder, frozen (learned weighted sum of its layers), and its fine-tunings."""

    tasks: list[str] = []
    updates: Positive = 300
    batch: Positive = 16  # utterances
    learning_rate: PositiveFloat = 1.0e-2
    learning_rates: dict[str, PositiveFloat] = {"verification": 3.0e-3}  # of tasks where theirs is another
    train_hours: PositiveFloat = 0.5
    # every hidden state to zero mean and unit variance over the training labels; SUPERB: not
    standardise: bool = True
    lstm_width: Positive = 128  # cells each way of the two-layer BiLSTM of `asr`; SUPERB, MP3S: 1024
    fine_tune: FineTuneSettings = FineTuneSettings()

    def at_snapshots(self) -> DownstreamSettings:
        """The same with the shares of the labels that are for snapshots too."""
        shares = [share for share in self.fine_tune.shares if share.snapshots]
        return self.model_copy(update={"fine_tune": self.fine_tune.model_copy(update={"shares": shares})})


class MeasureSettings(Settings):
    """What a cell times on the machine that runs it (training.measure). Each list holds lengths; with several, a metric's name ends in its
    length: `cost.update_seconds_20`. Every seed of the cell is one independent repeat of the whole measurement."""

    inference: list[PositiveFloat] = []  # seconds of audio: the whole model's forward
    encoder: list[PositiveFloat] = []  # seconds of audio: the context encoder's forward alone
    update: list[PositiveFloat] = []  # seconds of audio: forward, backward and optimizer, and the memory they take
    mixer: list[Positive] = []  # frames: forward and backward of one layer's mixer alone
    batch: Positive = 1  # utterances of each length, side by side
    threads: Positive = 1  # of the processor
    warmup: Positive = 2
    repeats: Positive = 5  # the median of so many; all lengths take turns
    alone: bool = False  # as initialised: the cell trains and scores nothing and keeps no weights

    @model_validator(mode="after")
    def _something(self) -> MeasureSettings:
        lists = {name: getattr(self, name) for name in ("inference", "encoder", "update", "mixer")}
        if not any(lists.values()):
            raise ValueError(f"nothing to measure: give lengths to {', '.join(lists)}")
        for name, lengths in lists.items():
            if len(set(lengths)) < len(lengths):
                raise ValueError(f"{name}: a length occurs twice in {lengths}")
        return self


class CellSettings(Settings):
    """One setting of a study's grid, with all its seeds.

    `start` is another cell of the same profile ("study/cell"), whose upstream of the same seed this one begins with; without an objective
    it is scored as it stands. An objective may name a `teacher` likewise. What the stage reads follows from these and is filled in:
    `input` (the corpus, or a set of targets), `start_input` and `teacher_input` (a cell's runs; the corpus where there is none),
    `measure_input` (for a cell that measures, the file that names the machine: another's numbers are never taken for this one's).
    """

    input: str = ""
    start_input: str = ""
    teacher_input: str = ""
    measure_input: str = ""
    start: str | None = None
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_distinct)] = [0]
    data: CellData = CellData()
    model: ModelSettings = ModelSettings()
    objective: ObjectiveSettings = ContrastiveSettings()
    training: TrainingSettings = TrainingSettings()
    downstream: DownstreamSettings = DownstreamSettings()
    measure: MeasureSettings | None = None

    @property
    def measures_alone(self) -> bool:
        return self.measure is not None and self.measure.alone

    @property
    def is_trained(self) -> bool:
        return self.objective.name != "none" and not self.measures_alone

    @model_validator(mode="after")
    def _alone(self) -> CellSettings:
        if self.measures_alone and (self.downstream.tasks or self.downstream.fine_tune.shares or self.training.snapshots):
            raise ValueError(
                "measure.alone: the cell trains nothing, so downstream.tasks, fine_tune.shares and training.snapshots must be empty"
            )
        return self

    @model_validator(mode="after")
    def _measurable(self) -> CellSettings:
        if self.measure and self.model.encoder is None and (self.measure.encoder or self.measure.update or self.measure.mixer):
            raise ValueError("measure: model.encoder is null: of a front end alone only `inference` can be measured")
        return self


class TargetSettings(Settings):
    """Labels for masked prediction: k-means on MFCC, or on a layer of an earlier cell of the same profile ("study/cell")."""

    source: Literal["mfcc", "logmel", "hidden"] = "mfcc"
    input: str = ""
    cell: str | None = None
    seed: int = 0  # of the k-means and, for hidden, of the run that is read
    layer: int | None = None
    clusters: Positive = 100
    fit_hours: PositiveFloat = 1.0


class StudySettings(Settings):
    cells: dict[str, CellSettings]


class Profile(Settings):
    """params.yaml: the whole experiment that `dvc repro` runs."""

    profile: str
    data: DataSettings = DataSettings()
    targets: dict[str, TargetSettings] = {}
    studies: dict[str, StudySettings] = {}
    with_cells: list[str] = []  # the studies that have cells: each has a notebook to run


# ---------------------------------------------------------------- reading and naming


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; an error that names file and line otherwise."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None


T = TypeVar("T", bound=Settings)


def parse(kind: type[T], values: Any, where: str) -> T:
    """Settings of the given kind from plain values. Errors name each key by its full path, what it got and what it wants."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [f"{where}: {error.error_count()} setting(s) are wrong"]
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"]) or "(top)"
            got = "" if item["type"] in ("missing", "extra_forbidden", "value_error") else f", got {item['input']!r}"
            if item["type"] == "extra_forbidden":
                lines.append(f"  {key}: no such setting")
            else:
                lines.append(f"  {key}: {item['msg']}{got}")
            if isinstance(item.get("input"), str) and "float" in item["type"] and _is_number(item["input"]):
                lines.append(f"    YAML 1.1 reads {item['input']} as text; write it with a point, such as 1.0e-4")
        raise UserError("\n".join(lines)) from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def settings_hash(settings: Settings) -> str:
    """A short name for exactly these settings."""
    text = json.dumps(settings.model_dump(mode="json"), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
