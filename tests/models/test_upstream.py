"""What an upstream does with masks, dropped layers, scaled gradients and bad settings; published sizes."""

import pytest
import torch

from sslrepro.config import (
    CompressionSettings,
    EncoderSettings,
    LogMelConvFrontEnd,
    LogMelFrontEnd,
    ModelSettings,
    PositionSettings,
    QuantizerSettings,
    WaveformFrontEnd,
)
from sslrepro.errors import UserError
from sslrepro.models import Quantizer, Upstream

FRONT_END = WaveformFrontEnd(channels=[8] * 4, kernels=[10, 4, 4, 4], strides=[5, 4, 4, 4], padding=[0] * 4)
ENCODER = {"layers": 3, "width": 16, "ffn": 24, "heads": 2, "position": PositionSettings(kernel=8, groups=4)}


def build(encoder: dict | None = None, **model) -> Upstream:
    torch.manual_seed(0)
    settings = ModelSettings(**{"front_end": FRONT_END, "encoder": EncoderSettings(**ENCODER | (encoder or {})), **model})
    return Upstream(settings)


def waveforms(rows: int = 2, samples: int = 4_000) -> torch.Tensor:
    return torch.randn(rows, samples, generator=torch.Generator().manual_seed(1))


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_dropped_layer_passes_its_input_on(norm: str) -> None:
    upstream = build({"norm": norm}).eval()
    whole = upstream(waveforms())
    some = upstream(waveforms(), layer_keep=torch.tensor([True, False, True]))
    assert len(some.states) == 4
    assert torch.equal(some.states[2], some.states[1]) and torch.equal(some.states[1], whole.states[1])
    assert not torch.equal(some.output, whole.output)
    none = upstream(waveforms(), layer_keep=[False] * 3)
    wanted = none.states[0] if norm == "post" else upstream.encoder.norm(none.states[0])
    torch.testing.assert_close(none.output, wanted)


def test_learned_mask_hides_the_frame_and_only_the_front_end_of_others_matters() -> None:
    upstream = build({"position": PositionSettings(kind="none"), "layers": 1}).eval()
    frames = upstream.frames(4_000)
    mask = torch.ones(2, frames, dtype=torch.bool)
    a, b = upstream(waveforms(), mask=mask), upstream(-3 * waveforms(), mask=mask)
    torch.testing.assert_close(a.output, b.output)  # nothing of the input is left
    assert not torch.equal(a.features, b.features)  # but the targets are not masked
    mask[:, 1:] = False
    a = upstream(waveforms(), mask=mask)
    expected = upstream.encoder.norm(upstream.mask_embedding)
    torch.testing.assert_close(a.states[0][:, 0], expected.expand(2, -1))


def test_zero_mask_blanks_the_frame_before_the_projection() -> None:
    upstream = build({"position": PositionSettings(kind="none"), "norm": "pre"}, mask_embedding="zero").eval()
    assert upstream.mask_embedding is None
    mask = torch.zeros(2, upstream.frames(4_000), dtype=torch.bool)
    mask[:, 2] = True
    out = upstream(waveforms(), mask=mask)
    torch.testing.assert_close(out.states[0][:, 2], upstream.proj.bias.expand(2, -1))


def test_gradient_into_the_front_end_is_scaled() -> None:
    gradients = {}
    for scale in (1.0, 0.1, 0.0):
        upstream = build(feature_grad_mult=scale).eval()
        out = upstream(waveforms())
        (out.output.square().sum() + out.features.square().sum()).backward()
        gradients[scale] = upstream.front_end.stack.blocks[0].conv.weight.grad
        assert upstream.proj.weight.grad is not None
    torch.testing.assert_close(gradients[0.1], 0.1 * gradients[1.0])
    assert gradients[0.0] is None


def test_the_log_mel_floor_is_the_front_end_alone() -> None:
    floor = Upstream(ModelSettings(front_end=LogMelFrontEnd(mels=8), encoder=None))
    assert count(floor) == 0
    out = floor(waveforms(), torch.tensor([4_000, 2_000]))
    assert floor.dim == floor.feature_dim == 16 and floor.frame_rate == 50.0
    assert out.hidden_states == [out.features] and out.output is out.features
    with pytest.raises(UserError, match="nothing to train"):
        floor(waveforms(), mask=torch.zeros(2, floor.frames(4_000), dtype=torch.bool))


def test_compressed_states_at_the_frame_rate() -> None:
    upstream = build({"compression": CompressionSettings(kind="fixed", squeeze=5)}).eval()
    out = upstream(waveforms())
    frames = upstream.frames(4_000)
    assert out.states[1].shape[1] == frames // 5
    assert all(state.shape == (2, frames, 16) for state in out.hidden_states)
    assert torch.equal(out.hidden_states[1][:, 5:10], out.states[1][:, 1:2].expand(-1, 5, -1))
    assert torch.equal(out.hidden_states[-1], out.output)
    assert frames % 5 and not out.output[:, frames // 5 * 5 :].any()


def test_autocast_and_training_mode() -> None:
    for layout, norm in (("transformer", "post"), ("conformer", "pre"), ("branchformer", "pre")):
        upstream = build({"layout": layout, "norm": norm, "conv_kernel": 5}).train()
        mask = torch.zeros(2, upstream.frames(4_000), dtype=torch.bool)
        mask[:, 3:5] = True
        with torch.autocast("cpu", torch.bfloat16):
            out = upstream(waveforms(), [4_000, 3_000], mask=mask)
            out.output.float().square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in upstream.parameters())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: build({"layout": "conformer"}), "norm 'pre' only"),
        (lambda: build({"layout": "conformer", "norm": "pre", "conv_kernel": 4}), "must be odd"),
        (lambda: build({"position": PositionSettings(groups=3)}), "does not divide width"),
        (lambda: build({"layout": "branchformer", "norm": "pre", "ffn": 25}), "odd"),
        (lambda: build()(waveforms(samples=100)), "too short"),
    ],
)
def test_bad_settings_are_named(make, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()


def test_published_sizes() -> None:
    """wav2vec 2.0 base has 95.0 M parameters with its quantizer and projections, large 317 M; the MHSA Conformer 165.3 M."""
    with torch.device("meta"):
        heads = count(Quantizer(QuantizerSettings(), 512)) + 256 * 256 + 256
        base = count(Upstream(ModelSettings())) + heads + 768 * 256 + 256
        conformer = EncoderSettings(layout="conformer", norm="pre", activation="swish", position=PositionSettings(kind="sinusoidal"))
        upstream = Upstream(ModelSettings(front_end=LogMelConvFrontEnd(), encoder=conformer))
        mhsa = count(upstream) + heads + 768 * 256 + 256
        assert count(upstream.encoder.layers[0]) == 13_612_800
    assert round(base / 1e6, 1) == 95.0
    assert round(mhsa / 1e6, 1) == 165.3
