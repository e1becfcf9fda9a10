"""In the default mode a padded batch is each utterance alone: outputs, features and gradients, for every composition."""

from itertools import product

import pytest
import torch

from sslrepro.config import (
    CompressionSettings,
    EncoderSettings,
    LogMelConvFrontEnd,
    LogMelFrontEnd,
    ModelSettings,
    PositionSettings,
    WaveformFrontEnd,
)
from sslrepro.models import Upstream
from sslrepro.models.mixers import MIXERS

WAVEFORM = {"channels": [8, 12, 12, 16], "kernels": [10, 4, 4, 4], "strides": [5, 4, 4, 4], "padding": [0] * 4}
FRONT_ENDS = {
    "group": WaveformFrontEnd(**WAVEFORM),
    "group-padded": WaveformFrontEnd(**WAVEFORM | {"padding": [3, 1, 1, 0]}),
    "layer-padded-pointwise": WaveformFrontEnd(**WAVEFORM | {"padding": [3, 1, 1, 0]}, norm="layer", bias=True, pointwise=True),
    "logmel": LogMelFrontEnd(mels=12),
    "logmel_conv": LogMelConvFrontEnd(mels=12, channels=[16, 16]),
}
POSITIONS = {
    "conv": PositionSettings(kernel=8, groups=4),
    "convs": PositionSettings(kernel=5, groups=4, layers=3),
    "sinusoidal": PositionSettings(kind="sinusoidal"),
}
LAYOUTS = {
    "post": ("transformer", "post"),
    "pre": ("transformer", "pre"),
    "conformer": ("conformer", "pre"),
    "branchformer": ("branchformer", "pre"),
}
CASES = [
    *product(FRONT_ENDS, ["post"], ["conv"], ["attention"], [1, 2]),
    *product(["group"], LAYOUTS, POSITIONS, ["attention"], [1, 3]),
    *product(["group"], LAYOUTS, ["conv"], sorted(set(MIXERS) - {"attention"}), [1, 2]),
    *product(["group"], LAYOUTS, ["conv"], ["attention", "summary_mixing"], [2.5]),  # segments of variable length
]


def build(front_end: str, layout: str, position: str, mixer: str, factor: float) -> Upstream:
    kind, norm = LAYOUTS[layout]
    if isinstance(factor, float):
        compression = CompressionSettings(kind="variable", rate=factor)
    else:
        compression = CompressionSettings(kind="fixed", squeeze=factor) if factor > 1 else CompressionSettings()
    encoder = EncoderSettings(
        layers=2, width=16, ffn=24, heads=2, layout=kind, norm=norm, mixer=mixer, conv_kernel=5,
        position=POSITIONS[position], compression=compression,
    )  # fmt: skip
    torch.manual_seed(0)
    settings = ModelSettings(front_end=FRONT_ENDS[front_end], encoder=encoder, normalize_waveform=layout == "post", feature_grad_mult=0.5)
    upstream = Upstream(settings).double().eval()
    with torch.no_grad():
        for parameter in upstream.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return upstream


def lengths_of(upstream: Upstream) -> list[int]:
    """The longest, one in the middle, and the shortest that has 1, 2 and 3 frames."""
    shortest = [next(n for n in range(1, 9_000) if upstream.frames(n) == k) for k in (1, 2, 3)]
    return [6_000, 4_321, *shortest]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_a_batch_is_each_utterance_alone(case: tuple) -> None:
    upstream = build(*case)
    lengths = lengths_of(upstream)
    generator = torch.Generator().manual_seed(1)
    waveforms = torch.randn(len(lengths), max(lengths), generator=generator, dtype=torch.float64)  # noise on padding too
    mask = torch.rand(len(lengths), upstream.frames(max(lengths)), generator=generator) < 0.2

    together = upstream(waveforms, torch.tensor(lengths), mask=mask)
    weights = [torch.randn(int(n), upstream.dim, generator=generator, dtype=torch.float64) for n in together.lengths]

    def loss(output, row: int, n: int, w: torch.Tensor) -> torch.Tensor:
        return sum((state[row, :n] * w).sum() for state in output.hidden_states) + output.features[row, :n].square().sum()

    total = sum(loss(together, row, int(n), w) for row, (n, w) in enumerate(zip(together.lengths, weights, strict=True)))
    parameters = list(upstream.parameters())
    batch_gradients = torch.autograd.grad(total, parameters, allow_unused=True)

    alone_total = 0.0
    for row, (samples, w) in enumerate(zip(lengths, weights, strict=True)):
        n = int(together.lengths[row])
        alone = upstream(waveforms[row : row + 1, :samples], mask=mask[row : row + 1, :n])
        assert alone.lengths.tolist() == [n] == [upstream.frames(samples)] and alone.output.shape[1] == n
        for name in ("output", "features", "normed"):
            torch.testing.assert_close(getattr(together, name)[row, :n], getattr(alone, name)[0], rtol=1e-9, atol=1e-9)
        for state, wanted in zip(together.hidden_states, alone.hidden_states, strict=True):
            torch.testing.assert_close(state[row, :n], wanted[0], rtol=1e-9, atol=1e-9)
        alone_total = alone_total + loss(alone, 0, n, w)
    for a, b in zip(batch_gradients, torch.autograd.grad(alone_total, parameters, allow_unused=True), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.isfinite().all()
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_peer_mode_leaks_and_exact_does_not() -> None:
    """The leak that `exact` removes is real: transformers' base form changes with more padding."""
    encoder = EncoderSettings(layers=1, width=16, ffn=24, heads=2, position=POSITIONS["conv"])
    waveform = torch.randn(1, 4_000, generator=torch.Generator().manual_seed(0)).double()
    longer = torch.nn.functional.pad(waveform, (0, 4_000))
    change = {}
    for mode in ("exact", "peer"):
        torch.manual_seed(0)
        upstream = Upstream(ModelSettings(front_end=FRONT_ENDS["group"], encoder=encoder, padding=mode)).double().eval()
        short = upstream(waveform).output
        change[mode] = (upstream(longer, [4_000]).output[:, : short.shape[1]] - short).abs().max().item()
    assert change["exact"] < 1e-12 and change["peer"] > 1e-2
