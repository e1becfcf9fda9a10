"""One SUPERB task by S3PRL itself: its intent classification, end to end, on a finished run of ours. `make test-interop` runs it.

S3PRL lives in an environment of its own (Makefile), because it needs torchaudio < 2.9. The data are the embedded corpus laid out as Fluent
Speech Commands, with the intent as action and the keyword as object.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pandas as pd
import soundfile
import yaml

from sslrepro.data.corpus import Corpus

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".s3prl" / "bin" / "python"
UPDATES = 60


def fluent_commands(corpus: Corpus, folder: Path) -> None:
    """The tree that S3PRL's downstream `fluent_commands` reads: data/{train,valid,test}_data.csv and the waveforms they name."""
    (folder / "data").mkdir(parents=True)
    known = corpus.split("train")
    for split in ("train", "valid", "test"):
        table = corpus.split(split)
        table = table[table["intent"].isin(known["intent"]) & table["keyword"].isin(known["keyword"])]
        rows = []
        for index, row in table.iterrows():
            soundfile.write(folder / f"{index}.wav", corpus.audio(index), 16_000)
            rows.append({"path": f"{index}.wav", "action": row["intent"], "object": row["keyword"], "location": "none"})
        assert len(rows) > 2
        pd.DataFrame(rows).to_csv(folder / "data" / f"{split}_data.csv", index=False)


def test_intent_classification(runs, tiny_corpus_dir, tmp_path) -> None:
    fluent_commands(Corpus(tiny_corpus_dir), tmp_path / "tree")
    config = {  # SUPERB's, but for the number of updates, the batch and the learning rate
        "runner": {
            "total_steps": UPDATES, "gradient_clipping": 1, "gradient_accumulate_steps": 1, "log_step": 20, "eval_step": UPDATES,
            "save_step": UPDATES, "max_keep": 1, "eval_dataloaders": ["dev", "test"],
        },
        "optimizer": {"name": "TorchOptim", "torch_optim_name": "Adam", "lr": 1.0e-2},
        "downstream_expert": {
            "datarc": {"file_path": str(tmp_path / "tree"), "num_workers": 0, "train_batch_size": 8, "eval_batch_size": 8},
            "modelrc": {"projector_dim": 256, "select": "UtteranceLevel", "UtteranceLevel": {"pooling": "MeanPooling"}},
        },
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = [PYTHON, "-m", "sslrepro.interop.s3prl", "-m", "train", "-u", "sslrepro_local", "-k", runs["waveform"]]
    command += ["-d", "fluent_commands", "-c", tmp_path / "config.yaml", "-p", tmp_path / "exp", "--device", "cpu"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1_200)
    assert done.returncode == 0, done.stderr[-4_000:]

    log = (tmp_path / "exp" / "log.log").read_text()
    scores = {split: [float(x) for x in re.findall(rf"^{split} at step \d+: (\S+)", log, re.M)] for split in ("train", "dev", "test")}
    print(scores)
    assert all(0 <= score <= 1 for found in scores.values() for score in found)
    assert len(scores["train"]) == UPDATES // 20 and len(scores["dev"]) == len(scores["test"]) == 1
    predicted = pd.read_csv(tmp_path / "exp" / "test_predict.csv", header=None)
    assert len(predicted) == len(pd.read_csv(tmp_path / "tree" / "data" / "test_data.csv"))
    assert scores["train"][-1] > scores["train"][0]  # the hidden states tell it something
