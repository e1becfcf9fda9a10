"""Settings of a run: its budget, batches, learning rate, checkpoints and snapshots."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sslrepro.config.base import Positive, PositiveFloat, Settings, Share


class ScheduleSettings(Settings):
    """Learning rate over the fraction of the budget that is used. Shares of the run, or updates when above 1 (the papers' own)."""

    kind: Literal["linear", "tri_stage", "cyclic", "constant"] = "linear"
    warmup: Annotated[float, Field(ge=0)] = 0.08
    hold: Annotated[float, Field(ge=0)] = 0.0  # tri-stage
    cycles: Positive = 8  # cyclic: triangles between peak / 100 and peak
    final_scale: Share = 0.0  # tri-stage: the last rate as a share of the peak
    decay_updates: PositiveFloat | None = None  # linear: it falls as if the run had so many updates (SEW's recipe); null: as many as it has


class BudgetSettings(Settings):
    """How long to train: exactly one unit. `flops_past_front_end`: training FLOPs of all but the feature extractor, as if it were free."""

    unit: Literal["updates", "hours", "flops", "flops_past_front_end"] = "updates"
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
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = [0.9, 0.98]
    eps: PositiveFloat = 1.0e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: PositiveFloat | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    deterministic: bool = False  # a GPU's operators add in a fixed order too, so that a run repeats bit for bit; slower
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
