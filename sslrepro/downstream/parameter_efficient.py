"""Parameter-efficient fine-tuning: which weights of a CTC model learn, and what is added to it (FineTuneSettings.method).

`full`: all but the front end. `frozen`: the output layer alone. `lora` (arXiv 2106.09685) and `adalora` (2303.10512): low-rank updates of
linears, through PEFT. `adapter`: a bottleneck after each mixer and feed-forward (Houlsby, 1902.00751). `ladder` (2206.06522): a small
network beside the frozen encoder, which is never differentiated through.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sslrepro.config import AdaLoRATuning, AdapterTuning, EncoderSettings, FineTuneSettings, LadderTuning, LoRATuning, TuningMethod
from sslrepro.errors import UserError
from sslrepro.models.layers import TransformerLayer
from sslrepro.models.padding import Padding
from sslrepro.models.upstream import Upstream, UpstreamOutput
from sslrepro.training.schedule import share as share_of_run

if TYPE_CHECKING:
    from sslrepro.downstream.fine_tune import CTCModel

PEFT_NAME = "default"
GATE_TEMPERATURE = 0.1  # of the ladder's gates, as the paper


class Adapted(nn.Module):
    """A mixer or feed-forward with a bottleneck on its output: y + up(gelu(down(y))). It begins as the identity."""

    def __init__(self, inner: nn.Module, width: int, bottleneck: int) -> None:
        super().__init__()
        self.inner = inner
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor, *padding: Padding) -> Tensor:
        y = self.inner(x, *padding)
        return y + self.up(F.gelu(self.down(y)))


class Ladder(nn.Module):
    """Side network: before each of its layers, `1 / reduction` as wide, a gate mixes in the encoder's state of that depth through a
    linear; the output is spread to the encoder's width and added to the encoder's. Reads states without their gradient.

    The paper begins with pruned weights of the encoder; here the layers begin at random and what spreads their output at zero.
    """

    def __init__(self, encoder: EncoderSettings, reduction: int) -> None:
        super().__init__()
        width = max(encoder.width // reduction, 1)
        changes = {"width": width, "ffn": max(encoder.ffn // reduction, 1), "heads": gcd(encoder.heads, width), "layout": "transformer"}
        small = encoder.model_copy(update=changes)
        self.down = nn.ModuleList(nn.Linear(encoder.width, width) for _ in range(encoder.layers + 1))
        self.layers = nn.ModuleList(TransformerLayer(small) for _ in range(encoder.layers))
        self.gates = nn.Parameter(torch.zeros(encoder.layers))
        self.up = nn.Linear(width, encoder.width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, output: UpstreamOutput) -> Tensor:
        """(batch, frames, dim) from the upstream's output."""
        states = [state.detach() for state in output.hidden_states]
        x = self.down[0](states[0])
        for layer, down, gate, state in zip(self.layers, self.down[1:], self.gates, states[1:], strict=True):
            share = torch.sigmoid(gate / GATE_TEMPERATURE)
            x = layer(share * x + (1 - share) * down(state), output.padding)
        return states[-1] + self.up(x)


def prepare(model: CTCModel, method: TuningMethod, updates: int) -> None:
    """Add to the model what the method adds, and mark what learns (`requires_grad`). Call it once, before the optimizer is made."""
    upstream = model.upstream
    if upstream.encoder is None and method.kind not in ("full", "frozen"):
        raise UserError(f"fine_tune.method {method.kind}: a front end alone has no encoder to adapt")
    model.requires_grad_(method.kind == "full")
    model.out.requires_grad_(True)
    for part in (upstream.front_end, upstream.feature_norm):
        if part is not None:
            part.requires_grad_(False)
    if isinstance(method, LoRATuning | AdaLoRATuning):
        object.__setattr__(model, "tuner", _low_rank(upstream, method, updates))  # no submodule: its weights are the upstream's
    elif isinstance(method, AdapterTuning):
        for layer in upstream.encoder.layers:
            for name in ("mixer", "feed_forward"):
                setattr(layer, name, Adapted(getattr(layer, name), upstream.dim, method.width).to(model.out.weight.device))
    elif isinstance(method, LadderTuning):
        model.side = Ladder(upstream.settings.encoder, method.reduction).to(model.out.weight.device)


def _low_rank(upstream: Upstream, method: LoRATuning | AdaLoRATuning, updates: int):
    from peft import AdaLoraConfig, AdaLoraModel, LoraConfig, LoraModel  # here: it takes seconds to import

    known = {name.rpartition(".")[2] for name, module in upstream.encoder.named_modules() if isinstance(module, nn.Linear)}
    if not set(method.linears) <= known:
        raise UserError(
            f"fine_tune.method.linears: no linear {sorted(set(method.linears) - known)[0]!r}; there are: {', '.join(sorted(known))}"
        )
    linears = rf"encoder\.layers\.\d+\..*\.({'|'.join(method.linears)})|encoder\.layers\.\d+\.({'|'.join(method.linears)})"
    shared = {"target_modules": linears, "lora_alpha": method.alpha, "lora_dropout": method.dropout}
    front = [p for part in (upstream.front_end, upstream.feature_norm) if part is not None for p in part.parameters()]
    if isinstance(method, LoRATuning):
        tuner = LoraModel(upstream, LoraConfig(r=method.rank, **shared), PEFT_NAME)
    else:
        first, last = (round(share_of_run(share, updates) * updates) for share in (method.begin, method.end))
        if not 0 <= first < last <= updates:
            raise UserError(f"fine_tune.method: ranks fall from update {first} to {last} of {updates}; begin must lie before end")
        schedule = {"total_step": updates, "tinit": first, "tfinal": updates - last, "deltaT": 1}
        ranks = {"init_r": method.initial_rank, "target_r": method.rank}
        tuner = AdaLoraModel(upstream, AdaLoraConfig(**shared, **ranks, **schedule), PEFT_NAME)
    for parameter in front:
        parameter.requires_grad_(False)
    return tuner


def orthogonality(model: nn.Module) -> Tensor:
    """AdaLoRA's regulariser: mean over its matrices P of |P P^T - 1| (Frobenius), which makes its triples singular vectors."""
    terms = []
    for name, p in model.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            square = p @ p.T if ".lora_A." in name else p.T @ p
            terms.append(torch.linalg.matrix_norm(square - torch.eye(len(square), device=p.device)))
    return torch.stack(terms).mean()


def learned(model: nn.Module) -> dict[str, Tensor]:
    """The weights that a method learns, by name: all that is saved of it. AdaLoRA's with the pruned ranks at zero."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


@dataclass(frozen=True)
class Adapters:
    """What a fine-tuning learned, alone; in a file (safetensors) the header says by what method, and what is read: `of` (phones,
    characters, keyword, intent) and its symbols in their order."""

    tensors: dict[str, Tensor]
    method: TuningMethod
    of: str
    symbols: list[str]

    @classmethod
    def from_model(cls, model: CTCModel, settings: FineTuneSettings) -> Adapters:
        tensors = {name: tensor.contiguous().cpu() for name, tensor in learned(model).items()}
        return cls(tensors, settings.method, settings.symbols, model.symbols)

    def write(self, path: Path) -> None:
        header = {"method": self.method.model_dump_json(), "of": self.of, "symbols": json.dumps(self.symbols)}
        save_file(self.tensors, path, metadata=header)

    @classmethod
    def read(cls, path: Path) -> Adapters:
        """Raises UserError for a file without such a header."""
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not {"method", "of", "symbols"} <= header.keys():
            raise UserError(f"{path}: its header does not say by what method and of which symbols it is; run the cell again")
        method = FineTuneSettings.model_validate({"method": json.loads(header["method"])}).method
        return cls(tensors, method, header["of"], json.loads(header["symbols"]))

    def put_on(self, model: CTCModel, where: str) -> CTCModel:
        """A fresh CTC model on the pre-trained encoder, with these weights. Raises UserError where they do not fit, with `where` they are
        from."""
        prepare(model, self.method, updates=10)  # the schedule of AdaLoRA's ranks is over
        own, wanted = dict(model.named_parameters()), set(learned(model))
        if set(self.tensors) != wanted or any(self.tensors[name].shape != own[name].shape for name in wanted):
            odd = sorted(set(self.tensors) ^ wanted) or sorted(name for name in wanted if self.tensors[name].shape != own[name].shape)
            raise UserError(f"{where}: not the weights of method {self.method.kind} for this model; the first that differs is {odd[0]}")
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                own[name].copy_(tensor)
        return model.eval()


def merge(model: CTCModel) -> CTCModel:
    """The model with its low-rank updates added to the linears: as big and as fast as before it was tuned, with the same outputs.

    Raises UserError for a method whose additions are no sum of matrices.
    """
    if model.tuner is None:
        raise UserError("only LoRA and AdaLoRA merge into the weights; adapters and ladders stay beside them")
    model.upstream = model.tuner.merge_and_unload()
    model.tuner = None
    return model
