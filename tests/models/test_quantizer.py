"""The noise is standard Gumbel and counter-keyed; picks follow it; the gradient is the softmax's. (Parity: tests/interop.)"""

import pytest
import torch

from sslrepro.config import QuantizerSettings
from sslrepro.draws import torch_generator
from sslrepro.errors import UserError
from sslrepro.models import Quantizer, gumbel_noise

SETTINGS = QuantizerSettings(groups=2, codes=5, dim=8)


def test_noise_is_standard_gumbel() -> None:
    noise = gumbel_noise((200_000,), torch_generator("noise"))
    assert abs(noise.mean() - 0.57722) < 0.01 and abs(noise.var() - torch.pi**2 / 6) < 0.03
    assert torch.equal(noise, gumbel_noise((200_000,), torch_generator("noise")))
    assert noise.isfinite().all()


def test_without_noise_the_largest_logit_is_picked() -> None:
    torch.manual_seed(0)
    quantizer = Quantizer(SETTINGS, 6)
    x = torch.randn(3, 4, 6)
    out = quantizer(x, 1.0, None)
    logits = quantizer.proj(x).unflatten(-1, (2, 5))
    assert torch.equal(out.ids, logits.argmax(-1))
    torch.testing.assert_close(out.probs, logits.softmax(-1))
    first = torch.cat([quantizer.codebooks[g, out.ids[1, 2, g]] for g in range(2)])
    torch.testing.assert_close(out.vectors[1, 2], first)


def test_noise_samples_from_the_softmax() -> None:
    torch.manual_seed(0)
    quantizer = Quantizer(QuantizerSettings(groups=1, codes=4, dim=4), 3)
    x = 0.3 * torch.randn(3)
    n = 40_000
    ids = quantizer(x.expand(n, 3), 0.7, gumbel_noise((n, 1, 4), torch_generator("gumbel"))).ids
    shares = torch.bincount(ids.flatten(), minlength=4) / n
    torch.testing.assert_close(shares, quantizer.proj(x).softmax(-1), rtol=0, atol=0.012)


def test_bfloat16_input_keeps_its_type_and_a_float32_softmax() -> None:
    quantizer = Quantizer(SETTINGS, 6).bfloat16()
    out = quantizer(torch.randn(3, 6).bfloat16(), 1.0, torch.zeros(3, 2, 5))
    assert out.vectors.dtype == torch.bfloat16 and out.probs.dtype == torch.float32


def test_groups_must_divide() -> None:
    with pytest.raises(UserError, match="does not divide"):
        Quantizer(QuantizerSettings(groups=3, dim=8), 6)
