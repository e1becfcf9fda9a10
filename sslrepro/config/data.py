"""Settings of the corpus, of the part of it that a cell sees, and of the targets made from it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from sslrepro.config.base import Positive, PositiveFloat, Settings, Share, ascending, distinct


class LanguageSettings(Settings):
    """A further language of the embedded corpus: its own words, as its spelling has them (data.language), in the corpus's voices."""

    voice: Literal["de", "es"]  # as eSpeak NG names it; the language's name in `languages` of cells and targets
    hours: PositiveFloat
    words: Positive = 250


class CorpusSettings(Settings):
    """The embedded corpus, spoken by eSpeak NG (data.embedded). The same settings give the same manifest anywhere."""

    hours: PositiveFloat = 3.0  # of the training split; validation and test come on top
    voices: Positive = 48
    words: Positive = 250
    seed: int = 1
    languages: list[LanguageSettings] = []  # besides English, "en", whose part of the corpus is the same with and without them

    @model_validator(mode="after")
    def _once(self) -> CorpusSettings:
        voices = [language.voice for language in self.languages]
        if len(set(voices)) < len(voices):
            raise ValueError(f"languages: a voice occurs twice in {voices}")
        return self


class DataSettings(Settings):
    root: str | None = None  # LibriSpeech or Libri-Light as unpacked, any folder of audio, or a manifest; null: the embedded corpus
    corpus: CorpusSettings = CorpusSettings()
    lexicon: str | None = None  # of `root`: gives the texts of its first language their phones (data.lexicon); null: none are made
    trials: str | None = None  # of `root`: a list of test trials as VoxCeleb1's veri_test.txt (data.trial_list); null: trials are drawn

    @model_validator(mode="after")
    def _of_a_root(self) -> DataSettings:
        if self.lexicon is not None and self.root is None:
            raise ValueError("lexicon: the embedded corpus knows its phones; a lexicon is for the texts of data.root")
        if self.trials is not None and self.root is None:
            raise ValueError("trials: the embedded corpus draws its own; a list of trials is of the files of data.root")
        return self

    @model_serializer(mode="wrap")
    def _without_null(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a lexicon, or a list of trials, the key is left out, so that a corpus made before there was one is still the same by its
        settings' hash."""
        return {name: value for name, value in plain(self).items() if name not in ("lexicon", "trials") or value is not None}


Languages = Annotated[list[str], Field(min_length=1), AfterValidator(distinct)]
Range = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(ascending)]


class AugmentSettings(Settings):
    """Changes of the training audio (data.augment). Each share is that of the utterances it befalls; validation hears none."""

    speed_share: Share = 0.0
    speed: Range = [0.9, 1.1]  # times as fast, in steps of 0.05
    room_share: Share = 0.0
    room_seconds: Range = [0.1, 0.6]  # until echoes have fallen by 60 dB
    noise_share: Share = 0.0
    noise_decibels: Range = [5.0, 20.0]  # speech above noise
    mask_share: Share = 0.0
    mask_spans: Positive = 2
    mask_seconds: PositiveFloat = 0.3  # the longest


class CellData(Settings):
    """Which part of the corpus a cell sees."""

    languages: Languages | None = None  # trained on, validated on and scored on; null: the corpus's first
    hours: PositiveFloat | None = None  # of the training split, of each language; nested subsets; null: all
    fixed_speakers: bool = False  # the subset keeps every speaker
    augment: AugmentSettings = AugmentSettings()


class TargetSettings(Settings):
    """Labels for masked prediction: k-means on MFCC, or on a layer of an earlier cell of the same profile ("study/cell")."""

    source: Literal["mfcc", "logmel", "hidden"] = "mfcc"
    input: str = ""
    cell: str | None = None
    seed: int = 0  # of the k-means and, for hidden, of the run that is read
    layer: int | None = None
    clusters: Positive = 100
    fit_hours: PositiveFloat = 1.0
    languages: Languages | None = None  # the k-means is fitted on these together and labels these alone; null: the corpus's first
