"""What `make bench` times is the same work: ours and the library's losses agree, given the same weights, inputs, masks and negatives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.models.wav2vec2 import components

from benchmarks import inputs
from benchmarks.sides import Ours, Peer
from sslrepro.interop.names import peer_names
from sslrepro.interop.pretraining import CONTRASTIVE_RULES
from sslrepro.models import front_end
from sslrepro.objectives import contrastive
from sslrepro.objectives.base import Totals
from sslrepro.training.gradients import update_gradients

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def sides(peer: str, size: str = "tiny", dtype: str = "fp32") -> tuple[Ours, Peer, float]:
    """Both sides, and the number of masked frames."""
    wanted = {"peer": peer, "size": size, "dtype": dtype, "uneven": False, "device": "cpu"}
    ours, other = Ours(**wanted), Peer(**wanted, compiled=False)
    return ours, other, float(sum(ours.batches[0].host_masked_counts))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "EVEN", [2.0, 2.0])
    monkeypatch.setattr(components, "_compute_mask_indices", components._compute_mask_indices)  # put back what torchaudio's side is given


@torch.no_grad()
def test_forward_beside_transformers() -> None:
    """Without noise transformers takes the diversity from the codes that were picked, ours from the distribution that it trains: that
    term aside, the losses are the same."""
    ours, other, masked = sides("transformers")
    batch = ours.batches[0]
    got = ours.objective.eval()(batch, Totals(masked, sum(batch.host_frames), 1, 0.0, 0))
    wanted = other.model.eval()(**other.inputs[0])
    torch.testing.assert_close(got.sums["nats"], wanted.contrastive_loss, **CLOSE)
    codes = ours.objective.settings.quantizer.groups * ours.objective.settings.quantizer.codes
    soft, hard = (contrastive.perplexity(got.sums[name] / masked).sum() for name in ("codes_soft", "codes_hard"))
    torch.testing.assert_close(hard, wanted.codevector_perplexity, rtol=1e-4, atol=0.0)  # fairseq's guard in the logarithm, ours too
    torch.testing.assert_close(got.loss - 0.1 * (codes - soft) / codes, (wanted.loss - 0.1 * wanted.diversity_loss) / masked, **CLOSE)
    assert soft > 2 * hard


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training without dropout and with noise that is zero: each side draws these for itself."""
    drops = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "feat_quantizer_dropout")
    for size in ("tiny", "small"):
        monkeypatch.setitem(inputs.SIZES, size, inputs.SIZES[size] | dict.fromkeys(drops, 0.0))
    monkeypatch.setattr(contrastive, "gumbel_noise", lambda shape, generator: torch.zeros(shape))

    def noiseless(logits: Tensor, tau: float, hard: bool) -> Tensor:
        soft = (logits / tau).softmax(-1)
        return F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype) + (soft - soft.detach())

    monkeypatch.setattr(F, "gumbel_softmax", noiseless)


def both_losses(ours: Ours, other: Peer, masked: float) -> tuple[Tensor, Tensor]:
    """Of one update, ours through the training loop's own function; gradients of the loss a masked frame are left in both."""
    got = update_gradients(ours.fabric, ours.model, ours.objective, ours.batches, 0, 0, 0.0, {})
    other.model.train()
    wanted = other._loss(other.inputs[0]) / masked
    wanted.backward()
    return got, wanted.detach()


def test_step_beside_transformers(settled) -> None:
    """In training the whole loss is the same, diversity included."""
    torch.testing.assert_close(*both_losses(*sides("transformers")), **CLOSE)


def test_step_in_bfloat16_beside_transformers(settled, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small model through our own front end and feed-forward: losses agree to 1 %, outputs to 2 % and all gradients together to 20 %
    (in the norm of the difference), and ours lie no further from float32 than theirs, to a tenth."""
    packed = []
    features = front_end.packed_features
    monkeypatch.setattr(front_end, "packed_features", lambda *arguments: packed.append(None) or features(*arguments))
    monkeypatch.setattr(inputs, "EVEN", [3.0, 3.0])
    outputs, gradients = {}, {}
    for dtype in ("fp32", "bf16"):
        ours, other, masked = sides("transformers", "small", dtype)
        got, wanted = both_losses(ours, other, masked)
        assert got == pytest.approx(float(wanted), rel=1e-5 if dtype == "fp32" else 0.01)
        mine, theirs = dict(ours.objective.named_parameters()), dict(other.model.named_parameters())
        names = [(name, own) for name, own in peer_names(mine, CONTRASTIVE_RULES).items() if theirs[name].grad is not None]
        gradients["ours", dtype] = torch.cat([mine[own].grad.flatten() for _, own in names])
        gradients["theirs", dtype] = torch.cat([theirs[name].grad.flatten() for name, _ in names])
        batch = ours.batches[0]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            outputs["ours", dtype] = ours.objective.upstream(batch.waveforms, batch.lengths, mask=batch.mask).output.float()
            inside = other.model.wav2vec2(batch.waveforms, mask_time_indices=batch.mask)
            outputs["theirs", dtype] = inside.last_hidden_state.float()
    assert len(packed) == 4
    for values, most in ((outputs, 0.02), (gradients, 0.2)):
        assert apart(values["ours", "fp32"], values["theirs", "fp32"]) < 1e-4
        assert apart(values["ours", "bf16"], values["theirs", "bf16"]) < most
        own, theirs = (apart(values[side, "bf16"], values[side, "fp32"]) for side in ("ours", "theirs"))
        assert 1e-3 < own < 1.1 * theirs


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@torch.no_grad()
def test_forward_beside_torchaudio() -> None:
    ours, other, masked = sides("torchaudio")
    batch = ours.batches[0]
    got = ours.objective.eval()(batch, Totals(masked, sum(batch.host_frames), 1, 0.0, 0))
    other.model.eval()
    torch.testing.assert_close(got.loss, other._loss(other.inputs[0]), **CLOSE)
