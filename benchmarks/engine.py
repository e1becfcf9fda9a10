"""`make bench`: ours beside transformers, torchaudio and the floor, in one run.

Each comparison is two processes, ours and the peer's, with the same weights and inputs, that take turns: ours, peer, ours, peer. A round's
ratio is the peer's time over ours, the result is the median of the rounds, so what else the machine does falls on both. The floor is the
time that the model's FLOPs (docs/accounting.md) take at the best rate of a matrix product measured between the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch

from benchmarks import inputs
from sslrepro.budget.count import cell_cost
from sslrepro.config import CellSettings
from sslrepro.pipeline.machine import fingerprint
from sslrepro.training.identity import commit

HERE = Path(__file__).parent
PHASES = ("forward", "step")
SETS = ("even", "uneven")
KEY = ("peer", "model", "dtype", "set", "phase", "device")
TITLES = ("peer", "model", "dtype", "set", "phase", "device", "ratio", "range", "ours", "peer", "of floor", "memory")


class Side:
    """One worker process."""

    def __init__(self, library: str, **wanted: object) -> None:
        wanted = {"compiled": False, **wanted, "library": library}
        command = [sys.executable, "-m", "benchmarks.worker", json.dumps(wanted)]
        # how threads wait and memory lies is ours to choose for ours alone (sslrepro/__init__.py); a peer's are as its users have them
        chosen = () if library == "ours" else ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "THP_MEM_ALLOC_ENABLE")
        env = {name: value for name, value in os.environ.items() if name not in chosen}
        self._process = subprocess.Popen(command, cwd=HERE.parent, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def ask(self, request: str) -> float | str | None:
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        return next(iter(self._answer().values()))

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a benchmark process ended with status {self._process.wait()}; what it said is above")
        return json.loads(line)


def compare(peer: str, size: str, dtype: str, kind: str, device: str, rounds: int, compiled: bool = False) -> list[dict]:
    """One row a phase (benchmarks/NOTES.md names its columns)."""
    wanted = {"peer": peer, "size": size, "dtype": dtype, "uneven": kind == "uneven", "device": device}
    ours, other = Side("ours", **wanted), Side(peer, **wanted, compiled=compiled)
    rows = []
    for phase in PHASES:
        for side in (ours, other):
            side.ask(phase)  # the first is slower: memory is got, kernels are chosen
        pairs, rates = [], []
        for _ in range(rounds):
            pairs.append((ours.ask(phase), other.ask(phase)))
            rates.append(ours.ask("rate"))
        ratios = [theirs / mine for mine, theirs in pairs]
        seconds = inputs.uneven_seconds(size) if kind == "uneven" else inputs.EVEN
        mine, theirs = (median(pair[i] for pair in pairs) for i in (0, 1))
        floor = flops(peer, size, seconds, phase) / max(rates)
        rows.append({
            "peer": peer + (" compiled" if compiled else ""), "model": size, "dtype": dtype, "set": kind, "phase": phase, "device": device,
            "ratio": median(ratios), "lowest": min(ratios), "highest": max(ratios),
            "audio_seconds_a_second": sum(seconds) / mine, "peer_audio_seconds_a_second": sum(seconds) / theirs,
            "floor_share": floor / mine, "matmul_flops": max(rates), "memory_ratio": ours.ask("peak") / other.ask("peak"),
        })  # fmt: skip
    if device == "cuda":
        rows[-1]["waits_for_host"] = ours.ask("unsynchronised")
    for side in (ours, other):
        side.close()
    return rows


def flops(peer: str, size: str, seconds: list[float], phase: str) -> float:
    """FLOPs of the utterances without padding, by the project's own counter."""
    model, objective = inputs.our_settings(peer, size)
    cell = CellSettings(model=model, objective=objective)
    costs = {s: cell_cost(cell, s) for s in set(seconds)}
    return sum(costs[s].train_flops if phase == "step" else 2 * costs[s].macs for s in seconds)


def machine_name() -> str:
    found = fingerprint()
    text = f"{found['cpu']} {found['cores']} cores {' '.join(found['gpus'])}"
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def merged(kept: list[dict], found: list[dict]) -> list[dict]:
    """The rows that were found, and of the kept ones those that were not measured again."""
    again = {tuple(row[name] for name in KEY) for row in found}
    return [row for row in kept if tuple(row[name] for name in KEY) not in again] + found


def show(row: dict) -> list[str]:
    """A row of the table."""
    speeds = [f"{row[name]:.1f}" for name in ("audio_seconds_a_second", "peer_audio_seconds_a_second")]
    spread = f"{row['lowest']:.2f}-{row['highest']:.2f}"
    names = [row[name] for name in KEY]
    return [*names, f"{row['ratio']:.2f}", spread, *speeds, f"{row['floor_share']:.0%}", f"{row['memory_ratio']:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--models", nargs="+", default=["small", "base"], choices=list(inputs.SIZES))
    parser.add_argument("--peers", nargs="+", default=["transformers", "torchaudio"], choices=["transformers", "torchaudio"])
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--rounds", type=int, default=0, help="of each comparison; 0: 7 of the small model's even batch, else 3")
    parser.add_argument("--out", type=Path, default=HERE / "results" / f"{machine_name()}.json")
    parser.add_argument("--missing", action="store_true", help="only what the kept rows lack; they stay as they are")
    options = parser.parse_args()
    what = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(), "threads": torch.get_num_threads()}
    devices = ["cuda", "cpu"] if torch.cuda.is_available() else ["cpu"]
    grid = [(p, m, d, s) for s in options.sets for m in options.models for p in options.peers for d in options.dtypes]
    layout = "{:<22} {:<5} {:<4} {:<6} {:<7} {:<4} {:>6} {:>12} {:>7} {:>7} {:>8} {:>6}"
    print(layout.format(*TITLES))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else []
    for device in devices:
        for peer, size, dtype, kind in grid:
            for compiled in (False, True) if device == "cuda" and peer == "transformers" else (False,):
                named = peer + (" compiled" if compiled else "")
                there = {row["phase"] for row in rows if [row[n] for n in KEY if n != "phase"] == [named, size, dtype, kind, device]}
                if options.missing and there >= set(PHASES):
                    continue
                rounds = options.rounds or (3 if device == "cpu" and (size == "base" or kind == "uneven") else 7)
                found = compare(peer, size, dtype, kind, device, rounds, compiled)
                rows = merged(rows, [row | what | {"load": os.getloadavg()[0]} for row in found])
                for row in found:
                    print(layout.format(*show(row)), flush=True)
                options.out.write_text(
                    json.dumps(rows, indent=1) + "\n", encoding="utf-8"
                )  # each as it comes: all of them take half an hour
    print(f"{options.out.relative_to(Path.cwd()) if options.out.is_relative_to(Path.cwd()) else options.out}: {len(rows)} rows")


if __name__ == "__main__":
    main()
