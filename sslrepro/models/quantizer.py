"""Gumbel product quantizer (wav2vec 2.0, section 2, equation 1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslrepro.config import QuantizerSettings
from sslrepro.errors import UserError
from sslrepro.models.linear import Linear


class Quantized(NamedTuple):
    """`vectors` (..., dim); `probs` (..., groups, codes), softmax of the logits without noise or temperature; `ids`
    (..., groups).
    """

    vectors: Tensor
    probs: Tensor
    ids: Tensor


class Quantizer(nn.Module):
    """Each of `groups` codebooks picks one of `codes` entries of dim / groups; the picks are laid side by side.

    Noise comes from the caller (`gumbel_noise`), so that it is a function of a counter. With noise: hard picks from
    the perturbed logits, gradient straight through the softmax at `temperature`. Without: the largest logit, and no
    gradient to the logits through `vectors`.
    """

    def __init__(self, settings: QuantizerSettings, in_dim: int):
        super().__init__()
        if settings.dim % settings.groups:
            raise UserError(f"quantizer.dim {settings.dim} does not divide by groups {settings.groups}")
        self.groups, self.codes = settings.groups, settings.codes
        self.proj = Linear(in_dim, self.groups * self.codes)
        nn.init.normal_(self.proj.weight, std=1.0)
        nn.init.zeros_(self.proj.bias)
        self.codebooks = nn.Parameter(torch.rand(self.groups, self.codes, settings.dim // self.groups))

    def forward(self, x: Tensor, temperature: float, gumbel: Tensor | None) -> Quantized:
        """`x` (..., in_dim), `gumbel` (..., groups, codes) standard Gumbel noise or None. The softmax is taken in
        float32 at least.
        """
        logits = self.proj(x).unflatten(-1, (self.groups, self.codes))
        logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        probs = logits.softmax(-1)
        noisy = logits if gumbel is None else (logits + gumbel) / temperature
        ids = noisy.argmax(-1)
        hard = F.one_hot(ids, self.codes).to(logits.dtype)
        if gumbel is not None:
            soft = noisy.softmax(-1)
            hard = hard - soft.detach() + soft
        vectors = torch.einsum("...gv,gvd->...gd", hard, self.codebooks.to(hard.dtype)).flatten(-2)
        return Quantized(vectors.to(x.dtype), probs, ids)


def gumbel_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise, -log(-log u), float32, on the generator's device."""
    exponential = torch.empty(shape, device=generator.device).exponential_(generator=generator)
    return -exponential.log()
