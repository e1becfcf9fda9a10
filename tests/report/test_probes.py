"""SUPERB's tasks by batch and moment, and what was not scored."""

import json

import pandas as pd
import pytest

from sslrepro.report.probes import MOMENTS, probes, published_probes
from sslrepro.report.unscored import unscored


def test_each_task_is_read_from_its_cells(tmp_path):
    rows = [
        ("superb-asr-b150", 0, "asr.wer", 0.2), ("superb-asr-b150", 1, "asr.wer", 0.4), ("superb-asr-b87.5", 0, "asr.wer@0.25", 0.9),
        ("superb-asr-b150", 0, "asr.cer", 0.1), ("b150", 0, "phone_ctc.per", 0.3), ("b150", 0, "asr.wer", 0.8),
        ("superb-zh-b150", 0, "asr.cer", 0.25), ("superb-zh-b150", 0, "asr.wer", 1.0), ("superb-er-b87.5", 0, "emotion.accuracy@0.5", 0.6),
        ("smallest87.5-linear", 0, "phone_ctc.per", 0.99),
    ]  # fmt: skip
    pd.DataFrame(rows, columns=["cell", "seed", "metric", "value"]).to_csv(tmp_path / "metrics.csv", index=False)
    table = probes(tmp_path)
    assert list(table.columns) == ["87.5", "150"] and set(table.index.get_level_values(1)) <= set(MOMENTS)
    assert table.stack().to_dict() == pytest.approx({
        ("ASR, WER", 0.25, "87.5"): 90, ("ASR, WER", 1.0, "150"): 30, ("ER, accuracy", 0.5, "87.5"): 60,
        ("OOD-ASR in Mandarin, CER", 1.0, "150"): 25, ("PR, PER", 1.0, "150"): 30,
    })  # fmt: skip


def test_a_profile_without_these_tasks(tmp_path):
    (tmp_path / "metrics.csv").write_text("cell,seed,metric,value\nb16,0,phone.accuracy,0.5\n")
    (tmp_path / "runs.json").write_text(json.dumps({"b16": {"0": {"status": "completed"}}}))
    assert probes(tmp_path).empty and unscored(tmp_path).empty


def test_the_papers_are_all_six():
    table = published_probes()
    assert list(table.columns) == ["87.5", "150", "300", "600", "1200", "2400", "4800"]
    assert table["2400"].to_dict() == {
        "ASR, WER": 7.01, "PR, PER": 6.08, "ASV, EER": 5.60, "IC, accuracy": 95.86, "ER, accuracy": 62.33,
        "OOD-ASR in Mandarin, CER": 23.73,
    }  # fmt: skip
