"""`sslrepro export RUN DIR --rtf X`: the best subnet that this machine is fast enough for, by clocks whose times are given."""

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
    assert "no subnet keeps --macs None and --rtf 0.001" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_subnet_is_timed():
    assert 0 < subnets.seconds_a_second(Upstream(model(8)).eval()) < 10
