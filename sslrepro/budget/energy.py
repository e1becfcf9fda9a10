"""Energy of a stretch of work, where the hardware keeps a counter of it (NVIDIA GPUs from Volta on, through NVML)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Energy:
    """joules: what the device drew, its idle share included; None with the reason where nothing measures it."""

    joules: float | None = None
    reason: str | None = None


@contextmanager
def measured_energy(device_index: int = 0) -> Iterator[Energy]:
    """Fills the yielded `Energy` when the block ends. The counter is the whole device's: whatever else runs there is in it."""
    energy = Energy()
    try:
        import pynvml  # of nvidia-ml-py; optional
    except ImportError:
        energy.reason = "nvidia-ml-py is not installed"
        yield energy
        return
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(device_index)
        before = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        energy.reason = f"NVML: {error}"
        yield energy
        return
    yield energy
    energy.joules = (pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - before) / 1000
