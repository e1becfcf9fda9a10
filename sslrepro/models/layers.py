"""The Transformer layer and the feed-forward block that all layouts share."""

from __future__ import annotations

from torch import Tensor, nn

from sslrepro.config import EncoderSettings
from sslrepro.models.activated import activated_linear
from sslrepro.models.activation import Activation
from sslrepro.models.dropout import Dropout
from sslrepro.models.linear import Linear
from sslrepro.models.mixers import build_mixer
from sslrepro.models.padding import Padding


class FeedForward(nn.Module):
    """Linear to `ffn`, activation, linear back, both with bias: `(..., width)` → `(..., width)`."""

    def __init__(self, settings: EncoderSettings):
        super().__init__()
        self.up = Linear(settings.width, settings.ffn)
        self.activation = Activation(settings.activation)
        self.activation_dropout = Dropout(settings.activation_dropout)
        self.down = Linear(settings.ffn, settings.width)
        self.dropout = Dropout(settings.dropout)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.up(x)
        if wide.device.type == "cpu" and type(self.down) is Linear:  # not where an adapter stands in its place
            share = self.activation_dropout.p if self.training else 0.0
            return self.dropout(activated_linear(wide, self.down.weight, self.down.bias, self.activation.name, share))
        return self.dropout(self.down(self.activation_dropout(self.activation(wide))))


class TransformerLayer(nn.Module):
    """Mixer and feed-forward, each with a residual; layer norm after each sum (`post`, BERT, wav2vec 2.0 base) or
    before each block (`pre`, wav2vec 2.0 large). `(batch, frames, width)` → the same."""

    def __init__(self, settings: EncoderSettings):
        super().__init__()
        self.pre = settings.norm == "pre"
        self.mixer = build_mixer(settings)
        self.mixer_norm = nn.LayerNorm(settings.width)
        self.feed_forward = FeedForward(settings)
        self.feed_forward_norm = nn.LayerNorm(settings.width)
        self.dropout = Dropout(settings.dropout)

    def forward(self, x: Tensor, padding: Padding) -> Tensor:
        if self.pre:
            x = x + self.dropout(self.mixer(self.mixer_norm(x), padding))
            return x + self.feed_forward(self.feed_forward_norm(x))
        x = self.mixer_norm(x + self.dropout(self.mixer(x, padding)))
        return self.feed_forward_norm(x + self.feed_forward(x))
