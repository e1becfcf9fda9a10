"""SEW's head: batch norm over the frames that are there, and nothing of padding."""

import pytest
import torch
from torch import nn

from sslrepro.objectives.mlp_head import FrameNorm, MLPHead

VALID = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])


def test_it_is_batch_norm_of_the_valid_frames() -> None:
    ours, theirs = FrameNorm(3), nn.BatchNorm1d(3)
    for step in range(3):
        x = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(step)) * 2 + 1
        torch.testing.assert_close(ours(x, VALID)[VALID], theirs(x[VALID]))
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
    torch.testing.assert_close(ours.eval()(x, VALID)[VALID], theirs.eval()(x[VALID]))


@pytest.mark.parametrize("training", [True, False])
def test_padding_changes_nothing(training: bool) -> None:
    head = MLPHead(4, 8, 5).train(training)
    x = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    wanted = head(x, VALID)[VALID]
    other = torch.where(VALID[..., None], x, torch.full_like(x, 100.0))
    assert torch.equal(head(other, VALID)[VALID], wanted)
    assert {name: tuple(p.shape) for name, p in head.named_parameters()} == {
        "up.weight": (8, 4), "norm.weight": (8,), "norm.bias": (8,), "down.weight": (5, 8), "down.bias": (5,),
    }  # fmt: skip
