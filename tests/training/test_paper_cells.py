"""The papers' cells at their real size: each counts as published and makes one real update on two utterances of two seconds."""

from __future__ import annotations

import math

import pytest
import torch

from sslrepro import objectives
from sslrepro.budget.count import cell_cost
from sslrepro.config import settings_hash
from sslrepro.data.corpus import Corpus
from sslrepro.data.loading import Request, Shapes, collate
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.base import Totals
from sslrepro.pipeline.profile import expand


def what_is_learned(objective) -> str:
    """Short for an objective, whatever its labels are (a second iteration is the same model but for their number) and the parts of the
    model that its updates train."""
    alike = {"targets": "", "classes": 0, "supernet": None}
    return settings_hash(objective.model_copy(update={name: value for name, value in alike.items() if hasattr(objective, name)}))


PAPER = expand("paper")
CELLS = {f"{study}/{cell}": settings for study, block in PAPER.studies.items() for cell, settings in block.cells.items()}
# cells that differ in batch and rate alone are one model; one without an objective makes no update
TRAINED = {name: s for name, s in CELLS.items() if s.objective.name != "none"}
MODELS = {settings_hash(s.model) + what_is_learned(s.objective): name for name, s in reversed(TRAINED.items())}
PUBLISHED_MILLIONS = {"batch_size/b87.5": 95.0, "budget/hubert-slim": 20.0}


class FixedLabels:
    """Labels for two utterances, without a k-means."""

    def labels(self, index: int, start: int, frames: int, frame_step: int):
        return torch.arange(frames).numpy() % 7


@pytest.mark.parametrize("name", sorted(MODELS.values()))
def test_one_real_update(name, tiny_corpus_dir):
    settings = CELLS[name]
    torch.manual_seed(0)
    objective = objectives.build(settings)
    if hasattr(objective, "begin"):
        objective.begin(Upstream(settings.objective.teacher_model), fresh=True)
    cost = cell_cost(settings, 2.0)
    assert sum(p.numel() for p in objective.parameters()) == cost.params
    assert name not in PUBLISHED_MILLIONS or round(cost.params / 1e6, 1) == pytest.approx(PUBLISHED_MILLIONS[name], abs=0.11)
    corpus = Corpus(tiny_corpus_dir)
    shapes = Shapes.of(objective)
    requests = [Request(row, 0, min(32_000, corpus.samples(row)), (0, row)) for row in range(2)]
    targets = FixedLabels() if settings.objective.name == "masked_prediction" else None
    batch = collate(corpus, requests, objective.draws, shapes, targets)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=settings.training.peak_rate, fused=True)
    totals = Totals(sum(batch.host_masked_counts), sum(batch.host_frames), 1, 0.0, 0)
    before = [p.detach().clone() for p in objective.parameters()]
    loss = objective.train()(batch, totals).loss
    loss.backward()
    optimizer.step()
    assert math.isfinite(float(loss.detach()))
    moved = sum(not torch.equal(a, b) for a, b in zip(before, objective.parameters(), strict=True))
    assert moved >= 0.9 * len(before)


def test_the_batch_size_papers_grid():
    """Seven batches and the rates of the authors' README (square root up to 20 min, constant from 40), eight cycles of 50,000 updates."""
    rates = {150: 7.91e-5, 300: 1.12e-4, 600: 1.58e-4, 1200: 2.24e-4, 2400: 5e-4, 4800: 5e-4, 87.5: 6.04e-5}
    cells = PAPER.studies["batch_size"].cells
    for batch, rate in rates.items():
        training = cells[f"b{batch:g}"].training
        assert training.batch_seconds == batch
        assert training.peak_rate == pytest.approx(rate, rel=5e-3)
        assert training.budget.amount / training.schedule.cycles == 50_000
    assert cells["smallest87.5-linear"].training.peak_rate == pytest.approx(7.29e-6, rel=1e-3)
