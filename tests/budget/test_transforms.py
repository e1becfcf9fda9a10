"""Fourier transforms, which torch's counter does not see: every call of the built model is watched and its length counted."""

from __future__ import annotations

import pytest
import torch
from test_count import COSINE, FAMILIES, LENGTHS, batch_of_one, encoder, noise_on_meta, waveform  # noqa: F401
from torch.overrides import TorchFunctionMode

from sslrepro.budget.count import count
from sslrepro.budget.ops import fft_macs, rfft_macs
from sslrepro.config import CellSettings, LogMelFrontEnd, ModelSettings, RegressionSettings
from sslrepro.objectives import build
from sslrepro.objectives.base import Totals

CASES = {name: FAMILIES[name] for name in ("fnet", "hyena", "summary_mixing_decay", "melhubert", "logmel_normed", "conformer")}
CASES["fnet_in_front_of_log_mels"] = (ModelSettings(front_end=LogMelFrontEnd(mels=20), encoder=encoder(mixer="fnet", norm="pre")), COSINE)
CASES["hyena_twice"] = (ModelSettings(front_end=waveform(), encoder=encoder(mixer="hyena")), RegressionSettings(layers=2))


class Transforms(TorchFunctionMode):
    """Adds up what calls of torch.fft do: `macs`, and `training` of those that a gradient goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = self.training = 0

    def __torch_function__(self, function, types, arguments=(), more=None):
        more = more or {}
        out = function(*arguments, **more)
        name = getattr(function, "__name__", "")
        if "fft" not in name or not isinstance(out, torch.Tensor):
            return out
        x = arguments[0]
        if name in ("fft_rfft", "fft_irfft"):  # of a real signal, or to one: arguments are x, n, dim
            n = arguments[1] if len(arguments) > 1 else None
            axis = more.get("dim", -1)
            n = x.shape[axis] if n is None else n
            assert name == "fft_rfft" or out.shape[axis] == n
            lines = x.numel() // x.shape[axis]
            macs = lines * rfft_macs(n)
        else:  # real over the last axis, complex over the one before
            assert name == "fft_rfft2" and len(arguments) == 1
            frames, width = x.shape[-2:]
            macs = x.numel() // width * rfft_macs(width) + out.numel() // frames * fft_macs(frames)
        self.macs += macs
        self.training += macs * x.requires_grad
        return out


@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("case", CASES)
def test_every_transform_is_counted(case: str, samples: int) -> None:
    model, objective = CASES[case]
    cost = count(model, objective, samples)
    with torch.device("meta"):
        module = build(CellSettings(model=model, objective=objective))
    batch = batch_of_one(module, samples, cost.masked)
    totals = Totals(masked=cost.masked, frames=batch.host_frames[0], micro_batches=1, progress=0.5, update=0)
    with Transforms() as seen:
        module(batch, totals)
    assert seen.macs == cost.total.unseen > 0
    assert seen.training == cost.total.unseen_training
