"""A run that is killed is the run that was not: SIGKILL at random times, and the same weights bit for bit."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch
from safetensors.torch import load_file
from schedules import SCHEDULES

from sslrepro import objectives
from sslrepro.data.corpus import Corpus
from sslrepro.data.loading import TrainingData
from sslrepro.data.targets import Targets, build_targets
from sslrepro.draws import key64
from sslrepro.models.upstream import Upstream
from sslrepro.paths import targets_dir
from sslrepro.training import checkpoint, loop
from sslrepro.training.loop import Interrupted, train
from sslrepro.training.meter import Progress

KILLS = 20
ALWAYS = {"checkpoint_seconds": 1.0e-3}  # a checkpoint after every update


def run(corpus_dir, settings, folder, should_stop=lambda: False, slow=0.0, targets=None, dies_in=None, threads=1):
    """Train one seed in `folder`; `slow` seconds a log make the kill land anywhere in the run.

    dies_in: (update, micro-batch), both 0-based, whose loss this process does not live to see.
    """
    torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(key64(0, "init"))
    objective = objectives.build(settings)
    if hasattr(objective, "begin"):
        objective.begin(Upstream(settings.objective.teacher_model), fresh=True)
    seen = []

    def strike(module, arguments):
        if module.training:
            seen.append(arguments[1].update)
            if dies_in == (seen[-1], seen.count(seen[-1]) - 1):
                os.kill(os.getpid(), signal.SIGKILL)

    objective.register_forward_pre_hook(strike)
    progress = Progress("test", None)
    progress.update = lambda *_: time.sleep(slow)
    state = train(objective, Corpus(corpus_dir), targets, settings, 0, folder, progress, should_stop)
    return objective.state_dict(), state


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_twenty_kills_leave_no_trace(tiny_corpus_dir, make_cell, tmp_path):
    settings = make_cell(training={"snapshots": [0.5], **ALWAYS})
    wanted, reference = run(tiny_corpus_dir, settings, tmp_path / "whole")
    assert reference.status == "completed" and reference.update == 24
    context = multiprocessing.get_context("fork")
    folder = tmp_path / "killed"
    generator = random.Random(0)
    kills, resumed_at = 0, set()
    while kills < KILLS:
        child = context.Process(target=run, args=(tiny_corpus_dir, settings, folder, lambda: False, 0.15))
        child.start()
        time.sleep(generator.uniform(0.05, 1.2))
        child.kill()
        child.join()
        if child.exitcode == 0:  # it got through before we struck: begin anew
            for path in sorted(folder.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            continue
        assert child.exitcode == -signal.SIGKILL
        kills += 1
        found = checkpoint.load_latest(folder / "checkpoints")
        resumed_at.add(found[2]["update"] if found else 0)
    last, state = run(tiny_corpus_dir, settings, folder)
    assert len(resumed_at) > 3, "the kills all struck at the same place"
    assert same(last, wanted)
    assert state.history == reference.history
    assert same(load_file(folder / "snapshot-0.5.safetensors"), load_file(tmp_path / "whole" / "snapshot-0.5.safetensors"))


@pytest.mark.parametrize(
    "changes",
    [
        {"budget": {"unit": "hours", "amount": 0.03}, "schedule": {"kind": "tri_stage", "warmup": 0.1, "hold": 0.4, "final_scale": 0.05}},
        {"budget": {"unit": "flops", "amount": 3.0e9}, "schedule": {"kind": "cyclic", "cycles": 3}},
        {"budget": {"unit": "updates", "amount": 12.0}, "precision": "bf16"},
        {"budget": {"unit": "updates", "amount": 8.0}, "schedule": {"kind": "constant", "warmup": 0.3}},
    ],
    ids=["hours-tri-stage", "flops-cyclic", "bf16-linear", "constant"],
)
@pytest.mark.parametrize("objective", sorted(objectives.OBJECTIVES))
def test_stopping_and_resuming_changes_nothing(objective, changes, project, make_cell, make_profile, tmp_path):
    settings = make_cell(objective, training=changes)
    corpus_dir = project / "artifacts" / "tiny" / "corpus"
    build_targets(make_profile(), "mfcc")
    targets = Targets(targets_dir("tiny", "mfcc")) if objective == "masked_prediction" else None
    wanted, reference = run(corpus_dir, settings, tmp_path / "whole", targets=targets)
    assert reference.status == "completed"
    asked = iter([False] * 3 + [True])
    with pytest.raises(Interrupted):
        run(corpus_dir, settings, tmp_path / "stopped", lambda: next(asked, True), targets=targets)
    last, state = run(corpus_dir, settings, tmp_path / "stopped", targets=targets)
    assert same(last, wanted)
    assert state.history == reference.history


SHORT = {  # two micro-batches an update
    "budget": {"unit": "updates", "amount": 6.0}, "batch_seconds": 6.0, "micro_batch_seconds": 3.0, "valid_every": 1.0, **ALWAYS,
}  # fmt: skip


@pytest.mark.parametrize(
    ("objective", "schedule"),
    list(zip(sorted(objectives.OBJECTIVES), itertools.cycle(SCHEDULES))),
    ids=lambda value: value if isinstance(value, str) else value["kind"],
)
def test_killed_within_an_accumulation(objective, schedule, project, make_cell, make_profile, tmp_path):
    """SIGKILL between two micro-batches, amid an epoch, with workers that read ahead: the run without either, bit for bit."""
    settings = make_cell(objective, training=SHORT | {"schedule": schedule})
    helped = make_cell(objective, training=SHORT | {"schedule": schedule, "workers": 2})
    corpus_dir = project / "artifacts" / "tiny" / "corpus"
    targets = None
    if objective == "masked_prediction":
        build_targets(make_profile(), "mfcc")
        targets = Targets(targets_dir("tiny", "mfcc"))
    data = TrainingData(Corpus(corpus_dir), helped, 0, None, None, None)
    assert data.per_rank == 2 and 4 * data.plan.window_size / data.plan.window_updates < len(data.indices), "the end of an epoch"
    wanted, reference = run(corpus_dir, settings, tmp_path / "whole", targets=targets)
    assert reference.status == "completed" and reference.update == 6
    child = multiprocessing.get_context("fork").Process(
        target=run, args=(corpus_dir, helped, tmp_path / "killed"), kwargs={"targets": targets, "dies_in": (4, 1)}
    )
    child.start()
    child.join()  # with a limit it would wait for the end of the child's own workers, who look for it every five seconds
    assert child.exitcode == -signal.SIGKILL
    assert checkpoint.load_latest(tmp_path / "killed" / "checkpoints")[2]["update"] == 4
    last, state = run(corpus_dir, helped, tmp_path / "killed", targets=targets)
    assert same(last, wanted)
    assert state.history == reference.history and state.losses == reference.losses


def test_stopping_between_two_logs_loses_no_metric(tiny_corpus_dir, make_cell, tmp_path, monkeypatch):
    """A log every five updates, a stop at the seventh: what was summed since the fifth is in the checkpoint."""
    monkeypatch.setattr(loop, "LOGS", 5)
    _, reference = run(tiny_corpus_dir, make_cell(), tmp_path / "whole")
    assert [row[0] for row in reference.history if row[2] == "train.loss"] == [5, 10, 15, 20, 24]
    asked = iter([False] * 6 + [True])
    with pytest.raises(Interrupted, match="update 7;"):
        run(tiny_corpus_dir, make_cell(), tmp_path / "stopped", lambda: next(asked, True))
    assert checkpoint.load_latest(tmp_path / "stopped" / "checkpoints")[2]["since_log"]["masked"][0] > 0
    _, state = run(tiny_corpus_dir, make_cell(), tmp_path / "stopped")
    assert state.history == reference.history


def test_resumed_with_other_threads_it_goes_on_with_its_own(tiny_corpus_dir, make_cell, tmp_path):
    """Two threads round sums in another order than one."""
    settings = make_cell(training={"budget": {"unit": "updates", "amount": 8.0}}, model={"encoder": {"width": 128, "ffn": 512}})
    wanted, reference = run(tiny_corpus_dir, settings, tmp_path / "two", threads=2)
    other, _ = run(tiny_corpus_dir, settings, tmp_path / "one")
    asked = iter([False] * 3 + [True])
    with pytest.raises(Interrupted):
        run(tiny_corpus_dir, settings, tmp_path / "stopped", lambda: next(asked, True), threads=2)
    last, state = run(tiny_corpus_dir, settings, tmp_path / "stopped", threads=1)
    assert state.threads == reference.threads == 2 and same(last, wanted)
    assert not same(other, wanted), "else this shows nothing"


def test_workers_change_nothing(tiny_corpus_dir, make_cell, tmp_path):
    alone, _ = run(tiny_corpus_dir, make_cell(), tmp_path / "alone")
    helped, _ = run(tiny_corpus_dir, make_cell(training={"workers": 2}), tmp_path / "helped")
    assert same(alone, helped)


def test_a_run_that_is_done_stays_done(tiny_corpus_dir, make_cell, tmp_path):
    first, state = run(tiny_corpus_dir, make_cell(), tmp_path / "run")
    again, repeated = run(tiny_corpus_dir, make_cell(), tmp_path / "run")
    assert same(first, again) and repeated.update == state.update and repeated.history == state.history


def test_measuring_gradients_changes_no_weight_and_falls_with_the_batch(tiny_corpus_dir, make_cell, tmp_path):
    """The dispersion is read, not taken part in; four times the batch has about half the spread at the start."""
    plain, _ = run(tiny_corpus_dir, make_cell(), tmp_path / "plain")
    changes = {"dispersion_batches": 6, "snapshots": [0.5]}
    measured, state = run(tiny_corpus_dir, make_cell(training=changes), tmp_path / "measured")
    assert same(plain, measured)
    assert {"0", "0.5"} <= state.snapshots.keys()
    wide = {**changes, "batch_seconds": 48.0, "budget": {"unit": "updates", "amount": 2.0}, "snapshots": []}
    _, wider = run(tiny_corpus_dir, make_cell(training=wide), tmp_path / "wide")
    ratio = state.snapshots["0"]["gradient_dispersion"] / wider.snapshots["0"]["gradient_dispersion"]
    assert 1.5 < ratio < 2.7
