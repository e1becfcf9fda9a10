"""The papers' cells at their real size: each counts as published and makes one real update on two utterances of two seconds, and one of
its fine-tuning where it has one."""

from __future__ import annotations

import ctypes
import functools
import importlib
import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from sslrepro import objectives
from sslrepro.budget.count import cell_cost
from sslrepro.budget.published import size_sweep
from sslrepro.budget.subnets import subnets
from sslrepro.budget.updates import flops_for
from sslrepro.config import CellSettings, Factors, FineTuneSettings, LabelShare, settings_hash
from sslrepro.data.corpus import Corpus
from sslrepro.data.folders import prepare
from sslrepro.data.loading import Request, Shapes, collate
from sslrepro.downstream import TASKS, score
from sslrepro.downstream.parameter_efficient import learned
from sslrepro.draws import numpy_generator
from sslrepro.models.upstream import Upstream
from sslrepro.objectives.base import Objective, Totals
from sslrepro.pipeline.profile import expand
from sslrepro.training.allocator import MMAP_THRESHOLD, TRIM_THRESHOLD, keep_freed_memory

fine_tuning = importlib.import_module("sslrepro.downstream.fine_tune")  # the package gives the function that name


def what_is_learned(settings: CellSettings) -> str:
    """Short for an objective and how its audio is changed, whatever its labels are: a second iteration is the same model but for their
    number."""
    objective, alike = settings.objective, {"targets": "", "classes": 0}
    name = settings_hash(objective.model_copy(update={name: value for name, value in alike.items() if hasattr(objective, name)}))
    return name + ("" if settings.data.augment is None else settings_hash(settings.data.augment))


def what_it_is(model) -> str:
    """Short for a model, whatever compression factors it runs at: they are one set of weights."""
    if model.encoder is None or model.encoder.compression.kind != "stochastic":
        return settings_hash(model)
    compression = model.encoder.compression.model_copy(update={**Factors()._asdict(), "sampled": True})
    return settings_hash(model.model_copy(update={"encoder": model.encoder.model_copy(update={"compression": compression})}))


PAPER = expand("paper")
CELLS = {f"{study}/{cell}": settings for study, block in PAPER.studies.items() for cell, settings in block.cells.items()}
# cells that differ in batch and rate alone are one model; one without an objective makes no update before it is fine-tuned
TRAINED = {name: s for name, s in CELLS.items() if s.is_trained}
MODELS = {what_it_is(s.model) + what_is_learned(s): name for name, s in reversed(TRAINED.items())}
UNTRAINED = {settings_hash(s.model) + s.objective.name: name for name, s in reversed(CELLS.items()) if not s.is_trained}
# compute-budget paper: claims/published/size_sweep.csv; TERA's are in no source, its Large is 1590 % of its Slim
SWEEP = {"size30": 5.9, "size50": 9.9, "size70": 14.1, "slim": 20.0, "size200": 40.0, "size473": 94.7, "size1582": 316.6}
CONTRASTIVE_SWEEP = {"size30": 6.2, "size50": 10.3, "size70": 14.4, "slim": 20.4, "size200": 40.4, "size473": 95.0, "size1582": 317.4}
PUBLISHED_MILLIONS = (
    {"batch_size/b87.5": 95.0, "summarymixing/wav2vec2-summarymixing": 154.8, "summarymixing/wav2vec2-attention": 165.3}
    | {f"budget/hubert-{size}": millions for size, millions in SWEEP.items()}
    | {f"budget/wav2vec2-{size}": millions for size, millions in CONTRASTIVE_SWEEP.items()}
)
BUDGET = {name for name in MODELS.values() if name.startswith("budget/")}
# none has a part that other cells do not step, but data2vec2, whose eight clones of Base take half a minute
LARGE = {"stochastic/sew", "summarymixing/wav2vec2-attention", "summarymixing/bestrq-attention"}
LARGE |= {f"survey/{name}" for name in ("melhubert-10ms", "fithubert", "distilhubert-squeeze2", "distilhubert-anyrate")}
LARGE |= {f"survey/{name}" for name in ("distilhubert-variable", "distilhubert-continuous", "lighthubert-first", "lighthubert")}
LARGE |= {f"survey/{name}" for name in ("lighthubert-s-first", "lighthubert-s")}
LARGE |= {f"survey/{name}" for name in ("data2vec", "data2vec2", "wav2vec2")}
LONG = pytest.mark.slow  # minutes: make test-slow
UPDATES = [pytest.param(name, 2.0, marks=[LONG] if name in LARGE else [], id=name) for name in sorted(MODELS.values())]
# the same weights fine-tuned by the same method with the same masks
TUNED = {
    what_it_is(s.model) + settings_hash(tuned.method) + settings_hash(tuned.mask) + tuned.symbols: name
    for name, s in reversed(CELLS.items())
    if (tuned := s.downstream.fine_tune).shares
}
UPDATES += [pytest.param(name, 15.625, marks=LONG, id=f"{name}-15.625s") for name in sorted(BUDGET)]


class Repeated(Corpus):
    """The utterances over and over again, 20 seconds each."""

    def samples(self, index: int) -> int:
        return 320_000

    def audio(self, index: int, start: int = 0, frames: int | None = None) -> np.ndarray:
        return np.resize(super().audio(index), 320_000)[start : start + (frames or 320_000)]


class FixedLabels:
    """Labels for two utterances, without a k-means."""

    def labels(self, index: int, start: int, frames: int, frame_step: float):
        return torch.arange(frames).numpy() % 7


def begun(settings: CellSettings) -> Objective:
    """The objective, with a teacher where it needs one."""
    objective = objectives.build(settings)
    if hasattr(objective, "begin"):
        objective.begin(Upstream(settings.objective.teacher_model), fresh=settings.start is None)
    return objective


def passed_over(parameter: str, objective: Objective, totals: Totals) -> bool:
    """Whether it is of a layer that this update drops, or that the student of this update is too shallow for."""
    if not parameter.startswith("upstream.encoder.layers."):
        return False
    layer, keep = int(parameter.split(".")[3]), objective.layer_keep(totals)
    depth = objective.size(totals).encoder.layers if getattr(objective, "subnets", None) else layer + 1
    return layer >= depth or (keep is not None and not keep[layer])


@pytest.mark.parametrize("name", sorted(MODELS.values()))
def test_counts_as_published(name):
    settings = CELLS[name]
    with torch.device("meta"):
        objective = begun(settings)
    cost = cell_cost(settings, 2.0)
    assert sum(p.numel() for p in objective.parameters()) == cost.params
    assert cost.upstream_params == sum(p.numel() for p in objective.upstream.parameters())
    if name in PUBLISHED_MILLIONS:
        assert round(cost.params / 1e6, 1) == pytest.approx(PUBLISHED_MILLIONS[name], abs=0.051)


@pytest.mark.parametrize("name", sorted(UNTRAINED.values()))
def test_what_is_measured_or_scored_as_it_stands_counts_as_it_is_built(name):
    settings = CELLS[name]
    with torch.device("meta"):
        built = objectives.build(settings)
    cost, upstream = cell_cost(settings, 2.0), built if isinstance(built, Upstream) else built.upstream
    assert [cost.params, cost.upstream_params] == [sum(p.numel() for p in module.parameters()) for module in (built, upstream)]


def test_teras_largest_is_1590_per_cent_of_its_slim():
    large, slim = (cell_cost(CELLS[f"budget/tera-{size}"], 2.0).params for size in ("size1582", "slim"))
    assert 100 * large / slim == pytest.approx(1590, abs=3)


@pytest.fixture(scope="module")
def freed_memory_kept():
    """The gigabytes of one model serve the next, which else would have each page cleared again; given back at the end."""
    kept = keep_freed_memory()
    yield
    if kept:
        libc = ctypes.CDLL(None)
        libc.mallopt(TRIM_THRESHOLD, 1 << 17)
        libc.mallopt(MMAP_THRESHOLD, 1 << 17)
        libc.malloc_trim(0)


@pytest.mark.usefixtures("freed_memory_kept")
@pytest.mark.parametrize(("name", "seconds"), UPDATES)
def test_one_real_update(name, seconds, tiny_corpus_dir):
    """AdamW takes each weight as soon as its gradient is whole, so that Large's gradients and moments, 4 GB, are never there at once."""
    settings = CELLS[name]
    torch.manual_seed(0)
    objective = begun(settings)
    corpus = Corpus(tiny_corpus_dir)
    if seconds > 2:  # no utterance here is as long
        corpus = Repeated(tiny_corpus_dir)
    shapes = Shapes.of(objective)
    requests = [Request(row, 0, min(round(16_000 * seconds), corpus.samples(row)), (0, row)) for row in range(2)]
    targets = FixedLabels() if settings.objective.name == "masked_prediction" else None
    batch = collate(corpus, requests, objective.draws, shapes, targets, settings.data.augment)
    objective.upstream.draw_compression(0, 0)
    totals = Totals(sum(batch.host_masked_counts), sum(batch.host_frames), 1, 0.0, 0)
    weights = {name: parameter for name, parameter in objective.named_parameters() if not passed_over(name, objective, totals)}
    moved = set()

    def step(name: str, parameter: torch.nn.Parameter) -> None:
        before = parameter.detach().clone()
        torch.optim.AdamW([parameter], lr=settings.training.peak_rate, fused=True).step()
        parameter.grad = None
        moved.update([] if torch.equal(before, parameter) else [name])

    for parameter_name, parameter in weights.items():
        parameter.register_post_accumulate_grad_hook(functools.partial(step, parameter_name))
    loss = objective.train()(batch, totals).loss
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert len(moved) >= 0.9 * len(weights)


@pytest.fixture(scope="module")
def two_seconds(two_second_corpus) -> Corpus:
    """Two training utterances of two seconds, one for validation and one for test, with a few letters and a keyword each."""
    columns = {"split": ["train", "train", "valid", "test"], "speaker": list("aabc")}
    return two_second_corpus(columns | {"text": ["one two", "two one", "two", "one"], "keyword": ["one", "two", "two", "one"]})


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TUNED.values()))
def test_one_real_update_of_fine_tuning(name, two_seconds, monkeypatch):
    """What the method says learns moves, and nothing else does. What is added begins behind a zero, so that it moves only in part."""
    model, settings = CELLS[name].model, CELLS[name].downstream.fine_tune
    settings = settings.model_copy(update={"batch_seconds": 4.0, "micro_batch_seconds": 4.0, "freeze": 0.0})
    before, train = {}, fine_tuning._train

    def watched(begun: torch.nn.Module, *rest):
        before.update({name: p.detach().clone() for name, p in begun.named_parameters()})
        return train(begun, *rest)

    monkeypatch.setattr(fine_tuning, "_train", watched)
    torch.manual_seed(0)
    tuned, result = fine_tuning.fine_tune(Upstream(model), two_seconds, settings, LabelShare(minutes=4 / 60, updates=1), 0, "cpu")
    assert result.speakers and all(math.isfinite(value) for value in result.metrics.values())
    after, head = dict(tuned.named_parameters()), {"out.weight", "out.bias"}
    moved = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert head <= moved <= set(learned(tuned))
    assert (moved == head) == (settings.method.kind == "frozen" or model.encoder is None)
    if settings.method.kind == "full":
        drawn = numpy_generator(0, "fine_tune", "layers", 0).random(model.encoder.layers if model.encoder else 0)
        dropped = tuple(f"upstream.encoder.layers.{i}." for i in np.flatnonzero(drawn < model.encoder.layer_drop)) if len(drawn) else ()
        assert len(moved) >= 0.9 * sum(not name.startswith(dropped) for name in learned(tuned))


@pytest.fixture(scope="module")
def superbs_corpora(tmp_path_factory, tiny_corpus_dir) -> Path:
    """A corpus folder with the five parts that the batch-size paper's probes ask for, four utterances of two seconds in each place."""
    spoken, folder = Corpus(tiny_corpus_dir), tmp_path_factory.mktemp("superb")
    rows = [row for row in range(len(spoken)) if spoken.samples(row) >= 32_000]
    lines, trials = [], []

    def add(language: str, place: str, split: str, **labels: str) -> None:
        path = folder / language / place / f"{len(lines)}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, spoken.audio(rows[len(lines) % len(rows)])[:32_000], 16_000)
        lines.append({"path": str(path.relative_to(folder)), "split": split, "language": language} | labels)

    for i in range(4):
        for place, split in {"train-clean-100": "train", "train-other-500": "train", "dev-clean": "valid", "test-clean": "test"}.items():
            add("librispeech", place, split, speaker=f"{split}{i}", text="one two", phones="W AH1 N T UW1")
        for split in ("train", "valid", "test"):
            add("voxceleb1", f"{split}{i % 2}", split, speaker=f"v{split}{i % 2}")
            add("fluent", split, split, speaker=f"f{split}{i}", intent=("increase|heat|none", "decrease|heat|kitchen")[i % 2])
            add("zh", split, split, speaker=f"z{split}{i}", text="宋朝")
        add("iemocap", f"Session{i + 1}", "train", speaker=f"s{i}", emotion="happy", fold=f"{i + 1}")
        add("iemocap", f"Session{i + 1}", "train", speaker=f"s{i}", emotion="sad", fold=f"{i + 1}")
    tested = [line for line in lines if line["language"] == "voxceleb1" and line["split"] == "test"]
    for left, right in itertools.combinations(tested, 2):
        paths = ("/".join(line["path"].split("/")[-2:]) for line in (left, right))
        trials.append(" ".join((str(int(left["speaker"] == right["speaker"])), *paths)))
    (folder / "trials.txt").write_text("\n".join(trials))
    pd.DataFrame(lines).fillna("").to_csv(folder / "manifest.tsv", sep="\t", index=False)
    prepare(folder / "manifest.tsv", folder / "corpus", trial_list=folder / "trials.txt")
    return folder / "corpus"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["b150", *(f"superb-{task}-b150" for task in ("asr", "asv", "ic", "er", "zh"))])
def test_a_superb_probe_at_its_real_size(name, superbs_corpora):
    """Base under the head of the recipe: one update, one validation where it has any, one test."""
    cell = CELLS[f"batch_size/{name}"]
    settings = cell.downstream.model_copy(update={"updates": 1, "fine_tune": FineTuneSettings()})
    settings = settings.model_copy(update={"select_every": settings.select_every and 1})
    torch.manual_seed(0)
    found = score(Upstream(cell.model), Corpus(superbs_corpora, cell.data.languages), settings, seed=0, device="cpu")
    assert not found.unavailable and TASKS[settings.tasks[0]].metric in found.metrics
    assert len(found.trials) == (6 if "asv" in name else 0)


def test_the_compute_budget_papers_grid():
    """Updates and half of them as published, and 32,000 updates of warm-up in every cell of the sweep."""
    cells = PAPER.studies["budget"].cells
    alike = {467: 473, 476: 473, 1559: 1582, 1590: 1582}  # the same shapes, named after HuBERT's percentages
    for row in size_sweep().itertuples():
        size = f"size{alike.get(row.size_pct, row.size_pct)}"
        name = f"{row.objective}-{size}-half" if row.budget == "half" else f"{row.objective}-{size}".replace("size100", "slim")
        training = cells[name].training
        assert training.budget.amount == pytest.approx(row.updates, abs=1), name
        assert training.schedule.warmup == 32_000
    assert {cells[f"{o}-slim"].training.learning_rate for o in ("hubert", "tera")} == {5e-4}
    assert cells["wav2vec2-slim"].training.learning_rate == 4e-4 and cells["wav2vec2-slim"].training.clip_norm is None


def test_what_is_compared_at_equal_compute_costs_as_much_as_slim():
    """1.5e18 FLOPs are 400,000 updates of Slim with utterances of LibriSpeech's mean length."""
    cells = PAPER.studies["budget"].cells
    slim = flops_for(cells["hubert-slim"], 400_000, seconds=12.3)
    for name in ("data2vec-slim", "bestrq-slim", "tera-original", "bestrq-original"):
        assert cells[name].training.budget.amount == pytest.approx(slim, rel=0.02)


def test_summary_mixing_at_equal_compute_costs_as_much_as_attentions_run():
    """300,000 updates of attention with utterances of LibriSpeech's mean length."""
    cells = PAPER.studies["summarymixing"].cells
    attention = flops_for(cells["wav2vec2-attention"], 300_000, seconds=12.3)
    assert cells["wav2vec2-summarymixing-equal-compute"].training.budget.amount == pytest.approx(attention, rel=0.01)


def test_the_batch_size_papers_grid():
    """Seven batches and the rates of the authors' README (square root up to 20 min, constant from 40), eight cycles of 50,000 updates."""
    rates = {150: 7.91e-5, 300: 1.12e-4, 600: 1.58e-4, 1200: 2.24e-4, 2400: 5e-4, 4800: 5e-4, 87.5: 6.04e-5}
    cells = PAPER.studies["batch_size"].cells
    for batch, rate in rates.items():
        training = cells[f"b{batch:g}"].training
        assert training.batch_seconds == batch
        assert training.peak_rate == pytest.approx(rate, rel=5e-3)
        assert training.budget.amount / training.schedule.cycles == 50_000
    assert cells["smallest87.5-linear"].training.peak_rate == pytest.approx(7.29e-6, rel=1e-3)
    for batch in (150, 300, 600, 1200):  # where the authors say which of three rules is best
        assert cells[f"lr-linear-b{batch}"].training.peak_rate == pytest.approx(5e-4 * batch / 6000)
        assert cells[f"lr-constant-b{batch}"].training.peak_rate == 5e-4
    rates = {"lr-linear-b2400": 2e-4, "lr-sqrt-b2400": 3.16e-4, "smallest87.5-constant": 5e-4}
    assert {name: cells[name].training.peak_rate for name in rates} == pytest.approx(rates, rel=1e-3)
    assert cells["b87.5"].downstream.learning_rates == {"phone_ctc": 1e-2} and not cells["b150"].downstream.learning_rates


def test_the_batch_size_papers_probes():
    """Six SUPERB tasks of each batch after 100,000, 200,000, 300,000 and 400,000 updates, by S3PRL's recipes at a constant 1e-4; all but PR
    start with the batch's own run."""
    cells = PAPER.studies["batch_size"].cells
    recipes = {  # updates, batch x accumulated, eval_step, projection
        "pr": (100_000, 16 * 2, 1000, 256), "asr": (200_000, 32 // 2, 2000, 1024), "asv": (200_000, 10 * 5, None, 512),
        "ic": (200_000, 32, 4000, 256), "er": (30_000, 4 * 8, 1000, 256), "zh": (500_000, 16, 5000, 1024),
    }  # fmt: skip
    others = {"asr": (None, "asr"), "asv": (["voxceleb1"], "verification_xvector"), "ic": (["fluent"], "intent_mean")}
    others |= {"er": (["iemocap"], "emotion"), "zh": (["zh"], "asr")}
    batches = [name for name in cells if name.startswith("b")]
    assert len(batches) == 7 and sum(name.startswith("superb-") for name in cells) == 35
    for batch in batches:
        assert cells[batch].downstream.tasks == ["phone_ctc"] and cells[batch].data.languages is None
        for task, recipe in recipes.items():
            probed = cells[batch if task == "pr" else f"superb-{task}-{batch}"].downstream
            assert (probed.updates, probed.batch, probed.select_every, probed.project) == recipe
            assert probed.schedule == "constant" and probed.learning_rate == 1e-4 and not probed.standardise and probed.train_hours is None
            on_librispeech = {"train": ["train-clean-100"], "valid": ["dev-clean"], "test": ["test-clean"]}
            assert probed.folders.model_dump() == (on_librispeech if task in ("pr", "asr") else dict.fromkeys(on_librispeech))
            assert probed.clip_norm == (1000 if task == "asv" else 1) and probed.weight_decay == (0.01 if task == "asv" else 0)
            assert probed.folds == (task == "er")
            assert probed.spec_augment == (task in ("asr", "zh")) and probed.crop_seconds == (8 if task == "asv" else None)
        for task, (part, name) in others.items():
            cell = cells[f"superb-{task}-{batch}"]
            assert (cell.start, cell.objective.name, cell.model) == (f"batch_size/{batch}", "none", cells[batch].model)
            assert (cell.data.languages, cell.downstream.tasks) == (part, [name])
            assert {0.25, 0.5, 0.75} == set(cell.training.snapshots) <= set(cells[batch].training.snapshots)
            assert not cell.downstream.learning_rates


def test_lighthuberts_two_supernets():
    """Its authors' choices for Base and Small; heads of 64 throughout, and a subnet of each by default."""
    cells = PAPER.studies["survey"].cells
    choices = {name: cells[name].objective.supernet for name in ("lighthubert", "lighthubert-s")}
    small = choices["lighthubert-s"]
    assert (choices["lighthubert"].widths, choices["lighthubert"].ffn_ratios) == ([512, 640, 768], [3.5, 4.0])
    assert (small.widths, small.heads, small.ffn_ratios, small.layers) == ([256, 384, 512], [4, 6, 8], [3.0, 3.5, 4.0], [10, 11, 12])
    for name, part in (("lighthubert", "lighthubert-640"), ("lighthubert-s", "lighthubert-384")):
        found = [model.encoder for model in subnets(cells[name].model, cells[name].objective.supernet)]
        assert {e.attended // e.heads for e in found} == {64}
        own, sizes = cells[part].model.encoder, {(e.width, e.heads, e.ffn, e.layers) for e in found}
        assert (own.width, own.heads, own.ffn, own.layers) in sizes and cells[part].start == f"survey/{name}"


def test_a_supernet_predicts_every_layer():
    """At every scale, as the paper's."""
    for profile in ("laptop", "gpu", "paper"):
        for cell in expand(profile).studies["survey"].cells.values():
            if getattr(cell.objective, "supernet", None) is not None:
                assert cell.objective.layers == list(range(1, cell.objective.teacher_model.encoder.layers + 1)), profile


def test_sews_recipes():
    """The longer micro-batch of the smallest, and the fine-tuning on 100 h, of which nothing is frozen at first (10 h: 10,000 updates)."""
    cells = PAPER.studies["stochastic"].cells
    assert [cells[name].training.micro_batch_seconds for name in ("sew-tiny", "sew", "wav2vec2-tiny")] == [175.0, 87.5, 87.5]
    assert cells["sew-tiny"].training.schedule == cells["sew"].training.schedule
    assert all(cells[name].downstream.fine_tune.freeze == 0 for name in ("sew", "sew-tiny", "wav2vec2", "wav2vec2-tiny"))
    assert cells["stochastic"].downstream.fine_tune.freeze == 10_000
