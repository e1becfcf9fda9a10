"""All tasks on a frozen encoder. One more is one more entry."""

from __future__ import annotations

from torch import nn

from sslrepro.config import DownstreamSettings
from sslrepro.data.corpus import Corpus
from sslrepro.downstream import labels
from sslrepro.downstream.convolutional import ECAPA, ContextNet, ECAPAEmbedding
from sslrepro.downstream.ctc import BiLSTM, Framewise, OneHidden, SuperbBiLSTM, count_phones, count_text, symbol_errors
from sslrepro.downstream.frames import frame_accuracy
from sslrepro.downstream.task import Task, Unavailable
from sslrepro.downstream.utterances import Detectors, MeanLinear, MeanRecurrent, over_folds, utterance_accuracy
from sslrepro.downstream.verification import DilatedSpeakerEmbedding, SpeakerEmbedding, XVector, verification_error
from sslrepro.errors import UserError


def _linear(dim: int, classes: int, settings: DownstreamSettings) -> nn.Module:
    return nn.Linear(dim, classes)


def _mean_linear(dim: int, classes: int, settings: DownstreamSettings) -> nn.Module:
    return MeanLinear(dim, classes)


def _detectors(dim: int, classes: int, settings: DownstreamSettings) -> nn.Module:
    return Detectors(dim, classes)


def _framewise(dim: int, classes: int, settings: DownstreamSettings) -> nn.Module:
    return Framewise(dim, classes)


def _bilstm(dim: int, classes: int, settings: DownstreamSettings) -> nn.Module:
    if settings.lstm_layers == "plain":
        return BiLSTM(dim, classes, settings.lstm_width)
    return SuperbBiLSTM(dim, classes, settings.lstm_width, projected=settings.lstm_layers == "projected")


def _one_hidden(dim: int, classes: int, settings: DownstreamSettings) -> nn.Module:
    return OneHidden(dim, classes, settings.lstm_width)


def _context_net(dim: int, classes: int, settings: DownstreamSettings) -> nn.Module:
    return ContextNet(dim, classes, settings.conv_width)


def _mean_recurrent(dim: int, classes: int, settings: DownstreamSettings) -> nn.Module:
    return MeanRecurrent(dim, classes, settings.lstm_width)


def _ecapa(dim: int, classes: int, settings: DownstreamSettings) -> nn.Module:
    return ECAPA(dim, classes, settings.conv_width)


def _ecapa_embedding(dim: int, classes: int, settings: DownstreamSettings) -> nn.Module:
    return ECAPAEmbedding(dim, classes, settings.conv_width)


def _embedding(dim: int, classes: int, settings: DownstreamSettings) -> nn.Module:
    return SpeakerEmbedding(dim, classes)


def _dilated_embedding(dim: int, classes: int, settings: DownstreamSettings) -> nn.Module:
    return DilatedSpeakerEmbedding(dim, classes)


def _xvector(dim: int, classes: int, settings: DownstreamSettings) -> nn.Module:
    return XVector(dim, classes)


TASKS = {
    task.name: task
    for task in (
        Task("phone", labels.intervals, _linear, "phone.accuracy", "higher", frame_accuracy),
        Task("phone_ctc", labels.phones, _framewise, "phone_ctc.per", "lower", symbol_errors(count_phones)),
        Task("phone_lstm", labels.phones, _bilstm, "phone_lstm.per", "lower", symbol_errors(count_phones)),
        Task("asr", labels.characters, _bilstm, "asr.wer", "lower", symbol_errors(count_text)),
        Task("asr_conv", labels.characters, _context_net, "asr_conv.wer", "lower", symbol_errors(count_text)),
        Task("asr_linear", labels.characters, _one_hidden, "asr_linear.wer", "lower", symbol_errors(count_text)),
        Task("keyword", labels.category("keyword"), _detectors, "keyword.accuracy", "higher", utterance_accuracy),
        Task("intent", labels.intents, _detectors, "intent.accuracy", "higher", utterance_accuracy),
        Task("keyword_mean", labels.category("keyword"), _mean_linear, "keyword_mean.accuracy", "higher", utterance_accuracy),
        Task("intent_mean", labels.intents, _mean_linear, "intent_mean.accuracy", "higher", utterance_accuracy),
        Task("intent_lstm", labels.intents, _mean_recurrent, "intent_lstm.accuracy", "higher", utterance_accuracy),
        Task("emotion", labels.emotions, _mean_linear, "emotion.accuracy", "higher", over_folds(utterance_accuracy)),
        Task("emotion_ecapa", labels.emotions, _ecapa, "emotion_ecapa.accuracy", "higher", over_folds(utterance_accuracy)),
        Task("speaker", labels.known_speakers, _mean_linear, "speaker.accuracy", "higher", utterance_accuracy),
        Task("verification", labels.unknown_speakers, _embedding, "verification.eer", "lower", verification_error),
        Task("verification_tdnn", labels.unknown_speakers, _dilated_embedding, "verification_tdnn.eer", "lower", verification_error),
        Task("verification_xvector", labels.unknown_speakers, _xvector, "verification_xvector.eer", "lower", verification_error),
        Task("verification_ecapa", labels.unknown_speakers, _ecapa_embedding, "verification_ecapa.eer", "lower", verification_error),
    )
}


def find_task(name: str) -> Task:
    """Raises UserError for a name that is not in TASKS."""
    if name not in TASKS:
        raise UserError(f"downstream.tasks: no task {name!r}; there are: {', '.join(TASKS)}")
    return TASKS[name]


def available(name: str, corpus: Corpus, settings: DownstreamSettings) -> str | None:
    """Why the corpus cannot give this task's labels; None when it can."""
    try:
        find_task(name).data(corpus, settings)
    except Unavailable as reason:
        return str(reason)
    return None
