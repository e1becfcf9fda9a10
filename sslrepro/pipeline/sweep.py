"""Cells one after another in one process, without DVC, Jupyter or papermill: for a bare machine with a GPU.

Imports no more than training does. Finished cells are skipped, an interrupted one goes on at its last checkpoint, and a copied `runs/` and
`.work/` count as one's own.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock  # torch needs it too

from sslrepro.config import Profile
from sslrepro.errors import UserError
from sslrepro.paths import cell_dir, corpus_dir, root, targets_dir, work_dir
from sslrepro.pipeline.profile import position


@dataclass
class Swept:
    """What became of each cell of a sweep."""

    finished: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # were finished before
    failed: dict[str, str] = field(default_factory=dict)  # cell -> why
    left: list[str] = field(default_factory=list)  # not finished when the time was up


def sweep(profile: Profile, study: str, minutes: float) -> Swept:
    """Run the cells of a study for at most `minutes` of wall time, then stop at a checkpoint. The same call goes on from there.

    A cell that collapses or diverges is recorded and does not stop the others. Raises UserError for a study without cells, and
    under torchrun, whose processes would each look at their own clock.
    """
    from sslrepro.training.cell import CellFailed
    from sslrepro.training.loop import Interrupted
    from sslrepro.training.ranks import alone

    if not alone():
        raise UserError("sweep runs in one process; for a cell on several devices: torchrun … -m sslrepro cell STUDY CELL")

    cells = list(profile.studies[study].cells) if study in profile.studies else []
    if not cells:
        raise UserError(f"study {study!r} has no cells in profile {profile.profile}; these have: {', '.join(profile.with_cells)}")
    deadline = time.monotonic() + 60 * minutes
    swept = Swept()
    for cell in cells:
        if is_finished(profile, study, cell):
            swept.skipped.append(cell)
        elif time.monotonic() >= deadline:
            swept.left.append(cell)
        else:
            try:
                run(profile, study, cell, lambda: time.monotonic() >= deadline)
                swept.finished.append(cell)
            except Interrupted:
                swept.left.append(cell)
            except CellFailed as error:
                swept.failed[cell] = str(error)
    return swept


def is_finished(profile: Profile, study: str, cell: str) -> bool:
    """Whether `runs/` holds this cell with exactly these settings and this code, every seed completed."""
    from sslrepro.training.cell import identity_of

    settings = profile.studies[study].cells[cell]
    wanted = identity_of(profile, settings)
    for seed in settings.seeds:
        folder = cell_dir(profile.profile, study, cell) / str(seed)
        if not (folder / "metrics.json").exists():
            return False
        if json.loads((folder / "settings.json").read_text(encoding="utf-8"))["hashes"] != wanted:
            return False
        if json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["status"] != "completed":
            return False
    return True


def run(profile: Profile, study: str, cell: str, should_stop: Callable[[], bool] = lambda: False) -> Path:
    """Prepare and run one cell, as training.cell.run_cell; another process that runs the same cell is waited for first."""
    from sslrepro.training.cell import find_cell, run_cell
    from sslrepro.training.ranks import rank

    find_cell(profile, study, cell)
    with _alone(work_dir(profile.profile, study, cell)) if rank() == 0 else nullcontext():  # one lock for all ranks of a run
        prepare(profile, study, cell)
        return run_cell(profile, study, cell, should_stop, position(profile, study, cell))


def ensure_cells(profile: Profile, study: str) -> None:
    """Run those cells of a study that are not there or were made otherwise, for a notebook opened by hand. The pipeline has run them."""
    for cell in profile.studies[study].cells:
        if not is_finished(profile, study, cell):
            run(profile, study, cell)


def prepare(profile: Profile, study: str, cell: str) -> None:
    """Make the corpus and the targets that a cell reads and run the cells that it needs, where they are missing or stale; DVC has."""
    from sslrepro.training.cell import others_of

    settings = profile.studies[study].cells[cell]
    named = getattr(settings.objective, "targets", None)
    labelled = profile.targets[named].cell if named in profile.targets else None  # whose hidden states the targets are clusters of
    for other in [*others_of(settings), *([labelled] if labelled else [])]:
        if not is_finished(profile, *other.split("/", 1)):
            run(profile, *other.split("/", 1))
    with _alone(corpus_dir(profile.profile)):
        if not _corpus_is_current(profile):
            make_corpus(profile)
        if named and not _targets_are_current(profile, named):
            make_targets(profile, named)


def _alone(folder: Path) -> FileLock:
    """A lock on a folder that is being made. The system frees it when its holder dies."""
    place = root() / ".work" / "locks"
    place.mkdir(parents=True, exist_ok=True)
    return FileLock(place / ("-".join(folder.relative_to(root()).parts[1:]) + ".lock"))


def make_corpus(profile: Profile) -> Path:
    """The corpus folder of a profile, made from its `data`."""
    from sslrepro.data.commands import data_prepare

    folder = corpus_dir(profile.profile)
    print(f"making the corpus of profile {profile.profile}", file=sys.stderr, flush=True)
    data_prepare(profile.data, folder)
    return folder


def make_targets(profile: Profile, name: str) -> Path:
    """The folder of the targets of that name. Raises UserError if there are none, or the cell that they read has not been run."""
    from sslrepro.data.targets import build_targets

    if name not in profile.targets:
        raise UserError(f"no targets {name!r} in profile {profile.profile}; it has: {', '.join(profile.targets) or 'none'}")
    cell = profile.targets[name].cell
    if cell and not cell_dir(profile.profile, *cell.split("/")).exists():
        raise UserError(f"targets {name} read the cell {cell}, which has not been run: run it first")
    print(f"making the targets {name} of profile {profile.profile}", file=sys.stderr, flush=True)
    return build_targets(profile, name)


def _corpus_is_current(profile: Profile) -> bool:
    path = corpus_dir(profile.profile) / "corpus.json"
    if not path.exists():
        return False
    info = json.loads(path.read_text(encoding="utf-8"))
    if profile.data.root is None:
        return info.get("settings") == profile.data.corpus.model_dump(mode="json")
    made_of = {"source": profile.data.root, "lexicon": profile.data.lexicon, "trials": profile.data.trials}
    return all(info.get(name) == (path and str(Path(path).expanduser().absolute())) for name, path in made_of.items())


def _targets_are_current(profile: Profile, name: str) -> bool:
    """Made with these settings as far as they are recorded, and after the corpus."""
    path, corpus = targets_dir(profile.profile, name) / "targets.json", corpus_dir(profile.profile) / "corpus.json"
    if not path.exists() or path.stat().st_mtime < corpus.stat().st_mtime:
        return False
    info = json.loads(path.read_text(encoding="utf-8"))
    settings = profile.targets[name]
    if settings.languages is not None and set(info.get("languages", [])) != set(settings.languages):
        return False
    return all(info[key] == getattr(settings, key) for key in ("source", "clusters"))
