"""Cheap dropout drops the right share, scales the rest by it, follows the seed, and its gradient sees the same elements."""

import pytest
import torch

from sslrepro.models.dropout import Dropout


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_share_scale_and_gradient(share, dtype):
    torch.manual_seed(0)
    x = torch.ones(1000, 1003, dtype=dtype, requires_grad=True)
    y = Dropout(share)(x)
    gone = y == 0
    assert gone.float().mean().item() == pytest.approx(share, abs=3e-3)
    assert gone.float().mean(0).std().item() == pytest.approx((share * (1 - share) / 1000) ** 0.5, rel=0.1)  # independent along rows
    torch.testing.assert_close(y[~gone], torch.full_like(y[~gone], 1 / (1 - share)), rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=0)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_a_seed_decides_and_evaluation_drops_nothing():
    layer, x = Dropout(0.3), torch.randn(7, 13)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append((layer(x), layer(x)))
    assert torch.equal(drawn[0][0], drawn[1][0]) and not torch.equal(drawn[0][0], drawn[2][0])
    assert not torch.equal(*drawn[0])
    assert torch.equal(layer.eval()(x), x)
