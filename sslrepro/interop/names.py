"""The same weights under other names. Each library is a list of (our pattern, its name); a map is used in both
directions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sslrepro.errors import UserError

Rules = list[tuple[str, str]]

BLOCKS = [(r"front_end\.stack\.blocks\.(\d+)\.conv", r"feature_extractor.conv_layers.\1.conv")]
BLOCKS += [(r"front_end\.stack\.blocks\.(\d+)\.norm", r"feature_extractor.conv_layers.\1.layer_norm")]


def layer_rules(layers: str) -> Rules:
    """Transformer layers as transformers and torchaudio name them, under `layers`."""
    ours = r"encoder\.layers\.(\d+)\."
    return [
        (ours + r"mixer\.", layers + r".\1.attention."),
        (ours + r"mixer_norm", layers + r".\1.layer_norm"),
        (ours + r"feed_forward\.up", layers + r".\1.feed_forward.intermediate_dense"),
        (ours + r"feed_forward\.down", layers + r".\1.feed_forward.output_dense"),
        (ours + r"feed_forward_norm", layers + r".\1.final_layer_norm"),
    ]


class Loaded(NamedTuple):
    """`left_out`: tensors of the file that are no part of an upstream (heads). `kept`: parameters of ours that it
    lacks.
    """

    left_out: tuple[str, ...]
    kept: tuple[str, ...]


def peer_names(ours: Iterable[str], rules: Rules) -> dict[str, str]:
    """Our name of each parameter by the peer's. Raises UserError for one that the peer has no name for."""
    names, unknown = {}, []
    for name in ours:
        for pattern, replacement in rules:
            peer, hits = re.subn("^" + pattern, replacement, name)
            if hits:
                names[peer] = name
                break
        else:
            unknown.append(name)
    if unknown:
        raise UserError(f"that library has no place for {len(unknown)} parameter(s): {_few(unknown)}")
    return names


def load_renamed(
    module: nn.Module,
    state: dict[str, Tensor],
    rules: Rules,
    prefix: str,
    optional: tuple[str, ...] = (),
    heads: tuple[str, ...] = (),
) -> Loaded:
    """Copies `state` into `module` (an upstream, or an objective with its heads), every tensor or none.

    With any name under `prefix`, only those are the upstream's and the rest are heads, as are names that start as in
    `heads`. Old weight-norm names (`weight_g`, `weight_v`) are understood. Raises UserError that lists what is missing,
    unexpected or of another shape; `optional` names of ours may be missing.
    """
    left_out = tuple(key for key in state if key.startswith(heads)) if heads else ()
    state = {key: value for key, value in state.items() if key not in left_out}
    if prefix and any(key.startswith(prefix) for key in state):
        left_out += tuple(key for key in state if not key.startswith(prefix))
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    state = {_new_weight_norm(key): value for key, value in state.items()}
    parameters = dict(module.named_parameters())
    names = peer_names(parameters, rules)
    kept = tuple(ours for peer, ours in names.items() if peer not in state and ours in optional)
    missing = sorted(peer for peer, ours in names.items() if peer not in state and ours not in optional)
    unexpected = sorted(set(state) - set(names))
    shapes = [
        f"{peer} is {tuple(state[peer].shape)}, wanted {tuple(parameters[ours].shape)}"
        for peer, ours in names.items()
        if peer in state and state[peer].shape != parameters[ours].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("misshapen", shapes))
    problems = [f"{len(found)} {kind}: {_few(found)}" for kind, found in kinds if found]
    if problems:
        raise UserError("the weights do not fit these model settings; " + "; ".join(problems))
    with torch.no_grad():
        for peer, ours in names.items():
            if peer in state:
                parameters[ours].copy_(state[peer])
    return Loaded(left_out, kept)


def _new_weight_norm(key: str) -> str:
    return re.sub(r"\.weight_([gv])$", lambda m: f".parametrizations.weight.original{'gv'.index(m[1])}", key)


def _few(names: list[str], limit: int = 20) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
