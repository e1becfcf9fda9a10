"""Segments of variable length: by hand, at rate 1 the plain model, and one set of weights at any rate of a range."""

import pytest
import torch

from sslrepro.config import CompressionSettings, EncoderSettings, LogMelFrontEnd, ModelSettings, PositionSettings, parse, segment_count
from sslrepro.errors import UserError
from sslrepro.models import Upstream
from sslrepro.models.padding import Padding
from sslrepro.models.segments import Segmenter, segments_of
from sslrepro.training.ranks import fixed_order


def whole(frames: int, rows: int = 1) -> Padding:
    return Padding.of([frames] * rows, frames, torch.device("cpu"))


def build(norm: str = "pre", **compression) -> Upstream:
    torch.manual_seed(0)
    encoder = EncoderSettings(
        layers=2, width=16, ffn=24, heads=2, norm=norm, dropout=0.0, attention_dropout=0.0, position=PositionSettings(kernel=8, groups=4),
        compression=CompressionSettings(**compression),
    )  # fmt: skip
    return Upstream(ModelSettings(front_end=LogMelFrontEnd(mels=12), encoder=encoder, dropout_input=0.0))


def test_by_hand() -> None:
    """Weights 0.5, 0.5, 0.8, 0.2, 0.6, 0.4 sum to three segments as they are: two frames each."""
    segments = segments_of(torch.tensor([[0.5, 0.5, 0.8, 0.2, 0.6, 0.4]]).double(), whole(6), 2.0)
    wanted = [[0.5, 0.5, 0, 0, 0, 0], [0, 0, 0.8, 0.2, 0, 0], [0, 0, 0, 0, 0.6, 0.4]]
    torch.testing.assert_close(segments.shares[0], torch.tensor(wanted).double())
    x = torch.tensor([[1.0, 3.0, 10.0, 20.0, -1.0, 4.0]]).double()[..., None]
    torch.testing.assert_close(segments.average(x)[0, :, 0], torch.tensor([2.0, 12.0, 1.0]).double())
    back = segments.spread(torch.tensor([[[7.0], [8.0], [9.0]]]).double())
    torch.testing.assert_close(back[0, :, 0], torch.tensor([7.0, 7, 8, 8, 9, 9]).double())


def test_in_a_fixed_order_they_are_the_same() -> None:
    weights = torch.rand(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    wanted = segments_of(weights, whole(50, 2), 2.4).shares
    with fixed_order(True):
        torch.testing.assert_close(segments_of(weights, whole(50, 2), 2.4).shares, wanted)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_frame_across_a_boundary_is_in_both() -> None:
    """Weights 1, 2, 1 scaled to the sum 2: 0.5, 1, 0.5; the middle frame belongs to both segments and reads their mean."""
    segments = segments_of(torch.tensor([[1.0, 2.0, 1.0]]).double(), whole(3), 1.5)
    torch.testing.assert_close(segments.shares[0], torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]).double())
    back = segments.spread(torch.tensor([[[2.0], [4.0]]]).double())
    torch.testing.assert_close(back[0, :, 0], torch.tensor([2.0, 3.0, 4.0]).double())


def test_no_frame_is_more_than_a_segment_and_padding_is_none() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(3, 40, generator=generator, dtype=torch.float64) ** 4 + 1e-3  # uneven
    padding = Padding.of([40, 17, 1], 40, weights.device)
    for rate in (1.0, 1.2, 2.0, 7.3, 40.0):
        segments = segments_of(weights, padding, rate)
        for row, frames in enumerate(padding.lengths):
            n = segment_count(frames, rate)
            assert segments.padding.lengths[row] == n
            shares = segments.shares[row]
            torch.testing.assert_close(shares[:n, :frames].sum(1), torch.ones(n).double())
            torch.testing.assert_close(shares[:n, :frames].sum(0), segments.weights[row, :frames])
            assert not shares[n:, :frames].any() or shares[n:].abs().max() < 1e-12
            assert not shares[:, frames:].any() and segments.weights[row, :frames].max() <= 1 + 1e-9
        assert segments.average(torch.ones(3, 40, 1).double())[1, : segment_count(17, rate)].allclose(torch.ones(1).double())


def test_segments_are_short_where_the_input_changes() -> None:
    """Ten frames that stand still, then ten that alternate: most of the five segments are in the second half."""
    x = torch.zeros(1, 20, 8)
    x[0, 10::2] = 1.0
    segmenter = Segmenter(8)
    segmenter.initialise()
    weights = segmenter(x, whole(20), 4.0).weights[0].detach()
    assert weights.sum() == pytest.approx(5)
    assert weights[11:].min() > 2 * weights[:10].max()


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_at_rate_one_it_is_plain(norm: str) -> None:
    ours, plain = build(norm, kind="variable", rate=1.0).eval(), build(norm).eval()
    plain.load_state_dict({name: value for name, value in ours.state_dict().items() if "segmenter" not in name})
    waveforms = torch.randn(2, 6_000, generator=torch.Generator().manual_seed(1))
    a, b = ours(waveforms, [6_000, 4_321]), plain(waveforms, [6_000, 4_321])
    valid = b.padding.valid
    for state, wanted in zip(a.hidden_states, b.hidden_states, strict=True):
        torch.testing.assert_close(state[valid], wanted[valid])


def test_shapes_and_gradients() -> None:
    upstream = build(kind="variable", rate=2.5)
    output = upstream(torch.randn(2, 16_000, generator=torch.Generator().manual_seed(1)))
    frames = output.output.shape[1]
    assert all(state.shape == (2, segment_count(frames, 2.5), 16) for state in output.states)
    assert all(state.shape == (2, frames, 16) for state in output.hidden_states)
    output.output.square().sum().backward()
    assert upstream.encoder.segmenter.change.weight.grad.abs().sum() > 0, "boundaries are learned from the objective"


def test_the_gradient_of_a_boundary() -> None:
    """Moving weight from one frame to the next, against finite differences."""
    weights = torch.rand(1, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64).add(0.2).requires_grad_(True)
    x = torch.randn(1, 7, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def through(w: torch.Tensor) -> torch.Tensor:
        segments = segments_of(w, whole(7), 2.4)
        return segments.spread(segments.average(x).tanh())

    assert torch.autograd.gradcheck(through, weights)


def test_a_rate_is_drawn_for_training_and_chosen_for_use() -> None:
    upstream = build(kind="variable", rate=2.0, rates=[1.5, 4.0])
    rates = []
    for update in range(300):
        upstream.draw_compression(0, update)
        rates.append(upstream.train().encoder.rate)
        assert upstream.eval().encoder.rate == 2.0
    assert 1.5 <= min(rates) < 1.6 and 3.9 < max(rates) <= 4.0 and len(set(rates)) == 300
    assert sum(rates) / 300 == pytest.approx(2.75, abs=0.15)
    again = build(kind="variable", rate=2.0, rates=[1.5, 4.0])
    again.draw_compression(0, 17)
    assert again.train().encoder.rate == rates[17]
    upstream.set_compression(rate=3.0)
    waveforms = torch.randn(1, 8_000, generator=torch.Generator().manual_seed(1))
    output = upstream.eval()(waveforms)
    assert output.states[0].shape[1] == segment_count(output.output.shape[1], 3.0)
    with pytest.raises(UserError, match=r"rate 5 is outside the range of rates 1\.5 to 4, for which this model was trained"):
        upstream.set_compression(rate=5.0)
    with pytest.raises(UserError, match="'variable'"):
        upstream.set_compression(squeeze=2)
    with pytest.raises(UserError, match="a rate can be set"):
        build(kind="variable", rate=2.0).set_compression(rate=3.0)
    fixed = build(kind="variable", rate=2.0)
    fixed.draw_compression(0, 17)
    assert fixed.train().encoder.rate == 2.0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "variable", "rate": 0.5}, "rate"),
        ({"kind": "variable", "squeeze": 2}, "squeeze 2 is not possible with kind 'variable': only 1"),
        ({"kind": "fixed", "squeeze": 2, "rate": 2.0}, "rate and rates are of kind 'variable', not 'fixed'"),
        ({"kind": "variable", "rate": 5.0, "rates": [1.0, 4.0]}, "rate 5 is outside the range of rates 1 to 4"),
        ({"kind": "variable", "rates": [4.0, 1.0]}, "not a range"),
    ],
)
def test_bad_settings_are_named(settings: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse(CompressionSettings, settings, "compression")
