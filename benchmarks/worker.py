"""A process of its own for each side, so that peak memory is that side's alone. Reads one request a line, answers one line of JSON.

Requests: `forward` and `step` are timed, as many in a row as take two seconds; `peak` is the most memory since the process was ready to
build its model; `rate` is the best rate of a matrix product here, by torch's own operator and by ours.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch

from benchmarks.sides import Ours, Peer
from sslrepro.models.linear import linear

TURN = 2.0  # seconds: a training run takes one step after the other, and the first after a pause of 2 s takes 12 % longer
PRODUCTS = [(1600, 3072, 768), (2048, 2048, 2048)]  # rows, columns, inner


def main() -> None:
    wanted = json.loads(sys.argv[1])
    device, library = wanted["device"], wanted.pop("library")
    compiled = wanted.pop("compiled")
    before = memory(device, reset=True)
    side = Ours(**wanted) if library == "ours" else Peer(**wanted, compiled=compiled)
    answer({"ready": True})
    for line in sys.stdin:
        request = line.strip()
        if request in ("forward", "step"):
            answer({"seconds": in_a_row(getattr(side, request), device)})
        elif request == "peak":
            answer({"bytes": memory(device, reset=False) - before})
        elif request == "rate":
            answer({"flops": matmul_rate(wanted["dtype"], device)})
        elif request == "unsynchronised":
            answer({"reason": waits_for_host(side)})


def answer(content: dict) -> None:
    print(json.dumps(content), flush=True)


def in_a_row(work, device: str) -> float:
    """Seconds a run, of as many one after the other as take a turn."""
    runs, began = [], time.perf_counter()
    while not runs or time.perf_counter() - began < TURN:
        runs.append(timed(work, device))
    return sum(runs) / len(runs)


def timed(work, device: str) -> float:
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def memory(device: str, reset: bool) -> int:
    """Bytes: with `reset` those held now, and the peak counts from here; else the peak."""
    if device == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() if reset else torch.cuda.max_memory_allocated()
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    field = "VmRSS" if reset else "VmHWM"
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(field))
    return int(line.split()[1]) * 1024


def matmul_rate(dtype: str, device: str) -> float:
    """FLOPs a second: the best of two shapes, two operators and three tries."""
    best = 0.0
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    for rows, columns, inner in PRODUCTS:
        a, b = torch.randn(rows, inner, dtype=kind, device=device), torch.randn(columns, inner, dtype=kind, device=device)
        for product in (lambda a=a, b=b: a @ b.T, lambda a=a, b=b: linear(a, b, None)):
            product()
            for _ in range(3):
                best = max(best, 2 * rows * columns * inner / timed(product, device))
    return best


def waits_for_host(side: Ours | Peer) -> str | None:
    """Why a step makes the host wait for the GPU, or None."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        side.step()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return None


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
