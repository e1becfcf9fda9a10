"""BEST-RQ with SummaryMixing (arXiv 2409.02596): its authors write of 94.6 M and 313.4 M weights (run scripts of
github:whettenr/brq-att-alt-exp). What these are, and what of it `paper`'s cell has otherwise."""

from __future__ import annotations

import pytest

from sslrepro.budget.count import cell_cost
from sslrepro.budget.mixers import summary_mixing
from sslrepro.pipeline.profile import expand

CODES = 8192


def linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def their_mixer(width: int) -> int:
    """Their encoder passes no widths on to its Conformer, so what holds are not the recipe's (512 everywhere) but the defaults of its
    layer: f has 512 hidden units and 512 outputs, s 1,024 hidden units; one block, a layer norm on each, c of both."""
    local, summary = linear(width, 512) + linear(512, 512), linear(width, 1024) + linear(1024, width)
    return local + summary + 2 * (512 + width) + linear(512 + width, width)


def their_front_end(width: int) -> int:
    """Two two-dimensional convolutions of 3 x 3 with stride 2, 128 and 32 channels, a layer norm over frequencies and channels after
    each; then linear from 20 x 32."""
    convolutions = linear(9, 128) + linear(9 * 128, 32)
    return convolutions + 2 * (40 * 128 + 20 * 32) + linear(20 * 32, width)


def theirs(width: int, layers: int) -> int:
    """With two feed-forwards of 2,048, a convolution module of kernel 31, six layer norms a layer and one at the end, the codes' layer."""
    feed_forward = linear(width, 2048) + linear(2048, width)
    convolution = linear(width, 2 * width) + linear(31, width) + linear(width, width)
    layer = their_mixer(width) + 2 * feed_forward + convolution + 6 * 2 * width
    return their_front_end(width) + layers * layer + 2 * width + linear(width, CODES)


@pytest.mark.parametrize(("width", "layers", "millions"), [(536, 12, 94.6), (848, 24, 313.4)])
def test_their_own_numbers_are_those_of_their_layout(width, layers, millions):
    assert round(theirs(width, layers) / 1e6, 1) == millions


def test_our_cell_differs_in_the_mixers_widths_and_in_the_front_end_alone():
    cell = expand("paper").studies["summarymixing"].cells["bestrq-summarymixing"]
    encoder, front = cell.model.encoder, cell.model.front_end
    width, channels = encoder.width, front.channels
    ours = cell_cost(cell, 2.0).params
    mixers = encoder.layers * (their_mixer(width) - summary_mixing(encoder, 1).params)
    convolutions = linear(3 * front.mels, channels[0]) + linear(3 * channels[0], channels[1]) + 2 * sum(channels)
    our_front_end = convolutions + 2 * channels[1] + linear(channels[1], width) + width  # a norm, the projection, the mask's vector
    assert ours + mixers + their_front_end(width) - our_front_end == theirs(width, encoder.layers) == 94_606_344
    assert (round(ours / 1e6, 1), round(mixers / 1e6, 1)) == (89.7, 5.7)
