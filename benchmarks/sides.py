"""One library with one model, one precision and one set of batches, ready to run: a forward pass, or a whole training step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
import torchaudio
import transformers as hf
from lightning_fabric import Fabric
from torch import Tensor

from benchmarks import inputs
from sslrepro.interop.pretraining import load_contrastive_state, load_hubert_state
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.base import Batch, Objective, Totals
from sslrepro.objectives.contrastive import Contrastive
from sslrepro.objectives.masked_prediction import MaskedPrediction
from sslrepro.training.allocator import keep_freed_memory
from sslrepro.training.gradients import Step, update_gradients

RATE = 1.0e-4


class Ours:
    """Ours, through the functions of the training loop."""

    def __init__(self, peer: str, size: str, dtype: str, uneven: bool, device: str) -> None:
        keep_freed_memory()  # as a run does (training/ranks.py); the peer's process is as its users have it
        self.fabric = Fabric(accelerator=device, devices=1, precision={"fp32": "32-true", "bf16": "bf16-mixed"}[dtype])
        self.objective = build_ours(peer, size)
        self.batches = batches_of("ours", self.objective, size, uneven)
        load_peer(self.objective, build_peer(peer, size))
        self.objective.to(self.fabric.device)
        optimizer = torch.optim.AdamW(self.objective.parameters(), lr=RATE, fused=True)
        self.model, self.optimizer = self.fabric.setup(Step(self.objective), optimizer)

    def forward(self) -> None:
        self.objective.eval()
        for batch in self.batches:
            batch = batch.to(self.fabric.device)
            with torch.no_grad(), self.fabric.autocast():
                self.objective(batch, Totals(sum(batch.host_masked_counts), sum(batch.host_frames), 1, 0.0, 0))

    def step(self) -> None:
        for number, batch in enumerate(self.batches):
            update_gradients(self.fabric, self.model, self.objective, [batch], 0, number, 0.0, {})
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)


class Peer:
    """The other library, as its own examples train it."""

    def __init__(self, peer: str, size: str, dtype: str, uneven: bool, device: str, compiled: bool) -> None:
        self.device = torch.device(device)
        self.dtype = dtype
        layout = build_ours(peer, size)  # for the loader alone
        self.batches = batches_of(peer, layout, size, uneven)
        self.model = build_peer(peer, size).to(self.device)
        self.loss = transformers_loss if peer == "transformers" else torchaudio_loss
        self.inputs = [inputs.peer_inputs(batch) if peer == "transformers" else batch for batch in self.batches]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, fused=True)
        self.run = torch.compile(self.model) if compiled else self.model

    def _loss(self, given: dict[str, Tensor] | Batch) -> Tensor:
        given = {k: v.to(self.device) for k, v in given.items()} if isinstance(given, dict) else given.to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16) if self.dtype == "bf16" else nullcontext():
            return self.loss(self.run, given)

    def forward(self) -> None:
        self.model.eval()
        with torch.no_grad():
            for given in self.inputs:
                self._loss(given)

    def step(self) -> None:
        self.model.train()
        for given in self.inputs:
            self._loss(given).backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)


def build_ours(peer: str, size: str) -> Objective:
    model, settings = inputs.our_settings(peer, size)
    return (Contrastive if peer == "transformers" else MaskedPrediction)(settings, Upstream(model))


def build_peer(peer: str, size: str) -> torch.nn.Module:
    torch.manual_seed(0)
    config = inputs.peer_config(size)
    if peer == "transformers":
        model = hf.Wav2Vec2ForPreTraining(config)
        torch.nn.init.uniform_(model.quantizer.codevectors)
        return model
    if size == "base":
        return torchaudio.models.hubert_pretrain_base(encoder_layer_drop=0.0, num_classes=inputs.CLASSES)
    shapes = list(zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True))
    masks = {f"mask_{kind}{what}": value for kind in ("", "channel_") for what, value in (
        ("prob", 0.0 if kind else 0.8), ("selection", "static"), ("other", 0.0), ("length", 10)
    )}  # fmt: skip
    return torchaudio.models.hubert_pretrain_model(
        extractor_mode="group_norm", extractor_conv_layer_config=shapes, extractor_conv_bias=False,
        encoder_embed_dim=config.hidden_size, encoder_projection_dropout=0.1, encoder_pos_conv_kernel=128, encoder_pos_conv_groups=16,
        encoder_num_layers=config.num_hidden_layers, encoder_num_heads=config.num_attention_heads, encoder_attention_dropout=0.1,
        encoder_ff_interm_features=config.intermediate_size, encoder_ff_interm_dropout=0.0, encoder_dropout=0.1,
        encoder_layer_norm_first=False, encoder_layer_drop=0.0, **masks, no_mask_overlap=False, mask_min_space=1,
        no_mask_channel_overlap=False, mask_channel_min_space=1, skip_masked=False, skip_nomask=False,
        num_classes=inputs.CLASSES, final_dim=256, feature_grad_mult=0.1,
    )  # fmt: skip


def load_peer(objective: Objective, peer: torch.nn.Module) -> None:
    load = load_contrastive_state if isinstance(objective, Contrastive) else load_hubert_state
    load(objective, peer.state_dict())


def batches_of(library: str, objective: Objective, size: str, uneven: bool) -> list[Batch]:
    seconds = inputs.uneven_seconds(size) if uneven else inputs.EVEN
    pieces = inputs.pieces_as(library, seconds) if uneven else [range(len(seconds))]
    return inputs.batches(objective, seconds, pieces)


def transformers_loss(model: Callable, given: dict[str, Tensor]) -> Tensor:
    return model(**given).loss


def torchaudio_loss(model: Callable, batch: Batch) -> Tensor:
    """Its HuBERT recipe: cross-entropy of the masked frames and ten times the feature penalty, both by the number of masked frames.

    Masks are drawn inside the model; there it is given ours, which spares it the drawing.
    """
    components = torchaudio.models.wav2vec2.components
    components._compute_mask_indices = lambda *arguments, **more: batch.mask
    padded = len(set(batch.lengths.tolist())) > 1
    logits, _, penalty = model(batch.waveforms, batch.labels, batch.lengths.to(batch.mask.device) if padded else None)
    wanted = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device), reduction="sum")
    return (wanted + 10.0 * penalty * len(logits)) / len(logits)
