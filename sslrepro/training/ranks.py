"""Several processes at one run: torchrun starts them (on SLURM: `srun torchrun`), one a device, and says who is who in the environment.

All ranks train; the first alone makes, claims, checkpoints, scores, moves and speaks. All of them see the same file system.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor

from sslrepro.config import CellSettings
from sslrepro.training.allocator import keep_freed_memory


def rank() -> int:
    """This process among all of the run; 0 where it is the only one."""
    return int(os.environ.get("RANK", "0"))


def alone() -> bool:
    """Whether this is the only process of the run."""
    return int(os.environ.get("WORLD_SIZE", "1")) == 1


def fabric_for(settings: CellSettings) -> Fabric:
    """Devices and precision: under torchrun one process a device, on one node or several; else one device. Every run begins here."""
    keep_freed_memory()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = int(os.environ.get("WORLD_SIZE", str(local)))
    encoder = settings.model.encoder
    # a dropped layer, a front end that does not learn, upsampling at factor 1, and a mask vector that distillation may not use, have no
    # gradient: DDP must look for them, which costs a walk through the graph
    unused = settings.objective.name == "distillation" or (encoder is not None and encoder.compression.kind == "stochastic")
    partial = encoder is not None and (encoder.layer_drop > 0 or settings.model.feature_grad_mult == 0 or unused)
    fabric = Fabric(
        accelerator="auto",
        devices=local,
        num_nodes=world // local,
        precision={"fp32": "32-true", "bf16": "bf16-mixed"}[settings.training.precision],
        strategy=DDPStrategy(find_unused_parameters=partial, broadcast_buffers=False) if world > 1 else "auto",
    )
    fabric.launch()
    return fabric


@contextmanager
def fixed_order(wanted: bool) -> Iterator[None]:
    """While it lasts, a GPU's operators add in a fixed order; torch raises RuntimeError naming one that cannot."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when first used
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def decided(fabric: Fabric, wish: bool) -> bool:
    """What the first rank wishes, on every rank: clocks and file systems differ, and a collective that not all enter never ends."""
    if fabric.world_size == 1:
        return wish
    vote = torch.tensor(float(wish and fabric.is_global_zero), device=fabric.device)
    return bool(fabric.all_reduce(vote, reduce_op="sum"))


def gathered(fabric: Fabric, sums: dict[str, Tensor]) -> dict[str, list]:
    """Each rank's own sums, for a checkpoint: name -> one entry a rank."""
    return {name: fabric.all_gather(value).reshape(fabric.world_size, *value.shape).tolist() for name, value in sums.items()}


def shared_out(fabric: Fabric, rows: dict[str, list]) -> dict[str, Tensor]:
    """Back from a checkpoint, to each rank its own; where their number is another, the first takes all."""
    held = {name: torch.tensor(row, device=fabric.device) for name, row in rows.items()}
    if all(len(row) == fabric.world_size for row in held.values()):
        return {name: row[fabric.global_rank] for name, row in held.items()}
    return {name: row.sum(0) for name, row in held.items()} if fabric.is_global_zero else {}


def wait_for(path: Path) -> None:
    """Until the first rank has written the file, or moved its folder away with it. No collective: they time out, and scoring takes long."""
    while path.parent.exists() and not path.exists():
        time.sleep(0.5)
