"""Several processes at one run: torchrun starts them (on SLURM: `srun torchrun`), one a device, and says who is who in the environment.

All ranks train; the first alone makes, claims, checkpoints, scores, moves and speaks. All of them see the same file system.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from sslrepro.config import CellSettings


def rank() -> int:
    """This process among all of the run; 0 where it is the only one."""
    return int(os.environ.get("RANK", "0"))


def alone() -> bool:
    """Whether this is the only process of the run."""
    return int(os.environ.get("WORLD_SIZE", "1")) == 1


def fabric_for(settings: CellSettings) -> Fabric:
    """Devices and precision: under torchrun one process a device, on one node or several; else one device."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = int(os.environ.get("WORLD_SIZE", str(local)))
    encoder = settings.model.encoder
    # a dropped layer, and a front end that does not learn, have no gradient: DDP must look for them, which costs a walk through the graph
    partial = encoder is not None and (encoder.layer_drop > 0 or settings.model.feature_grad_mult == 0)
    fabric = Fabric(
        accelerator="auto",
        devices=local,
        num_nodes=world // local,
        precision={"fp32": "32-true", "bf16": "bf16-mixed"}[settings.training.precision],
        strategy=DDPStrategy(find_unused_parameters=partial, broadcast_buffers=False) if world > 1 else "auto",
    )
    fabric.launch()
    return fabric


def decided(fabric: Fabric, wish: bool) -> bool:
    """What the first rank wishes, on every rank: clocks and file systems differ, and a collective that not all enter never ends."""
    if fabric.world_size == 1:
        return wish
    vote = torch.tensor(float(wish and fabric.is_global_zero), device=fabric.device)
    return bool(fabric.all_reduce(vote, reduce_op="sum"))


def wait_for(path: Path) -> None:
    """Until the first rank has written the file, or moved its folder away with it. No collective: they time out, and scoring takes long."""
    while path.parent.exists() and not path.exists():
        time.sleep(0.5)
