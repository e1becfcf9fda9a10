"""Every mixer against a plain, slow implementation of its paper's equations, one utterance and one frame at a time."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslrepro.budget.ops import fast_length, prime_factors
from sslrepro.config import EncoderSettings
from sslrepro.models.blocks import join, split
from sslrepro.models.mixers import MIXERS, build_mixer
from sslrepro.models.padding import Padding
from sslrepro.models.spectrum import convolve

WIDTH, HEADS = 12, 3
ACTIVATIONS = {"gelu": F.gelu, "swish": F.silu}


def layer_norm(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias


def blocks(x: Tensor, mlp, act) -> Tensor:
    """Two linears, each with its activation, of each group of channels alone."""
    for linear in (mlp.first, mlp.second):
        x = torch.cat([act(group @ w + b[0]) for group, w, b in zip(x.chunk(len(linear.weight)), linear.weight, linear.bias, strict=True)])
    return x


def attention(m, x: list[Tensor], act) -> list[Tensor]:
    q, k, v = ([layer(frame).chunk(HEADS) for frame in x] for layer in (m.q_proj, m.k_proj, m.v_proj))
    rows = []
    for t in range(len(x)):
        heads = []
        for h in range(HEADS):
            scores = torch.stack([q[t][h] @ k[u][h] / math.sqrt(WIDTH / HEADS) for u in range(len(x))])
            weights = scores.exp() / scores.exp().sum()
            heads.append(sum(w * v[u][h] for u, w in enumerate(weights)))
        rows.append(m.out_proj(torch.cat(heads)))
    return rows


def combined(m, local: list[Tensor], summaries: list[Tensor], act) -> list[Tensor]:
    weight = torch.cat([m.of_local.weight, m.of_summary.weight], dim=1)  # one linear of both, side by side
    rows = []
    for f, s in zip(local, summaries, strict=True):
        rows.append(act(weight @ torch.cat([layer_norm(f, m.local_norm), layer_norm(s, m.summary_norm)]) + m.of_summary.bias))
    return rows


def summary_mixing(m, x: list[Tensor], act) -> list[Tensor]:
    local = [blocks(frame, m.local, act) for frame in x]
    summary = [blocks(frame, m.summary, act) for frame in x]
    return combined(m, local, [sum(summary) / len(x)] * len(x), act)


def summary_mixing_lite(m, x: list[Tensor], act) -> list[Tensor]:
    summary = [blocks(frame, m.summary, act) for frame in x]
    return [layer_norm(sum(summary) / len(x), m.summary_norm)] * len(x)


def summary_mixing_fast(m, x: list[Tensor], act) -> list[Tensor]:
    both = [act(m.first(frame)).chunk(2) for frame in x]
    return combined(m, [f for f, _ in both], [sum(s for _, s in both) / len(x)] * len(x), act)


def summary_mixing_decay(m, x: list[Tensor], act) -> list[Tensor]:
    local = [blocks(frame, m.local, act) for frame in x]
    summary = [blocks(frame, m.summary, act) for frame in x]
    means = []
    for t in range(len(x)):
        weights = [0.995 ** abs(t - u) for u in range(len(x))]
        means.append(sum(w * s for w, s in zip(weights, summary, strict=True)) / sum(weights))
    return combined(m, local, means, act)


def fnet(m, x: list[Tensor], act) -> list[Tensor]:
    frames, rows = len(x), []
    for t in range(frames):
        values = []
        for c in range(WIDTH):
            total = 0.0
            for u in range(frames):
                angles = 2 * math.pi * (t * u / frames + c * torch.arange(WIDTH, dtype=torch.float64) / WIDTH)
                total = total + (angles.cos() * x[u]).sum()  # the real part: the signal is real
            values.append(total / math.sqrt(frames * WIDTH))
        rows.append(torch.stack(values))
    return rows


def sumformer(m, x: list[Tensor], act) -> list[Tensor]:
    total = sum(m.phi_last(act(m.phi_first(frame))) for frame in x) / len(x)
    weight = torch.cat([m.psi_frame.weight, m.psi_sum.weight], dim=1)
    return [m.psi_last(act(weight @ torch.cat([frame, total]) + m.psi_sum.bias)) for frame in x]


def hyena(m, x: list[Tensor], act) -> list[Tensor]:
    frames = len(x)
    projected = [m.qkv(frame) for frame in x]
    zero = torch.zeros(3 * WIDTH, dtype=x[0].dtype)
    mixed = []
    for t in range(frames):
        near = [projected[u] if 0 <= u < frames else zero for u in (t - 1, t, t + 1)]
        mixed.append(sum(m.short.weight[:, 0, i] * frame for i, frame in enumerate(near)) + m.short.bias)
    q, k, v = ([frame.chunk(3)[i] for frame in mixed] for i in range(3))

    def h(lag: int) -> Tensor:
        turns = [2 * math.pi * lag * band / 1000 for band in range(1, 9)]
        features = torch.tensor([lag / 1000, *map(math.sin, turns), *map(math.cos, turns)], dtype=x[0].dtype)
        hidden = (10 * m.filter.second((10 * m.filter.first(features)).sin())).sin()
        lengths = torch.linspace(0.3, 1.5, WIDTH) * 1000  # frames until one hundredth is left
        rates = (math.log(100) / lengths).to(x[0].dtype)
        energy = (1 + 2 * (-2 * rates).exp() / (1 - (-2 * rates).exp())).sqrt()  # of the window over all lags
        return m.filter.last(hidden) * (-rates * abs(lag)).exp() / energy

    rows = []
    for t in range(frames):
        far = sum(h(t - u) * k[u] * v[u] for u in range(frames))
        rows.append(m.out_proj(q[t] * (far + m.skip * k[t] * v[t])))
    return rows


REFERENCES = {
    "attention": attention, "unfused": attention, "summary_mixing": summary_mixing, "summary_mixing_lite": summary_mixing_lite,
    "summary_mixing_fast": summary_mixing_fast, "summary_mixing_decay": summary_mixing_decay, "fnet": fnet, "sumformer": sumformer,
    "hyena": hyena,
}  # fmt: skip


def build(name: str, activation: str = "gelu", width: int = WIDTH) -> torch.nn.Module:
    torch.manual_seed(0)
    mixer = build_mixer(EncoderSettings(width=width, heads=HEADS, ffn=8, mixer=name, activation=activation)).double().eval()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return mixer


def test_every_mixer_has_a_reference() -> None:
    assert REFERENCES.keys() == MIXERS.keys()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_a_padded_batch_equals_the_slow_reference(name: str, activation: str) -> None:
    """Outputs of valid frames, and gradients of input and weights; what lies on padding is noise."""
    mixer, lengths = build(name, activation), [9, 1, 6]
    x = torch.randn(3, 9, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 9, WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    inputs = [x, *mixer.parameters()]
    y = mixer(x, Padding.of(lengths, 9, x.device))
    wanted = [torch.stack(REFERENCES[name](mixer, list(x[row, :n]), ACTIVATIONS[activation])) for row, n in enumerate(lengths)]
    for row, n in enumerate(lengths):
        torch.testing.assert_close(y[row, :n], wanted[row], rtol=1e-7, atol=1e-7)
    mine = torch.autograd.grad(sum((y[row, :n] * weights[row, :n]).sum() for row, n in enumerate(lengths)), inputs)
    slow = torch.autograd.grad(sum((w * weights[row, : len(w)]).sum() for row, w in enumerate(wanted)), inputs)
    for a, b in zip(mine, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("width", [8, 9])
def test_half_of_the_channels_frequencies_is_the_whole_transform(width: int) -> None:
    x = torch.randn(2, 7, width, dtype=torch.float64)
    mixer = MIXERS["fnet"](EncoderSettings(width=width, heads=1))
    wanted = torch.fft.fft(torch.fft.fft(x, dim=2), dim=1).real / math.sqrt(7 * width)
    torch.testing.assert_close(mixer(x, Padding.of([7, 7], 7, x.device)), wanted)


@pytest.mark.parametrize("frames", [1, 2, 5, 64, 97])
def test_a_long_convolution_does_not_wrap_around(frames: int) -> None:
    x, kernel = torch.randn(1, frames, 2, dtype=torch.float64), torch.randn(2 * frames - 1, 2, dtype=torch.float64)
    wanted = torch.stack([sum(kernel[t - u + frames - 1] * x[0, u] for u in range(frames)) for t in range(frames)])
    torch.testing.assert_close(convolve(x, kernel)[0], wanted)
    assert max(prime_factors(fast_length(frames)), default=2) <= 5 and fast_length(frames) >= 2 * frames - 1


def test_every_mixer_but_the_linear_ones_sees_the_order_of_frames() -> None:
    """The mean forgets it: that is what SummaryMixing and Sumformer say, and what the decaying mean, FNet and Hyena do not."""
    x = torch.randn(1, 8, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    padding = Padding.of([8], 8, x.device)
    moved = {name: not torch.allclose(build(name)(x[:, order], padding), build(name)(x, padding)[:, order]) for name in MIXERS}
    assert {name for name, sees in moved.items() if sees} == {"summary_mixing_decay", "fnet", "hyena"}


def test_bfloat16_keeps_the_transforms_in_float32() -> None:
    x = torch.randn(2, 10, WIDTH)
    padding = Padding.of([10, 6], 10, x.device)
    for name in MIXERS:
        mixer = build(name).float()
        with torch.autocast("cpu", torch.bfloat16):
            half = mixer(x, padding)
        torch.testing.assert_close(half.float()[0], mixer(x, padding)[0], rtol=0.1, atol=0.15, msg=name)


def test_the_decaying_mean_of_doubles_is_exact() -> None:
    mixer = build("summary_mixing_decay")
    x = torch.randn(2, 300, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    padding = Padding.of([300, 200], 300, x.device)
    found = mixer.branches(x, padding)[1]
    s = join(mixer.summary(split(x, mixer.blocks)), x)
    for row, length in enumerate(padding.lengths):
        at = torch.arange(length, dtype=torch.float64)
        weights = 0.995 ** (at[:, None] - at).abs()
        torch.testing.assert_close(found[row, :length], weights @ s[row, :length] / weights.sum(1, keepdim=True), rtol=0, atol=1e-12)
