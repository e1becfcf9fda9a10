"""Typed settings. An unknown key, a wrong type or an impossible value is an error that names the key.

One tree a cell: `CellSettings` = data, model, objective, training, downstream. `profiles/*.yaml` hold what differs; `params.yaml` holds
the chosen profile written out in full (`sslrepro.pipeline.profile`).
"""

from sslrepro.config.base import Settings, parse, read_yaml, settings_hash
from sslrepro.config.cell import CellSettings, MeasureSettings, Profile, StudySettings
from sslrepro.config.data import AugmentSettings, CellData, CorpusSettings, DataSettings, LanguageSettings, Range, TargetSettings
from sslrepro.config.downstream import (
    AdaLoRATuning,
    AdapterTuning,
    DownstreamSettings,
    FineTuneSettings,
    FrozenTuning,
    FullTuning,
    LabelledFolders,
    LabelShare,
    LadderTuning,
    LanguageModelSettings,
    LoRATuning,
    TuningMethod,
)
from sslrepro.config.model import (
    CompressionSettings,
    EncoderSettings,
    Factors,
    FactorSet,
    FrontEnd,
    LogMelConvFrontEnd,
    LogMelFrontEnd,
    ModelSettings,
    PositionSettings,
    WaveformFrontEnd,
    segment_count,
)
from sslrepro.config.objective import (
    ClonedRegressionSettings,
    ContrastiveSettings,
    DistillationSettings,
    MaskedPredictionSettings,
    MaskSettings,
    NoObjective,
    ObjectiveSettings,
    QuantizerSettings,
    RandomProjectionSettings,
    ReconstructionSettings,
    RegressionSettings,
    SupernetSettings,
)
from sslrepro.config.training import BudgetSettings, RateScaling, ScheduleSettings, TrainingSettings
