"""A corpus whose audio says what it holds: each phone is a tone, each voice a loudness; and upstreams that know what is planted."""

from __future__ import annotations

import json
import wave
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from sslrepro.data.corpus import Corpus

RATE, FRAME = 16_000, 320
PHONES = ["a", "b", "c", "d", "e"]
VOICES = {"train": 5, "test": 3, "valid": 1}
UTTERANCES = 48
WORDS, KEYWORDS = ["cad", "dec", "ada", "ceb"], ["ab", "be", "ed"]


def loudness(voice: int) -> float:
    return 0.2 + 0.08 * voice


def speak(words: list[str], voice: int) -> tuple[np.ndarray, list[tuple[int, int, str]]]:
    """Tones of 80 ms at 400, 800, ... Hz, and 60 ms of silence around words."""
    pieces, phones = [], []
    for symbol in "-" + "-".join(words) + "-":
        name, length = ("sil", 3 * FRAME) if symbol == "-" else (symbol, 4 * FRAME)
        start = sum(map(len, pieces))
        hertz = 0 if name == "sil" else 400 * (1 + PHONES.index(name))
        pieces.append(loudness(voice) * np.sin(2 * np.pi * hertz * np.arange(length) / RATE))
        phones.append((start, start + length, name))
    return np.concatenate(pieces), phones


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    manifest, alignment, trials = [], [], []
    for voice, split in enumerate(split for split, voices in VOICES.items() for _ in range(voices)):
        audio = []
        for i in range(UTTERANCES):
            words, keyword = [str(w) for w in generator.choice(WORDS, size=2)], str(generator.choice(KEYWORDS))
            intent = words[0]
            words.insert(int(generator.integers(3)), keyword)
            samples, phones = speak(words, voice)
            name, start = f"v{voice}-{i}", sum(map(len, audio))
            audio.append(samples)
            manifest.append((name, split, f"v{voice}", f"v{voice}.wav", start, len(samples), " ".join(words).upper(), intent, keyword))
            alignment += [(name, "phone", *phone) for phone in phones]
        with wave.open(str(folder / f"v{voice}.wav"), "wb") as file:
            file.setnchannels(1), file.setsampwidth(2), file.setframerate(RATE)
            file.writeframes((np.concatenate(audio) * 32767).astype("<i2").tobytes())
    tested = [(row[0], row[2]) for row in manifest if row[1] == "test"]
    trials = [("test", a, b, int(va == vb)) for k, (a, va) in enumerate(tested) for b, vb in tested[k + 1 :: 3]]
    tables = {
        "manifest": (manifest, "utterance split speaker path start frames text intent keyword"),
        "alignment": (alignment, "utterance tier start end label"),
        "trials": (trials, "split left right same"),
    }
    for name, (rows, columns) in tables.items():
        pd.DataFrame(rows, columns=columns.split()).to_csv(folder / f"{name}.tsv", sep="\t", index=False)
    (folder / "corpus.json").write_text(json.dumps({"sample_rate": RATE, "audio_root": ".", "layout": "shards"}))
    return folder


@pytest.fixture(scope="session")
def corpus(folder):
    return Corpus(folder)


@pytest.fixture(scope="session")
def silent(folder, tmp_path_factory):
    """The same without phone times, keywords, intents and trials, as LibriSpeech."""
    other = tmp_path_factory.mktemp("plain")
    table = pd.read_csv(folder / "manifest.tsv", sep="\t", keep_default_na=False).assign(intent="", keyword="")
    table.to_csv(other / "manifest.tsv", sep="\t", index=False)
    for name in ("alignment", "trials"):
        pd.read_csv(folder / f"{name}.tsv", sep="\t")[:0].to_csv(other / f"{name}.tsv", sep="\t", index=False)
    (other / "corpus.json").write_text(json.dumps({"sample_rate": RATE, "audio_root": str(folder), "layout": "shards"}))
    return Corpus(other)


class Planted(torch.nn.Module):
    """Frames of 20 ms. Two states: noise, and (phone one-hot, a vector of the voice) plus a little noise; `knows=False`: zeros."""

    frame_rate, dim = 50.0, 14

    def __init__(self, knows: bool = True) -> None:
        super().__init__()
        self.knows, self.calls = knows, 0
        self.voices = torch.randn(sum(VOICES.values()), 8, generator=torch.Generator().manual_seed(1))

    def frames(self, samples):
        return samples // FRAME

    def forward(self, waveforms, lengths):
        self.calls += 1
        pieces = waveforms[:, : waveforms.shape[1] // FRAME * FRAME].unfold(1, FRAME, FRAME)
        spectrum = torch.fft.rfft(pieces).abs()
        phone = torch.where(spectrum.amax(-1) > 1, spectrum.argmax(-1) // 8, 0)
        loud = torch.stack([line.abs().amax() for line in waveforms])
        voice = ((loud - loudness(0)) / 0.08).round().long().clamp(0, len(self.voices) - 1)
        known = torch.cat([torch.eye(6)[phone], self.voices[voice][:, None].expand(-1, phone.shape[1], -1)], dim=-1)
        noise = torch.randn(known.shape, generator=torch.Generator().manual_seed(2))
        states = [noise, known + 0.05 * noise] if self.knows else [torch.zeros_like(known)] * 2
        return SimpleNamespace(hidden_states=states, lengths=torch.as_tensor(lengths) // FRAME)


@pytest.fixture(scope="module")
def fresh_planted():
    """A new one each time it is called."""
    return Planted


@pytest.fixture
def planted():
    return Planted()


@pytest.fixture
def ignorant():
    return Planted(knows=False)
