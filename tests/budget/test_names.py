"""The named models have their published sizes."""

from __future__ import annotations

import json

import pytest
import torch

from sslrepro.budget.commands import count_command
from sslrepro.budget.count import count
from sslrepro.budget.names import HUBERT, NAMED, SHAPES, WAV2VEC2, cost_of, named, transformer
from sslrepro.budget.updates import PAPER_SECONDS, equal_compute_updates
from sslrepro.config import CellSettings, DistillationSettings, MaskSettings
from sslrepro.errors import UserError
from sslrepro.models.mixers import MIXERS
from sslrepro.objectives import build

# compute-budget paper, table A.1 of the facts: HuBERT's and wav2vec 2.0's, in millions
PUBLISHED = {
    "slim-30": (5.9, 6.2),
    "slim-50": (9.9, 10.3),
    "slim-70": (14.1, 14.4),
    "slim-100": (20.0, 20.4),
    "slim-200": (40.0, 40.4),
}
UPDATES = {
    "slim-30": 550_070,
    "slim-50": 499_953,
    "slim-70": 454_811,
    "slim-100": 400_000,
    "slim-200": 297_370,
    "hubert-base": 187_222,
}


def millions(params: int) -> float:
    return round(params / 1e6, 1)


@pytest.mark.parametrize("name", PUBLISHED)
def test_family(name: str) -> None:
    hubert = named(name).cost(PAPER_SECONDS)
    wav2vec2 = count(transformer(*SHAPES[name]), WAV2VEC2, hubert.samples)
    assert (millions(hubert.params), millions(wav2vec2.params)) == PUBLISHED[name]


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("hubert-base", 94.7),
        ("hubert-large", 316.6),
        ("wav2vec2-base", 95.0),
        ("wav2vec2-large", 317.4),
        ("small", 20.9),
        ("summarymixing-w2v2", 154.8),
        ("mhsa-w2v2-conformer", 165.3),
    ],
)
def test_published_size(name: str, published: float) -> None:
    assert millions(named(name).cost(PAPER_SECONDS).params) == published


def test_slim_cost() -> None:
    cost = named("slim-100").cost(PAPER_SECONDS)
    assert cost.frames == 781
    assert round(cost.macs / 1e9, 1) == 56.2
    assert round(cost.components["feature_extractor"].macs / cost.macs, 2) == 0.68


@pytest.mark.parametrize("name", UPDATES)
def test_update_counts_of_the_budget_paper(name: str) -> None:
    reference = named("slim-100").cost(PAPER_SECONDS).macs
    updates = equal_compute_updates(400_000, reference, named(name).cost(PAPER_SECONDS).macs)
    assert updates == pytest.approx(UPDATES[name], rel=0.01)


def test_reductions() -> None:
    base = named("hubert-base").cost(PAPER_SECONDS)

    def fewer(name: str, what: str) -> float:
        return 1 - getattr(named(name).cost(PAPER_SECONDS), what) / getattr(base, what)

    assert fewer("distilhubert", "upstream_params") == pytest.approx(0.75, abs=0.005)
    assert 0.70 <= fewer("distilhubert", "params") <= 0.80
    assert fewer("fithubert", "upstream_params") == pytest.approx(1 - 0.238, abs=0.006)  # the abstract's 23.8 %; ours 24.3 %
    assert 0.27 <= fewer("lighthubert-base", "upstream_params") <= 0.31
    assert 0.30 <= fewer("melhubert-20ms", "macs") <= 0.36


def test_a_teacher_costs_its_forward_in_training_alone() -> None:
    cost = named("distilhubert").cost(PAPER_SECONDS)
    teacher = cost.components["teacher"]
    base = count(transformer(12, 768, 3072, 12), HUBERT, cost.samples)
    heads = base.components["heads"]
    assert (teacher.params, teacher.macs, teacher.training) == (0, 0, base.macs - heads.macs)


@pytest.mark.parametrize("name", [n for n, m in NAMED.items() if m.model.encoder.mixer in MIXERS])
def test_the_built_model_has_as_many_parameters(name: str) -> None:
    with torch.device("meta"):
        built = build(CellSettings(model=NAMED[name].model, objective=NAMED[name].objective))
    upstream = getattr(built, "upstream", built)
    cost = NAMED[name].cost(1.0)
    assert cost.upstream_params == sum(p.numel() for p in upstream.parameters())
    if upstream is not built:
        assert cost.params == sum(p.numel() for p in built.parameters())


def test_sew_is_the_library_s(monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import SEWConfig, SEWModel

    for name, layers, width, heads in (("sew-tiny", 12, 512, 8), ("sew-small", 12, 768, 12), ("sew-mid", 24, 768, 12)):
        config = SEWConfig(
            num_hidden_layers=layers,
            hidden_size=width,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            squeeze_factor=2,
            num_conv_pos_embeddings=31,
        )
        with torch.device("meta"):
            peer = SEWModel(config)
        assert named(name).cost(1.0).upstream_params == sum(p.numel() for p in peer.parameters())


def test_unknown_name_says_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"slim-1000.*slim-100"):
        cost_of("slim-1000", 1.0)


@pytest.mark.parametrize("seconds", [-1.0, 0.0, float("nan"), float("inf"), 0.01])
def test_lengths_that_make_no_sense(seconds: float) -> None:
    with pytest.raises(UserError, match=r"--seconds: .* (too short|is not a length)"):
        cost_of("slim-100", seconds)


def test_distilhubert_is_what_its_objective_costs() -> None:
    """The named model's heads and teacher, written from the paper, against the settings that are tested on the built model."""
    paper = named("distilhubert").cost(PAPER_SECONDS)
    objective = DistillationSettings(
        teacher="a/b", teacher_model=transformer(12, 768, 3072, 12), layers=[4, 12], mask=MaskSettings(share=0.0)
    )
    cost = count(named("distilhubert").model, objective, paper.samples)
    assert (paper.params, paper.macs, paper.train_flops) == (cost.params, cost.macs, cost.train_flops)


def test_a_cell_s_settings_from_a_file(tmp_path) -> None:
    path = tmp_path / "cell.yaml"
    path.write_text("model: {encoder: {layers: 3, width: 640, ffn: 2048, heads: 8}}\nobjective: {name: masked_prediction, classes: 504}\n")
    assert cost_of(str(path), PAPER_SECONDS).params == named("small").cost(PAPER_SECONDS).params
    path.write_text("model: {encoder: {depth: 3}}\n")
    with pytest.raises(UserError, match="depth"):
        cost_of(str(path), 1.0)


def test_command(capsys) -> None:
    assert count_command("slim-100", PAPER_SECONDS, as_json=True) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {"params", "macs", "train_flops", "components"} <= printed.keys()
    assert sum(part["macs"] for part in printed["components"].values()) == printed["macs"]
    assert count_command("slim-100", PAPER_SECONDS, as_json=False) == 0
    text = capsys.readouterr().out
    assert "feature_extractor" in text and "68" in text and "20.0 M" in text
