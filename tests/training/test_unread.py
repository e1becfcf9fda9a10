"""No update waits for the device: nothing of it is read before metrics are logged. And none needs an operator that a GPU cannot repeat."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sslrepro import objectives
from sslrepro.data.corpus import Corpus
from sslrepro.data.loading import Shapes, TrainingData
from sslrepro.data.targets import Targets, build_targets
from sslrepro.models.upstream import Upstream
from sslrepro.objectives import contrastive
from sslrepro.paths import targets_dir
from sslrepro.training import loop
from sslrepro.training.gradients import Step, update_gradients
from sslrepro.training.loop import train
from sslrepro.training.meter import Progress
from sslrepro.training.ranks import fixed_order
from sslrepro.training.unread import Guard, Unread

META = torch.device("meta")


# what torch.use_deterministic_algorithms documents as an error on a GPU, as far as it has to do with sequences
UNREPEATABLE = {
    "cumsum", "_ctc_loss_backward", "_cudnn_ctc_loss", "reflection_pad1d_backward", "upsample_linear1d_backward", "histc", "put_",
    "max_unpool2d", "adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "nll_loss2d_forward", "kthvalue", "median",
}  # fmt: skip


def on_meta() -> SimpleNamespace:
    """What an update asks of Fabric, on a device whose numbers nobody can read."""
    return SimpleNamespace(
        world_size=1, global_rank=0, device=META, autocast=nullcontext, no_backward_sync=lambda model, enabled: nullcontext(),
        backward=lambda loss: loss.backward(), all_reduce=lambda value, reduce_op: value,
    )  # fmt: skip


class Operators(TorchDispatchMode):
    """The names of those that add numbers with a point."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not isinstance(out, torch.Tensor) or out.is_floating_point():
            self.names.add(func.overloadpacket.__name__)
        return out


@pytest.mark.parametrize(
    "kind",
    [
        "contrastive",
        "reconstruction",
        "regression",
        "cloned_regression",
        "random_projection",
        "variable",
        "masked_prediction",
        "distillation",
    ],
)
def test_an_update_runs_where_nothing_can_be_read(kind, project, tiny_corpus_dir, make_cell, make_profile, monkeypatch):
    monkeypatch.setattr(contrastive, "torch_generator", lambda *key, device: None)  # the meta device has none
    monkeypatch.setattr(contrastive, "gumbel_noise", lambda shape, generator: torch.zeros(shape, device=META))
    compression = {"encoder": {"compression": {"kind": "variable", "rate": 1.5}}}
    settings = make_cell("reconstruction", model=compression) if kind == "variable" else make_cell(kind)
    objective = objectives.build(settings)
    targets = None
    if kind == "masked_prediction":
        build_targets(make_profile(), "mfcc")
        targets = Targets(targets_dir("tiny", "mfcc"))
    if kind == "distillation":
        objective.begin(Upstream(settings.objective.teacher_model), fresh=True)
    data = TrainingData(Corpus(tiny_corpus_dir), settings, 0, objective.draws, Shapes.of(objective), targets)
    if kind in ("regression", "cloned_regression"):
        objective.train()(data[0], loop.Totals(10.0, 10.0, 1, 0.0, 0))  # the teacher is the student from here on
    objective.to(META)
    optimizer = SimpleNamespace()
    guard = Guard(objective, optimizer, META)
    batches = [data[i] for i in range(data.per_rank)]
    assert len(batches) > 1
    with fixed_order(True), Operators() as operators:
        loss = update_gradients(on_meta(), Step(objective), objective, batches, 0, 0, 0.5, {})
    assert operators.names & {"mm", "addmm"}
    assert operators.names & UNREPEATABLE == set()
    sound = guard.check(loss)
    torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
    objective.after_update(0.5, 100.0, sound)
    assert loss.device == sound.device == optimizer.found_inf.device == META
    with pytest.raises(RuntimeError):
        float(loss)


class Readings(TorchDispatchMode):
    """Counts what is read of losses, gradients and metrics (numbers with a point) and of conditions."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func == torch.ops.aten._local_scalar_dense.default and args[0].dtype not in (torch.int64, torch.int32):
            self.count += 1
        return func(*args, **(kwargs or {}))


def test_the_loop_reads_only_where_it_logs(tiny_corpus_dir, make_cell, tmp_path, monkeypatch):
    """Twice the updates between two logs: not one reading more."""
    counts, reads = [], []
    read = Unread.read
    monkeypatch.setattr(Unread, "read", lambda self, *arguments: (reads.append(len(self)), read(self, *arguments))[1])
    monkeypatch.setattr(loop, "LOGS", 2)
    for updates in (12, 24):
        encoder = {"layer_drop": 0.0}  # which layers are kept is on the host
        training = {"budget": {"amount": updates}, "valid_every": 0.0}
        settings = make_cell(model={"encoder": encoder}, training=training)
        folder = tmp_path / str(updates)
        folder.mkdir()
        torch.manual_seed(0)
        objective = objectives.build(settings)
        with Readings() as readings:
            train(objective, Corpus(tiny_corpus_dir), None, settings, 0, folder, Progress("test", None, every=1e9))
        counts.append(readings.count)
    assert reads == [6, 6, 12, 12]
    assert counts[0] == counts[1] > 0
