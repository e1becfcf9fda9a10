"""`sslrepro count` and `sslrepro plan`: what they print. Each returns the exit code; mistakes are UserError."""

from __future__ import annotations

import json
from dataclasses import asdict

from sslrepro.budget.count import Cost
from sslrepro.budget.names import NAMED, cost_of
from sslrepro.errors import UserError


def count_command(name_or_yaml: str, seconds: float, as_json: bool) -> int:
    """Parameters, MACs and training FLOPs of a named model or a YAML of cell settings, by component, for one utterance."""
    note = NAMED[name_or_yaml].note if name_or_yaml in NAMED else "settings from the file"
    return show_cost(name_or_yaml, note, cost_of(name_or_yaml, seconds), seconds, as_json)


def show_cost(name: str, note: str, counted: Cost, seconds: float, as_json: bool) -> int:
    """Print what was counted."""
    cost = counted.as_dict()
    if as_json:
        print(json.dumps({"name": name, "note": note} | cost, indent=2))
        return 0
    print(f"{name}: {note}")
    masked = f", {cost['masked_frames']} masked" if cost["masked_frames"] else ""
    print(f"one utterance of {seconds:g} s: {cost['frames']} frames{masked}; element-wise work excluded\n")
    print(f"{'component':<20}{'parameters':>12}{'GMAC':>10}{'share':>8}{'GFLOP to train':>17}")
    for component, part in cost["components"].items():
        print(_row(component, part, cost["macs"]))
    print(_row("total", cost, cost["macs"]))
    return 0


def plan_command(flops: float | None, gpu: str | None, hours: float | None, as_json: bool) -> int:
    """What to train for a budget, given in FLOPs or as hours of one GPU."""
    from sslrepro.budget.plan import UTILISATION, gpu_flops, plan_budget  # here: `count` needs no pandas

    if (flops is None) == (gpu is None) or (gpu is None) != (hours is None):
        raise UserError("plan: give the budget either as --flops F or as --gpu NAME --hours H")
    budget = gpu_flops(gpu, hours) if flops is None else flops
    plan = plan_budget(budget)
    if as_json:
        print(json.dumps(asdict(plan), indent=2))
        return 0
    print(f"budget     {plan.flops:.3g} training FLOPs")
    if gpu is not None:
        print(f"           {hours:g} h of {gpu} at {UTILISATION:.0%} of its peak, which is an assumption")
    print(f"size       {plan.size / 1e6:.3g} M parameters [{plan.low / 1e6:.3g}, {plan.high / 1e6:.3g}]; nearest: {plan.model}")
    print(f"audio      {plan.audio_hours:,.4g} hours seen, repeats included")
    print(f"batch      {plan.batch_seconds:g} s of audio, {plan.updates:,} updates")
    for line in plan.evidence:
        print(f"evidence   {line}")
    for line in plan.warnings:
        print(f"warning    {line}")
    return 0


def _row(name: str, part: dict, macs: int) -> str:
    share = f"{100 * part['macs'] / macs:.1f} %"
    return f"{name:<20}{part['params'] / 1e6:>10.1f} M{part['macs'] / 1e9:>10.2f}{share:>8}{part['train_flops'] / 1e9:>17.1f}"
