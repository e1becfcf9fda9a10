"""The W&B mirror, read back from its offline files."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BLOCK = 32_768


def records(path: Path) -> Iterator[bytes]:
    """Records of a W&B file: after 7 bytes of header LevelDB's log format, blocks of 32 KiB, 7 bytes before each piece."""
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    place, held = 7, b""
    while place + 7 <= len(content):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        held += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield held
            held = b""


def nested(items) -> dict:
    """Items with a key, or a path of keys, as one dictionary."""
    found: dict = {}
    for item in items:
        *above, last = list(item.nested_key) or [item.key]
        place = found
        for key in above:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return found


def read(path: Path) -> dict:
    """Name, group, config, logged rows and summary of one offline run."""
    from wandb.proto import wandb_internal_pb2 as wire

    found = {"config": {}, "rows": [], "summary": {}, "exit": None}
    for data in records(path):
        record = wire.Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"name": record.run.display_name, "group": record.run.run_group, "host": record.run.host, "raw": str(record.run)}
            found["config"] |= {update.key: json.loads(update.value_json) for update in record.run.config.update}
        elif kind == "history":
            found["rows"].append(nested(record.history.item))
        elif kind == "summary":
            found["summary"] |= nested(record.summary.update)
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


@pytest.fixture
def finished(tmp_path) -> Path:
    """A project with one finished run and one finished study."""
    import matplotlib.pyplot as plt

    run = tmp_path / "runs" / "tiny" / "batch_size" / "b16" / "0"
    run.mkdir(parents=True)
    described = {"cell": {"seeds": [0]}, "seed": 0, "hashes": {"settings": "abc"}, "commit": "123", "chance": {"loss": 2.4}}
    (run / "settings.json").write_text(json.dumps(described))
    (run / "metrics.json").write_text(json.dumps({"phone.accuracy": 0.5, "status": "completed"}))
    (run / "history.csv").write_text("update,hours_seen,metric,value\n1,0.1,train.loss,2.5\n2,0.2,train.loss,2.0\n2,0.2,valid.loss,2.1\n")
    study = tmp_path / "results" / "tiny" / "batch_size"
    (study / "figures").mkdir(parents=True)
    figure, axis = plt.subplots(figsize=(1, 1))
    axis.plot([1, 2])
    figure.savefig(study / "figures" / "law.png")
    plt.close(figure)
    (study / "verdicts.json").write_text(
        json.dumps([{"claim": "batch-01", "verdict": "replicated", "effect": 0.2, "parts": [{"value": 1}]}])
    )
    return tmp_path


def mirror(project: Path, **environment: str) -> tuple[dict, str]:
    """Mirror in a process of its own, with no way out to a network; returns what it counted and what it printed."""
    code = "import json; from sslrepro.report import track; print(json.dumps(vars(track.mirror('tiny'))))"
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    nowhere = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    environment = clean | nowhere | {"SSLREPRO_ROOT": str(project), "HOME": str(project), "PYTHONPATH": str(REPOSITORY)} | environment
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=project, capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(run.stdout.splitlines()[-1]), run.stdout + run.stderr


def test_the_offline_files_hold_config_curves_figures_and_verdicts(finished):
    counted, _ = mirror(finished, SECRET_TOKEN="hunter2hunter2")
    assert counted == {"written": 2, "kept": 0}
    files = sorted((finished / ".cache" / "wandb").glob("offline-run-*/*.wandb"))
    found = {run["name"]: run for run in map(read, files)}
    cell, study = found["batch_size/b16/0"], found["batch_size"]
    assert cell["group"] == study["group"] == "tiny/batch_size"
    assert (
        cell["config"]["cell"] == {"seeds": [0]} and cell["config"]["hashes"] == {"settings": "abc"} and cell["config"]["commit"] == "123"
    )
    assert cell["config"]["chance"] == {"loss": 2.4}
    assert [row.get("train.loss") for row in cell["rows"]] == [2.5, 2.0] and cell["rows"][1]["valid.loss"] == 2.1
    assert cell["summary"]["phone.accuracy"] == 0.5
    media = {key: value for row in study["rows"] for key, value in row.items()}
    assert media["figures/law"]["_type"] == "image-file" and media["scoreboard"]["_type"] == "table-file"
    folder = next(file.parent for file in files if read(file)["name"] == "batch_size")
    assert (folder / "files" / media["figures/law"]["path"]).stat().st_size > 0
    assert "batch-01" in (folder / "files" / media["scoreboard"]["path"]).read_text()
    assert study["summary"]["verdict.batch-01"] == "replicated"
    assert cell["exit"] == study["exit"] == 0, "finish() was not called"
    everything = b"".join(path.read_bytes() for path in (finished / ".cache").rglob("*") if path.is_file() and not path.is_symlink())
    assert b"hunter2hunter2" not in everything
    tracked = json.loads((finished / "artifacts" / "tiny" / "tracked.json").read_text())
    assert sorted(tracked) == ["tiny/batch_size", "tiny/batch_size/b16/0"]


def test_only_what_changed_is_mirrored_again(finished):
    mirror(finished)
    assert mirror(finished)[0] == {"written": 0, "kept": 2}
    run = finished / "runs" / "tiny" / "batch_size" / "b16" / "0"
    (run / "metrics.json").write_text(json.dumps({"phone.accuracy": 0.6, "status": "completed"}))
    assert mirror(finished)[0] == {"written": 1, "kept": 1}


def test_online_only_with_a_key(tmp_path, monkeypatch):
    from sslrepro.report import track

    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert track.mode() == "offline"
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password key\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert track.mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert track.mode() == "offline"
