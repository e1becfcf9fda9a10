"""The models that are compared, and what they are fed: the same utterances, masks, negatives and labels for everybody."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import transformers as hf

from sslrepro.config import ContrastiveSettings, MaskedPredictionSettings, ModelSettings
from sslrepro.data.batching import UpdatePlan
from sslrepro.data.loading import Request, Shapes, collate
from sslrepro.draws import numpy_generator
from sslrepro.interop.pretraining import settings_from_pretraining
from sslrepro.interop.transformers_in import settings_from_transformers
from sslrepro.objectives.base import Batch, Objective

SAMPLE_RATE = 16_000
CLASSES = 100  # of the masked prediction
SMALL = {
    "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 1024, "conv_dim": [128] * 7,
    "codevector_dim": 128, "proj_codevector_dim": 128,
}  # fmt: skip
TINY = SMALL | {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "conv_dim": [16] * 7}  # for the tests
SIZES = {"base": {}, "small": SMALL, "tiny": TINY}
EVEN = [8.0] * 4  # seconds; one batch of four
BATCH_SECONDS = 32.0  # of audio in a batch of the uneven set, padding included where the library counts it


def peer_config(size: str) -> hf.Wav2Vec2Config:
    """transformers' defaults (dropout 0.1 in every place), but no layer is dropped: that would compare luck."""
    return hf.Wav2Vec2Config(layerdrop=0.0, **SIZES[size])


def our_settings(peer: str, size: str) -> tuple[ModelSettings, ContrastiveSettings | MaskedPredictionSettings]:
    """Ours as the peer has it; torchaudio's HuBERT drops nothing between the feed-forward's linears."""
    config = peer_config(size).to_dict()
    model = settings_from_transformers(config)
    if peer == "transformers":
        return model.model_copy(update={"feature_grad_mult": 1.0}), settings_from_pretraining(config)
    encoder = model.encoder.model_copy(update={"activation_dropout": 0.0})
    model = model.model_copy(update={"encoder": encoder, "dropout_input": 0.1})
    return model, MaskedPredictionSettings(classes=CLASSES, final_dim=256)


class Noise:
    """A corpus of white noise, and labels that mean nothing: the arithmetic is the same."""

    def __init__(self, seconds: Iterable[float]) -> None:
        self._lengths = [round(s * SAMPLE_RATE) for s in seconds]

    def name(self, index: int) -> str:
        return f"noise-{index}"

    def samples(self, index: int) -> int:
        return self._lengths[index]

    def audio(self, index: int, start: int, frames: int) -> np.ndarray:
        return numpy_generator("noise", index).standard_normal(frames, dtype=np.float32)

    def labels(self, index: int, start: int, frames: int, frame_step: int) -> np.ndarray:
        return numpy_generator("labels", index).integers(0, CLASSES, frames)


def uneven_seconds(size: str) -> list[float]:
    """Utterances of 2 to 16 seconds, spread evenly, in random order."""
    count = 8 if size == "base" else 16
    return numpy_generator("uneven").permutation(np.linspace(2.0, 16.0, count)).tolist()


def batches(objective: Objective, seconds: list[float], pieces: list[np.ndarray]) -> list[Batch]:
    """The pieces of this corpus as our loader lays them out."""
    corpus = Noise(seconds)
    shapes = Shapes(objective.upstream.frames, round(SAMPLE_RATE / objective.upstream.frame_rate))
    requests = [[Request(int(i), 0, corpus.samples(int(i)), ("bench", int(i))) for i in piece] for piece in pieces]
    return [collate(corpus, row, objective.draws, shapes, corpus) for row in requests]


def pieces_as(library: str, seconds: list[float]) -> list[np.ndarray]:
    """How each library's users batch utterances of different length.

    ours: micro-batches of a window sorted by length, dealt in random order. transformers (its pre-training example): so many at random.
    torchaudio (its HuBERT recipe): buckets by length, filled up to so many seconds.
    """
    lengths = np.array(seconds)
    if library == "ours":
        each = lengths.sum() / round(lengths.sum() / BATCH_SECONDS)  # so that the window is the whole set: nothing is left for the next
        plan = UpdatePlan(lengths, each, each, seed=0)
        return [piece for update in range(plan.window_updates) for piece in plan.update(update)]
    if library == "transformers":
        each = max(1, round(BATCH_SECONDS / lengths.mean()))
        return np.array_split(np.arange(len(lengths)), -(-len(lengths) // each))
    held: list[list[int]] = [[]]
    for index in np.argsort(lengths, kind="stable"):
        if held[-1] and lengths[[*held[-1], index]].sum() > BATCH_SECONDS:
            held.append([])
        held[-1].append(int(index))
    return [np.array(piece) for piece in held]


def peer_inputs(batch: Batch) -> dict[str, Any]:
    """What `Wav2Vec2ForPreTraining` takes, for our batch: places of the negatives count through all rows' frames."""
    size = batch.mask.shape[1]
    sampled = torch.zeros(*batch.mask.shape, batch.negatives.shape[2], dtype=torch.long)
    for row, count in enumerate(batch.host_masked_counts):
        places = batch.masked[row, :count]
        sampled[row, places] = places[batch.negatives[row, :count]] + row * size
    inputs = {"input_values": batch.waveforms, "mask_time_indices": batch.mask, "sampled_negative_indices": sampled}
    if len(set(batch.lengths.tolist())) > 1:
        inputs["attention_mask"] = (torch.arange(batch.waveforms.shape[1]) < batch.lengths[:, None]).long()
    return inputs
