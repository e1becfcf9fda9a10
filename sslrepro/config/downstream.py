"""Settings of what scores an encoder: frozen probes, and fine-tunings with shares of the labels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sslrepro.config.base import Positive, PositiveFloat, Settings, Share
from sslrepro.config.objective import MaskSettings
from sslrepro.config.training import ScheduleSettings

TaskName = Literal[
    "phone", "phone_ctc", "phone_lstm", "asr", "asr_conv", "asr_linear", "keyword", "intent", "keyword_mean", "intent_mean", "intent_lstm",
    "emotion", "emotion_ecapa", "speaker", "verification", "verification_tdnn", "verification_xvector", "verification_ecapa",
]  # fmt: skip
BY_CTC, VERIFICATION = ("phone_", "asr"), ("verification",)  # how the names of such tasks begin
BUCKET = 16  # utterances of like length in one of S3PRL's batches, or in half of one


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
    """CTC fine-tuning of the whole encoder with shares of the labels (the batch-size paper's recipe). The front end stays frozen.

    `symbols` keyword or intent: one class an utterance instead of a sequence.
    """

    shares: list[LabelShare] = []  # one fine-tuning each
    method: TuningMethod = FullTuning()  # what of the encoder learns, and what is added to it
    symbols: Literal["phones", "characters", "keyword", "intent"] = "characters"
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
        if self.symbols in ("keyword", "intent") and (self.lm is not None or self.keep):
            raise ValueError(f"symbols {self.symbols!r}: a class is no text, so lm must be null and keep false")
        if self.keep and self.method.kind != "full":
            raise ValueError(f"keep: only fully fine-tuned models are kept whole; of method {self.method.kind!r} what it learned always is")
        return self


class LabelledFolders(Settings):
    """Folders of the corpus whose labels alone a probe uses, anywhere in `path`; null: the whole split."""

    train: Annotated[list[str], Field(min_length=1)] | None = None
    valid: Annotated[list[str], Field(min_length=1)] | None = None
    test: Annotated[list[str], Field(min_length=1)] | None = None


class DownstreamSettings(Settings):
    """Which tasks score the encoder, frozen (learned weighted sum of its layers), and its fine-tunings."""

    tasks: list[TaskName] = []  # downstream.registry.TASKS
    updates: Positive = 300
    batch: Positive = 16  # utterances
    # 0.03 was best of 0.003, 0.01 and 0.03 for phone, phone_ctc, keyword and intent, and 0.003 for verification, on the validation split
    # (benchmarks/results/choices.json)
    learning_rate: PositiveFloat = 3.0e-2
    learning_rates: dict[TaskName, PositiveFloat] = {"verification": 3.0e-3}  # of tasks where theirs is another
    mix_learning_rate: PositiveFloat | None = None  # of the layers' weights; null: the head's (MP3S: another, 10 or 50 times as high)
    schedule: Literal["linear", "constant"] = "linear"  # of the rate: straight down to zero; SUPERB: constant
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # decoupled (AdamW)
    clip_norm: PositiveFloat | None = None  # the longest gradient; SUPERB: 1
    # updates between validations, of which the best one's head is tested; null: the last head is, and the validation split is not read
    select_every: Positive | None = None
    train_hours: PositiveFloat | None = 0.5  # of the training split, of each language; null: all
    folders: LabelledFolders = LabelledFolders()
    folds: bool = False  # emotion by the manifest's column `fold`, each tested in turn, whatever the splits (SUPERB)
    # every hidden state to zero mean and unit variance over the training labels; SUPERB: not
    standardise: bool = True
    project: Positive | None = None  # width of a linear layer between the weighted sum and the head (SUPERB); null: none
    lstm_width: Positive = 128  # cells each way of the two-layer BiLSTMs; of `asr_linear` its hidden units; SUPERB, MP3S: 1024
    conv_width: Annotated[int, Field(ge=8, multiple_of=8)] = 128  # channels of `asr_conv` and the `_ecapa` heads; MP3S: 512
    # dropout between the two layers alone; after the second too (SUPERB's ASR); and then a linear layer with tanh after each (its OOD-ASR)
    lstm_layers: Literal["plain", "dropped", "projected"] = "plain"
    spec_augment: bool = False  # masks and warps the weighted sum in training (downstream.spec_augment)
    ctc_recipe: Literal["plain", "s3prl_asr", "s3prl_ctc"] = "plain"  # how utterances are batched, targets end and doubled symbols are read
    crop_seconds: PositiveFloat | None = None  # verification learns from pieces of at most this, cut at random (SUPERB: 8); null: whole
    fine_tune: FineTuneSettings = FineTuneSettings()

    @model_validator(mode="after")
    def _of_its_tasks(self) -> DownstreamSettings:
        """A setting that some task of the cell would not follow is an error."""
        checks = [
            ("lstm_layers", self.lstm_layers != "plain", ("phone_lstm", "asr"), "with a BiLSTM"),
            ("spec_augment", self.spec_augment, BY_CTC, "read by CTC"),
            ("ctc_recipe", self.ctc_recipe != "plain", BY_CTC, "read by CTC"),
            ("crop_seconds", self.crop_seconds is not None, VERIFICATION, "of verification"),
            ("folds", self.folds, ("emotion",), "of emotion"),
        ]
        for name, given, kinds, kind in checks:
            if given and (other := [task for task in self.tasks if not task.startswith(kinds)]):
                raise ValueError(f"{name}: it is for tasks {kind}, and {other[0]!r} is not one; score it in a cell of its own")
        unselected = [task for task in self.tasks if task.startswith(("speaker", *VERIFICATION))]
        if self.select_every is not None:
            if self.select_every > self.updates:
                raise ValueError(f"select_every: {self.select_every} is more than the {self.updates} updates, so nothing would be selected")
            if unselected:
                raise ValueError(f"select_every: {unselected[0]!r} has no labels in the validation split to select by; set it to null")
        if self.ctc_recipe != "plain" and self.batch % BUCKET:
            raise ValueError(f"batch: {self.batch} is not a multiple of {BUCKET}, the utterances that ctc_recipe puts together by length")
        if (self.folders.valid or self.folders.test) and unselected:
            raise ValueError(f"folders: {unselected[0]!r} is not tested by the test split's labels; folders.valid and test must be null")
        if self.folds and (self.train_hours is not None or self.folders != LabelledFolders()):
            raise ValueError("folds: a head learns from all of the other folds, so train_hours and the lists of folders must be null")
        if self.folders.valid is not None and self.select_every is None:
            raise ValueError("folders.valid: nothing is selected by these folders while select_every is null")
        if self.folders.train is not None and self.train_hours is not None:
            raise ValueError("folders.train: all of these folders is learned from, so train_hours must be null")
        return self

    def at_snapshots(self) -> DownstreamSettings:
        """The same with the shares of the labels that are for snapshots too."""
        shares = [share for share in self.fine_tune.shares if share.snapshots]
        return self.model_copy(update={"fine_tune": self.fine_tune.model_copy(update={"shares": shares})})
