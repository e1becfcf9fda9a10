"""Settings of the objectives, told apart by `name`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sslrepro.config.base import Positive, PositiveFloat, Settings, Share
from sslrepro.config.model import ModelSettings


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
