"""A run as it stands on disk, in the hands of others: exported for transformers, and as an upstream of S3PRL."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sslrepro import cli
from sslrepro.errors import UserError
from sslrepro.interop.s3prl import hubconf
from sslrepro.interop.s3prl.expert import UpstreamExpert
from sslrepro.training.runs import load_upstream

STRANGER = """
import sys
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel
model = AutoModel.from_pretrained("exported").eval()
with torch.no_grad():
    save_file({"y": model(load_file("waveform")["x"]).last_hidden_state.contiguous()}, "output")
assert not any(name.startswith("sslrepro") for name in sys.modules)
"""


def test_export_writes_what_a_stranger_loads(runs, tmp_path, capsys) -> None:
    assert cli.main(["export", str(runs["waveform"]), str(tmp_path / "exported"), "--format", "transformers"]) == 0
    assert "wav2vec2" in capsys.readouterr().out
    waveform = torch.randn(2, 4_000)
    save_file({"x": waveform}, tmp_path / "waveform")
    done = subprocess.run([sys.executable, "-P", "-c", STRANGER], cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3_000:]
    with torch.no_grad():
        wanted = load_upstream(runs["waveform"])(waveform).output
    torch.testing.assert_close(load_file(tmp_path / "output")["y"], wanted, rtol=1e-4, atol=1e-5)


def test_export_refuses_by_name_and_writes_nothing(runs, tmp_path, capsys) -> None:
    refused = {"no logmel front end": runs["logmel"], "not a finished run": tmp_path / "nothing"}
    refused["this run is collapsed"] = shutil.copytree(runs["waveform"], tmp_path / "bad")
    metrics = json.loads((tmp_path / "bad" / "metrics.json").read_text())
    (tmp_path / "bad" / "metrics.json").write_text(json.dumps(metrics | {"status": "collapsed"}))
    refused["model.safetensors: no such file"] = shutil.copytree(runs["waveform"], tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    for words, run in refused.items():
        assert cli.main(["export", str(run), str(tmp_path / "out")]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cell", ["waveform", "logmel"])
def test_s3prl_contract(cell: str, runs) -> None:
    """As S3PRL calls it: built by keywords, unequal waveforms in a list, then round(samples / rate) frames of each row."""
    expert = hubconf.sslrepro_local(ckpt=str(runs[cell]), model_config=None, refresh=False).eval()
    wavs = [torch.randn(n) for n in (16_000, 7_999, 12_345, 801)]
    with torch.no_grad():
        result = expert(wavs)
    rate = expert.get_downsample_rates("hidden_states")
    states = result["hidden_states"]
    assert rate == 320 and isinstance(rate, int)
    assert len(states) == 3 and result["last_hidden_state"] is states[-1]
    assert {state.shape for state in states} == {(4, 50, 24)}
    assert all(state.isfinite().all() for state in states)

    upstream = load_upstream(runs[cell])
    for row, wav in enumerate(wavs):
        with torch.no_grad():
            alone = expert([wav])["hidden_states"]
            plain = upstream(wav[None]).hidden_states
        taken = round(len(wav) / rate)
        for state, single, wanted in zip(states, alone, plain, strict=True):
            frames = wanted.shape[1]
            assert taken - 2 <= frames <= taken + 1 and single.shape[1] >= taken
            torch.testing.assert_close(state[row, :frames], wanted[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(state[row, :taken], single[0, :taken], rtol=1e-4, atol=1e-5)
            assert (state[row, frames:] == state[row, frames - 1]).all()


def test_torch_hub_finds_it_by_path(runs) -> None:
    expert = torch.hub.load(str(Path(hubconf.__file__).parent), "sslrepro_local", ckpt=str(runs["waveform"]), source="local")
    assert isinstance(expert, UpstreamExpert)


def test_s3prl_gets_settings_from_the_run_alone(runs) -> None:
    with pytest.raises(UserError, match="model_config"):
        UpstreamExpert(str(runs["waveform"]), "config.yaml")
    with pytest.raises(UserError, match="not a finished run"):
        UpstreamExpert("no/such/run")
