"""Each mixer alone, forward and backward, beside attention and beside its own floor: what the machine could do at best.

    python -m benchmarks.mixers            # writes benchmarks/results/mixers-<machine>.json; a GPU where there is one, else one thread

The floor is the longer of two times: the products' FLOPs (budget.mixers, exact backward included) at the best rate of a large matrix
product in the same run, by torch's kernel or by models.linear's, and the bytes that must be moved (input, output, weights and their
gradients, once each) at the rate of a copy. It is a floor of the whole layer:
products by blocks of 96 x 96 count at the rate of 768 x 768, though they do a sixth of the work for each number moved (46 multiplications
against 277 at 1,000 frames), and activations and norms between the products count nothing. A floor by parts, each at the longer of its own
two times, would be higher by all passes over memory that a library which does not fuse operations makes; the share that is told here is of
the plain one. All mixers take turns. A turn is as many runs in a row as take 0.3 seconds, three at least, as in training one layer runs
after the other: its seconds are their median. The machine's rates are taken right before a turn and right after it, and their mean is the
turn's, as they move by a tenth within a minute where others use the machine, too. The share is told as the median of the turns', with its
quartiles, and as that of the quickest turn beside the best rates, which is what `timeit` would say. Mixers have the Conformer's activation,
Swish, as the paper's recipe builds them; SummaryMixing is run with exact GELUs, a Transformer's, too. Nothing else should run meanwhile.

The process keeps freed memory as a run does (training/allocator.py).
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from statistics import mean, median, quantiles

import torch

from sslrepro.budget.mixers import MIXER_COSTS
from sslrepro.config import CellSettings, EncoderSettings, MeasureSettings, ModelSettings, NoObjective
from sslrepro.models.linear import product
from sslrepro.models.mixers import MIXERS
from sslrepro.training.allocator import keep_freed_memory
from sslrepro.training.identity import commit, machine
from sslrepro.training.measure import Call, _Clock, _mixer

WIDTH, HEADS = 768, 8
FRAMES = {"cpu": (500, 1000, 2000, 4000), "cuda": (500, 1000, 2000, 4000, 8000, 16000)}
TURNS, ROW_SECONDS, LEAST_RUNS = 5, 0.3, 3
FLOAT = 4
CASES = [(mixer, "swish") for mixer in MIXERS] + [("summary_mixing", "gelu")]


def settings_of(mixer: str, activation: str) -> CellSettings:
    encoder = EncoderSettings(layers=1, width=WIDTH, heads=HEADS, mixer=mixer, activation=activation, dropout=0.0, attention_dropout=0.0)
    measure = MeasureSettings(mixer=[1], warmup=1, repeats=1)
    return CellSettings(model=ModelSettings(encoder=encoder), objective=NoObjective(), measure=measure)


def clock_of(repeats: int, device: torch.device) -> _Clock:
    return _Clock(MeasureSettings(mixer=[1], warmup=1, repeats=repeats), device, half=False)


def seconds_in_a_row(call: Call, device: torch.device) -> float:
    """Of one turn: the median of as many runs as take ROW_SECONDS."""
    once = clock_of(1, device).medians({"mixer": call})["mixer"]
    return clock_of(max(LEAST_RUNS, round(ROW_SECONDS / once)), device).medians({"mixer": call})["mixer"]


def machine_rates(clock: _Clock) -> tuple[float, float]:
    """FLOP/s of a matrix product of the mixers' own shape, and bytes a second read and written by a copy."""
    rows = 4000
    a, b = torch.randn(rows, WIDTH, device=clock.device), torch.randn(WIDTH, WIDTH, device=clock.device)
    source = torch.randn(2**24, device=clock.device)
    target = torch.empty_like(source)
    seconds = clock.medians({"torch": lambda: a @ b, "ours": lambda: product(a, b), "copy": lambda: target.copy_(source)})
    return 2 * rows * WIDTH**2 / min(seconds["torch"], seconds["ours"]), 2 * FLOAT * source.numel() / seconds["copy"]


def floor_seconds(mixer: str, frames: int, rates: tuple[float, float]) -> float:
    part = MIXER_COSTS[mixer](settings_of(mixer, "swish").model.encoder, frames)
    moved = FLOAT * (4 * frames * WIDTH + 3 * part.params)  # input, output and their gradients; weights twice, their gradients once
    return max(2 * (part.macs + part.training) / rates[0], moved / rates[1])


def main() -> int:
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keep_freed_memory()
    clock, rows = clock_of(5, device), []
    for frames in FRAMES[device.type]:
        calls = {case: _mixer(settings_of(*case), frames, 0, device) for case in CASES}
        turns: dict[tuple[str, str], list[tuple[float, float]]] = {case: [] for case in CASES}  # seconds, share of the floor
        rates = []
        for _ in range(TURNS):
            for case, call in calls.items():
                before, seconds, after = machine_rates(clock), seconds_in_a_row(call, device), machine_rates(clock)
                rates.append((mean((before[0], after[0])), mean((before[1], after[1]))))
                turns[case].append((seconds, floor_seconds(case[0], frames, rates[-1]) / seconds))
        taken = {case: median(seconds for seconds, _ in turn) for case, turn in turns.items()}
        best_rates = (max(r[0] for r in rates), max(r[1] for r in rates))
        for (mixer, activation), turn in turns.items():
            lower, share, upper = quantiles([share for _, share in turn], n=4)
            over, quickest = taken[mixer, activation] / taken["attention", "swish"], min(seconds for seconds, _ in turn)
            at_best = floor_seconds(mixer, frames, best_rates) / quickest
            rows.append(
                {
                    "mixer": mixer, "activation": activation, "frames": frames, "seconds": taken[mixer, activation],
                    "share_of_floor": share, "quartiles": [lower, upper], "quickest_seconds": quickest, "share_at_best": at_best,
                    "over_fused_attention": over,
                    "gflops": median(r[0] for r in rates) / 1e9, "gbytes_a_second": median(r[1] for r in rates) / 1e9,
                }
            )  # fmt: skip
            print(f"{mixer:22} {activation:6} {frames:6} frames {1e3 * taken[mixer, activation]:9.1f} ms  {share:6.1%} of the floor "
                  f"[{lower:.1%}, {upper:.1%}], {at_best:.1%} at best  {over:6.2f} x fused attention", flush=True)  # fmt: skip
    about = machine()
    name = re.sub(r"[^a-z0-9]+", "-", str(about["gpu" if device.type == "cuda" else "cpu"]).lower()).strip("-")
    path = Path(__file__).parent / "results" / f"mixers-{name}.json"
    path.parent.mkdir(exist_ok=True)
    described = {"command": "python -m benchmarks.mixers", "machine": about, "commit": commit(), "width": WIDTH, "heads": HEADS,
                 "batch": 1, "threads": 1, "turns": TURNS, "taken": time.strftime("%Y-%m-%d"), "rows": rows}  # fmt: skip
    path.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    print(path, file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
