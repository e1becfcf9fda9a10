"""A supernet's slice is the stand-alone subnet; every update trains one; the best within a budget is written as a run of its own."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch

from sslrepro import cli, objectives
from sslrepro.budget.count import cell_cost, count
from sslrepro.budget.subnets import subnets
from sslrepro.config import CellSettings, ModelSettings, NoObjective, Profile, SupernetSettings, parse
from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError
from sslrepro.models.slices import Slices, cut
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.base import Totals
from sslrepro.pipeline import profile as profiles
from sslrepro.training.cell import run_cell
from sslrepro.training.runs import begin_with, load_run, load_upstream
from sslrepro.training.subnets import best_subnet

torch.set_num_threads(1)
ENCODER = {
    "layers": 3, "width": 32, "ffn": 64, "heads": 4, "dropout": 0.0, "attention_dropout": 0.0,
    "position": {"kernel": 8, "groups": 4},
}  # fmt: skip
MODEL = {"front_end": {"kind": "logmel", "mels": 20}, "encoder": ENCODER, "dropout_input": 0.0}
SUPERNET = {"widths": [16, 32], "heads": [2, 4], "ffn_ratios": [1.0, 2.0], "layers": [2, 3]}
TRAINING = {
    "budget": {"unit": "updates", "amount": 6.0}, "batch_seconds": 8.0, "micro_batch_seconds": 4.0, "min_seconds": 1.0,
    "max_seconds": 3.0, "learning_rate": 1.0e-3, "valid_every": 0.5,
}  # fmt: skip


def supernet(**changes) -> CellSettings:
    objective = {
        "name": "distillation", "teacher": "survey/teacher", "teacher_model": MODEL, "layers": [1, 2, 3], "heads": "layers",
        "initialise": "random", "mask": {"share": 0.6, "length": 4}, "supernet": SUPERNET,
    }  # fmt: skip
    values = {"model": MODEL, "objective": objective | changes, "training": TRAINING, "downstream": {"tasks": []}}
    return parse(CellSettings, values, "test")


def test_every_choice_once_and_the_size_of_a_head_stays():
    cell = supernet()
    found = subnets(cell.model, cell.objective.supernet)
    shapes = [(m.encoder.width, m.encoder.heads, m.encoder.ffn, m.encoder.layers) for m in found]
    assert shapes == [(w, h, int(r * w), n) for w, h, r, n in itertools.product([16, 32], [2, 4], [1, 2], [2, 3])]
    assert {m.encoder.attended // m.encoder.heads for m in found} == {8}
    with pytest.raises(UserError, match="width 64 is more than the model's 32"):
        subnets(cell.model, SupernetSettings(widths=[64], heads=[4], ffn_ratios=[1.0], layers=[3]))


def test_a_slice_runs_as_the_subnet_alone():
    """Outputs and every hidden state, with padding and a mask; and each weight is the leading part of the whole's."""
    torch.manual_seed(0)
    whole = Upstream(supernet().model).eval()
    waveform, lengths = torch.randn(2, 8_000), torch.tensor([8_000, 5_000])
    mask = torch.zeros(2, whole.frames(8_000), dtype=torch.bool)
    mask[:, 3:7] = True
    slices = Slices()
    for model in subnets(whole.settings, supernet().objective.supernet):
        alone = cut(whole, model)
        inside = slices.run(whole, model, waveform, lengths, mask=mask)
        outside = alone(waveform, lengths, mask=mask)
        assert all(torch.equal(a, b) for a, b in zip(inside.states, outside.states, strict=True))
        assert sum(p.numel() for p in alone.parameters()) == count(model, NoObjective(), 16_000).params
        for name, p in alone.named_parameters():
            assert torch.equal(p, whole.get_parameter(name)[tuple(slice(n) for n in p.shape)])


def test_each_update_trains_one_subnet_and_its_part_of_the_weights_alone():
    from types import SimpleNamespace

    objective = objectives.build(supernet()).train()
    objective.begin(Upstream(objective.settings.teacher_model), fresh=True)
    drawn = [objective.size(Totals(1, 1, 1, 0.0, update, seed=5)) for update in range(200)]
    assert {m.encoder.width for m in drawn} == {16, 32} and len({m.model_dump_json() for m in drawn}) == 16
    small = next(u for u, m in enumerate(drawn) if (m.encoder.width, m.encoder.layers, m.encoder.heads) == (16, 2, 2))
    mask = torch.zeros(1, objective.upstream.frames(8_000), dtype=torch.bool)
    mask[0, 2:6] = True
    batch = SimpleNamespace(
        waveforms=torch.randn(1, 8_000), lengths=torch.tensor([8_000]), mask=mask, masked=torch.arange(2, 6)[None],
        masked_valid=torch.ones(1, 4, dtype=torch.bool),
    )  # fmt: skip
    objective(batch, Totals(4, 24, 1, 0.0, small, seed=5)).loss.backward()
    grads = {name: p.grad for name, p in objective.upstream.named_parameters()}
    assert all(g is None or not g.abs().sum() for name, g in grads.items() if name.startswith("encoder.layers.2"))
    query = grads["encoder.layers.0.mixer.q_proj.weight"]
    assert query[:16, :16].abs().sum() > 0 and not query[16:].any() and not query[:, 16:].any()
    assert numpy_generator(5, "subnet", small).integers(16) == objective.subnets.index(drawn[small])


def test_training_costs_the_mean_of_the_subnets():
    cell = supernet()
    alone = cell.objective.model_copy(update={"supernet": None})
    each = [count(m, alone, 16_000).train_flops for m in subnets(cell.model, cell.objective.supernet)]
    assert cell_cost(cell, 1.0).train_flops == pytest.approx(np.mean(each), rel=1e-9)
    assert cell_cost(cell, 1.0).params == count(cell.model, alone, 16_000).params


def test_the_best_within_a_budget_stands_alone(project, tmp_path, capsys):
    teacher = {"model": MODEL, "objective": {"name": "none"}, "training": TRAINING, "downstream": {"tasks": []}}
    subnet = teacher | {"start": "survey/light", "model": MODEL | {"encoder": ENCODER | {"width": 16, "heads": 2}}}
    cells = {"teacher": teacher, "light": supernet().model_dump(), "part": subnet}
    plain = Profile.model_validate({"profile": "tiny", "studies": {"survey": {"cells": cells}}})
    experiment = profiles._with_inputs(plain, "test")
    run_cell(experiment, "survey", "teacher")
    run = run_cell(experiment, "survey", "light") / "0"
    table = pd.read_csv(run / "subnets.csv")
    assert len(table) == 16 and table.valid_loss.nunique() > 10
    part = load_upstream(run_cell(experiment, "survey", "part") / "0")  # a cell that starts from a supernet has its slice
    assert all(
        torch.equal(a, b)
        for a, b in zip(part.state_dict().values(), cut(load_upstream(run), part.settings).state_dict().values(), strict=True)
    )

    budget = float(table.macs.median())
    wanted = table[table.macs <= budget].sort_values("valid_loss").iloc[0]
    assert cli.main(["export", str(run), str(tmp_path / "small"), "--macs", str(budget)]) == 0
    assert f"{wanted.layers:.0f} layers of {wanted.width:.0f}" in capsys.readouterr().out
    settings, alone = load_run(tmp_path / "small")
    assert (settings.model.encoder.width, settings.model.encoder.ffn) == (wanted.width, wanted.ffn)
    waveform = torch.randn(1, 8_000)
    objective = load_run(run)[1]
    inside = Slices().run(objective.upstream, settings.model, waveform)
    assert torch.equal(alone(waveform).output, inside.output)
    assert best_subnet(run, rtf=100.0)[0] == objective.subnets[int(table.valid_loss.idxmin())]
    assert cli.main(["export", str(run), str(tmp_path / "none"), "--macs", "1"]) == 2
    assert cli.main(["export", str(tmp_path / "small"), str(tmp_path / "again"), "--macs", "1e12"]) == 2
    assert json.loads((tmp_path / "small" / "metrics.json").read_text())["status"] == "completed"
    wider = parse(ModelSettings, MODEL | {"encoder": ENCODER | {"width": 64}}, "test")
    with pytest.raises(UserError, match="no part of its supernet: no mask_embedding of at least the shape"):
        begin_with(Upstream(wider), run)
