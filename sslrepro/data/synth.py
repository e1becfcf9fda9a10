"""Speech from eSpeak NG with exact phone times, through ctypes on the library that the `espeakng-loader` wheel brings.

eSpeak NG is GPL-3 and keeps global state: only a worker process of its own (`data.speaking`) imports this module's Synthesizer.
The library is loaded afresh for every utterance, because its flutter tables and random numbers go on from one to the next otherwise;
so an utterance depends on its own arguments alone. Loading costs a quarter of a millisecond.
"""

from __future__ import annotations

import _ctypes
import ctypes
import os
from dataclasses import dataclass

import numpy as np

from sslrepro.errors import UserError

# eSpeak NG's voice variants that are voiced, intelligible and apart from each other: of variants whose mean and spread of MFCC lay
# nearer together than two utterances of one variant do, one is kept. Whispers and Klatt doubles are out.
# fmt: off
VARIANTS = (
    "f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "Alex", "Alicia", "Andrea",
    "Andy", "Annie", "AnxiousAndy", "Denis", "Diogo", "Gene", "Jacky", "Lee", "Marco", "Mario", "Nguyen",
    "RicishayMax", "RicishayMax2", "Storm", "Tweaky", "adam", "anika", "announcer", "antonio", "belinda",
    "benjamin", "boris", "croak", "david", "ed", "edward", "grandma", "grandpa", "gustave", "ian", "iven",
    "iven2", "iven4", "john", "kaukovalta", "klatt", "klatt3", "klatt4", "linda", "marcelo", "max", "norbert",
    "pablo", "paul", "pedro", "quincy", "rob", "robosoft4", "robosoft8", "sandro", "shelby", "steph", "travis",
    "victor",
)
# fmt: on
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-029", "en-gb-x-rp", "en-gb-x-gbclan", "en-us-nyc", "en-gb-x-gbcwmd")
SILENCE = "sil"

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS
_PHONEME_EVENTS, _PHONEME_IPA, _DONT_EXIT = 0x0001, 0x0002, 0x8000
_EVENT_END, _EVENT_PHONEME = 0, 7
_RATE, _PITCH, _RANGE = 1, 3, 4
_UTF8 = 1
_STRESS = str.maketrans("", "", "ˈˌ")


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h; `sample` is the position in samples, `string` the member of the union that phonemes use."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("string", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Spoken:
    """`audio` (samples,) int16 at `rate`; `phones` as (start, end, label, word), samples, `word` -1 where silent."""

    audio: np.ndarray
    rate: int
    phones: list[tuple[int, int, str, int]]


class Synthesizer:
    """Speaks text with a voice such as `en-us+f2` (any eSpeak NG language, `+`, any variant)."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            raise UserError(
                "the embedded corpus is spoken by eSpeak NG, which is not installed: `pip install espeakng-loader`, "
                "or set data.root to a folder of speech"
            ) from None
        self._library, self._data = espeakng_loader.get_library_path(), espeakng_loader.get_data_path().encode()
        self._chunks: list[np.ndarray] = []
        self._events: list[tuple[int, int, int, str]] = []
        self._callback = _Callback(self._receive)  # kept: ctypes does not

    def _receive(self, samples, count: int, events) -> int:
        if count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events[i].type != _EVENT_END:
            event = events[i]
            if event.type == _EVENT_PHONEME:
                label = event.string.decode("utf-8", "ignore").translate(_STRESS)
                self._events.append((event.sample, event.text_position, i, label))
            i += 1
        return 0

    def say(self, text: str, voice: str, rate: int = 175, pitch: int = 50, pitch_range: int = 50, seed: int = 1) -> Spoken:
        """`text` in lower-case words. `rate` in words a minute, `pitch` and `pitch_range` 0-99, `seed` for breath and jitter.

        Raises UserError for a voice that eSpeak NG does not have, and RuntimeError when a word was not spoken.
        """
        self._chunks.clear()
        self._events.clear()
        library = ctypes.CDLL(self._library)
        try:
            hz = library.espeak_Initialize(_SYNCHRONOUS, 0, self._data, _PHONEME_EVENTS | _PHONEME_IPA | _DONT_EXIT)
            if hz <= 0:
                raise RuntimeError("eSpeak NG could not be initialised")
            library.espeak_SetSynthCallback(self._callback)
            if library.espeak_SetVoiceByName(voice.encode()):
                raise UserError(f"eSpeak NG has no voice {voice!r}")
            for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range)):
                library.espeak_SetParameter(parameter, int(value), 0)
            library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
            if os.name == "posix":  # breath noise is libc's rand(); elsewhere the library brings its own
                ctypes.CDLL(None).srand(ctypes.c_uint(seed))
            spelled = (text + ".").encode()
            library.espeak_Synth(spelled, ctypes.c_size_t(len(spelled) + 1), 0, 1, 0, _UTF8, None, None)
            library.espeak_Synchronize()
        finally:
            library.espeak_Terminate()
            getattr(_ctypes, "dlclose", getattr(_ctypes, "FreeLibrary", None))(library._handle)
        audio = np.concatenate(self._chunks)
        return Spoken(audio, hz, _phones(self._events, text, len(audio)))


def _phones(events: list[tuple[int, int, int, str]], text: str, length: int) -> list[tuple[int, int, str, int]]:
    """Phones with their ends and the word each belongs to. Neighbouring silences are one."""
    starts, position = {}, 1
    for number, word in enumerate(text.split()):
        starts[position] = number
        position += len(word) + 1
    phones: list[tuple[int, int, str, int]] = []
    ends = [event[0] for event in events[1:]] + [length]
    for (start, text_position, _, label), end in zip(events, ends, strict=True):
        end = min(end, length)
        if end <= start:
            continue
        word = starts[text_position] if label else -1
        label = label or SILENCE
        if word < 0 and phones and phones[-1][2] == SILENCE:
            phones[-1] = (phones[-1][0], end, SILENCE, -1)
        else:
            phones.append((start, end, label, word))
    missing = set(range(len(starts))) - {phone[3] for phone in phones}
    if missing:
        raise RuntimeError(f"eSpeak NG gave no phones for word {min(missing)} of {text!r}")
    return phones
