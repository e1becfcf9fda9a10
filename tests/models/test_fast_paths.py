"""What the processor computes in its own way is what torch's modules compute: outputs and gradients, in double precision."""

import copy

import pytest
import torch
import torch.nn.functional as F

from sslrepro.config import WaveformFrontEnd
from sslrepro.models.activated import activated_linear
from sslrepro.models.activation import Activation
from sslrepro.models.blocks import BlockMLP, join, split
from sslrepro.models.dropout import drop, kept
from sslrepro.models.dropped_attention import _pieces, dropped_attention
from sslrepro.models.front_end import build_front_end
from sslrepro.models.linear import add_product, by_blocks, linear
from sslrepro.models.padding import Padding
from sslrepro.models.position import ConvPosition

EXACT = {"rtol": 1e-9, "atol": 1e-11}


def gradients(value: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(value.dtype)
    return list(torch.autograd.grad((value * weights).sum(), inputs))


def check(ours: torch.Tensor, wanted: torch.Tensor, inputs: list[torch.Tensor], **tolerance: float) -> None:
    torch.testing.assert_close(ours, wanted, **tolerance)
    for got, expected in zip(gradients(ours, inputs), gradients(wanted, inputs), strict=True):
        torch.testing.assert_close(got, expected, **tolerance)


@pytest.mark.parametrize("strides", [[5, 2, 2], [5, 1, 2]], ids=str)
@pytest.mark.parametrize("lengths", [[2_000, 2_000], [2_000, 1_333, 47]], ids=["whole", "padded"])
def test_packed_convolutions(strides, lengths):
    torch.manual_seed(0)
    settings = WaveformFrontEnd(channels=[6, 5, 4], kernels=[10, 3, 2], strides=strides, padding=[0] * 3)
    front = build_front_end(settings).double()
    front.stack.blocks[0].norm.weight.data.uniform_(0.5, 2.0)
    front.stack.blocks[0].norm.bias.data.normal_()
    waveforms = torch.randn(len(lengths), max(lengths), dtype=torch.float64) + 0.3  # an offset, which the norm takes out
    for row, n in enumerate(lengths):
        waveforms[row, n:] = 0.0
    fast = front(waveforms, lengths, exact=True)
    slow = front.stack(waveforms[:, None], lengths, exact=True)
    frames = [front.frames(n) for n in lengths]
    fast, slow = (torch.cat([row[:n] for row, n in zip(x, frames, strict=True)]) for x in (fast, slow))
    check(fast, slow, list(front.parameters()), **EXACT)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "swish"])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_activation_and_linear_in_one(activation, share):
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 7, 5), (3, 5), (3,)))
    torch.manual_seed(1)
    ours = activated_linear(x, weight, bias, activation, share)
    wide = F.silu(x) if activation == "swish" else F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
    torch.manual_seed(1)
    wide = drop(wide, kept(x.shape, share), share) if share else wide
    check(ours, F.linear(wide, weight, bias), [x, weight, bias], **EXACT)


@pytest.mark.parametrize("padded", [False, True])
def test_attention_with_dropout(padded):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 9, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    valid = (torch.arange(9) < torch.tensor([[9], [5]]))[:, None, None, :] if padded else None
    torch.manual_seed(1)
    ours = dropped_attention(q, k, v, valid, 0.2)
    scores = q @ k.transpose(-2, -1) / 2
    scores = scores if valid is None else scores.masked_fill(~valid, -torch.inf)
    torch.manual_seed(1)
    check(ours, drop(scores.softmax(-1), kept((2, 3, 9, 9), 0.2), 0.2) @ v, [q, k, v], **EXACT)


@pytest.mark.parametrize("padded", [False, True])
def test_attention_with_dropout_in_bfloat16(padded):
    """Within 2 % of double precision on the same numbers, outputs and gradients, in the norm of the difference."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 90, 16, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    valid = (torch.arange(90) < torch.tensor([[90], [50]]))[:, None, None, :] if padded else None
    torch.manual_seed(1)
    ours = dropped_attention(q, k, v, valid, 0.2)
    assert ours.dtype == torch.bfloat16
    torch.manual_seed(1)
    wanted = dropped_attention(*(x.double() for x in (q, k, v)), valid, 0.2)
    pairs = zip([ours, *gradients(ours, [q, k, v])], [wanted, *gradients(wanted, [q, k, v])], strict=True)
    for got, expected in pairs:
        assert (got.double() - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("library", ["onednn", "mkl"])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_with_dropout_by_heads(padded, library, request):
    """One head at a time, or a few."""
    request.getfixturevalue(library)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 300, 768, requires_grad=True) for _ in range(3))  # twelve heads, as linears give them
    heads = [x.unflatten(-1, (12, -1)).transpose(1, 2) for x in (q, k, v)]
    assert len(list(_pieces(*heads[:2]))) == (24 if library == "onednn" else 4)
    valid = (torch.arange(300) < torch.tensor([[300], [180]]))[:, None, None, :] if padded else None
    torch.manual_seed(1)
    ours = dropped_attention(*heads, valid, 0.2)
    torch.manual_seed(1)
    wanted = dropped_attention(*(x.double() for x in heads), valid, 0.2)
    check(ours, wanted.float(), [q, k, v], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("library", ["onednn", "mkl"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 7, 33), (2, 1100, 256)], ids=str)
def test_float32_products(shape, library, request):
    request.getfixturevalue(library)
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(s, requires_grad=True) for s in (shape, (256, shape[-1]), (256,)))
    check(linear(x, weight, bias), F.linear(x, weight, bias), [x, weight, bias], rtol=1e-4, atol=1e-3)
    assert linear(x[:0], weight, bias).shape == (0, *shape[1:-1], 256)


@pytest.mark.parametrize("library", ["onednn", "mkl"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_products_are_added_where_rows_have_gaps(dtype, library, request):
    request.getfixturevalue(library)
    torch.manual_seed(0)
    whole = torch.randn(1_100, 300)
    a, b = torch.randn(1_000, 320), torch.randn(256, 320)
    wanted = whole.clone()
    wanted[100:, :256] += a.to(dtype).float() @ b.to(dtype).float().T
    found = whole.to(dtype)
    add_product(found[100:, :256], a.to(dtype), b.to(dtype))
    tolerance = {"rtol": 1e-4, "atol": 1e-3} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 0.3}
    torch.testing.assert_close(found.float(), wanted, **tolerance)


@pytest.mark.parametrize("kernel", [32, 33, 128])
@pytest.mark.parametrize("frames", [1, 50, 199])
def test_long_position_convolutions(kernel, frames):
    """By transforms in float32, by torch's convolution in double precision."""
    torch.manual_seed(0)
    position = ConvPosition(24, kernel, 4, 1)
    x, padding = torch.randn(3, frames, 24, requires_grad=True), Padding.of([frames] * 3, frames, torch.device("cpu"))
    ours = position(x, padding)
    found = gradients(ours, [x, *position.parameters()])
    assert "GroupedConvolution" in names_behind(ours) and ours.shape == x.shape
    exact = copy.deepcopy(position).double()
    wide = x.detach().double().requires_grad_()
    wanted = exact(wide, padding)
    assert "GroupedConvolution" not in names_behind(wanted)
    torch.testing.assert_close(ours, wanted.float(), rtol=1e-4, atol=1e-5)
    for got, expected in zip(found, gradients(wanted, [wide, *exact.parameters()]), strict=True):
        torch.testing.assert_close(got, expected.float(), rtol=1e-4, atol=1e-4)


def names_behind(value: torch.Tensor) -> str:
    """Of the operations that made it."""
    names, left = [], [value.grad_fn]
    while left:
        node = left.pop()
        names.append(type(node).__name__)
        left += [earlier for earlier, _ in node.next_functions if earlier is not None]
    return " ".join(names)


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "swish"])
@pytest.mark.parametrize("averaged", [False, True], ids=["whole", "mean"])
def test_products_by_blocks(activation, averaged):
    """What comes back from a mean is one row for all frames, expanded."""
    torch.manual_seed(0)
    blocks, width = 3, 204
    mlp = BlockMLP(width, blocks, Activation(activation))
    for linear_by_blocks in (mlp.first, mlp.second):
        linear_by_blocks.bias.data.normal_()
    x = torch.randn(2, 1_250, width, requires_grad=True)
    groups, weight = split(x, blocks), mlp.first.weight
    assert by_blocks(groups, weight)
    assert not by_blocks(groups.double(), weight.double()) and not by_blocks(split(x[:, :300], blocks), weight)
    rows = x.flatten(0, 1)
    for part in (mlp.first, mlp.second):
        groups = zip(rows.chunk(blocks, dim=1), part.weight, part.bias, strict=True)
        rows = mlp.activation(torch.cat([group @ weight + bias for group, weight, bias in groups], dim=1))
    ours, wanted = join(mlp(split(x, blocks)), x), rows.view(x.shape)
    ours, wanted = (y.mean(1) if averaged else y for y in (ours, wanted))
    check(ours, wanted, [x, *mlp.parameters()], rtol=1e-4, atol=1e-4 if averaged else 1e-3)
    mlp.first.requires_grad_(False)
    frozen = torch.autograd.grad(join(mlp(split(x, blocks)), x).sum(), mlp.second.weight)
    assert frozen[0].shape == mlp.second.weight.shape
