"""Learning rates of the parameter-efficient fine-tunings, chosen on the validation split; held-out data select nothing.

    python benchmarks/tuning_choices.py          # needs the corpus of profile laptop: python -m sslrepro data prepare --profile laptop

Trains the teacher of the laptop survey on an hour of speech under a seed that no study uses, then fine-tunes it by each method with the
validation split in the place of the test split, for fewer updates than the profile's. Writes benchmarks/results/tuning_choices.json.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pandas as pd
import torch

from benchmarks.choices import SEED
from sslrepro import objectives
from sslrepro.config import LabelShare
from sslrepro.data.corpus import Validation
from sslrepro.data.targets import Targets, build_targets
from sslrepro.downstream import fine_tune
from sslrepro.draws import key64
from sslrepro.paths import corpus_dir, targets_dir, work_dir
from sslrepro.pipeline.profile import expand
from sslrepro.training.identity import commit
from sslrepro.training.loop import train
from sslrepro.training.meter import Progress

# beyond the edge where the best of three lay on it; AdaLoRA has its own, and the classification of keywords
RATES = {
    "tune-frozen": (3.0e-3, 1.0e-2, 3.0e-2, 1.0e-1),
    "tune-lora": (3.0e-3, 1.0e-2, 3.0e-2, 1.0e-1),
    "tune-adalora": (3.0e-3, 1.0e-2, 3.0e-2, 1.0e-1),
    "tune-adapter": (3.0e-3, 1.0e-2, 3.0e-2),
    "tune-ladder": (3.0e-3, 1.0e-2, 3.0e-2, 1.0e-1),
} | {f"keyword-{method}": (3.0e-3, 1.0e-2, 3.0e-2, 1.0e-1) for method in ("full", "frozen", "lora", "adalora", "adapter", "ladder")}
HOURS, UPDATES = 1.0, 150


def main() -> None:
    profile = expand("laptop")
    cells = profile.studies["survey"].cells
    hubert = cells["hubert"]
    budget = hubert.training.budget.model_copy(update={"amount": HOURS})
    hubert = hubert.model_copy(update={"training": hubert.training.model_copy(update={"budget": budget})})
    corpus = Validation(corpus_dir("laptop"))
    if not (targets_dir("laptop", "mfcc") / "targets.json").exists():
        build_targets(profile, "mfcc")
    torch.manual_seed(key64(SEED, "init"))
    module = objectives.build(hubert)
    folder = work_dir("laptop", "choices", "hubert")
    train(module, corpus, Targets(targets_dir("laptop", "mfcc")), hubert, SEED, folder, Progress("choices", None))
    upstream, rows = module.upstream.eval(), []
    for cell, rates in RATES.items():
        tuning = cells[cell].downstream.fine_tune
        unit = "per" if tuning.symbols == "phones" else "error"
        share = LabelShare(minutes=tuning.shares[0].minutes, updates=UPDATES)
        for rate in rates:
            _, result = fine_tune(upstream, corpus, tuning.model_copy(update={"learning_rate": rate}), share, SEED, "cpu")
            error = result.metrics[f"fine_tune_{share.minutes:g}min.{unit}"]
            rows.append({"cell": cell, "rate": rate, "unit": unit, "error": error})
            print(rows[-1], flush=True)
    table = {
        "command": "python benchmarks/tuning_choices.py", "split": "validation", "seed": SEED, "hours": HOURS, "updates": UPDATES,
        "commit": commit(), "versions": {"python": platform.python_version(), "torch": torch.__version__}, "rows": rows,
    }  # fmt: skip
    Path(__file__).parent.joinpath("results", "tuning_choices.json").write_text(json.dumps(table, indent=1) + "\n")
    print(pd.DataFrame(rows).pivot_table(index="cell", columns="rate", values="error").round(4))


if __name__ == "__main__":
    main()
