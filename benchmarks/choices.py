"""Learning rates of probes and fine-tunings, chosen on the validation split; held-out data select nothing.

    python benchmarks/choices.py          # needs the corpus of profile laptop: python -m sslrepro data prepare --profile laptop

Trains the laptop profile's 16 s cell of the batch-size study under a seed that no study uses, then scores it with the validation split in
the place of the test split. Writes benchmarks/results/choices.json; the settings that follow from it are in sslrepro/config/downstream.py
(probes) and profiles/laptop.yaml (fine-tuning).
"""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pandas as pd
import torch

from sslrepro import objectives
from sslrepro.config import FineTuneSettings, LabelShare
from sslrepro.data.corpus import Validation
from sslrepro.downstream import fine_tune, score
from sslrepro.draws import key64
from sslrepro.paths import corpus_dir, work_dir
from sslrepro.pipeline.profile import expand
from sslrepro.training.identity import commit
from sslrepro.training.loop import train
from sslrepro.training.meter import Progress

SEED = 1000
PROBES = {
    "phone": "phone.accuracy",
    "phone_ctc": "phone_ctc.per",
    "keyword": "keyword.accuracy",
    "intent": "intent.accuracy",
    "verification": "verification.eer",
}
PROBE_RATES = (3.0e-3, 1.0e-2, 3.0e-2)
TUNING_RATES = (1.0e-3, 3.0e-3, 1.0e-2)
TUNING_MINUTES = (3.0, 20.0)


def main() -> None:
    profile = expand("laptop")
    settings = profile.studies["batch_size"].cells["b16"]
    settings = settings.model_copy(update={"training": settings.training.model_copy(update={"snapshots": [], "dispersion_batches": 0})})
    corpus = Validation(corpus_dir("laptop"))
    torch.manual_seed(key64(SEED, "init"))
    module = objectives.build(settings)
    train(module, corpus, None, settings, SEED, work_dir("laptop", "choices", "b16"), Progress("choices", None))
    upstream = module.upstream.eval()
    rows = []
    for minutes in TUNING_MINUTES:
        for rate in TUNING_RATES:
            tuning = settings.downstream.fine_tune.model_copy(update={"learning_rate": rate})
            share = next(share for share in tuning.shares if share.minutes == minutes)
            _, result = fine_tune(upstream, corpus, tuning, LabelShare(minutes=minutes, updates=share.updates), SEED, "cpu")
            rows += [{"what": f"fine-tuning, {minutes:g} min", "rate": rate, "metric": m, "value": v} for m, v in result.metrics.items()]
            print(rows[-1], flush=True)
    for rate in PROBE_RATES:
        changes = {"tasks": list(PROBES), "learning_rate": rate, "learning_rates": {}, "fine_tune": FineTuneSettings()}
        found = score(upstream, corpus, settings.downstream.model_copy(update=changes), SEED).metrics
        rows += [{"what": task, "rate": rate, "metric": metric, "value": found[metric]} for task, metric in PROBES.items()]
        print(rows[-len(PROBES) :], flush=True)
    table = {
        "command": "python benchmarks/choices.py",
        "split": "validation",
        "cell": "batch_size/b16 of profile laptop",
        "seed": SEED,
        "commit": commit(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "rows": rows,
    }
    Path(__file__).parent.joinpath("results", "choices.json").write_text(json.dumps(table, indent=1) + "\n")
    print(pd.DataFrame(rows).pivot_table(index="what", columns="rate", values="value").round(4))


if __name__ == "__main__":
    main()
