"""Time and memory of a cell's model on this machine: `measure` of its settings -> the metrics `cost.*_seconds` and `cost.peak_bytes`.

Noise stands for audio, so nothing waits for a disk. Every length is warmed up, then all take turns, once a repeat, so that a machine that
slows down slows all of them; a metric is the median of the repeats. The seeds of a measuring cell are independent repeats of all this.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from sslrepro.budget.count import count
from sslrepro.budget.memory import cuda_peak, inference_peak
from sslrepro.budget.memory import measure as step_memory
from sslrepro.config import CellSettings, Factors, MeasureSettings, NoObjective
from sslrepro.data.loading import SAMPLE_RATE, Request, Shapes, collate
from sslrepro.downstream.ctc import ctc_loss
from sslrepro.downstream.fine_tune import CTCModel
from sslrepro.draws import key64, numpy_generator
from sslrepro.models.mixers import build_mixer
from sslrepro.models.padding import Padding
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.base import Objective, Totals

LEAST_SECONDS = 0.02  # one timing lasts at least so long: what is quicker runs several times in it
SYMBOLS = [str(number) for number in range(32)]  # of CTC training, about as many as characters
SYMBOLS_A_SECOND = 12

Call = Callable[[], object]


def measured(module: Objective | Upstream, settings: CellSettings, seed: int, device: torch.device | str | None = None) -> dict[str, float]:
    """The metrics of `settings.measure`, by name (docs/schemas.md), on `device` (None: a GPU where there is one).

    inference and encoder: forward in evaluation mode without gradients. update: forward, backward and AdamW of the cell's objective; for a
    cell that has none, of CTC training with a linear head and the front end frozen. mixer: forward and backward of one layer's mixer alone.
    `module` comes out as it was.
    """
    wanted, device = settings.measure, torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    module = copy.deepcopy(module).to(device)
    upstream = module if isinstance(module, Upstream) else module.upstream
    clock = _Clock(wanted, device, half=settings.training.precision == "bf16")
    with _threads(wanted.threads):
        runs_at = upstream.encoder.fixed if upstream.choices else None
        inferences = _inferences(upstream, wanted, seed, device)
        metrics = clock.medians(inferences)
        peaks = {name: inference_peak(lambda call=call: clock.run(call), device) for name, call in inferences.items()}
        metrics |= {name.replace("inference_seconds", "inference_peak_bytes"): peak for name, peak in peaks.items()}
        if runs_at is not None:
            upstream.set_compression(*runs_at)
        encoders = {s: _encoder(upstream, _noise(s, wanted.batch, seed, device)) for s in wanted.encoder}
        metrics |= clock.medians(_names("encoder_seconds", encoders))
        mixers = {frames: _mixer(settings, frames, seed, device) for frames in wanted.mixer}
        metrics |= clock.medians(_names("mixer_seconds", mixers))
        metrics |= _updates(module, wanted, seed, clock) if wanted.update else {}
    return {f"cost.{name}": float(value) for name, value in metrics.items()}


def inference_seconds(
    models: dict[str, Callable[[], nn.Module]], seconds: float, repeats: int, device: torch.device | str | None = None
) -> dict[str, float]:
    """Median seconds that each model takes for one utterance of so many `seconds` on one thread, by its name. models: what makes an
    upstream, or one that was tuned; all take turns, and each is made anew for its own, so that only one is held at a time."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    clock = _Clock(MeasureSettings(inference=[seconds], warmup=1, repeats=1), device, half=False)
    noise = _noise(seconds, 1, 0, device)
    lengths, turns = torch.tensor([noise.shape[1]]), {name: [] for name in models}
    with _threads(1), torch.random.fork_rng(), torch.no_grad():
        for _ in range(repeats):
            for name, make in models.items():
                module = make().to(device).eval()
                turns[name].append(clock.medians({name: partial(module, noise, lengths)})[name])
    return {name: median(found) for name, found in turns.items()}


@dataclass(frozen=True)
class _Clock:
    """half: calls run in bfloat16 where training does. Each call enters autocast anew: it keeps the weights that it has cast."""

    wanted: MeasureSettings
    device: torch.device
    half: bool

    def medians(self, calls: dict[str, Call]) -> dict[str, float]:
        """Median seconds of each call, by its name, all taking turns. How often it runs in one timing is settled by the warm-up."""
        runs = {}
        for name, call in calls.items():
            warm = min(self._seconds(call, 1) for _ in range(self.wanted.warmup))
            runs[name] = max(1, round(LEAST_SECONDS / warm))
        turns = [{name: self._seconds(call, runs[name]) for name, call in calls.items()} for _ in range(self.wanted.repeats)]
        return {name: median(turn[name] for turn in turns) for name in calls}

    def run(self, call: Call) -> object:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return call()

    def _seconds(self, call: Call, runs: int) -> float:
        self._wait()
        began = time.perf_counter()
        for _ in range(runs):
            self.run(call)
        self._wait()
        return (time.perf_counter() - began) / runs

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _named(name: str, length: float, lengths: list[float]) -> str:
    """With one length the metric's own name, with several its length after it."""
    return name if len(lengths) == 1 else f"{name}_{length:g}"


def _names(name: str, calls: dict[float, Call]) -> dict[str, Call]:
    return {_named(name, length, list(calls)): call for length, call in calls.items()}


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _noise(seconds: float, batch: int, seed: int, device: torch.device) -> Tensor:
    """(batch, samples)"""
    noise = numpy_generator(seed, "measure", "noise").standard_normal((batch, round(seconds * SAMPLE_RATE)), dtype=np.float32)
    return torch.from_numpy(0.1 * noise).to(device)


def _inferences(upstream: Upstream, wanted: MeasureSettings, seed: int, device: torch.device) -> dict[str, Call]:
    """By metric; with sampled compression at what the model runs at, and at every choice of factors: `inference_seconds_10:s2-q1-k1`."""
    calls = {}
    for seconds in wanted.inference:
        name, noise = _named("inference_seconds", seconds, wanted.inference), _noise(seconds, wanted.batch, seed, device)
        calls[name] = _inference(upstream, noise, upstream.encoder.fixed if upstream.choices else None)
        calls |= {f"{name}:{factors}": _inference(upstream, noise, factors) for factors in upstream.choices}
    return calls


def _inference(upstream: Upstream, waveforms: Tensor, factors: Factors | None) -> Call:
    @torch.no_grad()
    def call() -> object:
        if factors is not None:
            upstream.set_compression(*factors)
        return upstream.eval()(waveforms)

    return call


def inference_macs(settings: CellSettings) -> dict[str, float]:
    """`cost.inference_macs` of one utterance, exactly, under the names of the times: the model alone, without pre-training heads."""
    if settings.measure is None:
        return {}
    counted = {}
    encoder = settings.model.encoder
    sampled = encoder is not None and encoder.compression.kind == "stochastic" and encoder.compression.sampled
    models = {"": settings.model} | ({f":{f}": settings.model.at(f) for f in encoder.compression.trained} if sampled else {})
    for seconds in settings.measure.inference:
        name = _named("cost.inference_macs", seconds, settings.measure.inference)
        for suffix, model in models.items():
            counted[name + suffix] = float(count(model, NoObjective(), round(seconds * SAMPLE_RATE)).macs)
    return counted


@torch.no_grad()
def _encoder(upstream: Upstream, waveforms: Tensor) -> Call:
    """The context encoder on the front end's frames, which are computed here."""
    kept: list[tuple] = []
    handle = upstream.encoder.register_forward_pre_hook(lambda _, arguments: kept.append(arguments))
    upstream.eval()(waveforms)
    handle.remove()
    return torch.no_grad()(lambda: upstream.encoder(*kept[0]))


def _mixer(settings: CellSettings, frames: int, seed: int, device: torch.device) -> Call:
    """One mixer of its own, in training, on noise that needs a gradient."""
    encoder, batch = settings.model.encoder, settings.measure.batch
    torch.manual_seed(key64(seed, "measure", "mixer"))
    mixer = build_mixer(encoder).to(device).train()
    x, grad = torch.randn(2, batch, frames, encoder.width, device=device)
    x.requires_grad_(True)
    padding = Padding.of([frames] * batch, frames, device)
    inputs = [x, *(parameter for parameter in mixer.parameters() if parameter.requires_grad)]

    def call() -> object:
        y = mixer(x, padding)
        return torch.autograd.grad(y, inputs, grad.to(y.dtype))

    return call


def _updates(module: Objective | Upstream, wanted: MeasureSettings, seed: int, clock: _Clock) -> dict[str, float]:
    """Seconds of an update and its memory: CUDA's peak; elsewhere weights, gradients, AdamW's state and what autograd saves, in bytes."""
    if isinstance(module, Upstream):
        model: nn.Module = CTCModel(module, SYMBOLS).to(clock.device)
        for part in (module.front_end, module.feature_norm):
            if part is not None:
                part.requires_grad_(False)
        losses = {length: _ctc_loss(model, _noise(length, wanted.batch, seed, clock.device), length, seed) for length in wanted.update}
    else:
        model = module
        losses = {length: _objective_loss(module, length, wanted.batch, seed, clock.device) for length in wanted.update}
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1.0e-5, fused=True)
    calls = {length: _update(loss, optimizer) for length, loss in losses.items()}
    metrics = clock.medians(_names("update_seconds", calls))
    for length, loss in losses.items():
        peak = cuda_peak(lambda call=calls[length]: clock.run(call), clock.device)
        saved = step_memory(model, lambda loss=loss: clock.run(loss)).total if peak is None else peak
        metrics[_named("peak_bytes", length, wanted.update)] = saved
    return metrics


def _update(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> Call:
    def call() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return call


def _ctc_loss(model: CTCModel, waveforms: Tensor, seconds: float, seed: int) -> Callable[[], Tensor]:
    batch, samples = waveforms.shape
    lengths = torch.tensor([samples] * batch)
    drawn = numpy_generator(seed, "measure", "symbols").integers(0, len(SYMBOLS), (batch, max(1, int(SYMBOLS_A_SECOND * seconds))))
    text = [[SYMBOLS[number] for number in line] for line in drawn]
    code = {name: 1 + place for place, name in enumerate(SYMBOLS)}

    def loss() -> Tensor:
        log_probs, frames = model(waveforms, lengths)
        return ctc_loss(log_probs, frames, text, code)

    return loss


def _objective_loss(objective: Objective, seconds: float, batch: int, seed: int, device: torch.device) -> Callable[[], Tensor]:
    samples, shapes = round(seconds * SAMPLE_RATE), Shapes.of(objective)
    requests = [Request(row, 0, samples, (seed, "measure", row)) for row in range(batch)]
    held = collate(_Noise(seed), requests, objective.draws, shapes, _Labels(seed)).to(device)
    totals = Totals(max(sum(held.host_masked_counts), 1), sum(held.host_frames), 1, 0.5, 0, seed)
    return lambda: objective(held, totals).loss


class _Noise:
    """What `collate` asks of a corpus."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def audio(self, index: int, start: int, frames: int) -> np.ndarray:
        return 0.1 * numpy_generator(self.seed, "measure", index).standard_normal(frames, dtype=np.float32)

    def name(self, index: int) -> str:
        return f"noise-{index}"


class _Labels:
    """What `collate` asks of targets: one of two labels a frame, whatever their number is."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def labels(self, index: int, start: int, frames: int, frame_step: int) -> np.ndarray:
        return numpy_generator(self.seed, "measure", "labels", index).integers(0, 2, frames)
