"""The training loop, in one sitting: batches of an update -> loss of the whole update -> AdamW -> log, validate, snapshot, checkpoint.

Nothing random is carried from one update to the next (draws.py), so a run that resumes at update u is the run that never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslrepro.config import CellSettings
from sslrepro.data.corpus import Corpus
from sslrepro.data.loading import Shapes, TrainingData, evaluation_batches
from sslrepro.data.targets import Targets
from sslrepro.draws import numpy_generator
from sslrepro.files import save_weights
from sslrepro.objectives.base import Objective, Totals, numbers
from sslrepro.training import checkpoint
from sslrepro.training.gradients import Step, gradient_dispersion, update_gradients
from sslrepro.training.meter import Budget, Health, Progress
from sslrepro.training.ranks import decided, fabric_for, gathered, shared_out
from sslrepro.training.schedule import learning_rate
from sslrepro.training.unread import MOST, Guard, Made, Place, Unread, add_sums

LOGS = 100  # training metrics are logged about so many times a run


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
    since_log: dict[str, list] = field(default_factory=dict)  # training metrics not yet logged: sums by rank
    history: list[tuple[int, float, str, float]] = field(default_factory=list)
    status: str = "running"
    evidence: dict[str, Any] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)  # of the last updates, for the divergence rule
    best_loss: float = 1e30  # the best mean of 20 updates so far
    suspicion: dict[str, Any] = field(default_factory=dict)  # the evidence of a divergence, until the run ends by it
    spikes: list[dict[str, Any]] = field(default_factory=list)  # losses far above those before: update, loss, utterances
    threads: int = 0  # on a processor: sums are rounded in another order with another number
    snapshots: dict[str, dict[str, float]] = field(default_factory=dict)  # share of the run -> validation metrics there
    valid: dict[str, list[float]] = field(default_factory=dict)  # last validation: row in the corpus -> nats, correct, masked frames

    def log(self, metrics: dict[str, float], prefix: str) -> None:
        self.history += [(self.update, self.hours_seen, f"{prefix}.{name}", value) for name, value in metrics.items()]


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
    shapes = Shapes.of(objective)
    data = TrainingData(corpus, settings, seed, objective.draws, shapes, targets, fabric.global_rank, fabric.world_size)
    budget = Budget(settings, data.plan.durations)
    objective.to(fabric.device)  # before the optimizer's state is read, which goes where the parameters are
    optimizer = torch.optim.AdamW(
        objective.parameters(), lr=t.peak_rate, betas=tuple(t.betas), eps=t.eps, weight_decay=t.weight_decay, fused=True
    )
    state = _resume(objective, optimizer, folder)
    _keep_threads(state, fabric.device, progress)
    guard = Guard(objective, optimizer, fabric.device)
    model, optimizer = fabric.setup(Step(objective), optimizer)
    health, unread = Health(objective, data.names), Unread()
    retried = -1  # the update that is made again in float32
    every = max(1, round(budget.updates / LOGS))
    votes_are_free = fabric.world_size == 1 or fabric.device.type == "cpu"  # else all would wait for the device
    loader = iter(data.loader(state.update, budget.updates_bound - state.update, t.workers))
    began, saved = time.monotonic() - state.seconds, time.monotonic()

    def save() -> None:
        state.seconds, state.since_log = time.monotonic() - began, gathered(fabric, sums)
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
    sums = shared_out(fabric, state.since_log)
    while state.status == "running" and state.used < budget.amount * (1 - 1e-9):
        batches = [next(loader) for _ in range(data.per_rank)]
        pieces = data.plan.update(state.update)
        members = np.concatenate(pieces)
        cost = budget.cost(members)
        middle = min(1.0, (state.used + cost / 2) / budget.amount)
        rate = learning_rate(t.schedule, t.peak_rate, middle, budget.updates)
        for group in optimizer.param_groups:
            group["lr"] = rate
        own: dict[str, Tensor] = {}
        loss = update_gradients(fabric, model, objective, batches, seed, state.update, middle, own, state.update == retried)
        sound = guard.check(loss)
        if t.clip_norm is not None:
            fabric.clip_gradients(model, optimizer, max_norm=t.clip_norm, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        before = Place.of(state)
        state.used, state.update = state.used + cost, state.update + 1
        objective.after_update(state.used / budget.amount, budget.updates, sound)
        state.hours_seen += float(data.seconds[members].sum()) / 3600
        state.padded_hours += sum(len(piece) * float(data.seconds[piece].max()) for piece in pieces) / 3600
        unread.add(Made(before, Place.of(state), loss, sound, own, members))

        done = state.used >= budget.amount * (1 - 1e-9)
        marks = [mark for mark in t.snapshots if _crossed(before.used, state.used, budget.amount, [mark])]
        validating = done or marks or _crossed(before.used, state.used, budget.amount, _steps(t.valid_every))
        reading = validating or state.update % every == 0 or before.update == retried or len(unread) == MOST
        stop = should_stop()
        saving = (reading or votes_are_free) and decided(fabric, stop or time.monotonic() - saved > t.checkpoint_seconds)
        if not (reading or saving):
            continue
        known = len(state.spikes) and state.spikes[-1]["update"]
        value, unsound = unread.read(state, sums, health)
        for spike in state.spikes:
            if spike["update"] > known:
                progress.say(f"the loss of update {spike['update']} is {spike['loss']:.3f}, far above those before; see spikes.json")
        problem = None
        if unsound and t.precision == "bf16" and unsound.before.update != retried:
            unsound.before.restore(state)
            retried = state.update
            guard.open()
            loader = iter(data.loader(state.update, budget.updates_bound - state.update, t.workers))
            continue
        if unsound:
            add_sums(sums, unsound.sums)
            problem = health.non_finite(value, unsound.members, state)
        if state.update % every == 0 or done or problem:
            metrics = objective.summarize(numbers({name: fabric.all_reduce(value, reduce_op="sum") for name, value in sums.items()}))
            sums.clear()
            state.log({**metrics, "learning_rate": rate, "update_loss": value}, "train")
            problem = problem or health.after_log(metrics, state.used / budget.amount, state)
            progress.update(state.update, budget.updates, state.hours_seen, metrics["loss"], time.monotonic() - began)
        if not problem and validating:
            part = None if done or marks else t.valid_seconds
            with fabric.autocast():
                metrics, rows = validate(objective, corpus, targets, settings, shapes, part)
            if done or marks:
                metrics |= dispersion(state.used / budget.amount)
            state.log(metrics, "valid" if part is None else "valid_part")  # a part of the split is another curve
            state.snapshots |= {f"{mark:g}": metrics for mark in marks}
            state.valid = {str(row): list(values) for row, values in rows.items()}
            for mark in marks if fabric.is_global_zero else []:
                save_weights(objective.state_dict(), folder / snapshot_name(mark))
        if problem:
            state.status, state.evidence = problem
        elif done:
            state.status = "completed"
        if state.status != "running":
            save()
        elif saving:
            save()
            saved = time.monotonic()
            if decided(fabric, stop):
                raise Interrupted(f"stopped at update {state.update}; the same command resumes there")
    return state


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


def chance_level(objective: Objective, corpus: Corpus, targets: Targets | None, settings: CellSettings) -> dict[str, float]:
    """The metrics of a model that knows nothing: those that are known, and those that the validation split tells."""
    indices, device = corpus.split("valid").index.to_numpy(), fabric_for(settings).device
    batches = evaluation_batches(corpus, indices, settings, objective.draws, Shapes.of(objective), targets)
    objective.to(device)  # a teacher may be asked
    return objective.chance() | objective.chance_on(load().to(device) for load in batches)


def _resume(objective: Objective, optimizer: torch.optim.Optimizer, folder: Path) -> State:
    found = checkpoint.load_latest(folder / "checkpoints")
    if found is None:
        return State()
    weights, optimizer_state, state = found
    objective.load_state_dict(weights)
    optimizer.load_state_dict(optimizer_state)
    return State(**{**state, "history": [tuple(row) for row in state["history"]]})


def _keep_threads(state: State, device: torch.device, progress: Progress) -> None:
    """A run goes on with as many threads as it began with, or it would end with other bits."""
    if device.type == "cpu":
        if state.threads not in (0, torch.get_num_threads()):
            progress.say(f"goes on with {state.threads} thread(s), as it began, not {torch.get_num_threads()}: the same bits")
            torch.set_num_threads(state.threads)
        state.threads = torch.get_num_threads()


def _steps(share: float) -> list[float]:
    return [] if share <= 0 else [i * share for i in range(1, math.ceil(1 / share))]


def _crossed(before: float, after: float, amount: float, marks: list[float]) -> bool:
    return any(before < mark * amount * (1 - 1e-9) <= after for mark in marks)


def snapshot_name(share: float) -> str:
    return f"snapshot-{share:g}.safetensors"
