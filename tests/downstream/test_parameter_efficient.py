"""Each method learns what it says and nothing else, begins as the pre-trained model, costs what it says, and comes back from its file."""

import json

import pytest
import soundfile
import torch
from safetensors.torch import save_file

from sslrepro import cli
from sslrepro.config import (
    AdaLoRATuning,
    AdapterTuning,
    CellSettings,
    DownstreamSettings,
    EncoderSettings,
    FineTuneSettings,
    FrozenTuning,
    FullTuning,
    LabelShare,
    LadderTuning,
    LogMelFrontEnd,
    LoRATuning,
    ModelSettings,
    NoObjective,
    PositionSettings,
)
from sslrepro.downstream import fine_tune, score
from sslrepro.downstream.fine_tune import CTCModel
from sslrepro.downstream.kept import load_kept
from sslrepro.downstream.parameter_efficient import Adapters, learned, merge, orthogonality, prepare
from sslrepro.errors import UserError
from sslrepro.models.upstream import Upstream
from sslrepro.training.runs import load_upstream

torch.set_num_threads(1)
ENCODER = EncoderSettings(
    layers=2, width=32, ffn=64, heads=4, dropout=0.0, attention_dropout=0.0, position=PositionSettings(kernel=8, groups=4)
)
METHODS = {
    "frozen": FrozenTuning(),
    "lora": LoRATuning(rank=2, alpha=4),
    "adalora": AdaLoRATuning(initial_rank=3, rank=2, alpha=4, begin=0.1, end=0.5),
    "adapter": AdapterTuning(width=4),
    "ladder": LadderTuning(reduction=4),
}
HEAD = {"out.weight", "out.bias"}


def upstream() -> Upstream:
    torch.manual_seed(0)
    return Upstream(ModelSettings(front_end=LogMelFrontEnd(mels=20), encoder=ENCODER))


def prepared(method, device: str = "cpu") -> CTCModel:
    model = CTCModel(upstream(), ["a", "b"]).to(device)
    prepare(model, method, 20)
    return model


def settings(method, rate: float = 1.0e-2) -> FineTuneSettings:
    return FineTuneSettings(
        method=method, symbols="phones", batch_seconds=20.0, micro_batch_seconds=10.0, learning_rate=rate, freeze=0.0,
        mask={"share": 0.0},
    )  # fmt: skip


def test_what_learns():
    """By hand: rank 2 of two linears of 32 x 32 in two layers; two bottlenecks of 4 in each layer; a side network 8 wide, 16 inside."""
    names = {kind: set(learned(prepared(method))) for kind, method in METHODS.items()}
    assert names["frozen"] == HEAD
    assert all(".q_proj.lora_" in n or ".v_proj.lora_" in n for n in names["lora"] - HEAD)
    assert all(n.startswith("upstream.encoder.layers.") and ".inner." not in n for n in names["adapter"] - HEAD)
    assert all(n.startswith("side.") for n in names["ladder"] - HEAD)
    sizes = {kind: sum(p.numel() for p in learned(prepared(method)).values()) - 99 for kind, method in METHODS.items()}
    layer = 4 * (8 * 8 + 8) + (8 * 16 + 16) + (16 * 8 + 8) + 2 * 16
    assert sizes == {
        "frozen": 0, "lora": 2 * 2 * 2 * 2 * 32, "adalora": 2 * 2 * 3 * (2 * 32 + 1), "adapter": 4 * (2 * 4 * 32 + 4 + 32),
        "ladder": 3 * (32 * 8 + 8) + 2 * layer + 2 + (8 * 32 + 32),
    }  # fmt: skip
    whole = learned(prepared(FullTuning()))
    assert not any(n.startswith("upstream.feature_norm") for n in whole) and "upstream.proj.weight" in whole


@pytest.mark.parametrize("kind", METHODS)
def test_each_begins_as_the_pretrained_model(kind):
    waveform, lengths = torch.randn(2, 8_000), torch.tensor([8_000, 6_000])
    plain, model = CTCModel(upstream(), ["a", "b"]).eval(), prepared(METHODS[kind]).eval()
    model.out.load_state_dict(plain.out.state_dict())
    torch.testing.assert_close(model(waveform, lengths)[0], plain(waveform, lengths)[0])


def test_only_the_side_network_is_differentiated():
    """The ladder keeps no activation of the encoder: its states have no gradient, whatever its own weights do."""
    model = prepared(METHODS["ladder"])
    output = model.upstream(torch.randn(1, 8_000))
    assert not any(state.requires_grad for state in output.hidden_states)


@pytest.mark.parametrize("kind", METHODS)
def test_trained_saved_alone_reloaded_and_merged(kind, corpus, tmp_path):
    method = METHODS[kind]
    base = upstream()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    tuned, result = fine_tune(base, corpus, settings(method), LabelShare(minutes=0.9, updates=6), 0, "cpu")
    assert all(torch.equal(before[name], tensor) for name, tensor in base.state_dict().items())
    added = learned(tuned)
    kept = {name: tensor for name, tensor in tuned.upstream.state_dict().items() if f"upstream.{name}" not in added}
    mine = {name.replace(".base_layer", "").replace(".inner", ""): tensor for name, tensor in kept.items()}
    assert all(torch.equal(mine[name], tensor) for name, tensor in before.items())
    Adapters.from_model(tuned, settings(method)).write(tmp_path / "adapter.safetensors")
    assert result.metrics["cost.trainable_params"] == sum(p.numel() for p in learned(tuned).values())
    read = Adapters.read(tmp_path / "adapter.safetensors")
    assert (read.method, read.of, read.symbols) == (method, "phones", tuned.symbols)
    fresh = read.put_on(CTCModel(upstream(), read.symbols), "the file")
    waveform, lengths = torch.randn(1, 8_000), torch.tensor([8_000])
    wanted = tuned(waveform, lengths)[0]
    assert torch.equal(fresh(waveform, lengths)[0], wanted)
    untrained = prepared(method).eval()
    assert not torch.allclose(untrained.upstream(waveform).output, tuned.upstream(waveform).output) or kind in ("frozen", "ladder")
    if kind in ("lora", "adalora"):
        merged = merge(fresh)
        torch.testing.assert_close(merged(waveform, lengths)[0], wanted)
        assert set(merged.upstream.state_dict()) == set(before)
    else:
        with pytest.raises(UserError, match="only LoRA and AdaLoRA merge"):
            merge(fresh)


def test_a_file_of_another_method_is_refused(tmp_path):
    found = Adapters.from_model(prepared(METHODS["adapter"]), settings(METHODS["lora"]))
    with pytest.raises(UserError, match="the file: not the weights of method lora"):
        found.put_on(CTCModel(upstream(), ["a", "b"]), "the file")
    save_file(found.tensors, tmp_path / "bare.safetensors")
    with pytest.raises(UserError, match=r"bare\.safetensors: its header does not say by what method"):
        Adapters.read(tmp_path / "bare.safetensors")


def finished(folder, upstream_, method, corpus):
    """A finished run of a cell that tunes by a method, and the model that it had in memory."""
    cell = CellSettings(
        model=upstream_.settings, objective=NoObjective(),
        downstream=DownstreamSettings(fine_tune=settings(method).model_copy(update={"shares": [LabelShare(minutes=0.9, updates=6)]})),
    )  # fmt: skip
    scores = score(upstream_, corpus, cell.downstream, 0, "cpu")
    folder.mkdir()
    scores.write(folder)
    save_file(upstream_.state_dict(), folder / "model.safetensors")
    (folder / "settings.json").write_text(json.dumps({"cell": cell.model_dump(mode="json")}))
    (folder / "metrics.json").write_text(json.dumps(scores.metrics | {"status": "completed"}))
    return fine_tune(upstream_, corpus, cell.downstream.fine_tune, cell.downstream.fine_tune.shares[0], 0, "cpu")[0]


@pytest.mark.parametrize("kind", ["lora", "adapter"])
def test_a_run_reads_audio_with_what_it_learned(kind, corpus, tmp_path, capsys):
    """`transcribe` on the run is the tuned model; merged, where it merges, it reads the same as a run of its own."""
    torch.manual_seed(1)
    run = tmp_path / "run"
    tuned = finished(run, upstream(), METHODS[kind], corpus)
    with torch.no_grad():  # a head that reads more than blanks
        tuned.out.bias[0] -= 1.0
    Adapters.from_model(tuned, settings(METHODS[kind])).write(run / "fine_tune_0.9min.safetensors")
    wave = corpus.audio(int(corpus.split("test").index[0])).astype("float32")
    soundfile.write(tmp_path / "a.wav", wave, 16_000, subtype="FLOAT")
    wanted = " ".join(tuned.transcribe([wave])[0])
    assert wanted
    runs = [run]
    if kind == "lora":
        assert cli.main(["export", str(run), str(tmp_path / "merged"), "--merge"]) == 0
        runs.append(tmp_path / "merged")
        whole = load_upstream(tmp_path / "merged")
        assert set(whole.state_dict()) == set(upstream().state_dict())
        assert not torch.equal(whole.encoder.layers[0].mixer.q_proj.weight, upstream().encoder.layers[0].mixer.q_proj.weight)
        assert load_kept(tmp_path / "merged")[0].log_probs([wave])[0] == pytest.approx(tuned.log_probs([wave])[0], abs=1e-5)
    else:
        assert cli.main(["export", str(run), str(tmp_path / "merged"), "--merge"]) == 2
        assert "only LoRA and AdaLoRA merge" in capsys.readouterr().err and not (tmp_path / "merged").exists()
    capsys.readouterr()
    for folder in runs:
        assert cli.main(["transcribe", str(folder), str(tmp_path / "a.wav"), "--rtf", "1000", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)["files"][0]
        assert told["text"] == wanted and told["expected_error"] is None


def test_adalora_reaches_its_rank(corpus):
    """Six updates, ranks fall from 3 to 2 on average between the first and the third: of 12 triples 8 are left."""
    tuned, _ = fine_tune(upstream(), corpus, settings(METHODS["adalora"]), LabelShare(minutes=0.9, updates=6), 0, "cpu")
    left = sum(int((p != 0).sum()) for name, p in learned(tuned).items() if ".lora_E." in name)
    assert left == 8


def test_orthogonality_by_hand():
    model = prepared(METHODS["adalora"])
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".lora_A." in name:
                p.copy_(torch.eye(3, 32))
            elif ".lora_B." in name:
                p.zero_()
    assert orthogonality(model).item() == pytest.approx((0 + 3**0.5) / 2)


def test_memory_by_method(corpus):
    """Of the same first micro-batch: full > low-rank and adapters > ladder > frozen; gradients and Adam's state are in it."""
    share = LabelShare(minutes=0.9, updates=1)
    methods = {"full": FullTuning(), **{kind: METHODS[kind] for kind in ("lora", "adapter", "ladder", "frozen")}}
    used = {}
    for kind, method in methods.items():
        metrics = fine_tune(upstream(), corpus, settings(method), share, 0, "cpu")[1].metrics
        used[kind] = metrics["cost.tuning_bytes"]
        assert used[kind] > 12 * metrics["cost.trainable_params"]
    assert used["full"] > used["adapter"] > used["ladder"] > used["frozen"]
    assert used["full"] > used["lora"] > used["ladder"]


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (LoRATuning(linears=["query"]), "no linear 'query'; there are: down, k_proj"),
        (AdaLoRATuning(begin=0.6, end=0.5), "from update 12 to 10 of 20"),
    ],
)
def test_what_does_not_fit_is_said(method, said):
    with pytest.raises(UserError, match=said):
        prepared(method)
