"""Objectives: each an upstream with the heads and the loss that train it. A new one is a file and a line here."""

from __future__ import annotations

from sslrepro.config import CellSettings
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.base import Objective
from sslrepro.objectives.cloned_regression import ClonedRegression
from sslrepro.objectives.contrastive import Contrastive
from sslrepro.objectives.distillation import Distillation
from sslrepro.objectives.masked_prediction import MaskedPrediction
from sslrepro.objectives.random_projection import RandomProjection
from sslrepro.objectives.reconstruction import Reconstruction
from sslrepro.objectives.regression import Regression

OBJECTIVES = {
    "contrastive": Contrastive,
    "masked_prediction": MaskedPrediction,
    "reconstruction": Reconstruction,
    "regression": Regression,
    "cloned_regression": ClonedRegression,
    "distillation": Distillation,
    "random_projection": RandomProjection,
}


def build(settings: CellSettings) -> Objective | Upstream:
    """The module that a cell trains; for the objective `none`, the upstream alone."""
    upstream = Upstream(settings.model)
    if settings.objective.name == "none":
        return upstream
    return OBJECTIVES[settings.objective.name](settings.objective, upstream)
