"""Gradients of one update from its micro-batches, on one process or several: accumulation and more devices are the bigger batch."""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from sslrepro.draws import key64
from sslrepro.objectives.base import Batch, LossOutput, Objective, Totals


class Step(torch.nn.Module):
    """The objective as Fabric wraps it. Its arguments come in one object that Fabric does not look into: it would cast the waveforms and
    the update's totals to 16 bits, where only the operations inside are meant to be."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, held: Held) -> LossOutput:
        if not held.in_full:
            return self.objective(held.batch, held.totals)
        with torch.autocast(held.batch.waveforms.device.type, enabled=False):
            return self.objective(held.batch, held.totals)


class Held:
    def __init__(self, batch: Batch, totals: Totals, in_full: bool) -> None:
        self.batch, self.totals, self.in_full = batch, totals, in_full


def update_gradients(
    fabric: Fabric, model: Any, objective: Objective, batches: list[Batch], seed: int, update: int, progress: float,
    sums: dict[str, Tensor], in_full: bool = False,
) -> Tensor:  # fmt: skip
    """Gradients of one update from its micro-batches, left in the parameters; returns its loss and adds to the metrics' sums.

    in_full: in float32, whatever the run's precision.
    """
    objective.train()
    objective.upstream.draw_compression(seed, update)
    device = fabric.device
    micro_batches = len(batches) * fabric.world_size
    masked, frames = max(float(sum(sum(b.host_masked_counts) for b in batches)), 1.0), float(sum(sum(b.host_frames) for b in batches))
    if fabric.world_size > 1:
        counts = torch.tensor([masked, frames], dtype=torch.float64).to(device, non_blocking=True)
        masked, frames = fabric.all_reduce(counts, reduce_op="sum")
    totals = Totals(masked, frames, micro_batches, progress, update, seed)
    batches = [batch.to(device) for batch in batches]
    if micro_batches > 1:
        totals = _with_mean_codes(fabric, objective, batches, totals)
    loss = torch.zeros((), device=device)
    for place, batch in enumerate(batches):
        torch.manual_seed(key64(seed, "dropout", update, place * fabric.world_size + fabric.global_rank))
        with fabric.no_backward_sync(model, enabled=place < len(batches) - 1):
            output = model(Held(batch, totals, in_full))
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
        update_gradients(fabric, model, objective, batches, seed, update, progress, {})
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
    for place, batch in enumerate(batches):
        torch.manual_seed(key64(totals.seed, "first pass", totals.update, place * fabric.world_size + fabric.global_rank))
        with fabric.autocast():
            part = objective.code_sums(batch, totals)
        if part is None:
            return totals
        parts.append(part.float())
    summed = fabric.all_reduce(torch.stack(parts).sum(0), reduce_op="sum")
    return Totals(totals.masked, totals.frames, totals.micro_batches, totals.progress, totals.update, totals.seed, summed / totals.masked)
