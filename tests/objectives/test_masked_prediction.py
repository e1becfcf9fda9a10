"""HuBERT's masked prediction: parity with torchaudio's loss on the same tensors, and its parts by hand."""

from __future__ import annotations

import math

import pytest
import torch

from sslrepro.objectives.masked_prediction import class_logits, masked_prediction_terms


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
