"""Memory of one training step: activations that autograd keeps, gradients, optimizer state; predicted from settings, and measured.

Measured exactly on any machine (the meta device included) as the bytes of the storages that autograd saves between forward and backward,
each storage once, parameters and buffers left out. On CUDA also as the allocator's peak. Energy from NVML where the hardware has a counter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

FLOAT = 4  # bytes of a float32: parameters, gradients and optimizer state are kept in it at every precision


class Memory(NamedTuple):
    """Bytes. activations: kept for the backward of one micro-batch; optimizer: AdamW's two moments."""

    activations: int
    gradients: int
    optimizer: int
    parameters: int

    @property
    def total(self) -> int:
        return sum(self)


def weight_memory(params: int, trained: int | None = None) -> tuple[int, int, int]:
    """Bytes of gradients, AdamW state and parameters, for `params` weights of which `trained` (default all) are trained."""
    trained = params if trained is None else trained
    return FLOAT * trained, 2 * FLOAT * trained, FLOAT * params


def saved_bytes(module: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes of every storage that `forward()` leaves saved for its backward; the module's own parameters and buffers are not counted."""
    own = {t.untyped_storage()._cdata for t in (*module.parameters(), *module.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that no other storage takes its address while we count
        return tensor.detach()  # an output that is kept for its own backward would hold its graph, and itself, for ever

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
    total = sum(storage.nbytes() for storage in kept.values())
    del loss
    return total


def measure(module: nn.Module, forward: Callable[[], Tensor]) -> Memory:
    """Memory of a step of `module` whose loss is `forward()`, trained with AdamW; frozen parameters have neither gradient nor state."""
    params = sum(p.numel() for p in module.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return Memory(saved_bytes(module, forward), *weight_memory(params, trained))


def cuda_peak(step: Callable[[], None], device: torch.device) -> int | None:
    """The CUDA allocator's peak during `step()`, in bytes; None on a machine without CUDA."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


def inference_peak(call: Callable[[], object], device: torch.device) -> int:
    """The most bytes of tensors that `call()` holds at once, beside its input and the weights: by the CUDA allocator, which knows what its
    kernels take, or by torch's count of live tensors."""
    if device.type == "cuda":
        return cuda_peak(call, device) - torch.cuda.memory_allocated(device)
    from torch.distributed._tools.mem_tracker import MemTracker  # brings in much else, and only a measuring cell needs it

    with MemTracker() as tracker:
        call()
    return tracker.get_tracker_snapshot("peak").get(device, {"Total": 0})["Total"]
