"""The upstream: waveform → front end → projection → masked → context encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sslrepro.config import Factors, ModelSettings
from sslrepro.draws import Key, numpy_generator
from sslrepro.errors import UserError
from sslrepro.models.dropout import Dropout
from sslrepro.models.encoder import Encoder, Spread
from sslrepro.models.front_end import build_front_end
from sslrepro.models.linear import Linear
from sslrepro.models.logmel import SAMPLE_RATE
from sslrepro.models.norms import standardise
from sslrepro.models.padding import Padding


@dataclass(frozen=True)
class UpstreamOutput:
    """`output` (batch, frames, dim): what objectives and heads read.

    `features` (batch, frames, channels): the front end's output; `normed`: after the layer norm (the same tensor
    without one).
    `lengths` (batch,): true frames, on the host; `padding.valid` has them as a mask on the device (None: no padding).
    `states`: the encoder's input, then each layer's output, at the encoder's own rate; the last one of a pre-norm
    encoder is after the final norm. Values on padding frames mean nothing. `spread` brings one of them to the frame
    rate (None: they are at it).
    """

    output: Tensor
    states: list[Tensor]
    features: Tensor
    normed: Tensor
    lengths: Tensor
    padding: Padding
    spread: Spread | None = None

    @property
    def hidden_states(self) -> list[Tensor]:
        """`states` as `(batch, frames, dim)`: with compression, each is spread over the frames that it stands for and
        the last is the upsampled output.
        """
        if self.output is self.states[-1]:
            return self.states
        return [self.spread(state) for state in self.states[:-1]] + [self.output]


class Upstream(nn.Module):
    """Any composition of front end, layout, mixer and compression, from its settings.

    `padding: exact` (default): every valid frame is as if its utterance were alone. `padding: peer`: as transformers
    and fairseq, where the first layer's group norm takes its statistics over the padded length.

    The projection exists only where the front end's channels differ from the encoder's width (fairseq's and SEW's
    rule).
    """

    def __init__(self, settings: ModelSettings):
        super().__init__()
        self.settings = settings
        self.exact = settings.padding == "exact"
        self.front_end = build_front_end(settings.front_end)
        self.feature_dim = self.front_end.dim
        self.frame_rate = SAMPLE_RATE / self.front_end.hop
        encoder = settings.encoder
        self.dim = self.feature_dim if encoder is None else encoder.width
        self.feature_norm = nn.LayerNorm(self.feature_dim) if settings.feature_norm and encoder else None
        self.encoder = None if encoder is None else Encoder(encoder, self.exact)
        self.proj = Linear(self.feature_dim, self.dim) if self.feature_dim != self.dim else None
        self.dropout_input = Dropout(settings.dropout_input)
        learned = encoder is not None and settings.mask_embedding == "learned"
        self.mask_embedding = nn.Parameter(torch.rand(self.dim)) if learned else None

    def frames(self, samples: int | Tensor) -> int | Tensor:
        """Frames of an utterance of so many samples; a tensor (on the host) gives a tensor."""
        if isinstance(samples, Tensor):
            return torch.tensor([self.front_end.frames(n) for n in samples.tolist()], dtype=torch.long)
        return self.front_end.frames(samples)

    def forward(
        self,
        waveforms: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        mask: Tensor | None = None,
        layer_keep: Tensor | Sequence[bool] | None = None,
        alter: Callable[[Tensor], Tensor] | None = None,
    ) -> UpstreamOutput:
        """`waveforms` (batch, samples); `lengths` (batch,) true samples and `layer_keep` (layers,) bool, both on the
        host (None: all); `mask` (batch, frames) bool, true where the encoder must not see. A layer that is not kept
        passes its input on. `alter` changes the front end's output (batch, frames, channels) on its way.

        Raises UserError when an utterance is too short for one frame.
        """
        size = waveforms.shape[1]
        samples = [size] * len(waveforms) if lengths is None else [int(n) for n in lengths]
        frames = [self.front_end.frames(n) for n in samples]
        if min(frames) < 1:
            raise UserError(f"an utterance of {min(samples)} samples is too short for one frame of this front end")
        padding = Padding.of(frames, self.front_end.frames(size), waveforms.device)
        features, normed = self.front(waveforms, samples, alter)
        length_tensor = torch.tensor(frames, dtype=torch.long)
        if self.encoder is None:
            if mask is not None:
                raise UserError("model.encoder is null: there is nothing to train by masking; use objective 'none'")
            return UpstreamOutput(features, [features], features, normed, length_tensor, padding)
        x = self._masked_input(normed, mask)
        keep = [True] * len(self.encoder.layers) if layer_keep is None else [bool(k) for k in layer_keep]
        states, output, spread = self.encoder(x, padding, keep)
        return UpstreamOutput(output, states, features, normed, length_tensor, padding, spread)

    def set_compression(
        self, squeeze: int | None = None, query: int | None = None, key_value: int | None = None, rate: float | None = None
    ) -> Factors:
        """What the model runs at from now on; what is not given stays. `rate` is of a model with segments of variable
        length, the factors of one with stochastic compression. Returns the factors.

        Raises UserError for a model without compression to choose, and for a factor or rate that it was not trained for.
        """
        compression = None if self.encoder is None else self.encoder.settings.compression
        if compression is not None and compression.rates is not None and rate is not None and (squeeze, query, key_value) == (None,) * 3:
            try:
                compression.check_rate(rate)
            except ValueError as error:
                raise UserError(f"{error}, for which this model was trained") from None
            self.encoder.fixed_rate = rate
            return self.encoder.fixed
        if rate is not None:
            raise UserError(
                "a rate can be set where the model was built with compression 'variable' and a range of rates, and nothing else"
            )
        if compression is None or compression.kind != "stochastic":
            kind = "none" if compression is None else compression.kind
            raise UserError(f"this model was built with compression {kind!r}; factors can be set where it is 'stochastic'")
        given = {"squeeze": squeeze, "query": query, "key_value": key_value}
        for name, value in given.items():
            allowed = getattr(compression, f"{name}_factors")
            if value is not None and type(value) is not int:  # 2.0 and True equal a factor
                raise UserError(f"{name} {value!r}: a factor is a whole number")
            if value is not None and value not in allowed:
                raise UserError(f"{name} {value!r}: not a factor of this model; it has: {', '.join(map(str, allowed))}")
        self.encoder.fixed = self.encoder.fixed._replace(**{name: value for name, value in given.items() if value is not None})
        return self.encoder.fixed

    @property
    def choices(self) -> list[Factors]:
        """Every combination of factors that this model was trained for, where there is a choice; else none."""
        compression = None if self.encoder is None else self.encoder.settings.compression
        return compression.trained if compression is not None and compression.kind == "stochastic" and compression.sampled else []

    def draw_compression(self, *key: Key) -> None:
        """Draw from a counter what training mode runs at until the next draw: each factor uniformly from its set, or the
        rate uniformly from its range. Nothing happens where neither is sampled.
        """
        compression = None if self.encoder is None else self.encoder.settings.compression
        if compression is not None and compression.rates is not None:
            self.encoder.drawn_rate = float(numpy_generator(*key, "compression").uniform(*compression.rates))
        if choices := self.choices:
            self.encoder.drawn = choices[numpy_generator(*key, "compression").integers(len(choices))]

    def front(
        self, waveforms: Tensor, lengths: Tensor | Sequence[int], alter: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The front end alone: its output (batch, frames, channels), before and after the layer norm."""
        features = self._features(waveforms, [int(n) for n in lengths])
        features = features if alter is None else alter(features)
        return features, features if self.feature_norm is None else self.feature_norm(features)

    def _features(self, waveforms: Tensor, samples: list[int]) -> Tensor:
        padding = Padding.of(samples, waveforms.shape[1], waveforms.device)
        if self.settings.normalize_waveform:
            waveforms = standardise(waveforms, padding, eps=1.0e-7)  # transformers' feature extractor
        elif self.exact and padding.valid is not None:
            waveforms = waveforms.masked_fill(~padding.valid, 0.0)
        scale = self.settings.feature_grad_mult
        with torch.set_grad_enabled(torch.is_grad_enabled() and scale > 0):
            features = self.front_end(waveforms, samples, self.exact)
        return features if scale in (0.0, 1.0) else _ScaleGradient.apply(features, scale)

    def _masked_input(self, normed: Tensor, mask: Tensor | None) -> Tensor:
        """Projection, dropout, mask. Learned mask: its vector replaces projected frames (wav2vec 2.0); zero: frames
        before the projection (MelHuBERT)."""
        if mask is not None and self.mask_embedding is None:
            normed = normed.masked_fill(mask[:, :, None], 0.0)
        x = normed if self.proj is None else self.proj(normed)
        x = self.dropout_input(x)
        if mask is not None and self.mask_embedding is not None:
            x = torch.where(mask[:, :, None], self.mask_embedding.to(x.dtype), x)
        return x


class _ScaleGradient(torch.autograd.Function):
    """The identity, with its gradient scaled: wav2vec 2.0's slower front end."""

    @staticmethod
    def forward(ctx, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.scale, None
