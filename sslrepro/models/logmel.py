"""Log-mel energies, 25 ms windows every 10 ms at 16 kHz, without padding at the ends: each frame sees its own 400
samples only.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

SAMPLE_RATE = 16_000
WINDOW = 400
HOP = 160
FLOOR = 1.0e-10  # of the energy, before the logarithm: digital silence stays finite


def logmel_frames(samples: int) -> int:
    """Frames of 25 ms that fit whole, one every 10 ms."""
    return max(0, (samples - WINDOW) // HOP + 1)


def mel_filters(mels: int) -> Tensor:
    """Triangles on the HTK mel scale (2595 log10(1 + f / 700)) from 0 Hz to 8 kHz, without area normalisation:
    `(WINDOW // 2 + 1, mels)`.
    """
    hertz = torch.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1, dtype=torch.float64)
    top = 2595.0 * torch.log10(torch.tensor(1.0 + SAMPLE_RATE / 2 / 700.0, dtype=torch.float64))
    edges = 700.0 * (10.0 ** (torch.linspace(0, 1, mels + 2, dtype=torch.float64) * top / 2595.0) - 1.0)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (hertz[:, None] - left) / (centre - left)
    falling = (right - hertz[:, None]) / (right - centre)
    return torch.minimum(rising, falling).clamp_min(0.0).float()


def without_autocast(device: torch.device) -> AbstractContextManager:
    """A context in which operations keep the precision of what they are given."""
    # the meta device, on which models are counted, has no autocast to switch off
    return torch.autocast(device.type, enabled=False) if torch.amp.is_autocast_available(device.type) else nullcontext()


@torch.no_grad()
def log_mel(waveforms: Tensor, filters: Tensor) -> Tensor:
    """Natural log of mel energies, `(batch, samples)` and `(bins, mels)` → `(batch, frames, mels)`, in the waveform's
    own precision.
    """
    with without_autocast(waveforms.device):
        window = torch.hann_window(WINDOW, dtype=waveforms.dtype, device=waveforms.device)
        spectrum = torch.fft.rfft(waveforms.unfold(-1, WINDOW, HOP) * window)
        power = torch.view_as_real(spectrum).square().sum(-1)
        return (power @ filters.to(power.dtype)).clamp_min(FLOOR).log()
