"""The training loop, in one sitting: batches of an update -> loss of the whole update -> AdamW -> log, validate, snapshot, checkpoint.

Nothing random is carried from one update to the next (draws.py), so a run that resumes at update u is the run that never stopped.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor

from sslrepro.config import CellSettings
from sslrepro.data.corpus import Corpus
from sslrepro.data.loading import Shapes, TrainingData, evaluation_batches
from sslrepro.data.targets import Targets
from sslrepro.draws import key64, numpy_generator
from sslrepro.objectives.base import Batch, LossOutput, Objective, Totals, numbers
from sslrepro.training import checkpoint
from sslrepro.training.meter import Budget, Health, Progress
from sslrepro.training.schedule import learning_rate

LOGS = 100  # training metrics are logged about so many times a run


class _Step(torch.nn.Module):
    """The objective as Fabric wraps it. Its arguments come in one object that Fabric does not look into: it would cast the waveforms and
    the update's totals to 16 bits, where only the operations inside are meant to be."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, held: _Held) -> LossOutput:
        return self.objective(held.batch, held.totals)


class _Held:
    def __init__(self, batch: Batch, totals: Totals) -> None:
        self.batch, self.totals = batch, totals


class Interrupted(Exception):
    """The run was asked to stop; a checkpoint was written."""


@dataclass
class State:
    """All that a checkpoint must hold besides the weights and the optimizer."""

    update: int = 0  # updates done
    used: float = 0.0  # of the budget, in its unit
    hours_seen: float = 0.0
    padded_hours: float = 0.0  # with padding
    seconds: float = 0.0  # wall time in training, over all sittings
    since_log: dict[str, Any] = field(default_factory=dict)
    history: list[tuple[int, float, str, float]] = field(default_factory=list)
    status: str = "running"
    evidence: dict[str, Any] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)  # of the last updates, for the divergence rule
    best_loss: float = 1e30  # the best mean of 20 updates so far
    snapshots: dict[str, dict[str, float]] = field(default_factory=dict)  # share of the run -> validation metrics there
    valid: dict[str, list[float]] = field(default_factory=dict)  # last validation: row in the corpus -> nats, correct, masked frames

    def log(self, metrics: dict[str, float], prefix: str) -> None:
        self.history += [(self.update, self.hours_seen, f"{prefix}.{name}", value) for name, value in metrics.items()]


def fabric_for(settings: CellSettings) -> Fabric:
    """Devices and precision. Under torchrun or SLURM one process a device, else one device."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = int(os.environ.get("WORLD_SIZE", str(local)))
    precision = {"fp32": "32-true", "bf16": "bf16-mixed"}[settings.training.precision]
    fabric = Fabric(
        accelerator="auto", devices=local, num_nodes=world // local, precision=precision, strategy="ddp" if world > 1 else "auto"
    )
    fabric.launch()
    return fabric


def train(
    objective: Objective, corpus: Corpus, targets: Targets | None, settings: CellSettings, seed: int, folder: Path,
    progress: Progress, should_stop: Callable[[], bool] = lambda: False,
) -> State:  # fmt: skip
    """Train in place until the budget is used, resuming from `folder/checkpoints` where there are any.

    Leaves `folder/snapshot-<share>.safetensors` for each of training.snapshots. Returns the final state, whose status is `completed`,
    `collapsed`, `diverged` or `non_finite`. Raises Interrupted, with a checkpoint written, when `should_stop()` says so.
    """
    t = settings.training
    fabric = fabric_for(settings)
    shapes = Shapes(objective.upstream.frames, round(16_000 / objective.upstream.frame_rate))
    data = TrainingData(corpus, settings, seed, objective.draws, shapes, targets, fabric.global_rank, fabric.world_size)
    budget = Budget(settings, data.plan.durations)
    optimizer = torch.optim.AdamW(
        objective.parameters(), lr=t.peak_rate, betas=tuple(t.betas), eps=t.eps, weight_decay=t.weight_decay, fused=True
    )
    state = _resume(objective, optimizer, folder)
    model, optimizer = fabric.setup(_Step(objective), optimizer)
    health = Health(objective)
    every = max(1, round(budget.updates / LOGS))
    loader = iter(data.loader(state.update, budget.updates_bound - state.update, t.workers))
    began, saved = time.monotonic() - state.seconds, time.monotonic()

    def save() -> None:
        state.seconds = time.monotonic() - began
        if fabric.is_global_zero:
            checkpoint.save(
                folder / "checkpoints", state.update, objective.state_dict(), optimizer.state_dict(), asdict(state), t.keep_checkpoints
            )
        fabric.barrier()

    def dispersion(progress: float) -> dict[str, float]:
        """The spread of the next updates' gradients, where it is asked for."""
        if t.dispersion_batches == 0:
            return {}
        ahead = range(state.update, state.update + t.dispersion_batches)
        updates = [(u, [data[u * data.per_rank + i] for i in range(data.per_rank)]) for u in ahead]
        return {"gradient_dispersion": gradient_dispersion(fabric, model, objective, updates, seed, progress)}

    if state.update == 0 and t.dispersion_batches:
        state.snapshots["0"] = dispersion(0.0)
    sums: dict[str, Tensor] = {}
    while state.status == "running" and state.used < budget.amount * (1 - 1e-9):
        batches = [next(loader) for _ in range(data.per_rank)]
        members = np.concatenate(data.plan.update(state.update))
        cost = budget.cost(members)
        middle = min(1.0, (state.used + cost / 2) / budget.amount)
        rate = learning_rate(t.schedule, t.peak_rate, middle, budget.updates)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = _gradients(fabric, model, objective, batches, seed, state.update, middle, sums)
        if t.clip_norm is not None:
            fabric.clip_gradients(model, optimizer, max_norm=t.clip_norm, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        before, state.used, state.update = state.used, state.used + cost, state.update + 1
        state.hours_seen += float(data.plan.durations[members].sum()) / 3600
        state.padded_hours += fabric.world_size * sum(b.waveforms.numel() for b in batches) / 16_000 / 3600

        done = state.used >= budget.amount * (1 - 1e-9)
        problem = health.after_update(loss, state, batches)
        if state.update % every == 0 or done or problem:
            metrics = objective.summarize(numbers({name: fabric.all_reduce(value, reduce_op="sum") for name, value in sums.items()}))
            sums.clear()
            state.log({**metrics, "learning_rate": rate, "update_loss": float(loss)}, "train")
            problem = problem or health.after_log(metrics, state.used / budget.amount)
            progress.update(state.update, budget.updates, state.hours_seen, metrics["loss"], time.monotonic() - began)
        marks = [mark for mark in t.snapshots if _crossed(before, state.used, budget.amount, [mark])]
        if not problem and (done or marks or _crossed(before, state.used, budget.amount, _steps(t.valid_every))):
            with fabric.autocast():
                metrics, rows = validate(objective, corpus, targets, settings, shapes, None if done or marks else t.valid_seconds)
            if done or marks:
                metrics |= dispersion(state.used / budget.amount)
            state.log(metrics, "valid")
            state.snapshots |= {f"{mark:g}": metrics for mark in marks}
            state.valid = {str(row): list(values) for row, values in rows.items()}
            for mark in marks if fabric.is_global_zero else []:
                save_file(objective.state_dict(), folder / snapshot_name(mark))
        if problem:
            state.status, state.evidence = problem
        elif done:
            state.status = "completed"
        if state.status != "running":
            save()
        elif not sums and (should_stop() or time.monotonic() - saved > t.checkpoint_seconds):
            save()
            saved = time.monotonic()
            if should_stop():
                raise Interrupted(f"stopped at update {state.update}; the same command resumes there")
    return state


def _gradients(
    fabric: Fabric, model: Any, objective: Objective, batches: list[Batch], seed: int, update: int, progress: float, sums: dict[str, Tensor]
) -> Tensor:
    """Gradients of one update from its micro-batches, left in the parameters; returns its loss and adds to the metrics' sums."""
    objective.train()
    device = fabric.device
    micro_batches = len(batches) * fabric.world_size
    counts = torch.tensor([sum(sum(b.host_masked_counts) for b in batches), sum(sum(b.host_frames) for b in batches)], dtype=torch.float64)
    if fabric.world_size > 1:
        counts = fabric.all_reduce(counts.to(device), reduce_op="sum")
    masked, frames = (counts[0].clamp(min=1), counts[1]) if fabric.world_size > 1 else (max(float(counts[0]), 1.0), float(counts[1]))
    totals = Totals(masked, frames, micro_batches, progress, update, seed)
    batches = [batch.to(device) for batch in batches]
    if micro_batches > 1:
        totals = _with_mean_codes(fabric, objective, batches, totals)
    loss = torch.zeros((), device=device)
    for place, batch in enumerate(batches):
        torch.manual_seed(key64(seed, "dropout", update, place * fabric.world_size + fabric.global_rank))
        with fabric.no_backward_sync(model, enabled=place < len(batches) - 1):
            output = model(_Held(batch, totals))
            fabric.backward(output.loss * fabric.world_size)  # DDP takes the mean over devices; the loss is a sum of shares
        loss += output.loss.detach().float()
        for name, value in output.sums.items():
            sums[name] = sums[name] + value if name in sums else value
    return fabric.all_reduce(loss, reduce_op="sum")


def gradient_dispersion(
    fabric: Fabric, model: Any, objective: Objective, updates: list[tuple[int, list[Batch]]], seed: int, progress: float
) -> float:
    """Standard deviation of each parameter's gradient over several updates of the full batch, averaged over all parameters.

    The quantity that the batch-size paper plots (its column says variance; it scales as a standard deviation). Gradients are of the loss
    per masked frame. Leaves weights and gradients as they were.
    """
    totals, squares = {}, {}
    for update, batches in updates:
        objective.zero_grad(set_to_none=True)
        _gradients(fabric, model, objective, batches, seed, update, progress, {})
        for name, parameter in objective.named_parameters():
            if parameter.grad is not None:
                grad = parameter.grad.double()
                totals[name] = totals.get(name, 0.0) + grad
                squares[name] = squares.get(name, 0.0) + grad**2
    objective.zero_grad(set_to_none=True)
    n = len(updates)
    spread = [((squares[k] - totals[k] ** 2 / n).clamp(min=0) / (n - 1)).sqrt().flatten() for k in totals]
    return float(torch.cat(spread).mean())


@torch.no_grad()
def _with_mean_codes(fabric: Fabric, objective: Objective, batches: list[Batch], totals: Totals) -> Totals:
    """First pass of an accumulated update, where the loss depends on the update's mean code distribution."""
    parts = []
    torch.manual_seed(key64(totals.seed, "first pass", totals.update, fabric.global_rank))
    for batch in batches:
        with fabric.autocast():
            part = objective.code_sums(batch, totals)
        if part is None:
            return totals
        parts.append(part.float())
    summed = fabric.all_reduce(torch.stack(parts).sum(0), reduce_op="sum")
    return Totals(totals.masked, totals.frames, totals.micro_batches, totals.progress, totals.update, totals.seed, summed / totals.masked)


@torch.no_grad()
def validate(
    objective: Objective, corpus: Corpus, targets: Targets | None, settings: CellSettings, shapes: Shapes, seconds: float | None
) -> tuple[dict[str, float], dict[int, tuple[float, float, float]]]:
    """Metrics on the validation split (or a fixed `seconds` of it) with fixed masks, and per utterance (nats, correct, masked frames)."""
    indices = corpus.split("valid").index.to_numpy()
    if seconds is not None:
        order = numpy_generator("validation subset").permutation(indices)
        indices = order[: int(np.searchsorted(np.cumsum(corpus.durations[order]), seconds)) + 1]
    objective.eval()
    device = next(objective.parameters()).device
    sums: dict[str, Tensor] = {}
    utterances: dict[int, tuple[float, float, float]] = {}
    for load in evaluation_batches(corpus, indices, settings, objective.draws, shapes, targets):
        batch = load()
        totals = Totals(max(sum(batch.host_masked_counts), 1), sum(batch.host_frames), 1, 1.0, 10**9)
        output = objective(batch.to(device), totals)
        for name, value in output.sums.items():
            sums[name] = sums[name] + value if name in sums else value
        columns = [output.utterances[name].double().cpu().tolist() for name in ("nats", "correct", "masked")]
        utterances |= dict(zip(batch.indices.tolist(), zip(*columns, strict=True), strict=True))
    return objective.summarize(numbers(sums)) | objective.weight_metrics(), utterances


def _resume(objective: Objective, optimizer: torch.optim.Optimizer, folder: Path) -> State:
    found = checkpoint.load_latest(folder / "checkpoints")
    if found is None:
        return State()
    weights, optimizer_state, state = found
    objective.load_state_dict(weights)
    optimizer.load_state_dict(optimizer_state)
    return State(**{**state, "history": [tuple(row) for row in state["history"]]})


def _steps(share: float) -> list[float]:
    return [] if share <= 0 else [i * share for i in range(1, math.ceil(1 / share))]


def _crossed(before: float, after: float, amount: float, marks: list[float]) -> bool:
    return any(before < mark * amount * (1 - 1e-9) <= after for mark in marks)


def snapshot_name(share: float) -> str:
    return f"snapshot-{share:g}.safetensors"
