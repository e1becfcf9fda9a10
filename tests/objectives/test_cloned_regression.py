"""data2vec 2.0: clones mask as many frames, each alone is what the batch computes, the encoder never sees a masked frame; exact cost."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sslrepro.budget.count import count
from sslrepro.config import (
    ClonedRegressionSettings,
    EncoderSettings,
    LogMelFrontEnd,
    MaskSettings,
    ModelSettings,
    PositionSettings,
    RegressionSettings,
)
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.base import Batch, Totals
from sslrepro.objectives.cloned_regression import ClonedRegression, clone_masks

torch.set_num_threads(1)
SETTINGS = ClonedRegressionSettings(
    layers=2, clones=3, mask=MaskSettings(share=0.5, length=3), decoder_layers=2, decoder_width=20, decoder_kernel=3
)


def model(mixer: str = "attention", **changes) -> ModelSettings:
    values = {"layers": 2, "width": 24, "ffn": 32, "heads": 4, "norm": "pre", "mixer": mixer, "dropout": 0.0, "attention_dropout": 0.0}
    encoder = EncoderSettings(**values, position=PositionSettings(kernel=6, groups=1))
    return ModelSettings(front_end=LogMelFrontEnd(mels=20), encoder=encoder, dropout_input=0.0, **changes)


def build(settings=SETTINGS, mixer: str = "attention") -> ClonedRegression:
    torch.manual_seed(0)
    return ClonedRegression(settings, Upstream(model(mixer)))


def batch(objective: ClonedRegression, lengths: list[int], first: int = 0, device: str = "cpu") -> Batch:
    frames = objective.upstream.frames(torch.tensor(lengths)).tolist()
    keys = [(0, "utterance", first + i) for i in range(len(lengths))]
    masks = [objective.draws(key, n)["mask"] for key, n in zip(keys, frames, strict=True)]
    waveforms = torch.zeros(len(lengths), max(lengths))
    for row, n in enumerate(lengths):
        waveforms[row, :n] = torch.randn(n, generator=torch.Generator().manual_seed(first + row))
    return Batch(
        waveforms.to(device), torch.tensor(lengths), ["a"] * len(lengths), keys, torch.arange(len(lengths)),
        host_masked_counts=[int(mask.sum()) for mask in masks], host_frames=frames,
    )  # fmt: skip


def totals(*held: Batch) -> Totals:
    return Totals(sum(sum(b.host_masked_counts) for b in held), sum(sum(b.host_frames) for b in held), len(held), 0.5, 3)


def test_clones_mask_as_many_frames_elsewhere():
    masks = clone_masks(SETTINGS, (1, "a"), 60)
    assert len({int(mask.sum()) for mask in masks}) == 1 and len({mask.tobytes() for mask in masks}) == 3
    again = clone_masks(SETTINGS, (1, "a"), 60)
    assert all(np.array_equal(a, b) for a, b in zip(masks, again, strict=True))


def test_a_batch_is_its_utterances_alone():
    """Whatever is padded, and however an update is split."""
    objective = build().eval()
    both, one, two = batch(objective, [16_000, 9_600]), batch(objective, [16_000]), batch(objective, [9_600], first=1)
    whole = objective(both, totals(both))
    apart = [objective(each, totals(one, two)) for each in (one, two)]
    torch.testing.assert_close(whole.loss, apart[0].loss + apart[1].loss)
    torch.testing.assert_close(whole.utterances["nats"], torch.cat([part.utterances["nats"] for part in apart]))
    assert whole.utterances["masked"].tolist() == [3 * n for n in both.host_masked_counts]


def test_by_hand_one_clone_one_utterance():
    """The encoder on the visible frames after the position embedding, each back in its place, the mask vector elsewhere."""
    objective = build(SETTINGS.model_copy(update={"clones": 1})).eval()
    held = batch(objective, [9_600])
    mask = torch.from_numpy(clone_masks(objective.settings, held.keys[0], held.host_frames[0])[0])
    upstream, encoder = objective.upstream, objective.upstream.encoder
    features = upstream.proj(upstream.front(held.waveforms, [9_600])[1])
    padding = upstream(held.waveforms).padding
    x = features + encoder.position(features.masked_fill(mask[None, :, None], 0.0), padding)
    x = x[:, ~mask]
    whole = type(padding).of([x.shape[1]], x.shape[1], x.device)
    for layer in encoder.layers:
        x = layer(x, whole)
    canvas = upstream.mask_embedding.expand(1, len(mask), -1).clone()
    canvas[:, ~mask] = encoder.norm(x)
    predicted = objective.decoder(canvas, padding)[:, mask]
    targets, _ = objective.targets(upstream(held.waveforms))
    wanted = (predicted - targets[:, mask]).square().mean()
    torch.testing.assert_close(objective(held, totals(held)).loss, wanted)


def test_what_learns():
    objective = build().train()
    held = batch(objective, [9_600])
    objective(held, totals(held)).loss.backward()
    assert all(p.grad is not None for p in objective.parameters())
    assert not any(name.startswith("teacher") for name, _ in objective.named_parameters())


@pytest.mark.parametrize("samples", [5_200, 16_000, 31_999])
@pytest.mark.parametrize("mixer", ["attention", "fnet"])
@pytest.mark.parametrize("clones", [1, 3])
def test_cost_equals_the_counter(clones, mixer, samples):
    settings = SETTINGS.model_copy(update={"clones": clones})
    with torch.device("meta"):
        objective = build(settings, mixer)
    held = batch(objective, [samples], device="meta")
    cost = count(model(mixer), settings, samples, held.host_masked_counts[0])
    assert cost.params == sum(p.numel() for p in objective.parameters())
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as both:
        with FlopCounterMode(display=False) as forward:
            loss = objective(held, totals(held)).loss
        loss.backward()
    teacher = cost.components["teacher"]
    assert forward.get_total_flops() == 2 * (cost.macs - cost.total.unseen + teacher.training)
    assert both.get_total_flops() == cost.train_flops - 2 * (cost.total.unseen + cost.total.unseen_training)


def test_a_clone_is_cheaper_than_data2vecs_pass():
    """Half the frames are encoded; teacher and front end are shared."""
    plain = count(model(), RegressionSettings(layers=2, mask=SETTINGS.mask), 16_000)
    clones = {n: count(model(), SETTINGS.model_copy(update={"clones": n, "decoder_layers": 1}), 16_000).train_flops for n in (1, 8)}
    assert clones[8] < 8 * plain.train_flops / 1.4 and clones[8] < 8 * clones[1]
