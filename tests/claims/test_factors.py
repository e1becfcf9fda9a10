"""A cell that was scored at several choices of compression factors is as many points."""

import json

import pandas as pd
import pytest

from sslrepro.claims.judging import judge_study
from sslrepro.pipeline.profile import expand
from sslrepro.training.measure import inference_macs

ERROR = {1: 0.40, 2: 0.43, 3: 0.47, 4: 0.52}
OFF = {"fixed": -0.02, "tuned": -0.015}


@pytest.mark.parametrize("profile", ["laptop", "gpu"])
def test_the_study_s_claims_are_judged_on_what_its_cells_write(tmp_path, profile):
    """Errors that grow with every factor, times in proportion to MACs: which claims hold follows, and none lacks a metric."""
    rows, runs = [], {}
    for name, cell in expand(profile).studies["stochastic"].cells.items():
        runs[name] = {str(seed): {"status": "completed"} for seed in range(3)}
        metrics = {metric.replace("macs", "seconds"): value for metric, value in inference_macs(cell).items()}
        unit = "wer" if name.endswith("-words") else "per"
        kind, compression = name.partition("-")[0], cell.model.encoder.compression
        if cell.downstream.fine_tune.shares:
            points = {"": compression.factors} | ({f":{f}": f for f in compression.trained} if name.startswith("stochastic") else {})
            for suffix, (squeeze, query, key_value) in points.items():
                error = ERROR[squeeze] + 0.001 * (query - 1) + 0.002 * (key_value - 1) + OFF.get(kind, 0.0)
                metrics[f"fine_tune_10min.{unit}{suffix}"] = 0.99 if kind == "floor" else error
        rows += [(name, seed, metric, value) for seed in range(3) for metric, value in metrics.items()]
    folder = tmp_path / "results" / profile / "stochastic"
    folder.mkdir(parents=True)
    pd.DataFrame(rows, columns=["cell", "seed", "metric", "value"]).assign(study="stochastic").to_csv(folder / "metrics.csv", index=False)
    (folder / "runs.json").write_text(json.dumps(runs))
    found = {row.claim: row for row in judge_study("stochastic", profile, tmp_path)}
    assert {f"stoch-0{n}": found[f"stoch-0{n}"].verdict for n in (1, 2, 3, 4)} == dict.fromkeys(
        ("stoch-01", "stoch-02", "stoch-03", "stoch-04"), "replicated"
    )
    assert "k2" in found["stoch-04"].parts[0]["name"] or "q2" in found["stoch-04"].parts[0]["name"]
    # a floor at each factor: the random weights fine-tuned at factor 4 read it as well as the model of factor 4, which then decides nothing
    floors = pd.read_csv(folder / "metrics.csv")
    floors.loc[floors.cell == "floor-random-s4", "value"] = ERROR[4] - 0.05
    floors.to_csv(folder / "metrics.csv", index=False)
    told = {row.claim: row for row in judge_study("stochastic", profile, tmp_path)}["stoch-02"]
    assert len(told.parts) == len(found["stoch-02"].parts) - 1 and "fixed 4: no gain of its own over floor" in told.reason
    floors[floors.cell != "floor-random-s4"].to_csv(folder / "metrics.csv", index=False)
    told = {row.claim: row for row in judge_study("stochastic", profile, tmp_path)}["stoch-02"]
    assert told.verdict != "replicated" and "no floor for squeeze" in told.reason
    squeezes = len(expand(profile).studies["stochastic"].cells["stochastic"].model.encoder.compression.squeeze_factors)
    assert len(found["stoch-02"].parts) == len(found["stoch-03"].parts) == squeezes
    assert {part["name"].split()[0] for part in found["stoch-05"].parts} == {"wav2vec2_time", "sew"}
    assert found["stoch-06"].verdict == "not run" and "sew-tiny" in found["stoch-06"].reason
