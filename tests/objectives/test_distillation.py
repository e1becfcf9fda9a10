"""Distillation: the loss by hand, gradients only in the student, the teacher outside the saved weights, cost against torch's counter."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sslrepro.budget.count import count
from sslrepro.config import (
    DistillationSettings,
    EncoderSettings,
    LogMelFrontEnd,
    MaskSettings,
    ModelSettings,
    NoObjective,
    PositionSettings,
    Profile,
)
from sslrepro.errors import UserError
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.base import Batch, Totals
from sslrepro.objectives.distillation import Distillation, OutputHeads, distances, source_layer
from sslrepro.training.cell import run_cell
from sslrepro.training.loop import Interrupted
from sslrepro.training.runs import load_run

torch.set_num_threads(1)


def model(layers: int = 3, width: int = 24, **changes) -> ModelSettings:
    none = PositionSettings(kind="none")
    encoder = EncoderSettings(layers=layers, width=width, ffn=32, heads=4, dropout=0.0, attention_dropout=0.0, position=none)
    return ModelSettings(front_end=LogMelFrontEnd(mels=20), encoder=encoder, dropout_input=0.0, **changes)


def build(student: ModelSettings, fresh: bool = True, **settings) -> Distillation:
    torch.manual_seed(0)
    chosen = DistillationSettings(teacher="a/b", teacher_model=model(), **{"layers": [1, 3], **settings})
    objective = Distillation(chosen, Upstream(student))
    objective.begin(Upstream(chosen.teacher_model), fresh)
    return objective


def batch(objective: Distillation, lengths: list[int], device: str = "cpu") -> Batch:
    frames = objective.upstream.frames(torch.tensor(lengths)).tolist()
    mask = torch.zeros(len(lengths), max(frames), dtype=torch.bool)
    mask[:, 2:6] = objective.masked
    places = torch.arange(2, 6).repeat(len(lengths), 1)
    waveforms = torch.zeros(len(lengths), max(lengths))
    for row, n in enumerate(lengths):
        waveforms[row, :n] = torch.randn(n, generator=torch.Generator().manual_seed(row))
    return Batch(
        waveforms.to(device), torch.tensor(lengths), ["a"] * len(lengths), [(0,)] * len(lengths), torch.arange(len(lengths)),
        mask.to(device), places.to(device), torch.ones_like(places, dtype=torch.bool).to(device),
        host_masked_counts=[4] * len(lengths), host_frames=frames,
    )  # fmt: skip


def totals(held: Batch) -> Totals:
    return Totals(sum(held.host_masked_counts), sum(held.host_frames), 1, 0.5, 0)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_what_zero_loses_against_states_as_they_are(share):
    """By hand, utterance by utterance, over true frames or masked ones; normalised states have the size that is known without the data."""
    assert build(model(2)).chance_on([]) == {}
    objective = build(model(2), normalise=False, cosine_weight=0.7, mask=MaskSettings(share=share))
    together = batch(objective, [4000, 6400])
    frames = []
    for row, n in enumerate(together.lengths.tolist()):
        states = objective.teacher(together.waveforms[row : row + 1, :n]).hidden_states
        for i in range(2, 6) if share else range(together.host_frames[row]):
            frames.append(torch.cat([states[layer][0, i] for layer in (1, 3)]).abs().mean().item() + 0.7 * math.log(2))
    assert objective.chance_on([together, together])["loss"] == pytest.approx(sum(frames) / len(frames), rel=1e-5)


def test_distances_by_hand():
    loss, cosine = distances(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 2.0]]), 0.5)
    assert cosine.tolist() == pytest.approx([0.6, 0.0])
    assert loss[0].item() == pytest.approx(2.0 + 0.5 * math.log(1 + math.exp(-0.6)))
    assert loss[1].item() == pytest.approx(1.5 + 0.5 * math.log(2))


def test_each_head_is_its_own():
    heads = OutputHeads(6, 2, 5)
    x = torch.randn(1, 3, 6)
    inside = torch.nn.functional.gelu(heads.up(x))
    for k in range(2):
        wanted = inside[..., 6 * k : 6 * k + 6] @ heads.weight[k] + heads.bias[k]
        torch.testing.assert_close(heads(x)[:, :, k], wanted)


def test_layers_at_the_same_depth():
    assert [source_layer(t, 12, 12) for t in (1, 7, 12)] == [1, 7, 12]
    assert [source_layer(t, 12, 4) for t in (3, 4, 12)] == [1, 2, 4]


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("heads", ["output", "layers"])
def test_loss_is_the_mean_over_its_frames_and_padding_has_no_part(heads, share):
    """Recomputed from the states, utterance by utterance, each alone."""
    objective = build(model(2), heads=heads, mask=MaskSettings(share=share)).eval()
    both = batch(objective, [8_000, 4_800])
    found = objective(both, totals(both))
    nats, frames = 0.0, 0
    for row, n in enumerate([8_000, 4_800]):
        wave = both.waveforms[row : row + 1, :n]
        states = objective.teacher(wave).hidden_states
        own = objective.upstream(wave, mask=both.mask[row : row + 1, : objective.upstream.frames(n)] if share else None)
        places = slice(2, 6) if share else slice(None)
        for k, layer in enumerate((1, 3)):
            wanted = torch.nn.functional.layer_norm(states[layer], (24,))
            read = own.output if heads == "output" else own.hidden_states[(1, 2)[k]]
            guess = objective.heads(read)[:, :, k] if heads == "output" else objective.heads[k](read)
            nats += distances(guess, wanted, 1.0)[0][:, places].sum().item() / 2
        frames += 4 if share else objective.upstream.frames(n)
    assert float(found.loss) == pytest.approx(nats / frames, rel=1e-4)
    assert float(found.utterances["masked"].sum()) == frames


def test_the_student_begins_as_the_teachers_first_layers():
    objective = build(model(2))
    own, teachers = objective.upstream.state_dict(), objective.teacher.state_dict()
    assert all(torch.equal(tensor, teachers[name]) for name, tensor in own.items())
    wave = torch.randn(1, 8_000)
    mine, theirs = (m.eval()(wave).hidden_states for m in (objective.upstream, objective.teacher))
    torch.testing.assert_close(mine[2], theirs[2])
    resumed = build(model(2), fresh=False)
    assert not torch.equal(resumed.upstream.state_dict()["proj.weight"], resumed.teacher.state_dict()["proj.weight"])


def test_only_the_student_learns():
    objective = build(model(2), initialise="random")
    held = batch(objective, [8_000])
    before = {name: tensor.clone() for name, tensor in objective.teacher.state_dict().items()}
    objective.train()(held, totals(held)).loss.backward()
    without = {name for name, p in objective.named_parameters() if p.grad is None}
    assert without == {"upstream.mask_embedding"}  # nothing is masked
    assert all(p.grad is None for p in objective.teacher.parameters())
    assert not any("teacher" in name for name in objective.state_dict())
    assert all(torch.equal(before[name], tensor) for name, tensor in objective.teacher.state_dict().items())
    assert not objective.teacher.training


@pytest.mark.parametrize(
    ("student", "settings", "said"),
    [
        (model(width=28), {}, "no mask_embedding of the shape"),
        (model().model_copy(update={"front_end": LogMelFrontEnd(mels=20, stack=1)}), {}, "50 frames a second, the student 100"),
        (model(), {"layers": [4]}, "layers 1 to 3, not 4"),
    ],
)
def test_what_cannot_be_taught_is_said(student, settings, said):
    with pytest.raises(UserError, match=said):
        build(student, **settings)


@pytest.mark.parametrize("samples", [5_200, 16_000, 31_999])
@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("heads", ["output", "layers"])
def test_cost_equals_the_counter(heads, share, samples):
    """Forward and backward of the student, forward of the teacher, operation by operation on the meta device."""
    with torch.device("meta"):
        objective = build(model(2, 20), initialise="random", heads=heads, mask=MaskSettings(share=share))
    held = batch(objective, [samples], "meta")
    masked = 4 if share else None
    cost = count(objective.upstream.settings, objective.settings, samples, masked)
    assert cost.params == sum(p.numel() for p in objective.parameters())
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        objective(held, totals(held)).loss.backward()
    teacher = count(objective.settings.teacher_model, NoObjective(), samples)
    unseen = cost.total.unseen + teacher.total.unseen
    assert counter.get_total_flops() == cost.train_flops - 2 * unseen
    assert cost.components["teacher"].training == teacher.macs


def test_a_student_cell_resumes_exactly_and_counts_its_teacher(project, monkeypatch):
    training = {
        "budget": {"unit": "updates", "amount": 8.0}, "batch_seconds": 8.0, "micro_batch_seconds": 4.0, "min_seconds": 1.0,
        "max_seconds": 3.0, "learning_rate": 1.0e-3, "valid_every": 0.5,
    }  # fmt: skip
    from sslrepro.pipeline import profile as profiles

    teacher = {"model": model().model_dump(), "objective": {"name": "none"}, "training": training, "downstream": {"tasks": []}}
    student = teacher | {
        "model": model(1).model_dump(),
        "objective": {"name": "distillation", "teacher": "survey/teacher", "layers": [1, 3]},
    }
    plain = Profile.model_validate({"profile": "tiny", "studies": {"survey": {"cells": {"teacher": teacher, "student": student}}}})
    experiment = profiles._with_inputs(plain, "test")
    assert experiment.studies["survey"].cells["student"].objective.teacher_model == model()
    run_cell(experiment, "survey", "teacher")
    whole = run_cell(experiment, "survey", "student") / "0"
    wanted, metrics = load_run(whole)[1].state_dict(), json.loads((whole / "metrics.json").read_text())
    assert metrics["cost.setup_flops"] == 0.0  # this teacher learned nothing
    assert metrics["pretrain.valid_loss"] < 0.8 + math.log(2)
    (whole / "metrics.json").unlink()
    answers = iter([False, False, True])
    with pytest.raises(Interrupted):
        run_cell(experiment, "survey", "student", lambda: next(answers, True))
    again = run_cell(experiment, "survey", "student") / "0"
    found = load_run(again)[1].state_dict()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
