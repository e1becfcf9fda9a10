"""A cell: one setting with all its seeds, from settings to a finished run folder. Notebook, sweep and command line all call `run_cell`.

Work goes on in `.work/`, outside DVC's outputs; what is finished moves to `runs/` whole. Killed anywhere, the same call resumes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from sslrepro import objectives
from sslrepro.budget.count import cell_cost
from sslrepro.config import CellSettings, Profile, settings_hash
from sslrepro.data.corpus import Corpus, NoSuchLanguage
from sslrepro.data.targets import Targets
from sslrepro.downstream import Scores, score
from sslrepro.draws import key64
from sslrepro.errors import UserError
from sslrepro.files import copy_whole, remove, save_weights, writing
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.base import Objective
from sslrepro.paths import cell_dir, corpus_dir, targets_dir, work_dir
from sslrepro.pipeline.machine import fingerprint
from sslrepro.training.identity import code_hash, commit, machine
from sslrepro.training.loop import State, chance_level, snapshot_name, train
from sslrepro.training.measure import inference_macs, measured
from sslrepro.training.meter import Progress
from sslrepro.training.ranks import decided, fabric_for, fixed_order, rank, wait_for
from sslrepro.training.runs import begin_with, load_upstream, spent_flops
from sslrepro.training.subnets import TABLE, validated


class CellFailed(Exception):
    """A seed collapsed, diverged or left the finite numbers; the evidence is written."""


def run_cell(profile: Profile, study: str, cell: str, should_stop: Callable[[], bool] = lambda: False, place: str = "") -> Path:
    """Run a cell and return `runs/<profile>/<study>/<cell>`, one folder a seed (docs/schemas.md).

    Under torchrun every rank calls this; the first one scores and moves the run, and the others may return before it has.
    should_stop: asked between updates; a yes writes a checkpoint and raises loop.Interrupted. place: such as "2/6", shown in the progress.
    Raises UserError for a name that does not exist, CellFailed when a seed ended badly (its evidence is in the run folder all the same).
    """
    settings = find_cell(profile, study, cell)
    corpus = _seen(profile, settings)
    if settings.is_trained:
        _check(profile, settings, corpus)
    work, final = work_dir(profile.profile, study, cell), cell_dir(profile.profile, study, cell)
    identity = identity_of(profile, settings)
    fabric = fabric_for(settings)
    failed = []
    for number, seed in enumerate(settings.seeds):
        label = " ".join(x for x in (place, f"{study}/{cell}", f"seed {seed} ({number + 1}/{len(settings.seeds)})") if x)
        folder = work / str(seed)
        if fabric.is_global_zero:
            _claim(folder, identity, label)
            _take_over(final / str(seed), folder, identity)
        if decided(fabric, not (folder / "metrics.json").exists()):
            _run_seed(profile, settings, corpus, seed, folder, label, identity, should_stop)
        if not fabric.is_global_zero:
            continue
        status = json.loads((folder / "metrics.json").read_text())["status"]
        if status != "completed":
            failed.append(f"seed {seed}: {status}, see {final / str(seed) / 'evidence.json'}")
    if not fabric.is_global_zero:
        return final
    _move_whole(work, final, settings.seeds)
    if failed:
        raise CellFailed(f"{study}/{cell}: " + "; ".join(failed))
    return final


def _seen(profile: Profile, settings: CellSettings) -> Corpus | NoSuchLanguage:
    """The part of the corpus that the cell sees. Of a cell that is only scored, why there is none: it goes on, and its run says so."""
    try:
        return Corpus(corpus_dir(profile.profile), settings.data.languages)
    except NoSuchLanguage as reason:
        if settings.is_trained:
            raise
        return reason


def _check(profile: Profile, settings: CellSettings, corpus: Corpus) -> None:
    """What would only be found after the training is found before it."""
    if corpus.split("valid").empty:
        raise UserError(
            f"{corpus.folder}: the corpus has no validation utterances; give it a dev-* folder, or more files or speakers to hold out"
        )
    named = getattr(settings.objective, "targets", None)
    if named:
        labelled = Targets(targets_dir(profile.profile, named)).info.get("languages", corpus.languages)
        if not set(corpus.languages) <= set(labelled):
            raise UserError(
                f"targets {named} are of {', '.join(labelled)}, and the cell's data.languages are {', '.join(corpus.languages)}: "
                f"name the same under targets.{named}.languages"
            )


def others_of(settings: CellSettings) -> list[str]:
    """The cells ("study/cell") whose finished runs this one needs, each once."""
    return list(dict.fromkeys(other for other in (settings.start, getattr(settings.objective, "teacher", None)) if other))


def identity_of(profile: Profile, settings: CellSettings) -> dict[str, str]:
    """What makes a run this run: settings, code, corpus, the settings of the cells that it needs, and the machine that it measures.

    Which other seeds the cell has is not among them: a further seed leaves the finished ones as they are.
    """
    identity = {"settings": _hash_of(settings), "code": code_hash(), "corpus": settings_hash(profile.data)}
    others = [_hash_of(find_cell(profile, *other.split("/", 1))) for other in others_of(settings)]
    if settings.measure is not None:
        identity["machine"] = json.dumps(fingerprint(), sort_keys=True)
    return identity | ({"others": " ".join(others)} if others else {})


def _hash_of(settings: CellSettings) -> str:
    return settings_hash(settings.model_copy(update={"seeds": []}))


def find_cell(profile: Profile, study: str, cell: str) -> CellSettings:
    """The settings of a cell; a name that does not exist is an error that lists those that do."""
    if study not in profile.studies:
        raise UserError(f"no study {study!r} in profile {profile.profile}; it has: {', '.join(profile.studies)}")
    cells = profile.studies[study].cells
    if cell not in cells:
        raise UserError(f"no cell {cell!r} in study {study} of profile {profile.profile}; it has: {', '.join(cells)}")
    return cells[cell]


def _claim(folder: Path, identity: dict[str, str], label: str) -> None:
    """Work that other settings, code or corpus began is not resumed: it is set aside, and said so."""
    stamp = folder / "identity.json"
    if stamp.exists() and json.loads(stamp.read_text()) == identity:
        return
    if stamp.exists():
        print(f"{label} · settings, code or corpus changed since this run began: starting again", flush=True)
    remove(folder)
    with writing(folder, "the work"):
        folder.mkdir(parents=True)
        _stamp(folder, identity)


def _stamp(folder: Path, identity: dict[str, str]) -> None:
    scratch = folder / "identity.json.tmp"
    scratch.write_text(json.dumps(identity))
    scratch.rename(folder / "identity.json")


def _take_over(finished: Path, folder: Path, identity: dict[str, str]) -> None:
    """A seed that this cell finished before, with fewer seeds or beside one that failed, is not run again."""
    if (folder / "metrics.json").exists() or not (finished / "metrics.json").exists():
        return
    described, status = (json.loads((finished / name).read_text(encoding="utf-8")) for name in ("settings.json", "metrics.json"))
    if described["hashes"] == identity and status["status"] == "completed":
        copy_whole({finished: Path()}, folder)
        _stamp(folder, identity)


def _run_seed(
    profile: Profile, settings: CellSettings, corpus: Corpus | NoSuchLanguage, seed: int, folder: Path, label: str,
    identity: dict[str, str], should_stop: Callable[[], bool],
) -> None:  # fmt: skip
    began = time.monotonic()
    torch.manual_seed(key64(seed, "init"))
    module = objectives.build(settings)
    if settings.start is not None:
        begin_with(module if isinstance(module, Upstream) else module.upstream, _other(profile, settings.start, seed))
    if hasattr(module, "begin"):
        module.begin(load_upstream(_other(profile, settings.objective.teacher, seed)), fresh=settings.start is None)
    progress, chance = Progress(label), {} if settings.objective.name == "none" else module.chance()
    if not settings.is_trained:
        state = State(status="completed")
    else:
        named = getattr(settings.objective, "targets", None)
        targets = Targets(targets_dir(profile.profile, named)) if named else None
        if not rank():
            chance = chance_level(module, corpus, targets, settings)
            progress.chance = chance.get("loss")
        with fixed_order(settings.training.deterministic):
            state = train(module, corpus, targets, settings, seed, folder, progress, should_stop)
    if rank():
        wait_for(folder / "metrics.json")
        return
    if not settings.measures_alone:
        save_weights(module.state_dict(), folder / "model.safetensors")
    metrics = _pretrain_metrics(state) | _cost_metrics(profile, settings, seed, state)
    scores = Scores.empty()
    if state.status == "completed" and getattr(module, "subnets", None):
        progress.say(f"validating {len(module.subnets)} subnets")
        validated(module, corpus, settings).to_csv(folder / TABLE, index=False)
    if state.status == "completed":
        scores = _validation_rows(corpus, state)
        if isinstance(corpus, NoSuchLanguage):
            scores += Scores.none(settings.downstream, str(corpus))
        else:
            scores += _scored(profile, settings, corpus, module, seed, folder, progress)
        for task, reason in scores.unavailable.items():
            progress.say(f"{task} was not scored: {reason}")
        for note in dict.fromkeys(scores.notes):
            progress.say(note)
        if settings.measure is not None:
            progress.say("measuring time and memory")
            metrics |= measured(module, settings, seed) | inference_macs(settings)
    else:
        (folder / "evidence.json").write_text(json.dumps({"status": state.status, **state.evidence}, indent=1, default=str))
    if state.spikes:
        (folder / "spikes.json").write_text(json.dumps(state.spikes, indent=1))
    described = {
        "cell": settings.model_dump(mode="json"), "seed": seed, "hashes": identity, "commit": commit(), "machine": machine(),
        "unavailable": scores.unavailable, "notes": scores.notes, "chance": chance,
    }  # fmt: skip
    history = pd.DataFrame(state.history, columns=["update", "hours_seen", "metric", "value"])
    with writing(folder, "the scores"):
        scores.write(folder)
        history.to_csv(folder / "history.csv", index=False)
        (folder / "settings.json").write_text(json.dumps(described, indent=1, sort_keys=True))
        _write_metrics(folder, metrics | scores.metrics, state.status)
    progress.say(f"{state.status} in {time.monotonic() - began:.0f} s")


def _scored(
    profile: Profile, settings: CellSettings, corpus: Corpus, module: Objective | Upstream, seed: int, folder: Path, progress: Progress
) -> Scores:
    """Scores of each snapshot and of the end, whose weights the module has before and after. The snapshots of a cell without an objective
    are those of the run that it starts with."""
    upstream, scores = module if isinstance(module, Upstream) else module.upstream, Scores.empty()
    for share in settings.training.snapshots:
        progress.say(f"scoring the snapshot at {share:g} of the run")
        if settings.is_trained:
            module.load_state_dict(load_file(folder / snapshot_name(share)))
        else:
            begin_with(upstream, _other(profile, settings.start, seed), snapshot_name(share))
        scores += score(upstream, corpus, settings.downstream.at_snapshots(), seed).at(f"@{share:g}")
    if settings.training.snapshots:
        module.load_state_dict(load_file(folder / "model.safetensors"))
    if settings.downstream.tasks:
        progress.say("scoring: " + ", ".join(settings.downstream.tasks))
    return scores + score(upstream, corpus, settings.downstream, seed)


def _pretrain_metrics(state: State) -> dict[str, float]:
    """The last validation and those of the snapshots; what is not of the validation split itself goes without `valid_`."""
    at = {f"@{share}": values for share, values in state.snapshots.items()}
    at[""] = {name.removeprefix("valid."): value for _, _, name, value in state.history if name.startswith("valid.")}
    own = ("gradient_dispersion", "codeword_cosine")
    return {
        f"pretrain.{'' if name.startswith(own) else 'valid_'}{name}{suffix}": value
        for suffix, values in at.items()
        for name, value in values.items()
    }


def _other(profile: Profile, named: str, seed: int) -> Path:
    """The run of the same seed of another cell; of its only seed where it has one."""
    study, _, cell = named.partition("/")
    seeds = find_cell(profile, study, cell).seeds
    if seed not in seeds and len(seeds) > 1:
        raise UserError(f"{named} has no seed {seed}; it has: {', '.join(map(str, seeds))}")
    return cell_dir(profile.profile, study, cell) / str(seed if seed in seeds else seeds[0])


def _cost_metrics(profile: Profile, settings: CellSettings, seed: int, state: State) -> dict[str, float]:
    cost = cell_cost(settings, settings.training.max_seconds)
    costs = {
        "params": cost.params,
        "macs": cost.macs,
        "train_flops": cost.train_flops,
        "updates": state.update,
        "hours_seen": state.hours_seen,
        "padding_share": 1 - state.hours_seen / state.padded_hours if state.padded_hours else 0.0,
        "seconds": state.seconds,
    }
    if others_of(settings) or getattr(settings.objective, "targets", None):
        costs["setup_flops"] = setup_flops(profile, settings, seed)
    return {f"cost.{name}": float(value) for name, value in costs.items()}


def setup_flops(profile: Profile, settings: CellSettings, seed: int) -> float:
    """FLOPs spent before a seed of a cell, on its labels, its teacher, what it starts with, and theirs: each once, though several ways lead
    to it (LightHuBERT's second stage has its teacher, and starts with what learned from the same one)."""
    total, seen = 0.0, {}
    for spent, made in _made_before(profile, settings, seed):
        total += spent - sum(flops for folder, flops in made.items() if folder in seen)
        seen |= made
    return total


def _made_before(profile: Profile, settings: CellSettings, seed: int) -> Iterator[tuple[float, dict[Path, float]]]:
    """Of each run and each set of labels that a cell takes directly: FLOPs spent on it in all, and each folder that they made (a run's or
    labels'), with its own FLOPs."""
    for run in (_other(profile, other, seed) for other in others_of(settings)):
        yield spent_flops(run), _made_by(profile, run)
    if (named := getattr(settings.objective, "targets", None)) is not None:
        folder, source = targets_dir(profile.profile, named), profile.targets[named]
        spent, made = Targets(folder).info["setup_flops"], {}
        if source.source == "hidden":
            made = _made_by(profile, cell_dir(profile.profile, *source.cell.split("/")) / str(source.seed))
        yield spent, made | {folder: spent - sum(made.values())}


def _made_by(profile: Profile, run: Path) -> dict[Path, float]:
    """A finished run and all that was made before it: the folder of each, and its own FLOPs."""
    settings, made = find_cell(profile, run.parent.parent.name, run.parent.name), {}
    for _, before in _made_before(profile, settings, int(run.name)):
        made |= before
    return made | {run: spent_flops(run) - sum(made.values())}


def _validation_rows(corpus: Corpus, state: State) -> Scores:
    """The validation loss and misses by speaker, for the claims' intervals."""
    if not state.valid:
        return Scores.empty()
    rows = pd.DataFrame.from_dict({int(row): values for row, values in state.valid.items()}, orient="index")
    rows.columns = ["nats", "correct", "masked"]
    rows["speaker"] = corpus.utterances.loc[rows.index, "speaker"].to_numpy()
    sums = rows.groupby("speaker")[["nats", "correct", "masked"]].sum()
    speakers = [("pretrain.valid_loss", s, r.nats, r.masked) for s, r in sums.iterrows()]
    if any(name == "valid.accuracy" for _, _, name, _ in state.history):  # nothing is picked where the target is a vector
        speakers += [("pretrain.valid_accuracy", s, r.masked - r.correct, r.masked) for s, r in sums.iterrows()]
    return Scores(metrics={}, speakers=speakers, trials=[], unavailable={})


def _write_metrics(folder: Path, metrics: dict[str, float], status: str) -> None:
    """Finite numbers only, sorted; written last, so that its presence says that the seed is finished."""
    bad = [name for name, value in metrics.items() if not -float("inf") < value < float("inf")]
    if bad and status == "completed":
        raise UserError(f"{folder}: not finite: {', '.join(bad)}")
    kept = {name: metrics[name] for name in sorted(metrics) if name not in bad}
    scratch = folder / "metrics.json.tmp"
    scratch.write_text(json.dumps({**kept, "status": status}, indent=1))
    scratch.rename(folder / "metrics.json")


def _move_whole(work: Path, final: Path, seeds: list[int]) -> None:
    """From work to `runs/` in one rename, without checkpoints and scratch."""
    parts = {work / str(seed): Path(str(seed)) for seed in seeds}
    copy_whole(parts, final, without=("checkpoints", "identity.json", "*.tmp"))
    remove(work)
