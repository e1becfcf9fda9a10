"""`sslrepro VERB`: a thin layer; each verb's work lives with its part and is imported only when asked for."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from sslrepro.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 for success, 1 for a check that failed, 2 for a mistake of the user, which is one message on stderr."""
    options = parser().parse_args(arguments)
    try:
        code = options.run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, such as head, has what it wanted; what is left must not fail again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except UserError as error:
        print(f"sslrepro: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sslrepro: interrupted; what is finished is kept, and the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="sslrepro", description="Compute-efficient self-supervised speech models, replicated.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, help: str, run: Callable[[argparse.Namespace], int], where=verbs) -> argparse.ArgumentParser:
        added = where.add_parser(name, help=help, description=help)
        added.set_defaults(run=run)
        return added

    count = verb("count", "parameters, MACs and training FLOPs of a model", _count)
    count.add_argument("model", help="a named model, a YAML file of cell settings, or with --profile one of its cells as STUDY/CELL")
    count.add_argument("--profile", help="whose cell it is")
    count.add_argument("--seconds", type=float, default=15.625, help="length of the utterance (default: %(default)s)")
    _json(count)

    plan = verb("plan", "what a profile will cost here, what to train for a budget, or what to use within limits", _plan)
    what = plan.add_mutually_exclusive_group()
    what.add_argument(
        "--profile",
        help="its cells, updates, hours, FLOPs, time and disk, before anything runs; with a limit: whose results to use",
    )
    what.add_argument("--flops", type=float, help="a budget in training FLOPs")
    what.add_argument("--gpu", help="a budget as hours of this GPU; needs --hours")
    plan.add_argument("--hours", type=float, help="of the GPU")
    plan.add_argument("--max-params", type=float, help="limit: parameters of the encoder; with this and the next two, what to use")
    plan.add_argument("--rtf", type=float, help="limit: seconds of inference a second of speech, as measured")
    plan.add_argument("--train-flops", type=float, help="limit: training FLOPs, labels and teachers included")
    _json(plan)

    cell = verb("cell", "train and score one cell; resumes where it was interrupted", _cell)
    cell.add_argument("study")
    cell.add_argument("cell")
    _profile(cell)

    sweep = verb("sweep", "the cells of a study one after another, for so many minutes; resumes", _sweep)
    sweep.add_argument("study")
    _profile(sweep)
    sweep.add_argument("--minutes", type=float, required=True, help="wall time after which to stop at a checkpoint")
    _json(sweep)

    submit = verb("submit", "cells as jobs of a SLURM cluster, queued again from their checkpoints when their time is up", _submit)
    submit.add_argument("study")
    submit.add_argument("cells", nargs="*", metavar="CELL", help="default: all that are not finished")
    _profile(submit)
    submit.add_argument("--minutes", type=int, required=True, help="of one turn of a job")
    submit.add_argument("--sbatch", action="append", default=[], metavar="NAME=VALUE", help="an option of sbatch; may be repeated")
    submit.add_argument("--local", action="store_true", help="as processes on this machine instead")

    verify = verb("verify", "judge the claims: on our results, or on the papers' published numbers", _verify)
    verify.add_argument("--published", action="store_true", help="each claim's table must be replicated, its counter-table contradicted")
    verify.add_argument("--profile", default="quick", help="whose results (default: %(default)s)")
    again = "this study's runs by today's code against kept results of other code: where numbers agree, these are not stale"
    verify.add_argument("--same-code", metavar="STUDY", help=again)
    _json(verify)

    data = verb("data", "check or prepare a corpus", lambda options: 2)
    data_verbs = data.add_subparsers(dest="data_verb", required=True, metavar="check|prepare")
    check = verb("check", "read every audio file whole and list the bad ones with their reasons", _data_check, data_verbs)
    check.add_argument("root", type=Path)
    _json(check)
    prepare = verb("prepare", "make the corpus of a profile, or a set of its targets", _data_prepare, data_verbs)
    _profile(prepare)
    prepare.add_argument("--targets", metavar="NAME", help="k-means labels of this name instead of the corpus")

    export = verb("export", "write a finished run as a folder that transformers loads", _export)
    export.add_argument("run_folder", type=Path, metavar="RUN", help="runs/<profile>/<study>/<cell>/<seed>")
    export.add_argument("out", type=Path, metavar="DIR")
    export.add_argument("--format", choices=["run", "transformers"], help="default: transformers; of a subnet, or merged: a run of its own")
    export.add_argument("--macs", type=float, help="of a supernet: its best subnet of so many MACs a second (15.625 s counted)")
    export.add_argument("--rtf", type=float, help="of a supernet: its best subnet of so many seconds a second of speech, timed here")

    export.add_argument("--merge", action="store_true", help="of a run tuned by LoRA or AdaLoRA: its updates added to the weights")

    heard = verb("transcribe", "read audio within a time budget, at the least expected error", _transcribe)
    heard.add_argument(
        "run_folder", type=Path, metavar="RUN", help="runs/<profile>/<study>/<cell>/<seed> with a fine-tuned model, whole or as adapters"
    )
    heard.add_argument("audio", type=Path, nargs="+", metavar="AUDIO")
    budget = heard.add_mutually_exclusive_group(required=True)
    budget.add_argument("--budget-ms", type=float, metavar="N", help="milliseconds of computing for each file")
    budget.add_argument("--rtf", type=float, metavar="X", help="seconds of computing for a second of audio")
    _json(heard)

    _json(verb("doctor", "versions, devices, disk, threads, eSpeak, git; exit 1 if something is missing", _doctor))
    return top


def _json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="for programs")


def _profile(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--profile", default="quick", help="params.yaml if that holds it, else as shipped (default: %(default)s)")


def _count(options: argparse.Namespace) -> int:
    from sslrepro.budget.commands import count_command, show_cost

    if options.profile is None:
        return count_command(options.model, options.seconds, options.json)
    from sslrepro.budget.count import cell_cost
    from sslrepro.pipeline import profile
    from sslrepro.training.cell import find_cell

    cell = find_cell(profile.load(options.profile), *options.model.partition("/")[::2])
    return show_cost(options.model, f"cell of profile {options.profile}", cell_cost(cell, options.seconds), options.seconds, options.json)


def _plan(options: argparse.Namespace) -> int:
    limits = (options.max_params, options.rtf, options.train_flops)
    if any(limit is not None for limit in limits):
        if options.flops is not None or options.gpu:
            raise UserError("plan: either a budget (--flops, --gpu) or limits (--max-params, --rtf, --train-flops)")
        _above_zero("plan", max_params=options.max_params, rtf=options.rtf, train_flops=options.train_flops)
        from sslrepro.report.efficiency_map import advise_command

        return advise_command(options.profile, *limits, options.json)
    if options.profile is None and options.flops is None and options.gpu is None:
        raise UserError("plan: give --profile, a budget (--flops, --gpu and --hours) or limits (--max-params, --rtf, --train-flops)")
    if options.profile:
        from sslrepro.pipeline import plan, profile

        planned = plan.plan_profile(profile.load(options.profile))
        print(json.dumps(planned, indent=1) if options.json else plan.show(planned))
        return 0
    if options.gpu and options.hours is None:
        raise UserError("plan --gpu needs --hours")
    from sslrepro.budget.commands import plan_command

    return plan_command(options.flops, options.gpu, options.hours, options.json)


def _cell(options: argparse.Namespace) -> int:
    from sslrepro.pipeline import profile, sweep
    from sslrepro.training.cell import CellFailed
    from sslrepro.training.ranks import rank

    try:
        folder = sweep.run(profile.load(options.profile), options.study, options.cell)
    except CellFailed as error:
        print(error, file=sys.stderr)
        return 1
    if rank() == 0:
        print(folder)
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from sslrepro.pipeline import profile, sweep

    if options.minutes <= 0:
        raise UserError(f"sweep --minutes {options.minutes:g}: give a time above 0")
    swept = sweep.sweep(profile.load(options.profile), options.study, options.minutes)
    if options.json:
        print(json.dumps(asdict(swept), indent=1))
    else:
        print(f"finished: {', '.join(swept.finished) or 'none'}; before: {', '.join(swept.skipped) or 'none'}")
        for reason in swept.failed.values():
            print(f"failed: {reason}")
        if swept.left:
            print(f"left: {', '.join(swept.left)}; the same command goes on from there")
    return 1 if swept.failed else 0


def _submit(options: argparse.Namespace) -> int:
    from sslrepro.pipeline import cluster, profile

    experiment = profile.load(options.profile)
    sbatch = cluster.options_of(options.sbatch)
    jobs = cluster.submit(experiment, options.study, options.cells, options.minutes, sbatch, options.local)
    for cell, job in jobs.items():
        print(f"{job.job_id} {options.study}/{cell}")
    print(f"{len(jobs)} submitted; cells that are finished are left out; logs: {cluster.logs()}", file=sys.stderr)
    return 0


def _verify(options: argparse.Namespace) -> int:
    if options.published:
        from sslrepro.claims.published import main as published

        return published(options.json)
    from sslrepro.pipeline.profile import expand
    from sslrepro.pipeline.same_code import same_code
    from sslrepro.pipeline.scores import show_scoreboard

    if options.same_code:
        compared = same_code(expand(options.profile), options.same_code)
        said = ", ".join(f"{run} ({apart:.1g})" for run, apart in compared.items())
        print(json.dumps(compared) if options.json else f"the same, to so many standard deviations over seeds: {said}")
        return 0
    expand(options.profile)  # an unknown name is refused here
    return show_scoreboard(options.profile, options.json)


def _data_check(options: argparse.Namespace) -> int:
    from sslrepro.data.commands import data_check

    return data_check(options.root, options.json)


def _data_prepare(options: argparse.Namespace) -> int:
    from sslrepro.pipeline import profile, sweep

    experiment = profile.load(options.profile)
    print(sweep.make_targets(experiment, options.targets) if options.targets else sweep.make_corpus(experiment))
    return 0


def _above_zero(verb: str, **limits: float | None) -> None:
    """A limit that is no limit (nan, inf, 0, below) is a mistake: nothing would keep it, or everything."""
    for name, value in limits.items():
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"{verb} --{name.replace('_', '-')} {value:g}: give a finite number above 0")


def _export(options: argparse.Namespace) -> int:
    if options.merge and (options.macs is not None or options.rtf is not None):
        raise UserError("export: either a subnet (--macs, --rtf) or --merge")
    if options.macs is not None or options.rtf is not None:
        _above_zero("export", macs=options.macs, rtf=options.rtf)
        from sslrepro.training.subnets import export_subnet

        print(export_subnet(options.run_folder, options.out, options.macs, options.rtf, options.format == "transformers"))
        return 0
    if options.merge:
        from sslrepro.downstream.kept import export_merged

        print(export_merged(options.run_folder, options.out, options.format == "transformers"))
        return 0
    if options.format == "run":
        raise UserError("export --format run: for a subnet (--macs, --rtf) or --merge; a run is one already")
    from sslrepro.interop.transformers_out import export_run

    kind = export_run(options.run_folder, options.out)
    print(f"{options.out}: a {kind} model for transformers' AutoModel.from_pretrained")
    return 0


def _transcribe(options: argparse.Namespace) -> int:
    from sslrepro.downstream.commands import transcribe_command

    return transcribe_command(options.run_folder, options.audio, options.budget_ms, options.rtf, options.json)


def _doctor(options: argparse.Namespace) -> int:
    from sslrepro.pipeline.doctor import doctor, show

    report = doctor()
    print(json.dumps(report, indent=1) if options.json else show(report))
    return 1 if report["missing"] else 0
