"""Stochastic compression: plain wav2vec 2.0 at factors 1, 1, 1, and at every other combination lengths, padding and gradients hold."""

import copy

import pytest
import torch

from sslrepro.config import (
    CompressionSettings,
    EncoderSettings,
    Factors,
    ModelSettings,
    PositionSettings,
    WaveformFrontEnd,
    parse,
)
from sslrepro.errors import UserError
from sslrepro.models import Upstream
from sslrepro.models.compression import pool
from sslrepro.models.padding import Padding

FRONT_END = WaveformFrontEnd(channels=[8] * 4, kernels=[10, 4, 4, 4], strides=[5, 4, 4, 4], padding=[0] * 4)
SETS = {"squeeze_factors": [1, 2, 3, 4], "query_factors": [1, 2], "key_value_factors": [1, 2, 4]}
CHOICES = CompressionSettings(kind="stochastic", **SETS).choices
LAYOUTS = [("transformer", "post"), ("transformer", "pre"), ("conformer", "pre"), ("branchformer", "pre")]


def build(compression: dict | None = None, **changes) -> Upstream:
    torch.manual_seed(0)
    values = {"layers": 2, "width": 16, "ffn": 24, "heads": 2, "conv_kernel": 5, "position": PositionSettings(kernel=128, groups=4)}
    encoder = EncoderSettings(**values | changes, compression=CompressionSettings(**compression or {}))
    return Upstream(ModelSettings(front_end=FRONT_END, encoder=encoder))


def stochastic(**changes) -> Upstream:
    return build({"kind": "stochastic", **SETS}, **changes)


def waveforms(rows: int = 2, samples: int = 6_000) -> torch.Tensor:
    return torch.randn(rows, samples, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("layout", "norm"), LAYOUTS)
@pytest.mark.parametrize("training", [False, True])
def test_at_one_it_is_plain_bit_for_bit(layout: str, norm: str, training: bool) -> None:
    """With the same weights, outputs and gradients; the weights that spread squeezed frames take no part."""
    dropped = {"dropout": 0.1 * training, "attention_dropout": 0.0, "layout": layout, "norm": norm}
    ours, plain = stochastic(**dropped).train(training), build(**dropped).train(training)
    weights = ours.state_dict()
    plain.load_state_dict({name: value for name, value in weights.items() if "upsample" not in name})
    outs = []
    for model in (ours, plain):
        torch.manual_seed(3)
        out = model(waveforms(), [6_000, 4_321])
        out.output.square().sum().backward()
        outs.append(out)
    for a, b in zip(outs[0].hidden_states, outs[1].hidden_states, strict=True):
        assert torch.equal(a, b)
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    assert all(torch.equal(gradients[name], p.grad) for name, p in plain.named_parameters() if p.grad is not None)
    assert gradients["encoder.upsample.proj.weight"] is None


@pytest.mark.parametrize("factors", CHOICES, ids=str)
def test_lengths_padding_and_gradients_at_every_choice(factors: Factors) -> None:
    upstream = stochastic().double().eval()
    with torch.no_grad():
        for parameter in upstream.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert upstream.set_compression(*factors) == factors
    shortest = [next(n for n in range(1, 9_000) if upstream.frames(n) == k) for k in (1, 2, 3, 5)]
    lengths = [12_000, 8_321, *shortest]
    noise = waveforms(len(lengths), 12_000).double()  # on padding too
    together = upstream(noise, lengths)
    inner = upstream.frames(12_000) // factors.squeeze
    assert all(state.shape == (6, inner, 16) for state in together.states[:-1])
    assert together.output.shape == (6, upstream.frames(12_000), 16)
    for row, samples in enumerate(lengths):
        alone = upstream(noise[row : row + 1, :samples])
        n = upstream.frames(samples)
        assert together.lengths[row] == n == alone.output.shape[1]
        for a, b in zip(together.hidden_states, alone.hidden_states, strict=True):
            torch.testing.assert_close(a[row, :n], b[0], rtol=1e-9, atol=1e-9)
    valid = together.padding.valid
    together.output[valid].square().sum().backward()
    for name, parameter in upstream.named_parameters():
        used = name != "mask_embedding" and (factors.squeeze > 1 or "upsample" not in name)
        assert (parameter.grad is not None and parameter.grad.abs().sum() > 0) == used, name


def test_pooled_attention_by_hand() -> None:
    """Queries of means of 2, keys and values of means of 4 over the true frames; what a query finds serves its frames."""
    upstream = build({"kind": "stochastic", "query": 2, "key_value": 4}).double().eval()
    mixer = upstream.encoder.layers[0].mixer
    upstream(waveforms().double())  # a forward sets the factors
    x = torch.randn(2, 7, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y = mixer(x, Padding.of([7, 5], 7, x.device))
    for row, n in ((0, 7), (1, 5)):
        queries = torch.stack([x[row, i : min(i + 2, n)].mean(0) for i in range(0, n, 2)])
        keys = torch.stack([x[row, i : min(i + 4, n)].mean(0) for i in range(0, n, 4)])
        q, k, v = (
            p(z).unflatten(-1, (2, 8)).transpose(0, 1) for p, z in ((mixer.q_proj, queries), (mixer.k_proj, keys), (mixer.v_proj, keys))
        )
        weights = (q @ k.transpose(1, 2) / 8**0.5).softmax(-1)
        wanted = mixer.out_proj((weights @ v).transpose(0, 1).flatten(1)).repeat_interleave(2, 0)[:n]
        torch.testing.assert_close(y[row, :n], wanted, rtol=1e-9, atol=1e-9)


def test_pool_counts_what_is_there() -> None:
    x = torch.arange(1.0, 6.0)[None, :, None].repeat(2, 1, 1)
    means, inner = pool(x, 2, Padding.of([5, 3], 5, x.device))
    assert means[0, :, 0].tolist() == [1.5, 3.5, 5.0] and means[1, :2, 0].tolist() == [1.5, 3.0]
    assert inner.lengths == (3, 2) and inner.size == 3
    assert pool(x[:, :4], 2, Padding.of([4, 4], 4, x.device))[0][0, :, 0].tolist() == [1.5, 3.5]


def test_repetition_at_first_and_a_place_of_its_own_later() -> None:
    upstream = stochastic().eval()
    upstream.set_compression(squeeze=3)
    out = upstream(waveforms())
    whole = upstream.frames(6_000) // 3 * 3
    groups = out.output[:, :whole].unflatten(1, (-1, 3))
    assert torch.equal(groups, out.states[-1][:, :, None].expand_as(groups))
    assert not out.output[:, whole:].any()
    torch.nn.init.normal_(upstream.encoder.upsample.proj.weight)
    groups = upstream(waveforms()).output[:, :whole].unflatten(1, (-1, 3))
    assert (groups[:, :, 0] - groups[:, :, 1]).abs().min() > 0


def test_the_position_convolution_has_one_weight_at_every_stride() -> None:
    position = stochastic().encoder.position
    x = torch.randn(1, 13, 16, generator=torch.Generator().manual_seed(4))
    whole = Padding.of([13], 13, x.device)
    every = position(x, whole)
    for stride in (2, 3, 4):
        torch.testing.assert_close(position(x, whole, stride), every[:, ::stride][:, : 13 // stride])


def test_draws_depend_on_the_key_alone_and_only_in_training() -> None:
    upstream = stochastic()
    seen = []
    for update in range(400):
        upstream.draw_compression(0, update)
        seen.append(upstream.train().encoder.factors)
        assert upstream.eval().encoder.factors == Factors()
    assert set(seen) == set(CHOICES) and len(CHOICES) == 24
    counts = [seen.count(choice) for choice in CHOICES]
    assert sum((n - 400 / 24) ** 2 / (400 / 24) for n in counts) < 49.7  # chi-squared, 23 degrees of freedom, p = 0.001
    other = copy.deepcopy(upstream)
    other.draw_compression(0, 17)
    assert other.train().encoder.factors == seen[17]
    other.draw_compression(1, 17)
    still = build({"kind": "stochastic", "squeeze": 2, "sampled": False})
    still.draw_compression(0, 17)
    assert still.train().encoder.factors == Factors(2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "none", "squeeze": 2}, "squeeze 2 is not possible with kind 'none': only 1"),
        ({"kind": "fixed", "squeeze": 2, "query": 2}, "query 2 is not possible with kind 'fixed'"),
        ({"kind": "stochastic", "squeeze": 5}, "squeeze 5 is not possible with kind 'stochastic': only 1, 2, 3, 4"),
        ({"kind": "stochastic", "query_factors": []}, "query_factors"),
        ({"kind": "stochastic", "query_factors": [1, 1]}, "twice"),
        ({"kind": "stochastic", "squeeze_factors": [0, 1]}, "squeeze_factors.0"),
    ],
)
def test_bad_settings_are_named(settings: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse(CompressionSettings, settings, "compression")


def test_bad_factors_are_named() -> None:
    with pytest.raises(UserError, match="squeeze 5: not a factor of this model; it has: 1, 2, 3, 4"):
        stochastic().set_compression(squeeze=5)
    with pytest.raises(UserError, match="query 0: not a factor"):
        stochastic().set_compression(query=0)
    for value in (2.0, True):
        with pytest.raises(UserError, match=f"squeeze {value}: a factor is a whole number"):
            stochastic().set_compression(squeeze=value)
    with pytest.raises(UserError, match="built with compression 'none'"):
        build().set_compression(squeeze=2)
    with pytest.raises(UserError, match="'fixed'"):
        build({"kind": "fixed", "squeeze": 2}).set_compression(squeeze=1)
