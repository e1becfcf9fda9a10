"""fairseq checkpoints: what is read computes as torchaudio's own importer says; what would run code is refused."""

import argparse

import pytest
import torch
from torchaudio.models import wav2vec2_model
from torchaudio.models.wav2vec2.utils.import_fairseq import _convert_state_dict

from sslrepro.errors import UserError
from sslrepro.interop.fairseq_in import conv_layers, load_fairseq, read_checkpoint
from sslrepro.models import Upstream

CFG = {
    "model": {
        "extractor_mode": "default",
        "conv_feature_layers": "[(16, 10, 5)] + [(16, 3, 4)] * 2",
        "encoder_layers": 2,
        "encoder_embed_dim": 24,
        "encoder_ffn_embed_dim": 40,
        "encoder_attention_heads": 4,
        "conv_pos": 16,
        "conv_pos_groups": 4,
        "layer_norm_first": False,
        "activation_fn": "gelu",
    },
    "task": {"normalize": False},
}


def fairseq_state(layer_norm: bool, bias: bool) -> dict[str, torch.Tensor]:
    """Names and shapes of fairseq's Wav2Vec2Model, random values."""
    torch.manual_seed(0)
    shapes = {"mask_emb": (24,), "layer_norm": (16,), "post_extract_proj": (24, 16), "encoder.layer_norm": (24,)}
    for i in range(3):
        shapes[f"feature_extractor.conv_layers.{i}.0"] = (16, 1 if i == 0 else 16, 10 if i == 0 else 3)
        if layer_norm:
            shapes[f"feature_extractor.conv_layers.{i}.2.1"] = (16,)
    if not layer_norm:
        shapes["feature_extractor.conv_layers.0.2"] = (16,)
    for i in range(2):
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes[f"encoder.layers.{i}.self_attn.{name}"] = (24, 24)
        shapes |= {f"encoder.layers.{i}.fc1": (40, 24), f"encoder.layers.{i}.fc2": (24, 40)}
        shapes |= {f"encoder.layers.{i}.{name}": (24,) for name in ("self_attn_layer_norm", "final_layer_norm")}
    shapes |= {"quantizer.weight_proj": (20, 16), "project_q": (8, 8), "final_proj": (8, 24)}
    state = {"mask_emb": torch.rand(24), "quantizer.vars": torch.rand(1, 20, 4)}
    for name, shape in shapes.items():
        if name == "mask_emb":
            continue
        state[f"{name}.weight"] = 0.3 * torch.randn(shape) + (1.0 if len(shape) == 1 else 0.0)
        if bias or ".conv_layers." not in name or len(shape) == 1:
            state[f"{name}.bias"] = 0.1 * torch.randn(shape[0])
    state["encoder.pos_conv.0.weight_g"] = 1 + torch.rand(1, 1, 16)
    state["encoder.pos_conv.0.weight_v"] = torch.randn(24, 6, 16)
    state["encoder.pos_conv.0.bias"] = torch.randn(24)
    return state


@pytest.mark.parametrize("large", [False, True], ids=["base", "large"])
def test_outputs_are_those_of_torchaudios_importer(large: bool, tmp_path) -> None:
    state = fairseq_state(layer_norm=large, bias=large)
    cfg = {"model": CFG["model"] | ({"extractor_mode": "layer_norm", "conv_bias": True, "layer_norm_first": True} if large else {})}
    torch.save({"args": None, "cfg": cfg, "model": state, "optimizer_history": [{"num_updates": 3}]}, tmp_path / "c.pt")
    ours, loaded = load_fairseq(tmp_path / "c.pt")
    assert sorted(loaded.left_out) == sorted(k for k in state if k.split(".")[0] in ("quantizer", "project_q", "final_proj"))

    peer = wav2vec2_model(
        "layer_norm" if large else "group_norm", [(16, 10, 5), (16, 3, 4), (16, 3, 4)], large, 24, 0.0, 16, 4, 2, 4, 0.0, 40, 0.0, 0.0,
        large, 0.0, None,
    ).eval()  # fmt: skip
    converted = {
        key.replace("weight_g", "parametrizations.weight.original0").replace("weight_v", "parametrizations.weight.original1"): value
        for key, value in _convert_state_dict(state).items()
    }
    peer.load_state_dict(converted)
    waveform = torch.randn(1, 4_000)
    with torch.no_grad():
        torch.testing.assert_close(ours(waveform).output, peer(waveform)[0], rtol=1e-4, atol=1e-5)


def test_a_fine_tuned_checkpoint_and_settings_from_outside(tmp_path) -> None:
    plain = fairseq_state(False, False)
    torch.save({"cfg": CFG, "model": plain}, tmp_path / "a.pt")
    first, _ = load_fairseq(tmp_path / "a.pt")
    tuned = {f"w2v_encoder.w2v_model.{k}": v for k, v in plain.items() if k.split(".")[0] not in ("quantizer", "project_q", "final_proj")}
    torch.save({"model": tuned | {"w2v_encoder.proj.weight": torch.zeros(30, 24)}}, tmp_path / "b.pt")
    with pytest.raises(UserError, match="holds no settings"):
        load_fairseq(tmp_path / "b.pt")
    second, loaded = load_fairseq(tmp_path / "b.pt", first.settings)
    assert loaded.left_out == ("w2v_encoder.proj.weight",)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    assert isinstance(second, Upstream)


def test_pickled_objects_are_refused_with_the_reason(tmp_path) -> None:
    torch.save({"args": argparse.Namespace(arch="wav2vec2"), "model": {}}, tmp_path / "old.pt")
    with pytest.raises(UserError, match=r"argparse\.Namespace.*weights_only=False") as caught:
        read_checkpoint(tmp_path / "old.pt")
    assert "old.pt" in str(caught.value)


def test_nothing_in_the_file_runs(tmp_path) -> None:
    marker = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return marker.touch, ()

    torch.save({"model": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(UserError, match="pickled objects"):
        read_checkpoint(tmp_path / "trap.pt")
    assert not marker.exists()


def test_broken_files(tmp_path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_checkpoint(tmp_path / "none.pt")
    torch.save({"model": {"a": torch.zeros(10_000)}}, tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:2_000])
    with pytest.raises(UserError, match=r"cut\.pt"):
        read_checkpoint(tmp_path / "cut.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match="no state dict"):
        read_checkpoint(tmp_path / "list.pt")


def test_convolutions_are_parsed_and_never_evaluated() -> None:
    published = "[(512, 10, 5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
    assert conv_layers(published, "x") == [(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2
    for bad in ("__import__('os').getcwd()", "[(1, 2)]", "[(1, 2, 3)] * 10**9", "[(1, 2, 'a')]", "(", "f(3)", "[(1,2,3)] - [(1,2,3)]"):
        with pytest.raises(UserError, match="conv_feature_layers"):
            conv_layers(bad, "x")
