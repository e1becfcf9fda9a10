"""Fine-tuning of an encoder with a share of the labels: CTC (wav2vec 2.0, section 3.3; the batch-size paper's recipe), or one class an
utterance.

All of the encoder learns, after the first `freeze` share of the updates, or what `method` says (downstream.parameter_efficient); the front
end stays frozen; spans of time are masked as in pre-training; the last weights are scored. With random initial weights this is the
from-scratch baseline.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sslrepro.budget.memory import saved_bytes, weight_memory
from sslrepro.config import AdaLoRATuning, DownstreamSettings, FineTuneSettings, LabelShare
from sslrepro.data.batching import UpdatePlan, by_length
from sslrepro.data.corpus import Corpus, Validation
from sslrepro.data.masking import mask_spans
from sslrepro.downstream import labels, parameter_efficient
from sslrepro.downstream.beam_search import BeamSearch
from sslrepro.downstream.ctc import Decode, count_classes, count_phones, count_text, ctc_loss, greedy, too_few_frames, too_few_note
from sslrepro.downstream.features import SAMPLE_RATE
from sslrepro.downstream.language_model import NGram
from sslrepro.downstream.task import Labelled, TaskResult, Unavailable
from sslrepro.draws import key64, numpy_generator
from sslrepro.models.upstream import Upstream, UpstreamOutput
from sslrepro.training.schedule import learning_rate
from sslrepro.training.schedule import share as share_of_run


class CTCModel(nn.Module):
    """An upstream and a linear layer to `symbols` and the blank (0)."""

    def __init__(self, upstream: Upstream, symbols: Sequence[str]) -> None:
        super().__init__()
        self.upstream, self.symbols = upstream, list(symbols)
        self.out = nn.Linear(upstream.dim, 1 + len(self.symbols))
        self.side: parameter_efficient.Ladder | None = None
        self.tuner: Any = None  # PEFT's, of the low-rank methods; it holds no weights of its own

    def forward(self, waveforms: Tensor, lengths: Tensor, mask: Tensor | None = None, layer_keep=None) -> tuple[Tensor, Tensor]:
        """Log-probabilities (batch, frames, 1 + symbols) and true frames (batch,) on the host; arguments as the upstream's."""
        scores, output = self._scores(waveforms, lengths, mask, layer_keep)
        return scores.log_softmax(-1), output.lengths

    def _scores(self, *arguments: Any) -> tuple[Tensor, UpstreamOutput]:
        output = self.upstream(*arguments)
        read = output.output if self.side is None else self.side(output)
        return self.out(read).float(), output

    def transcribe(self, waveforms: Sequence[np.ndarray], decode: Decode = greedy) -> list[list[str]]:
        """The symbols read from each waveform (samples,)."""
        return decode(self.log_probs(waveforms), self.symbols)

    @torch.no_grad()
    def log_probs(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(frames, 1 + symbols) of each waveform (samples,)."""
        padded, lengths = _padded(waveforms)
        log_probs, frames = self(padded.to(self.out.weight.device), lengths)
        return [line[:n] for line, n in zip(log_probs.cpu().numpy(), frames.tolist(), strict=True)]


class ClassModel(CTCModel):
    """One class an utterance, which is heard somewhere in it: each class has its largest score over the true frames.

    So the utterance is one frame, for which CTC's loss of one symbol is the cross-entropy, the blank a class that is never right.
    """

    def forward(self, waveforms: Tensor, lengths: Tensor, mask: Tensor | None = None, layer_keep=None) -> tuple[Tensor, Tensor]:
        """Log-probabilities (batch, 1, 1 + classes) and ones (batch,)."""
        scores, output = self._scores(waveforms, lengths, mask, layer_keep)
        if output.padding.valid is not None:
            scores = scores.masked_fill(~output.padding.valid[:, :, None], -torch.inf)
        return scores.amax(1, keepdim=True).log_softmax(-1), torch.ones_like(output.lengths)


def _classes(column: str) -> Callable[[Corpus, DownstreamSettings], Labelled]:
    """A column's classes, each the only symbol of its utterance."""

    def data(corpus: Corpus, settings: DownstreamSettings) -> Labelled:
        found = labels.category(column)(corpus, settings)
        return replace(found, labels={row: [name] for row, name in found.labels.items()})

    return data


# what is learned, how it is read, how its errors are counted
SYMBOLS = {
    "phones": (labels.phones, CTCModel, count_phones),
    "characters": (labels.characters, CTCModel, count_text),
    "keyword": (_classes("keyword"), ClassModel, count_classes),
    "intent": (_classes("intent"), ClassModel, count_classes),
}


def fine_tune(
    upstream: Upstream, corpus: Corpus, settings: FineTuneSettings, share: LabelShare, seed: int, device: torch.device | str
) -> tuple[CTCModel, TaskResult]:
    """A fine-tuned copy of the encoder in evaluation mode, and its error rates on the test split.

    Learns from `share.minutes` of labels, nested in one another, with every training voice. Metrics are `fine_tune_<minutes>min.per`, or
    `.wer` and `.cer`, or `.error` of classes, read greedily; with `settings.lm` also `.per_lm`, `.wer_lm`, `.cer_lm`; and where the test
    split is folders named test-clean, test-other, ... (LibriSpeech), each for every folder: `.wer_clean`, `.wer_lm_clean`. Of an encoder
    with sampled compression each stands for what it runs at, and follows for every choice of factors: `.per:s2-q1-k1`. Of a model that is
    kept the validation split's errors follow as well, `fine_tune_<minutes>min_valid.per`: factors are chosen by them. Raises Unavailable
    when the corpus has no such labels, UserError when it has too few minutes of them.
    """
    device, name = torch.device(device), f"fine_tune_{share.minutes:g}min"
    data = _labelled(corpus, settings, share.minutes)
    fits = [not too_few_frames(int(upstream.frames(corpus.samples(row))), data.labels[row]) for row in data.train.tolist()]
    train = data.train[np.array(fits)]
    if not len(train):
        raise Unavailable("every training utterance has fewer frames than CTC needs for its symbols")
    model = copy.deepcopy(upstream)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(key64(seed, "head", name))
        model = SYMBOLS[settings.symbols][1](model, data.classes).to(device)
        parameter_efficient.prepare(model, settings.method, share.updates)
        costs = _train(model, corpus, data, train, settings, share.updates, seed)
    model.eval()
    decoders: dict[str, Decode] = {"": greedy}
    if settings.lm is not None:
        decoders["_lm"] = BeamSearch(NGram(_sentences(corpus, settings), settings.lm.order), settings.lm)
    result = _score_choices(model, corpus, data, settings, name, decoders)
    if settings.keep:
        costs |= _validation_errors(model, corpus, settings, share, name)
    return model, replace(result, metrics=result.metrics | costs, notes=too_few_note(len(fits) - len(train), name))


def _labelled(corpus: Corpus, settings: FineTuneSettings, minutes: float) -> Labelled:
    return SYMBOLS[settings.symbols][0](corpus, DownstreamSettings(train_hours=minutes / 60))


def _sentences(corpus: Corpus, settings: FineTuneSettings) -> list[list[str]]:
    """What the language model learns from: all of the training split's words (or phones), whatever share of the audio is learned from."""
    data = _labelled(corpus, settings, corpus.split("train")["frames"].sum() / SAMPLE_RATE / 60)
    symbols = [data.labels[row] for row in data.train.tolist()]
    return symbols if settings.symbols == "phones" else ["".join(line).split() for line in symbols]


def _validation_errors(model: CTCModel, corpus: Corpus, settings: FineTuneSettings, share: LabelShare, name: str) -> dict[str, float]:
    held = Validation(corpus.folder, corpus.languages or None)
    try:
        data = _labelled(held, settings, share.minutes)
    except Unavailable:  # the test split has labels, this one has none: nothing can be chosen, and on_demand says so
        return {}
    return _score_choices(model, held, data, settings, f"{name}_valid", {"": greedy}).metrics


def _score_choices(
    model: CTCModel, corpus: Corpus, data: Labelled, settings: FineTuneSettings, name: str, decoders: dict[str, Decode]
) -> TaskResult:
    """As `_score`, and at every choice of factors, which the model is left without."""
    upstream = model.upstream
    if not upstream.choices:
        return _score(model, corpus, data, settings, name, decoders)
    fixed, metrics, speakers = upstream.encoder.fixed, {}, []
    for factors in upstream.choices:
        upstream.set_compression(*factors)
        found = _score(model, corpus, data, settings, name, decoders)
        for suffix in ["", f":{factors}"] if factors == fixed else [f":{factors}"]:
            metrics |= {metric + suffix: value for metric, value in found.metrics.items()}
            speakers += [(metric + suffix, *line) for metric, *line in found.speakers]
    upstream.set_compression(*fixed)
    return TaskResult(metrics, speakers)


def _score(
    model: CTCModel, corpus: Corpus, data: Labelled, settings: FineTuneSettings, name: str, decoders: dict[str, Decode]
) -> TaskResult:
    """Error rates of each decoder (its key is what follows the metric's name), of the test split and of each of its parts."""
    tested = data.test.tolist()
    readable = np.array([row for row in tested if model.upstream.frames(corpus.samples(row)) >= 1])
    log_probs = {row: np.empty((0, 1 + len(model.symbols)), np.float32) for row in tested}  # too short for a frame: nothing is read
    for batch in by_length(corpus.durations[readable], settings.micro_batch_seconds):
        rows = readable[batch].tolist()
        log_probs |= zip(rows, model.log_probs([corpus.audio(row) for row in rows]), strict=True)
    count = SYMBOLS[settings.symbols][2]
    speakers = corpus.utterances["speaker"].to_numpy()
    metrics, by_speaker = {}, []
    for key, decode in decoders.items():
        lines = dict(zip(tested, decode([log_probs[row] for row in tested], model.symbols), strict=True))
        for part, rows in _parts(corpus, tested).items():
            found = count(name, [data.labels[row] for row in rows], [lines[row] for row in rows], speakers[rows])
            metrics |= {metric + key + part: value for metric, value in found.metrics.items()}
            by_speaker += [(metric + key + part, *line) for metric, *line in found.speakers]
    return TaskResult(metrics, by_speaker)


def _parts(corpus: Corpus, rows: list[int]) -> dict[str, list[int]]:
    """All rows under "", and under "_clean" those in the folder test-clean, where rows are in several such folders."""
    folders = corpus.utterances["path"].iloc[rows].str.extract(r"(?:^|/)test-([^/]+)/", expand=False)
    names = sorted(set(folders.dropna()))
    return {"": rows} | {f"_{name}": [row for row, at in zip(rows, folders, strict=True) if at == name] for name in names if len(names) > 1}


def _train(
    model: CTCModel, corpus: Corpus, data: Labelled, train: np.ndarray, settings: FineTuneSettings, updates: int, seed: int
) -> dict[str, float]:
    """Adam (0.9, 0.98) without weight decay, the loss a mean over the update's utterances. Returns what it cost, as metrics.

    Bytes are those of the first micro-batch, the same for every method of a seed, with all that learns learning.
    """
    upstream, device = model.upstream, model.out.weight.device
    code = {name: 1 + i for i, name in enumerate(data.classes)}
    encoder = upstream.settings.encoder
    plan = UpdatePlan(corpus.durations[train], settings.batch_seconds, settings.micro_batch_seconds, key64(seed, "fine_tune"))
    model.train()
    for part in (upstream.front_end, upstream.feature_norm):
        if part is not None:
            part.eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    late = [p for p in upstream.parameters() if p.requires_grad] if settings.method.kind == "full" else []
    optimizer = torch.optim.Adam(trained, lr=settings.learning_rate, betas=(0.9, 0.98), eps=1e-8)
    frozen_until = share_of_run(settings.freeze, updates) * updates

    def loss_of(rows: np.ndarray, update: int, keep: np.ndarray | None) -> Tensor:
        waveforms, lengths = _padded([corpus.audio(int(row)) for row in rows])
        mask = None if encoder is None else _mask(upstream, corpus, rows, lengths, settings, (seed, "fine_tune", update))
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            log_probs, frames = model(waveforms.to(device), lengths, None if mask is None else mask.to(device), keep)
        return ctc_loss(log_probs, frames, [data.labels[int(row)] for row in rows], code)

    count = sum(p.numel() for p in trained)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        saved = saved_bytes(model, lambda: loss_of(train[plan.update(0)[0]], 0, None))
    gradients, state, _ = weight_memory(count)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    for update in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings.schedule, settings.learning_rate, (update + 0.5) / updates, updates)
        for parameter in late:
            parameter.requires_grad_(update >= frozen_until)
        upstream.draw_compression(seed, "fine_tune", update)
        keep = None
        if encoder is not None and encoder.layer_drop:
            keep = numpy_generator(seed, "fine_tune", "layers", update).random(encoder.layers) >= encoder.layer_drop
        pieces = [train[piece] for piece in plan.update(update)]
        optimizer.zero_grad()
        for rows in pieces:
            (loss_of(rows, update, keep) / sum(map(len, pieces))).backward()
        if isinstance(settings.method, AdaLoRATuning):
            (settings.method.orthogonality * parameter_efficient.orthogonality(model)).backward()
        optimizer.step()
        if isinstance(settings.method, AdaLoRATuning):
            model.tuner.update_and_allocate(update)
    seconds = time.perf_counter() - began
    return {
        "cost.trainable_params": float(count),
        "cost.tuning_bytes": float(saved + gradients + state),
        "cost.tuning_seconds": seconds,
    } | ({"cost.tuning_peak_bytes": float(torch.cuda.max_memory_allocated(device))} if device.type == "cuda" else {})


def _mask(upstream: Upstream, corpus: Corpus, rows: np.ndarray, lengths: Tensor, settings: FineTuneSettings, key: tuple) -> Tensor | None:
    """(batch, frames) bool; each utterance's spans from its own counter."""
    if settings.mask.share == 0:
        return None
    frames = upstream.frames(lengths).tolist()
    mask = torch.zeros(len(rows), max(frames), dtype=torch.bool)
    for line, row, count in zip(mask, rows.tolist(), frames, strict=True):
        line[:count] = torch.from_numpy(mask_spans(settings.mask, count, numpy_generator(*key, corpus.name(row))))
    return mask


def _padded(waveforms: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(w) for w in waveforms])
    padded = torch.zeros(len(waveforms), int(lengths.max()))
    for line, waveform in zip(padded, waveforms, strict=True):
        line[: len(waveform)] = torch.from_numpy(waveform)
    return padded, lengths
