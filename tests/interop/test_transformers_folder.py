"""Folders out and in: a process that has never heard of sslrepro loads them and computes the same; what has no equal is refused."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from sslrepro.config import CompressionSettings, EncoderSettings, LogMelFrontEnd, ModelSettings, PositionSettings, WaveformFrontEnd
from sslrepro.errors import UserError
from sslrepro.interop.transformers_in import load_folder
from sslrepro.interop.transformers_out import export_transformers
from sslrepro.models import Upstream

FRONT_END = {"channels": [8, 8, 12, 16], "kernels": [10, 4, 4, 4], "strides": [5, 4, 4, 4], "padding": [0] * 4}
ENCODER = {"layers": 2, "width": 24, "ffn": 40, "heads": 4, "position": PositionSettings(kernel=8, groups=4)}
SQUEEZE = {"compression": CompressionSettings(kind="fixed", squeeze=2)}
DATA2VEC = {"position": PositionSettings(kernel=5, groups=4, layers=3)}
LAYER = {"norm": "layer", "bias": True}


def build(front_end: dict | None = None, encoder: dict | None = None, **model) -> Upstream:
    torch.manual_seed(0)
    settings = ModelSettings(
        front_end=WaveformFrontEnd(**FRONT_END | (front_end or {})), encoder=EncoderSettings(**ENCODER | (encoder or {})), **model
    )
    upstream = Upstream(settings).eval()
    with torch.no_grad():
        for parameter in upstream.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return upstream


MODELS = {
    "wav2vec2": lambda: build(),
    "wav2vec2-large": lambda: build(LAYER, {"norm": "pre", "activation": "gelu_tanh"}),
    "wav2vec2-same-width": lambda: build(encoder={"width": 16}),
    "wav2vec2-zero-mask": lambda: build(mask_embedding="zero"),
    "hubert": lambda: build(LAYER, feature_norm=False),
    "sew": lambda: build({"pointwise": True}, SQUEEZE),
    "data2vec-audio": lambda: build(LAYER, DATA2VEC),
}
SCRIPT = """
import sys, torch, transformers
from pathlib import Path
from safetensors.torch import load_file, save_file
root = Path(sys.argv[1])
waveform = load_file(root / "waveform")["x"]
out = {}
for folder in sorted(p for p in root.iterdir() if p.is_dir()):
    model, info = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), (folder.name, info)
    with torch.no_grad():
        out[folder.name] = model.eval()(waveform).last_hidden_state.contiguous()
save_file(out, root / "outputs")
assert not any(name.startswith("sslrepro") for name in sys.modules)
"""


def test_a_stranger_loads_them_and_computes_the_same(tmp_path) -> None:
    waveform = torch.randn(2, 4_000)
    save_file({"x": waveform}, tmp_path / "waveform")
    models = {name: make() for name, make in MODELS.items()}
    for name, model in models.items():
        assert export_transformers(model, tmp_path / name) == next(
            k for k in ("wav2vec2", "hubert", "sew", "data2vec-audio") if name.startswith(k)
        )
    assert export_transformers(models["wav2vec2"], tmp_path / "hubert-by-name", family="hubert") == "hubert"
    run = subprocess.run([sys.executable, "-P", "-c", SCRIPT, tmp_path], cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr[-3_000:]
    outputs = load_file(tmp_path / "outputs")
    assert set(outputs) == {*MODELS, "hubert-by-name"}
    for name, got in outputs.items():
        with torch.no_grad():
            wanted = models["wav2vec2" if name == "hubert-by-name" else name](waveform).output
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", ["wav2vec2-large", "hubert", "sew", "data2vec-audio"])
def test_out_and_in_again(name: str, tmp_path) -> None:
    model = MODELS[name]()
    export_transformers(model, tmp_path / "m")
    back, loaded = load_folder(tmp_path / "m")
    assert loaded == ((), ())
    waveform, lengths = torch.randn(2, 4_000), [4_000, 3_000]
    with torch.no_grad():
        torch.testing.assert_close(back(waveform, lengths).output[1, :20], model(waveform, lengths).output[1, :20])


def test_normalisation_travels(tmp_path) -> None:
    export_transformers(build(normalize_waveform=True), tmp_path / "m")
    assert load_folder(tmp_path / "m")[0].settings.normalize_waveform


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Upstream(ModelSettings(front_end=LogMelFrontEnd(), encoder=None)), "logmel front end"),
        (lambda: build({"padding": [3, 1, 1, 0]}), "padded convolutions"),
        (lambda: build(encoder={"layout": "conformer", "norm": "pre"}), "conformer"),
        (lambda: build(encoder={"position": PositionSettings(kind="sinusoidal")}), "sinusoidal"),
        (lambda: build(encoder=SQUEEZE | {"norm": "pre"}), "compression with pre-norm"),
        (lambda: build(encoder={"compression": CompressionSettings(kind="stochastic")}), "compression 'stochastic'"),
        (lambda: build(encoder=DATA2VEC), "group-normed"),
    ],
)
def test_what_has_no_equal_is_refused_by_name(make, words: str, tmp_path) -> None:
    with pytest.raises(UserError, match=words):
        export_transformers(make(), tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_used(tmp_path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        export_transformers(build(), tmp_path / "full")
    with pytest.raises(UserError, match=r"config\.json: no such file"):
        load_folder(tmp_path / "full")
    (tmp_path / "full" / "config.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        load_folder(tmp_path / "full")
    export_transformers(build(), tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="pickled weights are not read"):
        load_folder(tmp_path / "m")
