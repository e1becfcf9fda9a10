"""Upstream models: front ends, mixers, layouts, compression, quantizer."""

from sslrepro.models.quantizer import Quantized, Quantizer, gumbel_noise
from sslrepro.models.upstream import Upstream, UpstreamOutput

__all__ = ["Quantized", "Quantizer", "Upstream", "UpstreamOutput", "gumbel_noise"]
