"""Settings of a cell, of its measurements, and of a whole profile."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from sslrepro.config.base import Positive, PositiveFloat, Settings, distinct
from sslrepro.config.data import CellData, DataSettings, TargetSettings
from sslrepro.config.downstream import DownstreamSettings
from sslrepro.config.model import ModelSettings
from sslrepro.config.objective import ContrastiveSettings, ObjectiveSettings
from sslrepro.config.training import TrainingSettings


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
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(distinct)] = [0]
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
    def _one_language(self) -> CellSettings:
        if self.downstream.fine_tune.lm is not None and len(self.data.languages or []) > 1:
            raise ValueError("downstream.fine_tune.lm: a language model is of one language, and data.languages names several")
        return self

    @model_validator(mode="after")
    def _measurable(self) -> CellSettings:
        if self.measure and self.model.encoder is None and (self.measure.encoder or self.measure.update or self.measure.mixer):
            raise ValueError("measure: model.encoder is null: of a front end alone only `inference` can be measured")
        return self


class StudySettings(Settings):
    cells: dict[str, CellSettings]


class Profile(Settings):
    """params.yaml: the whole experiment that `dvc repro` runs."""

    profile: str
    data: DataSettings = DataSettings()
    targets: dict[str, TargetSettings] = {}
    studies: dict[str, StudySettings] = {}
    with_cells: list[str] = []  # the studies that have cells: each has a notebook to run
