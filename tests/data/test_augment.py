"""Augmentation of the audio: drawn from counters, in place, off by default, with labels that follow the speed."""

from __future__ import annotations

import numpy as np
import pytest

from sslrepro.config import AugmentSettings, CellData, parse
from sslrepro.data.augment import augment, change_speed, speed_of
from sslrepro.data.corpus import Corpus
from sslrepro.data.loading import Request, Shapes, collate
from sslrepro.errors import UserError

ALL = AugmentSettings(speed_share=1.0, room_share=1.0, noise_share=1.0, mask_share=1.0)


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(16_000 * seconds)) / 16_000).astype(np.float32)


def loudest(waveform: np.ndarray) -> float:
    """The frequency of the highest peak."""
    return float(np.abs(np.fft.rfft(waveform)).argmax() * 16_000 / len(waveform))


def test_off_by_default():
    wave = tone(300)
    assert augment(wave, CellData().augment, (0, "a")) is wave and speed_of(CellData().augment, (0, "a")) == 1.0
    assert change_speed(wave, 1.0) is wave


def test_the_same_key_gives_the_same_audio_and_another_does_not():
    wave = tone(300)
    one, again, other = (augment(wave, ALL, (0, "update", u, "name", 0)) for u in (3, 3, 4))
    assert np.array_equal(one, again) and not np.allclose(one, other)
    assert one.shape == wave.shape and one.dtype == np.float32 and np.isfinite(one).all()


def test_shares_are_shares_of_the_utterances():
    settings = AugmentSettings(noise_share=0.3, speed_share=0.25)
    wave = tone(300, 0.05)
    changed = [not np.array_equal(augment(wave, settings, (0, i)), wave) for i in range(800)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.05)
    speeds = [speed_of(settings, (0, i)) for i in range(4000)]
    drawn = [s for s in speeds if s != 1.0]
    assert len(drawn) / 4000 == pytest.approx(0.25 * 0.8, abs=0.03)  # a fifth of the draws is the speed as it is
    assert set(np.round(drawn, 2)) == {0.9, 0.95, 1.05, 1.1}


def test_speed_moves_length_and_pitch_together():
    faster = change_speed(tone(400, 2.0), 1.1)
    assert len(faster) == pytest.approx(32_000 / 1.1, abs=2) and loudest(faster) == pytest.approx(440, abs=1)


def test_noise_is_as_far_below_the_speech_as_drawn():
    settings = AugmentSettings(noise_share=1.0, noise_decibels=[10.0, 10.0])
    wave = tone(440)
    noise = augment(wave, settings, (1, "x")) - wave
    assert 10 * np.log10((wave**2).sum() / (noise**2).sum()) == pytest.approx(10, abs=0.01)
    assert np.array_equal(augment(0 * wave, settings, (1, "x")), 0 * wave)  # silence stays silence, not NaN


def test_a_room_begins_with_the_direct_sound_and_keeps_the_power():
    click = np.zeros(16_000, dtype=np.float32)
    click[4_000] = 1.0
    wet = augment(click, AugmentSettings(room_share=1.0, room_seconds=[0.3, 0.3]), (2, "x"))
    assert np.abs(wet[:4_000]).max() < 1e-5 and np.abs(wet).argmax() == 4_000  # nothing before it, and nothing louder after it
    assert (wet**2).sum() == pytest.approx(1.0, rel=1e-3)
    early, late = (np.abs(wet[a : a + 400]).mean() for a in (4_001, 4_000 + 2_400))
    assert 20 * np.log10(early / late) == pytest.approx(30, abs=4)  # half of the 60 dB after half of the time


def test_masking_is_silence_and_nothing_else():
    wave = np.ones(16_000, dtype=np.float32)
    masked = augment(wave, AugmentSettings(mask_share=1.0, mask_spans=3, mask_seconds=0.2), (3, "x"))
    assert set(np.unique(masked)) == {0.0, 1.0} and 0 < (masked == 0).sum() <= 3 * 3_200
    assert wave.min() == 1.0  # the given audio is not written to


def test_labels_and_spectra_follow_the_speed(tiny_corpus_dir):
    """The label of each frame is that of the recording where the frame comes from; spectra hear the speed but not the noise."""
    corpus = Corpus(tiny_corpus_dir)

    class Places:
        def labels(self, index, start, frames, frame_step):
            return ((start + np.arange(frames) * frame_step) // 160).astype(np.int64)

    def read(settings):
        shapes = Shapes(lambda n: n // 320, 320, spectra=lambda wave: wave[: len(wave) // 320 * 320].reshape(-1, 320))
        return collate(corpus, [Request(0, 0, 12_000, (0, 0))], lambda key, n: {"mask": np.arange(n) < 3}, shapes, Places(), settings)

    fast = AugmentSettings(speed_share=1.0, speed=[1.1, 1.1], noise_share=1.0, mask_share=1.0)
    plain, faster = read(AugmentSettings()), read(fast)
    assert plain.labels[0, :5].tolist() == [0, 2, 4, 6, 8]
    assert faster.labels[0, 10].item() == 22 and faster.lengths.tolist() == [12_000]  # more of the recording, no more audio
    wanted = change_speed(corpus.audio(0, 0, 13_200), 1.1)[:12_000]
    assert np.array_equal(faster.spectra[0].reshape(-1).numpy(), wanted[: faster.spectra[0].numel()])
    assert not np.allclose(faster.waveforms[0].numpy(), wanted)


def test_a_range_must_ascend():
    with pytest.raises(UserError, match="range"):
        parse(CellData, {"augment": {"speed": [1.1, 0.9]}}, "cell")
