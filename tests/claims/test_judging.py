"""From a study's result tables to its rows: each verdict, each reason, on made-up results."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from sslrepro.claims.bootstrap import score_bins
from sslrepro.claims.judging import judge_study
from sslrepro.claims.ledger import load_ledger
from sslrepro.claims.scoreboard import scoreboard
from sslrepro.errors import UserError

BATCHES = [16, 32, 64, 128]
SPEAKERS = [f"v{i}" for i in range(8)]


class Made:
    """Result tables of one study, written as the pipeline would."""

    def __init__(self, top, study="batch_size", profile="gpu"):
        self.folder = top / "results" / profile / study
        self.study = study
        self.metrics, self.speakers, self.trials, self.runs = [], [], [], {}
        self.random = np.random.default_rng(0)

    def add(self, cell, seed, status="completed", code="now", **values):
        self.runs.setdefault(cell, {})[str(seed)] = {"status": status, "code": code, "commit": "c", "machine": {}}
        for metric, value in values.items():
            self.metrics.append((self.study, cell, seed, metric.replace("__", ".").replace("_at_", "@"), value))

    def clustered(self, cell, seed, metric, rate, speaker_sd=0.0, units=500):
        """A rate by speaker whose sum is the metric."""
        spread = np.random.default_rng(7).normal(0, speaker_sd, len(SPEAKERS))  # the same speakers are hard for every cell
        errors = np.clip(np.round(units * (rate + spread - spread.mean())), 0, units)
        self.speakers += [(self.study, cell, seed, metric, s, e, units) for s, e in zip(SPEAKERS, errors, strict=True)]
        value = errors.sum() / (units * len(SPEAKERS))
        self.add(cell, seed)
        self.metrics.append((self.study, cell, seed, metric, 1 - value if metric.endswith("accuracy") else value))

    def write(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        head = ["study", "cell", "seed", "metric"]
        pd.DataFrame(self.metrics, columns=[*head, "value"]).to_csv(self.folder / "metrics.csv", index=False)
        pd.DataFrame(self.speakers, columns=[*head, "speaker", "errors", "units"]).to_csv(self.folder / "speakers.csv", index=False)
        pd.DataFrame(self.trials, columns=[*head, "speaker", "same", "bins"]).to_csv(self.folder / "trials.csv", index=False)
        (self.folder / "runs.json").write_text(json.dumps(self.runs))


def rows(top, study="batch_size", profile="gpu", **options):
    return {row.claim: row for row in judge_study(study, profile, top, **options)}


def batches(top, rates, seeds=(0, 1, 2), noise=0.002, speaker_sd=0.05):
    made = Made(top)
    for batch, rate in zip(BATCHES, rates, strict=True):
        for seed in seeds:
            made.clustered(f"b{batch}", seed, "fine_tune_60min.per", rate + noise * made.random.normal(), speaker_sd)
    return made


def test_replicated_with_parts_and_interval(tmp_path):
    batches(tmp_path, [0.5, 0.4, 0.3, 0.2]).write()
    row = rows(tmp_path, code="now")["batch-01"]
    assert row.verdict == "replicated"
    assert 0 <= row.low <= row.effect <= row.high
    assert row.effect == min(part["margin"] for part in row.parts)
    assert row.metric == "fine_tune_60min.per" and row.seeds == 3 and row.stale is False
    assert row.paper["clean"]["tag"] == "C" and row.paper["clean"]["values"][0] == 34.53


def test_contradicted(tmp_path):
    batches(tmp_path, [0.2, 0.3, 0.4, 0.5]).write()
    row = rows(tmp_path)["batch-01"]
    assert row.verdict == "contradicted" and row.high < 0
    assert row.stale is None  # nothing said what today's code is


def test_inconclusive_says_what_would_decide(tmp_path):
    batches(tmp_path, [0.5, 0.4, 0.3, 0.29], noise=0.01).write()
    row = rows(tmp_path)["batch-01"]
    assert row.verdict == "inconclusive at this scale"
    assert row.low < 0 <= row.high
    assert "would be decided by" in row.reason and "seeds" in row.reason


def test_speech_that_would_decide(tmp_path):
    """Seeds agree to the last digit, but the speakers do not: more seeds would not help."""
    made = Made(tmp_path, "survey")
    for cell, rate, sd in (("fithubert", 0.30, 0.0), ("distilhubert", 0.31, 0.2)):
        for seed in range(3):
            made.clustered(cell, seed, "phone_ctc.per", rate, sd)
    made.write()
    row = rows(tmp_path, "survey")["survey-09"]
    assert row.verdict == "inconclusive at this scale"
    assert "hours of test speech" in row.reason


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_too_few_seeds_are_at_best_inconclusive(tmp_path, seeds):
    batches(tmp_path, [0.5, 0.4, 0.3, 0.2], seeds=seeds, noise=0.0, speaker_sd=0.0).write()
    row = rows(tmp_path)["batch-01"]
    assert row.effect > 0
    assert row.verdict == "inconclusive at this scale"
    assert f"{'1 seed' if len(seeds) == 1 else '2 seeds'}, deciding needs at least 3" in row.reason
    assert (row.low is None) == (len(seeds) == 1)


def test_seeds_of_cells_that_are_not_selected_do_not_count(tmp_path):
    """budget-08 is of three objectives by five seeds; data2vec's Slim has its name's form, three seeds and no part in it."""
    made = Made(tmp_path, "budget", "laptop")
    for objective, seeds in {"hubert": 5, "wav2vec2": 5, "tera": 5, "data2vec": 3}.items():
        for seed in range(seeds):
            for size, rate in (("slim", 0.3), ("small", 0.2)):
                made.add(f"{objective}-{size}", seed, phone_ctc__per=rate + 0.001 * seed, verification__eer=rate + 0.001 * seed)
    made.write()
    row = rows(tmp_path, "budget", "laptop", code="now")["budget-08"]
    assert row.seeds == 5 and row.verdict == "contradicted"


def test_not_run(tmp_path):
    row = rows(tmp_path)["batch-01"]
    assert row.verdict == "not run" and "no results" in row.reason and row.effect is None
    batches(tmp_path, [0.5, 0.4, 0.3, 0.2]).write()
    found = rows(tmp_path)
    assert found["batch-08"].verdict == "not run" and "have no pretrain.valid_accuracy" in found["batch-08"].reason
    assert found["batch-07"].verdict == "not run" and "no such cell (smallest{batch_seconds}-linear" in found["batch-07"].reason
    assert found["batch-12"].reason == "only paper can judge it"


def test_what_other_profiles_would_run_is_named(tmp_path):
    """At laptop budget-08 has no Small of TERA, and stoch-06 no pair of tiny models; whoever runs them is told."""
    made = Made(tmp_path, "budget", "laptop")
    for cell in ("hubert-slim", "wav2vec2-slim", "tera-slim", "hubert-small", "wav2vec2-small"):
        for seed in range(5):
            made.add(cell, seed, phone_ctc__per=0.5, verification__eer=0.3)
    made.write()
    reason = rows(tmp_path, "budget", "laptop")["budget-08"].reason
    assert "small lacks objective tera" in reason and "gpu, paper would run tera-small" in reason
    made = Made(tmp_path, "stochastic", "laptop")
    made.add("wav2vec2", 0, fine_tune_10min__per=0.5)
    made.write()
    found = rows(tmp_path, "stochastic", "laptop")
    assert "paper would run sew-tiny" in found["stoch-06"].reason
    assert "would run" not in rows(tmp_path, "stochastic", "gpu")["stoch-06"].reason  # without results everything is lacking


def test_models_that_do_not_read_decide_nothing(tmp_path):
    for name, error, verdict in (("blank", 0.98, "inconclusive at this scale"), ("reads", 0.45, "replicated")):
        made = Made(tmp_path / name, "stochastic", "laptop")
        for seed in range(3):
            made.add("sew", seed, fine_tune_10min__per=error, cost__inference_seconds_10=0.010)
            made.add("wav2vec2", seed, fine_tune_10min__per=error + 0.01, cost__inference_seconds_10=0.030)
        made.write()
        row = rows(tmp_path / name, "stochastic", "laptop")["stoch-05"]
        assert row.verdict == verdict
        assert ("neither sew nor wav2vec2 is below 0.9" in row.reason) == (name == "blank")


def test_a_collapsed_run_is_left_out_and_named(tmp_path):
    made = batches(tmp_path, [0.5, 0.4, 0.3, 0.2], seeds=(0, 1, 2, 3))
    made.add("b128", 9, status="collapsed", fine_tune_60min__per=0.9)
    made.write()
    row = rows(tmp_path)["batch-01"]
    assert row.verdict == "replicated" and row.seeds == 4
    assert "left out: b128 seed 9 collapsed" in row.reason
    for run in made.runs["b64"].values():
        run["status"] = "diverged"
    made.write()
    row = rows(tmp_path)["batch-01"]
    assert "b64 seed 0 diverged" in row.reason and all("64" not in part["name"] for part in row.parts)


def test_stale(tmp_path):
    made = batches(tmp_path, [0.5, 0.4, 0.3, 0.2])
    made.runs["b16"]["0"]["code"] = "then"
    made.write()
    assert rows(tmp_path, code="now")["batch-01"].stale is True


def test_a_part_that_cannot_be_judged_keeps_a_claim_open(tmp_path):
    """batch-13 also asks for emotion, which nothing stands for at gpu: replicated is out of reach, contradicted is not."""
    for name, rates, verdict in (("a", [0.5, 0.4, 0.3, 0.2], "inconclusive at this scale"), ("b", [0.2, 0.3, 0.4, 0.5], "contradicted")):
        made = batches(tmp_path / name, rates)
        for batch, rate in zip(BATCHES, rates, strict=True):
            for seed in range(3):
                made.clustered(f"b{batch}", seed, "asr.wer", rate)
                made.clustered(f"b{batch}", seed, "phone_ctc.per", rate)
                made.add(f"b{batch}", seed, verification__eer=rate / 2)
        made.write()
        row = rows(tmp_path / name)["batch-13"]
        assert row.verdict == verdict
        assert "no metric stands for emotion at this profile" in row.reason


def test_hours_law_from_snapshots(tmp_path):
    made = Made(tmp_path)
    for batch in BATCHES:
        for seed in range(3):
            values = {}
            for share in (0.25, 0.5, 1.0):
                per = math.exp(1 - 0.4 * math.log(batch * share * 100) + 0.003 * made.random.normal())
                values["phone_ctc__per" + ("" if share == 1 else f"_at_{share}")] = per
            made.add(f"b{batch}", seed, cost__updates=100.0, cost__hours_seen=batch * 100 / 3600, **values)
    made.write()
    found = rows(tmp_path)
    assert found["batch-05"].verdict == "replicated", found["batch-05"]
    assert found["batch-06"].verdict == "replicated"
    assert "interval over seeds alone" in found["batch-05"].reason  # no speakers given, and said


def test_gradient_dispersion_at_checkpoints(tmp_path):
    """Cells of any number of seeds have their checkpoints in common."""
    made = Made(tmp_path)
    for seeds, batch in enumerate(BATCHES, 3):
        for seed in range(seeds):
            values = {f"pretrain__gradient_dispersion_at_{s}": batch**-0.5 * (1 + s) for s in (0, 0.5, 1.0)}
            made.add(f"b{batch}", seed, cost__updates=400.0, **values)
    made.write()
    row = rows(tmp_path, profile="gpu")["batch-09"]
    assert row.verdict == "replicated", row.reason
    assert row.parts[1]["value"] == pytest.approx(-0.5)


def floors(top, stochastic, fixed, noise=0.0):
    made = Made(top, "stochastic")
    per = "fine_tune_10min.per"
    rates = {("floor-mel", per): 0.6, ("floor-random", per): 0.5} | {(f"fixed-s{s}", per): v for s, v in fixed.items()}
    rates |= {("stochastic", f"{per}:s{s}-q1-k1"): v for s, v in stochastic.items()} | {
        (f"floor-random-s{s}", per): 0.5 for s in fixed if s != 1
    }
    for (cell, metric), rate in rates.items():
        for seed in range(5):
            made.clustered(cell, seed, metric, rate + noise * made.random.normal())
    made.write()
    return rows(top, "stochastic")["stoch-02"]


def test_quality_kept(tmp_path):
    assert floors(tmp_path / "a", {1: 0.201, 2: 0.252}, {1: 0.2, 2: 0.25}, 0.001).verdict == "replicated"
    assert floors(tmp_path / "b", {1: 0.29, 2: 0.25}, {1: 0.2, 2: 0.25}, 0.001).verdict == "contradicted"
    row = floors(tmp_path / "c", {1: 0.20, 2: 0.50}, {1: 0.2, 2: 0.52})
    assert row.verdict == "replicated" and "fixed 2: no gain of its own over floor, decides nothing" in row.reason
    row = floors(tmp_path / "d", {1: 0.5}, {1: 0.5})
    assert row.verdict == "inconclusive at this scale" and "decides nothing" in row.reason


def test_a_reference_without_a_gain_says_what_would_give_it_one(tmp_path):
    made = Made(tmp_path, "survey")
    for cell, per in (("tune-frozen", 0.70), ("tune-full", 0.62), ("tune-lora", 0.64)):
        for seed, shift in enumerate((0.0, 0.05, -0.05)):
            own = shift if cell != "tune-frozen" else 0.0
            made.add(cell, seed, fine_tune_60min__per=per + own, cost__trainable_params=100.0 if cell == "tune-full" else 1.0)
    made.write()
    row = rows(tmp_path, "survey")["survey-06"]
    assert row.verdict == "inconclusive at this scale"
    assert re.search(r"full: about \d seeds would tell its gain from none, if it stays \+0.08", row.reason), row.reason
    row = floors(tmp_path / "none", {1: 0.55}, {1: 0.55})
    assert "fixed 1: its gain of -0.05 is none that more seeds could show" in row.reason


def test_more_noise_never_replicates_quality_kept(tmp_path):
    verdicts = [floors(tmp_path / str(noise), {1: 0.22}, {1: 0.2}, noise).verdict for noise in (0.0, 0.01, 0.05, 0.1)]
    assert verdicts[0] == "replicated" and "replicated" not in verdicts[2:]
    verdicts = [floors(tmp_path / f"b{noise}", {1: 0.26}, {1: 0.2}, noise).verdict for noise in (0.0, 0.01, 0.05, 0.1)]
    assert "replicated" not in verdicts


def test_verification_is_clustered_by_speaker(tmp_path):
    made = Made(tmp_path, "budget")
    random = np.random.default_rng(0)
    for cell, apart in (("hubert-slim", 2.0), ("wav2vec2-slim", 1.0), ("tera-slim", 1.0)):
        for seed in range(3):
            scores = random.normal(size=400) + apart * (np.arange(400) % 2)
            same = np.arange(400) % 2
            miss = [(np.mean(scores[same == 1] < c), np.mean(scores[same == 0] >= c)) for c in np.sort(scores)]
            eer = np.mean(min(miss, key=lambda pair: abs(pair[0] - pair[1])))
            made.clustered(cell, seed, "phone_ctc.per", 0.5 - 0.1 * apart)
            made.add(cell, seed, verification__eer=float(eer))
            made.trials += [
                ("budget", cell, seed, "verification.eer", SPEAKERS[i // 2 % 8], int(k), str(b))
                for i, (b, k) in enumerate(zip(score_bins(scores), same, strict=True))
            ]
    made.write()
    row = rows(tmp_path, "budget")["budget-10"]
    assert row.verdict == "replicated", row
    assert "seeds alone" not in row.reason


def test_counts_decide_without_training(tmp_path):
    def counts(name):
        return {"params:summarymixing/wav2vec2-summarymixing": 154.8e6}.get(name)

    row = rows(tmp_path, "summarymixing", "quick", counts=counts)["sm-04"]
    assert row.verdict == "replicated" and row.low is None and row.seeds == 0
    assert rows(tmp_path, "summarymixing", "quick", counts=lambda name: 165e6)["sm-04"].verdict == "contradicted"
    row = rows(tmp_path, "summarymixing", "quick")["sm-04"]
    assert row.verdict == "not run" and "no count named params:summarymixing/wav2vec2-summarymixing" in row.reason


def test_updates_of_a_budget(tmp_path):
    implied = {30: 400000 / 550070, 50: 400000 / 499953, 70: 400000 / 454811, 100: 1, 200: 400000 / 297370, 473: 400000 / 187222}

    def counts(name, off=1.0):
        size = int(name.removeprefix("macs:budget/hubert-size").partition("@")[0])
        return 56.2e9 * implied[size] * (off if size == 30 else 1)

    assert rows(tmp_path, "budget", "quick", counts=counts)["budget-12"].verdict == "replicated"
    assert rows(tmp_path, "budget", "quick", counts=lambda n: counts(n, 1.02))["budget-12"].verdict == "contradicted"


def test_tables_that_disagree_are_an_error(tmp_path):
    made = batches(tmp_path, [0.5, 0.4, 0.3, 0.2])
    made.metrics = [(*row[:4], row[4] + 0.1 * (row[1] == "b32")) for row in made.metrics]
    made.write()
    with pytest.raises(UserError, match=r"b32 seed \d: fine_tune_60min.per is .* collect the study's results again"):
        rows(tmp_path)


def test_scoreboard(tmp_path):
    batches(tmp_path, [0.5, 0.4, 0.3, 0.2]).write()
    found = scoreboard("gpu", tmp_path)
    folder = tmp_path / "results" / "gpu"
    written = json.loads((folder / "scoreboard.json").read_text())
    assert len(written) == 48 and written == [row.as_dict() for row in found]
    needed = {"claim", "study", "profile", "metric", "verdict", "effect", "low", "high", "parts", "criterion", "paper", "seeds"}
    assert all(needed | {"reason", "stale"} <= set(row) for row in written)
    assert len(json.loads((folder / "batch_size" / "verdicts.json").read_text())) == 13
    text = (folder / "scoreboard.md").read_text()
    assert "| batch-01 | **replicated** |" in text and "47 not run" in text
    again = scoreboard("gpu", tmp_path)
    assert [row.as_dict() for row in again] == [row.as_dict() for row in found]
    unpublished = {claim.id for study in load_ledger() for claim in study.claims if not claim.published}
    assert {row["claim"] for row in written if row["paper"] is None} == unpublished


def test_one_measuring_cell_gives_a_point_for_each_length(tmp_path):
    """sm-05: linear mixers against quadratic attention, and lengths below the criterion's are left out."""
    made = Made(tmp_path, "summarymixing")
    for seed in range(3):
        noise = 1 + 0.01 * made.random.normal()
        for cell, power in (("mixer-summarymixing", 1), ("mixer-unfused", 2)):
            times = {
                f"cost__mixer_seconds_{frames}": noise * (5.0 if frames == 500 else frames**power) for frames in (500, 1000, 2000, 4000)
            }
            made.add(cell, seed, cost__mixer_seconds_note=7.0, **times)
    made.write()
    row = rows(tmp_path, "summarymixing")["sm-05"]
    assert row.verdict == "replicated" and [part["value"] for part in row.parts] == pytest.approx([1, 2])


def test_slim_is_held_against_small_seed_by_seed(tmp_path):
    """Further seeds of Slim, better by chance, are no part of it: on the seeds of both the two differ by what they were made to."""
    made = Made(tmp_path, "budget")
    for objective in ("hubert", "wav2vec2", "tera"):
        for seed in range(12):
            level = 0.4 + 0.05 * (seed % 3) - 0.2 * (seed > 5)
            made.add(f"{objective}-slim", seed, phone_ctc__per=level)
            if seed < 6:
                made.add(f"{objective}-small", seed, phone_ctc__per=level * 1.1)
    for seed in range(3):
        made.add("floor-random", seed, phone_ctc__per=0.95)
    made.write()
    row = rows(tmp_path, "budget")["budget-08"]
    part = next(part for part in row.parts if part["name"] == "hubert: slim / small")
    assert part["value"] == pytest.approx(1 / 1.1) and row.low == pytest.approx(row.effect) and row.seeds == 6
