"""SpecAugment (Park et al. 2019, arXiv 1904.08779) on the weighted sum of hidden states, with the sizes of SUPERB's ASR (S3PRL)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

WARP = 5  # frames
DIM_MASKS, DIM_WIDTH = 4, 50  # how many, and each is narrower than this
TIME_MASKS, TIME_WIDTH = 2, 40


def spec_augment(x: Tensor, lengths: np.ndarray) -> Tensor:
    """(frames end to end, dim) and the frames of each utterance (utterances,) -> the same shape, warped in time and with zeros.

    Each utterance is stretched before one of its frames and shrunk after it, or the other way round, by up to WARP frames, if it has more
    than twice as many. Masks begin where the batch's widest would still fit, in time within the longest utterance. Draws are torch's
    generator of the host.
    """
    warped = [_warped(piece) for piece in x.split(lengths.tolist())]
    padded = pad_sequence(warped, batch_first=True)
    count, frames, dim = padded.shape
    zeros = _masks(count, dim, DIM_MASKS, DIM_WIDTH)[:, None, :] | _masks(count, frames, TIME_MASKS, TIME_WIDTH)[:, :, None]
    padded = padded.masked_fill(zeros.to(x.device), 0.0)
    return torch.cat([line[:length] for line, length in zip(padded, lengths.tolist(), strict=True)])


def _warped(x: Tensor) -> Tensor:
    """(frames, dim) -> the same, its frames before `centre` brought to `moved` of them, those after it to the rest (bicubic)."""
    frames = len(x)
    if frames <= 2 * WARP:
        return x
    centre = int(torch.randint(WARP, frames - WARP, ()))
    moved = int(torch.randint(centre - WARP, centre + WARP, ())) + 1
    sizes = ((x[:centre], moved), (x[centre:], frames - moved))
    return torch.cat([F.interpolate(part[None, None], (size, x.shape[1]), mode="bicubic")[0, 0] for part, size in sizes])


def _masks(count: int, size: int, masks: int, width: int) -> Tensor:
    """(count, size) bool: `masks` spans each, of 0 to width - 1."""
    widths = torch.randint(0, width, (count, masks, 1))
    starts = torch.randint(0, max(1, size - int(widths.max())), (count, masks, 1))
    places = torch.arange(size)
    return ((starts <= places) & (places < starts + widths)).any(1)
