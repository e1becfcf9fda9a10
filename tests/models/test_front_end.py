"""Front ends: the mel filters are torchaudio's, frames are counted right, silence stays finite."""

import pytest
import torch
import torchaudio

from sslrepro.config import LogMelConvFrontEnd, LogMelFrontEnd, WaveformFrontEnd
from sslrepro.models.front_end import build_front_end
from sslrepro.models.logmel import WINDOW, log_mel, logmel_frames, mel_filters

FRONT_ENDS = {
    "wav2vec2": (WaveformFrontEnd(channels=[4] * 7), 49, 50.0),
    "batch-size-paper": (WaveformFrontEnd(channels=[4] * 7, padding=[3, 1, 1, 1, 1, 0, 0]), 50, 50.0),
    "sew": (WaveformFrontEnd(channels=[4] * 7, pointwise=True), 49, 50.0),
    "logmel-20ms": (LogMelFrontEnd(mels=8), 49, 50.0),
    "logmel-10ms": (LogMelFrontEnd(mels=8, stack=1), 98, 100.0),
    "logmel-conv": (LogMelConvFrontEnd(mels=8, channels=[4, 4]), 46, 50.0),
}


@pytest.mark.parametrize("mels", [23, 40, 80])
def test_mel_filters_are_torchaudios(mels: int) -> None:
    wanted = torchaudio.functional.melscale_fbanks(WINDOW // 2 + 1, 0.0, 8_000.0, mels, 16_000, norm=None, mel_scale="htk")
    torch.testing.assert_close(mel_filters(mels), wanted, rtol=1e-4, atol=1e-5)


def test_log_mel_is_torchaudios_without_centring() -> None:
    waveform = torch.randn(2, 4_000, generator=torch.Generator().manual_seed(0))
    transform = torchaudio.transforms.MelSpectrogram(16_000, n_fft=400, hop_length=160, center=False, n_mels=40)
    got = log_mel(waveform, mel_filters(40))
    assert got.shape[1] == logmel_frames(4_000)
    torch.testing.assert_close(got, transform(waveform).clamp_min(1e-10).log().transpose(1, 2), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_frames_and_rate(name: str) -> None:
    settings, frames, rate = FRONT_ENDS[name]
    front_end = build_front_end(settings)
    assert front_end.frames(16_000) == frames and 16_000 / front_end.hop == rate
    for samples in (1_500, 4_000, 16_000):
        got = front_end(torch.randn(1, samples), [samples], exact=True)
        assert got.shape == (1, front_end.frames(samples), front_end.dim)
    assert front_end.frames(10) == 0


@pytest.mark.parametrize("name", ["logmel-20ms", "logmel-conv", "wav2vec2"])
def test_silence_is_finite(name: str) -> None:
    front_end = build_front_end(FRONT_ENDS[name][0])
    out = front_end(torch.zeros(2, 4_000), [4_000, 2_000], exact=True)
    assert out.isfinite().all()
    if out.requires_grad:
        out.square().sum().backward()
        assert all(p.grad.isfinite().all() for p in front_end.parameters())


def test_logmel_frames_have_zero_mean_and_unit_variance_in_each_utterance() -> None:
    front_end = build_front_end(LogMelFrontEnd(mels=8, stack=1))
    x = front_end(torch.randn(2, 8_000), [8_000, 4_000], exact=True)
    for row, samples in enumerate((8_000, 4_000)):
        own = x[row, : front_end.frames(samples)]
        torch.testing.assert_close(own.mean(0), torch.zeros(8), rtol=0, atol=1e-4)
        torch.testing.assert_close(own.var(0, correction=0), torch.ones(8), rtol=1e-3, atol=0)
