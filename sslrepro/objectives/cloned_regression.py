"""data2vec 2.0 (Baevski 2022, arXiv 2212.07525, section 3): data2vec made cheap.

One pass of the teacher serves several masked clones of each utterance; the encoder runs on the frames that are not masked, alone; a small
convolutional decoder predicts the teacher's targets at the masked frames, from the encoded ones in their places and the mask vector
elsewhere. Targets and teacher are data2vec's (objectives.regression). Clones of an utterance have as many masked frames as its first mask:
single frames are added or freed at random. The position embedding reads the clone with zeros in the masked places. The paper's ALiBi and
its separate learning rate for the decoder are left out.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslrepro.config import ClonedRegressionSettings
from sslrepro.data.masking import mask_spans
from sslrepro.draws import numpy_generator
from sslrepro.models.padding import Padding
from sslrepro.models.upstream import Upstream, UpstreamOutput
from sslrepro.objectives.base import Batch, Key, LossOutput, Totals, take_frames, variance
from sslrepro.objectives.regression import Regression, regression_terms


class ConvDecoder(nn.Module):
    """Convolutions with layer norm (no weights), GELU and residuals, then one linear: (batch, frames, dim) -> the same."""

    def __init__(self, dim: int, layers: int, width: int, kernel: int) -> None:
        super().__init__()
        sizes = [dim] + [width] * layers
        self.convs = nn.ModuleList(nn.Conv1d(a, b, kernel, padding=kernel // 2) for a, b in pairwise(sizes))
        self.out = nn.Linear(width, dim)

    def forward(self, x: Tensor, padding: Padding) -> Tensor:
        x = x.transpose(1, 2)
        for conv in self.convs:
            y = conv(padding.zero(x, time=2)).transpose(1, 2)
            y = F.gelu(F.layer_norm(y, y.shape[-1:])).transpose(1, 2)
            x = x + y if x.shape == y.shape else y
        return self.out(x.transpose(1, 2))


class ClonedRegression(Regression):
    """data2vec 2.0 pre-training: upstream, teacher and decoder."""

    def __init__(self, settings: ClonedRegressionSettings, upstream: Upstream) -> None:
        super().__init__(settings, upstream)
        del self.final_proj
        self.decoder = ConvDecoder(upstream.dim, settings.decoder_layers, settings.decoder_width, settings.decoder_kernel)

    def forward(self, batch: Batch, totals: Totals) -> LossOutput:
        if self.training and totals.update == 0:
            self._follow(0.0)
        upstream, clones = self.upstream, self.settings.clones
        features, normed = upstream.front(batch.waveforms, batch.lengths)
        x = upstream._masked_input(normed, None)
        device, size = x.device, x.shape[1]
        padding = Padding.of(batch.host_frames, size, device)
        seen = UpstreamOutput(x, [x], features, normed, torch.tensor(batch.host_frames), padding)
        targets, spread = self.targets(seen)

        masks = [mask for key, n in zip(batch.keys, batch.host_frames, strict=True) for mask in clone_masks(self.settings, key, n)]
        wide = Padding.of([n for n in batch.host_frames for _ in range(clones)], size, device)
        hidden, covered = _places([~mask for mask in masks]), _places(masks)
        encoded, visible = self._encode(x.repeat_interleave(clones, 0), masks, hidden, wide, self.layer_keep(totals))

        filler = torch.zeros(upstream.dim, device=device) if upstream.mask_embedding is None else upstream.mask_embedding
        canvas = filler.to(encoded.dtype).expand(len(masks), size + 1, -1)  # one place more, where padding goes
        places = visible[..., None].expand(-1, -1, encoded.shape[-1])
        decoded = self.decoder(canvas.scatter(1, places, encoded)[:, :size], wide)

        at, count = covered
        valid = (torch.arange(at.shape[1]) < count[:, None]).to(device, non_blocking=True)
        at = at.to(device, non_blocking=True)
        predicted = take_frames(decoded, at)
        distance = regression_terms(predicted, take_frames(targets.repeat_interleave(clones, 0), at)) * valid
        with torch.no_grad():
            masked = valid.sum()
            sums = {
                "masked": masked,
                "distance": distance.sum(),
                "target_variance": spread * masked,
                "context_variance": variance(predicted, valid) * masked,
            }
        each = distance.view(-1, clones * distance.shape[1]).sum(1)
        utterances = {"nats": each, "correct": torch.zeros_like(each), "masked": valid.view(len(each), -1).sum(1)}
        return LossOutput(distance.sum() / (totals.masked * clones), sums, utterances)

    def _encode(
        self, x: Tensor, masks: list[np.ndarray], hidden: tuple[Tensor, Tensor], padding: Padding, layer_keep: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The encoder on the frames that are not masked (rows, most, dim), and where each belongs; `frames` where it is padding."""
        encoder = self.upstream.encoder
        if encoder.position is not None:
            mask = torch.zeros(x.shape[:2], dtype=torch.bool)
            for row, line in enumerate(masks):
                mask[row, : len(line)] = torch.from_numpy(line)
            x = x + encoder.position(padding.zero(x.masked_fill(mask.to(x.device, non_blocking=True)[..., None], 0.0)), padding)
        x = encoder.dropout(x if encoder.pre else encoder.norm(x))
        places, count = hidden
        inner = Padding.of(count.tolist(), places.shape[1], x.device)
        x = inner.zero(take_frames(x, places.to(x.device, non_blocking=True)))
        keep = [True] * len(encoder.layers) if layer_keep is None else layer_keep.tolist()
        for layer, kept in zip(encoder.layers, keep, strict=True):
            x = layer(x, inner) if kept else x
        beyond = torch.arange(places.shape[1]) >= count[:, None]
        return encoder.norm(x) if encoder.pre else x, places.masked_fill(beyond, padding.size).to(x.device, non_blocking=True)


def clone_masks(settings: ClonedRegressionSettings, key: Key, frames: int) -> list[np.ndarray]:
    """The masks (frames,) of an utterance's clones; the first is the objective's own draw, the others have as many masked frames."""
    first = mask_spans(settings.mask, frames, numpy_generator(*key, "mask"))
    return [first, *(_adjusted(settings, key, clone, frames, int(first.sum())) for clone in range(1, settings.clones))]


def _adjusted(settings: ClonedRegressionSettings, key: Key, clone: int, frames: int, count: int) -> np.ndarray:
    generator = numpy_generator(*key, "mask", clone)
    mask = mask_spans(settings.mask, frames, generator)
    excess = int(mask.sum()) - count
    chosen = generator.permutation(np.flatnonzero(mask if excess > 0 else ~mask))[: abs(excess)]
    mask[chosen] = excess < 0
    return mask


def _places(masks: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Where each row is true, (rows, most) padded with 0, and how often (rows,); at least one place a row, so that none is empty."""
    found = [np.flatnonzero(mask) for mask in masks]
    places = np.zeros((len(found), max(1, *map(len, found))), dtype=np.int64)
    for row, place in enumerate(found):
        places[row, : len(place)] = place
    return torch.from_numpy(places), torch.tensor([len(place) for place in found])
