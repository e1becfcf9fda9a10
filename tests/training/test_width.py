"""One process, two and four are the same run: torchrun and its elastic agent on this machine, as one host and as two."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from schedules import SCHEDULES
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from sslrepro import objectives
from sslrepro.config import CellSettings, CorpusSettings, DataSettings
from sslrepro.data.corpus import Corpus
from sslrepro.data.loading import TrainingData
from sslrepro.data.targets import Targets, build_targets
from sslrepro.draws import key64
from sslrepro.errors import UserError
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.base import LossOutput
from sslrepro.paths import targets_dir
from sslrepro.pipeline.profile import text
from sslrepro.training import loop
from sslrepro.training.cell import run_cell
from sslrepro.training.loop import train
from sslrepro.training.meter import Progress
from sslrepro.training.ranks import rank

REPOSITORY = Path(__file__).resolve().parents[2]
FOUR = {  # micro-batches an update
    "budget": {"unit": "updates", "amount": 10.0}, "batch_seconds": 16.0, "micro_batch_seconds": 4.0, "snapshots": [0.5],
}  # fmt: skip


def train_one(
    corpus: Path, folder: Path, settings: CellSettings, targets: Path | None = None, dies_at: int = -1, spoils_at: int = -1
) -> None:
    """Leaves seen-<rank>-<sitting>.json (update and keys of each micro-batch), state and weights of each rank."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    sitting = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    torch.manual_seed(key64(0, "init"))
    objective = objectives.build(settings)
    if hasattr(objective, "begin"):
        objective.begin(Upstream(settings.objective.teacher_model), fresh=True)
    seen = []

    def watch(module, arguments) -> None:
        batch, totals = arguments
        if module.training and totals.update < settings.training.budget.amount:  # the dispersion looks further
            seen.append((totals.update, batch.keys))
            (folder / f"seen-{rank()}-{sitting}.json").write_text(json.dumps(seen))
            within = sum(update == totals.update for update, _ in seen) > 1  # its first micro-batch is behind it
            if (rank(), sitting, totals.update) == (1, 0, dies_at) and within:
                os.kill(os.getpid(), signal.SIGKILL)

    def spoil(module, arguments, output) -> LossOutput:
        bad = module.training and (rank(), arguments[1].update) == (1, spoils_at)
        single = settings.training.precision == "fp32"
        return output._replace(loss=output.loss * torch.nan) if bad and (single or torch.is_autocast_enabled("cpu")) else output

    objective.register_forward_pre_hook(watch)
    objective.register_forward_hook(spoil)
    state = train(objective, Corpus(corpus), targets and Targets(targets), settings, 0, folder, Progress(folder.name, every=0.0))
    (folder / f"state-{rank()}.json").write_text(json.dumps({**asdict(state), "seconds": 0}))
    save_file(objective.state_dict(), folder / f"weights-{rank()}.safetensors")


def one_host(processes: int, work: Callable[[], None], restarts: int = 0) -> None:
    """As `torchrun --standalone`, with workers forked from this process: they need not import torch again."""
    config = LaunchConfig(
        1, 1, processes, run_id="test", rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=restarts, start_method="fork"
    )
    elastic_launch(config, work)()


def two_hosts(work: Callable[[], None]) -> None:
    """Two agents that meet on loopback, each with one process."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{held.getsockname()[1]}"

    def host(number: int) -> None:
        config = LaunchConfig(
            2, 2, 1, run_id="test", rdzv_backend="static", rdzv_endpoint=meeting, rdzv_configs={"rank": number}, max_restarts=0,
            start_method="fork",
        )  # fmt: skip
        elastic_launch(config, work)()

    both = [multiprocessing.get_context("fork").Process(target=host, args=(number,)) for number in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]


def read(folder: Path, rank: int = 0) -> tuple[dict, dict]:
    return json.loads((folder / f"state-{rank}.json").read_text()), load_file(folder / f"weights-{rank}.safetensors")


def samples(folder: Path) -> dict[int, list]:
    """What each update saw, over all ranks: utterance and counter of its random choices."""
    seen: dict[int, list] = {}
    for path in folder.glob("seen-*-0.json"):
        for update, keys in json.loads(path.read_text()):
            seen.setdefault(update, []).extend(keys)
    return {update: sorted(map(tuple, keys)) for update, keys in seen.items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", ["contrastive", "masked_prediction"])
def test_processes_are_the_bigger_batch(kind, project, tiny_corpus_dir, make_cell, make_profile, tmp_path, capfd):
    """1 process x accumulation 4, 2 x 2 on two hosts, 4 x 1. Dropout, dropped layers and sampled factors are on: they go by update and
    micro-batch."""
    sampled = {"encoder": {"compression": {"kind": "stochastic"}}} if kind == "masked_prediction" else {}
    settings = make_cell(kind, training={**FOUR, "dispersion_batches": 2}, model=sampled)
    targets = None
    if kind == "masked_prediction":
        build_targets(make_profile(), "mfcc")
        targets = targets_dir("tiny", "mfcc")
    train_one(tiny_corpus_dir, tmp_path / "alone", settings, targets)
    two_hosts(lambda: train_one(tiny_corpus_dir, tmp_path / "two", settings, targets))
    one_host(4, lambda: train_one(tiny_corpus_dir, tmp_path / "four", settings, targets))
    said = capfd.readouterr().err
    wanted, weights = read(tmp_path / "alone")
    assert wanted["update"] == 10 and sorted(samples(tmp_path / "alone")) == list(range(10))
    for name, ranks in (("two", 2), ("four", 4)):
        folder = tmp_path / name
        assert said.count(f"{name} · 10/10 updates") == 1, "the first rank alone speaks"
        assert len(list(folder.glob("seen-*-0.json"))) == ranks
        assert samples(folder) == samples(tmp_path / "alone")
        state, last = read(folder)
        assert state["losses"] == pytest.approx(wanted["losses"], rel=1e-5)
        assert [row[:3] for row in state["history"]] == [row[:3] for row in wanted["history"]]
        assert [row[3] for row in state["history"]] == pytest.approx([row[3] for row in wanted["history"]], rel=1e-4, abs=1e-6)
        assert state["padded_hours"] == wanted["padded_hours"]
        torch.testing.assert_close(last, weights, rtol=1e-4, atol=1e-5)
        for other in range(1, ranks):
            theirs, copy = read(folder, other)
            assert theirs == state and same(copy, last), "validation and health are those of the first rank"


@pytest.mark.parametrize("kind", ["regression", "cloned_regression", "distillation"])
def test_with_a_teacher_processes_are_the_bigger_batch(kind, tiny_corpus_dir, make_cell, tmp_path):
    """1 process x accumulation 4, 2 x 2, 4 x 1: losses, weights and the teacher that follows them."""
    settings = make_cell(kind, training={**FOUR, "budget": {"unit": "updates", "amount": 4.0}, "snapshots": []})
    train_one(tiny_corpus_dir, tmp_path / "1", settings)
    for processes in (2, 4):
        one_host(processes, lambda n=processes: train_one(tiny_corpus_dir, tmp_path / str(n), settings))
    wanted, weights = read(tmp_path / "1")
    if kind != "distillation":
        assert any("teacher" in name for name in weights)
    for processes in (2, 4):
        folder = tmp_path / str(processes)
        assert samples(folder) == samples(tmp_path / "1")
        state, last = read(folder)
        assert state["losses"] == pytest.approx(wanted["losses"], rel=1e-5)
        assert [row[3] for row in state["history"]] == pytest.approx([row[3] for row in wanted["history"]], rel=1e-4, abs=1e-6)
        torch.testing.assert_close(last, weights, rtol=1e-4, atol=1e-5)
        assert all(same(read(folder, other)[1], last) for other in range(1, processes))


@pytest.mark.parametrize(
    ("kind", "schedule"),
    [
        pytest.param(kind, schedule, id=kind, marks=[] if kind == "contrastive" else pytest.mark.slow)
        for kind, schedule in zip(sorted(objectives.OBJECTIVES), itertools.cycle(SCHEDULES))
    ],
)
def test_a_rank_that_is_killed_leaves_no_trace(kind, schedule, project, tiny_corpus_dir, make_cell, make_profile, tmp_path, monkeypatch):
    """The agent starts all ranks again, and they go on from the checkpoint, between two logs, with workers, to the same bits."""
    monkeypatch.setattr(loop, "LOGS", 2)
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")  # else the second sitting may read addresses of the first (torch 2.11)
    settings = make_cell(kind, training={**FOUR, "schedule": schedule, "checkpoint_seconds": 1.0e-3, "workers": 1})
    targets = None
    if kind == "masked_prediction":
        build_targets(make_profile(), "mfcc")
        targets = targets_dir("tiny", "mfcc")
    one_host(2, lambda: train_one(tiny_corpus_dir, tmp_path / "whole", settings, targets))
    one_host(2, lambda: train_one(tiny_corpus_dir, tmp_path / "killed", settings, targets, dies_at=6), restarts=1)
    first = json.loads((tmp_path / "killed" / "seen-1-1.json").read_text())[0][0]
    assert first == 6, "the second sitting goes on from the checkpoint"
    state, last = read(tmp_path / "killed")
    wanted, weights = read(tmp_path / "whole")
    assert state == wanted and same(last, weights)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_one_rank_finds_not_finite_all_ranks_act_on(precision, tiny_corpus_dir, make_cell, tmp_path):
    """In float32 the run ends on both with the same evidence and sound weights; in 16 bits both make the update again and go on."""
    settings = make_cell(training={**FOUR, "precision": precision})
    one_host(2, lambda: train_one(tiny_corpus_dir, tmp_path, settings, spoils_at=5))
    (state, weights), (other, copy) = read(tmp_path, 0), read(tmp_path, 1)
    assert state == other and same(weights, copy) and all(value.isfinite().all() for value in weights.values())
    if precision == "bf16":
        assert state["status"] == "completed" and state["update"] == 10
    else:
        assert state["status"] == "non_finite" and state["evidence"]["update"] == 6
        assert set(state["evidence"]["utterances"]) == {name for _, _, _, name, _ in samples(tmp_path)[5]}, "of both ranks"


def test_torchrun_at_a_cell(project, make_cell, make_profile):
    """The first rank claims, scores, moves and speaks; the run folder is that of one process."""
    downstream = {"tasks": ["phone"], "updates": 5, "train_hours": 0.01}
    training = {**FOUR, "budget": {"unit": "updates", "amount": 4.0}}
    inputs = dict.fromkeys(("input", "start_input", "teacher_input", "measure_input"), "artifacts/tiny/corpus")
    cell = make_cell(training=training, seeds=[0, 1], downstream=downstream, **inputs)
    data = DataSettings(corpus=CorpusSettings(hours=0.03, voices=6, words=100))
    profile = make_profile(a=cell).model_copy(update={"data": data, "targets": {}, "with_cells": ["trial"]})
    (project / "params.yaml").write_text(text(profile))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "sslrepro"]
    command = [*torchrun, "cell", "trial", "a", "--profile", "tiny"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = project / "runs" / "tiny" / "trial" / "a"
    assert done.stdout.split() == [str(folder)]
    assert [done.stderr.count(f"seed {seed} ({seed + 1}/2) · completed") for seed in (0, 1)] == [1, 1]
    assert not (project / ".work" / "tiny" / "trial" / "a").exists()
    files = {path.relative_to(folder) for path in folder.rglob("*")}
    wide = [json.loads((folder / seed / "metrics.json").read_text()) for seed in ("0", "1")]
    run_cell(profile, "trial", "a")
    assert {path.relative_to(folder) for path in folder.rglob("*")} == files
    for seed, values in zip(("0", "1"), wide, strict=True):
        alone = json.loads((folder / seed / "metrics.json").read_text())
        assert values.pop("status") == alone.pop("status") == "completed"
        assert values.pop("cost.seconds") > 0 and alone.pop("cost.seconds") > 0
        assert values == pytest.approx(alone, rel=1e-3)


def test_micro_batches_that_do_not_share_out_are_named(tiny_corpus_dir, make_cell):
    with pytest.raises(UserError, match=r"4 micro-batches .* which 3 processes cannot share"):
        TrainingData(Corpus(tiny_corpus_dir), make_cell(training=FOUR), 0, None, None, None, 0, 3)
