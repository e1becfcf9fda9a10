"""The worker of the embedded corpus: a program that speaks whole voices, `python -m sslrepro.data.speaking`.

It reads a JSON list of jobs from standard input, writes for each voice `audio/<speaker>.wav` and `parts/<speaker>.{manifest,alignment}.tsv`
into the folder given, and prints one line of JSON for each voice done. It alone loads eSpeak NG (GPL-3), in a process of its own.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from math import gcd
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import fftconvolve, firwin, lfilter, resample_poly

from sslrepro.data.language import Language, Sentence
from sslrepro.data.synth import SILENCE, Synthesizer
from sslrepro.draws import key64, numpy_generator

SAMPLE_RATE = 16000
SENTENCE_SHARES = {"test": 1 / 6, "valid": 1 / 12}  # of all sentences; the rest is training's


def sentence_split(text: str, seed: int) -> str:
    """The one split in which a sentence may be spoken, so that splits share none."""
    place, reached = key64("embedded", seed, "sentence", text) / 2**63, 0.0
    for split, share in SENTENCE_SHARES.items():
        reached += share
        if place < reached:
            return split
    return "train"


def speak_voice(job: dict, language: Language, synthesizer: Synthesizer, folder: Path) -> dict:
    """Speaks new sentences with one voice until `job["seconds"]` are reached, and writes its shard and its table parts."""
    split, speaker, seed = job["split"], job["speaker"], job["seed"]
    manifest, alignment, spoken, position = [], [], set(), 0
    wanted = job["seconds"] * SAMPLE_RATE
    with soundfile.SoundFile(folder / "audio" / f"{speaker}.wav", "w", SAMPLE_RATE, 1, "PCM_16") as shard:
        while position < wanted:
            number = len(manifest)
            draw = numpy_generator("embedded", seed, speaker, number)
            sentence = _new_sentence(language, draw, split, seed, spoken)
            spoken.add(sentence.text)
            said = synthesizer.say(
                sentence.text,
                job["voice"],
                rate=int(draw.integers(150, 200)),
                pitch=int(draw.integers(38, 63)),
                pitch_range=int(draw.integers(35, 66)),
                seed=int(draw.integers(1, 2**31 - 1)),
            )
            audio, offset = record(said.audio, said.rate, draw)
            name = f"{speaker}-{number:05d}"
            phones = [(_at(start, said.rate, offset), _at(end, said.rate, offset), label, word) for start, end, label, word in said.phones]
            alignment += [f"{name}\t{tier}\t{a}\t{b}\t{label}\n" for tier, a, b, label in _tiers(phones, sentence, len(audio))]
            fields = [name, split, speaker, f"audio/{speaker}.wav", position, len(audio), sentence.text, sentence.intent, sentence.keyword]
            manifest.append("\t".join(map(str, fields + ([job["language"]] if job["column"] else []))) + "\n")
            shard.write(audio)
            position += len(audio)
    for part, lines in (("manifest", manifest), ("alignment", alignment)):
        (folder / "parts" / f"{speaker}.{part}.tsv").write_text("".join(lines), encoding="utf-8", newline="")
    return {"speaker": speaker, "utterances": len(manifest), "seconds": position / SAMPLE_RATE}


def _new_sentence(language: Language, draw: np.random.Generator, split: str, seed: int, spoken: set[str]) -> Sentence:
    while True:
        sentence = language.sentence(draw)
        if sentence.text not in spoken and sentence_split(sentence.text, seed) == split:
            return sentence


def record(speech: np.ndarray, rate: int, draw: np.random.Generator) -> tuple[np.ndarray, int]:
    """Speech (samples,) int16 at `rate` as a microphone in a room would have it: (samples,) int16 at 16 kHz, and where speech starts.

    Silence of 0.1-0.25 s at both ends, a room (direct sound, then exponentially decaying noise, 0.1-0.4 s to -60 dB), a level of
    -32 to -22 dB full scale, and coloured noise at 15-35 dB below the speech. Onsets stay where they are.
    """
    up, down, window = _resampler(rate)
    clean = resample_poly(speech.astype(np.float32), up, down, window=window)
    lead, tail = (int(draw.integers(SAMPLE_RATE // 10, SAMPLE_RATE // 4)) for _ in range(2))
    clean = np.concatenate([np.zeros(lead, np.float32), clean, np.zeros(tail, np.float32)])
    taps = int(draw.uniform(0.1, 0.4) * SAMPLE_RATE)
    room = draw.standard_normal(taps, np.float32) * np.exp(-6.9 / taps * np.arange(taps, dtype=np.float32))
    room *= np.float32(10 ** (draw.uniform(-30, -15) / 20))
    room[0] = 1.0
    heard = fftconvolve(clean, room)[: len(clean)]
    heard *= 10 ** (draw.uniform(-32, -22) / 20) / max(_level(heard), 1e-9)
    tilt = np.array([1.0, -draw.uniform(0.0, 0.95)], np.float32)
    noise = lfilter(np.ones(1, np.float32), tilt, draw.standard_normal(len(heard), np.float32))
    noise *= _level(heard) / _level(noise) * 10 ** (-draw.uniform(15, 35) / 20)
    return np.clip(np.rint((heard + noise) * 32767), -32768, 32767).astype(np.int16), lead


def _level(signal: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(signal))))


@cache
def _resampler(rate: int) -> tuple[int, int, np.ndarray]:
    """Factors and low-pass filter from `rate` to 16 kHz, as scipy.signal.resample_poly designs it for each call."""
    greatest = gcd(SAMPLE_RATE, rate)
    up, down = SAMPLE_RATE // greatest, rate // greatest
    return up, down, firwin(20 * max(up, down) + 1, 1 / max(up, down), window=("kaiser", 5.0)).astype(np.float32)


def _at(sample: int, rate: int, offset: int) -> int:
    return round(sample * SAMPLE_RATE / rate) + offset


def _tiers(phones: list[tuple[int, int, str, int]], sentence: Sentence, length: int):
    """(tier, start, end, label) of one utterance: phones cover it from end to end; words have no silences among them."""
    if phones[0][2] == SILENCE:
        phones[0] = (0, *phones[0][1:])
    else:
        phones.insert(0, (0, phones[0][0], SILENCE, -1))
    if phones[-1][2] == SILENCE:
        phones[-1] = (phones[-1][0], length, SILENCE, -1)
    else:
        phones.append((phones[-1][1], length, SILENCE, -1))
    yield from (("phone", start, end, label) for start, end, label, _ in phones)
    for number, word in enumerate(sentence.text.split()):
        inside = [phone for phone in phones if phone[3] == number]
        yield "word", inside[0][0], inside[-1][1], word


def main() -> None:
    request = json.load(sys.stdin)
    synthesizer, languages = Synthesizer(), {}
    for job in request["jobs"]:
        name = job["language"]
        if name not in languages:
            languages[name] = Language(job["words"], job["seed"], name)
        print(json.dumps(speak_voice(job, languages[name], synthesizer, Path(request["folder"]))), flush=True)


if __name__ == "__main__":
    main()
