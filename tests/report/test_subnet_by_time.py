"""`sslrepro export RUN DIR --rtf X`: the best subnet that this machine is fast enough for, by clocks whose times are given."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest

from sslrepro import cli
from sslrepro.config import EncoderSettings, LogMelFrontEnd, ModelSettings, PositionSettings
from sslrepro.models.upstream import Upstream
from sslrepro.training import subnets

LOSSES = {8: 3.0, 16: 2.0, 32: 1.0}  # by width: the wider, the better and the slower
TIMES = {8: 0.01, 16: 0.02, 32: 0.04}  # seconds a second of speech


def model(width: int) -> ModelSettings:
    encoder = EncoderSettings(layers=1, width=width, ffn=2 * width, heads=2, position=PositionSettings(kernel=4, groups=2))
    return ModelSettings(front_end=LogMelFrontEnd(mels=20), encoder=encoder)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The run of a supernet of three widths."""
    folder = tmp_path / "run"
    folder.mkdir()
    rows = [{"width": width, "macs": 1000.0 * width, "valid_loss": loss} for width, loss in LOSSES.items()]
    pd.DataFrame(rows).to_csv(folder / subnets.TABLE, index=False)
    (folder / "settings.json").write_text('{"cell": {}}')
    supernet = SimpleNamespace(upstream=Upstream(model(32)), subnets=[model(width) for width in LOSSES])
    monkeypatch.setattr(subnets, "load_run", lambda path: (None, supernet))
    monkeypatch.setattr(subnets, "seconds_a_second", lambda alone: TIMES[alone.settings.encoder.width])
    return folder


@pytest.mark.parametrize(("limits", "width"), [(["--rtf", "0.04"], 32), (["--rtf", "0.03"], 16), (["--rtf", "1", "--macs", "9000"], 8)])
def test_the_best_that_is_fast_enough_is_written(run, tmp_path, capsys, limits, width):
    assert cli.main(["export", str(run), str(tmp_path / "out"), *limits]) == 0
    assert f"1 layers of {width}, " in capsys.readouterr().out
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_none_is_fast_enough(run, tmp_path, capsys):
    assert cli.main(["export", str(run), str(tmp_path / "out"), "--rtf", "0.001"]) == 2
    said = capsys.readouterr().err
    assert "no subnet keeps --rtf 0.001; the fastest that was timed takes 0.01 s" in said and not (tmp_path / "out").exists()
    assert cli.main(["export", str(run), str(tmp_path / "out"), "--rtf", "0.03", "--macs", "10"]) == 2
    assert "no subnet keeps --macs 10 and --rtf 0.03; the smallest has 8000 MACs" in capsys.readouterr().err


@pytest.mark.parametrize(
    "limit", [["--macs", "nan"], ["--macs", "inf"], ["--macs", "0"], ["--macs", "-5"], ["--rtf", "nan"], ["--rtf", "0"]]
)
def test_a_limit_that_is_none_is_refused(run, tmp_path, capsys, limit):
    assert cli.main(["export", str(run), str(tmp_path / "out"), *limit]) == 2
    assert capsys.readouterr().err == f"sslrepro: export {limit[0]} {limit[1]}: give a finite number above 0\n"


def test_a_folder_that_cannot_be_written_is_one_line(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "in"):
        assert cli.main(["export", str(run), str(out), "--macs", "9000"]) == 2
        assert capsys.readouterr().err.startswith(f"sslrepro: {tmp_path / 'file'}: a file, so {out} cannot be a folder")
    monkeypatch.setattr("pathlib.Path.mkdir", lambda *given, **how: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert cli.main(["export", str(run), str(tmp_path / "out"), "--macs", "9000"]) == 2
    said = capsys.readouterr().err
    assert "the subnet could not be written ([Errno 13] Permission denied)" in said and said.count("\n") == 1


def test_a_subnet_is_a_run_or_for_transformers(run, tmp_path, capsys):
    """Of study/cell/seed that it was cut from; a front end that transformers does not have is refused by its name."""
    assert cli.main(["export", str(run), str(tmp_path / "out"), "--macs", "9000"]) == 0
    assert "8 layers" not in (said := capsys.readouterr().out) and "of an utterance of 15.625 s" in said
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["cut_from"] == "/".join(run.parts[-3:])
    assert cli.main(["export", str(run), str(tmp_path / "peer"), "--macs", "9000", "--format", "transformers"]) == 2
    assert "transformers has no logmel front end" in capsys.readouterr().err and not (tmp_path / "peer").exists()
    assert cli.main(["export", str(run), str(tmp_path / "peer"), "--format", "run"]) == 2


def test_a_subnet_is_timed():
    assert 0 < subnets.seconds_a_second(Upstream(model(8)).eval()) < 10
