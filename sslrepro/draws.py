"""Random numbers from a counter.

Every random choice is a function of the key of what it decides, such as (seed, "mask", update, utterance), never of how many numbers
were drawn before. So a resumed run, another number of workers or ranks, or another split into micro-batches draws the same numbers.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

Key = int | str


def key64(*key: Key) -> int:
    """A 63-bit integer that depends on the whole key and on nothing else (not on the process, unlike `hash`)."""
    text = "\x1f".join(f"{type(part).__name__[0]}{part}" for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def numpy_generator(*key: Key) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=key64(*key)))


def torch_generator(*key: Key, device: torch.device | str = "cpu") -> torch.Generator:
    import torch  # here, so that programs that draw with NumPy alone start in a tenth of a second

    return torch.Generator(device=device).manual_seed(key64(*key))
