"""HuBERT's masked prediction: parity with torchaudio's loss on the same tensors, and its parts by hand."""

from __future__ import annotations

import math

import pytest
import torch

from sslrepro.config import EncoderSettings, MaskedPredictionSettings, MaskSettings, ModelSettings, PositionSettings, WaveformFrontEnd
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.base import Batch, Totals
from sslrepro.objectives.masked_prediction import MaskedPrediction, class_logits, masked_prediction_terms


def test_parity_with_torchaudios_hubert_loss():
    """torchaudio's LogitGenerator and criterion: the same projection, embeddings and labels give the same logits and loss."""
    components = pytest.importorskip("torchaudio.models.wav2vec2.components")
    torch.manual_seed(0)
    theirs = components.LogitGenerator(encoder_embed_dim=12, num_classes=7, final_dim=6, skip_masked=False, skip_nomask=True).eval()
    x, labels = torch.randn(2, 9, 12), torch.randint(0, 7, (2, 9))
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[0, 2:6] = mask[1, 1:4] = True
    wanted, _ = theirs(x, labels, mask, ~mask)  # (masked frames, classes + 1): the label's own logit first
    loss_wanted = torch.nn.functional.cross_entropy(wanted.float(), torch.zeros(len(wanted), dtype=torch.long), reduction="none")
    logits = class_logits(theirs.final_proj(x), theirs.label_embeddings, 0.1)
    nats, correct = masked_prediction_terms(logits, labels)
    torch.testing.assert_close(nats[mask], loss_wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(correct, (logits.argmax(-1) == labels).float())


def test_terms_by_hand():
    logits = torch.tensor([[[0.0, math.log(3.0)], [math.log(9.0), 0.0]]])
    nats, correct = masked_prediction_terms(logits, torch.tensor([[1, 1]]))
    assert nats[0].tolist() == pytest.approx([math.log(4 / 3), math.log(10.0)])
    assert correct[0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("head", ["cosine", "linear"])
def test_a_batch_is_each_utterance_alone(head: str):
    """Loss, every utterance's part and every gradient, feature penalty included, whatever lies on the padding."""
    torch.manual_seed(0)
    front_end = WaveformFrontEnd(channels=[8] * 4, kernels=[10, 4, 4, 4], strides=[5, 4, 4, 4], padding=[0] * 4)
    rates = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    encoder = EncoderSettings(layers=2, width=16, ffn=24, heads=2, position=PositionSettings(kernel=8, groups=4), **rates)
    upstream = Upstream(ModelSettings(front_end=front_end, encoder=encoder, dropout_input=0.0))
    settings = MaskedPredictionSettings(classes=9, final_dim=8, head=head, feature_weight=10.0, mask=MaskSettings(length=3))
    objective = MaskedPrediction(settings, upstream).double().train()
    lengths = [6_000, 2_345, 4_321]
    frames = [upstream.frames(n) for n in lengths]
    masks = [torch.from_numpy(objective.draws((0, row), n)["mask"]) for row, n in enumerate(frames)]
    counts = [int(mask.sum()) for mask in masks]
    waveforms = torch.randn(3, 6_000, dtype=torch.float64)
    labels = torch.randint(0, 9, (3, max(frames)))
    totals = Totals(masked=sum(counts), frames=sum(frames), micro_batches=1, progress=0.5, update=0)

    def outcome(rows: list[int]):
        most, longest = max(counts[r] for r in rows), max(frames[r] for r in rows)
        mask, masked = torch.zeros(len(rows), longest, dtype=torch.bool), torch.zeros(len(rows), most, dtype=torch.long)
        for i, r in enumerate(rows):
            mask[i, : frames[r]] = masks[r]
            masked[i, : counts[r]] = masks[r].nonzero()[:, 0]
        objective.zero_grad()
        batch = Batch(
            waveforms[rows, : max(lengths[r] for r in rows)], torch.tensor([lengths[r] for r in rows]), [str(r) for r in rows],
            [(0, r) for r in rows], torch.tensor(rows), mask, masked,
            torch.arange(most) < torch.tensor([counts[r] for r in rows])[:, None], labels=labels[rows, :longest],
            host_masked_counts=[counts[r] for r in rows], host_frames=[frames[r] for r in rows],
        )  # fmt: skip
        found = objective(batch, totals)
        found.loss.backward()
        return found, {name: p.grad.clone() for name, p in objective.named_parameters()}

    together, gradients = outcome([0, 1, 2])
    alone = [outcome([row]) for row in range(3)]
    torch.testing.assert_close(together.loss, sum(found.loss for found, _ in alone), rtol=1e-6, atol=0)
    torch.testing.assert_close(together.utterances["nats"], torch.cat([found.utterances["nats"] for found, _ in alone]))
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, sum(part[name] for _, part in alone), rtol=1e-5, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")
