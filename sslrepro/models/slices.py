"""A smaller upstream inside a larger one: each of its weights is the leading part of the larger one's of the same name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sslrepro.config import ModelSettings
from sslrepro.errors import UserError
from sslrepro.models.upstream import Upstream, UpstreamOutput


def leading(weights: Mapping[str, Tensor], small: nn.Module) -> dict[str, Tensor]:
    """Views of `weights` in the shapes of `small`'s parameters and buffers; gradients flow to the whole.

    Raises UserError naming the first that is not there or not large enough.
    """
    found = {}
    for name, wanted in (*small.named_parameters(), *small.named_buffers()):
        given = weights.get(name)
        if given is None or given.ndim != wanted.ndim or any(n > m for n, m in zip(wanted.shape, given.shape, strict=True)):
            raise UserError(f"no {name} of at least the shape {tuple(wanted.shape)} to cut from")
        found[name] = given[tuple(slice(n) for n in wanted.shape)]
    return found


def everything(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, those that are not saved too."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


class Slices:
    """Runs smaller models on the weights of a supernet; a shape without weights of its own is kept for each."""

    def __init__(self) -> None:
        self._shapes: dict[str, Upstream] = {}

    def run(self, supernet: Upstream, model: ModelSettings, *arguments, **named) -> UpstreamOutput:
        """The forward of the smaller `model`, with the supernet's weights and in its mode (training or not)."""
        key = model.model_dump_json()
        if key not in self._shapes:
            with torch.device("meta"):
                self._shapes[key] = Upstream(model)
        shape = self._shapes[key].train(supernet.training)
        return functional_call(shape, leading(everything(supernet), shape), arguments, named)


@torch.no_grad()
def cut(supernet: Upstream, model: ModelSettings) -> Upstream:
    """The smaller model on its own, with copies of its weights."""
    alone = Upstream(model)
    for name, tensor in leading(everything(supernet), alone).items():
        alone.get_parameter(name).copy_(tensor) if name in dict(alone.named_parameters()) else alone.get_buffer(name).copy_(tensor)
    return alone.train(supernet.training)
