"""A second language in one corpus: its own words, phones and splits, and English as it is without."""

import hashlib

import numpy as np
import pytest
import soundfile

from sslrepro.config import CellSettings, CorpusSettings, DownstreamSettings, LanguageSettings, Profile, TargetSettings
from sslrepro.data.corpus import Corpus, NoSuchLanguage
from sslrepro.data.embedded import plan_voices
from sslrepro.data.folders import prepare
from sslrepro.data.language import SPELLINGS, Language
from sslrepro.data.targets import Targets, build_targets
from sslrepro.downstream import labels
from sslrepro.downstream.registry import TASKS
from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError
from sslrepro.paths import corpus_dir
from sslrepro.training.cell import _check

SPLITS = ("train", "valid", "test")


@pytest.fixture
def folder(two_languages_dir):
    return two_languages_dir


@pytest.fixture
def made(folder, tmp_path, monkeypatch):
    """A project whose profile `two` has that corpus."""
    monkeypatch.setenv("SSLREPRO_ROOT", str(tmp_path))
    corpus_dir("two").parent.mkdir(parents=True)
    corpus_dir("two").symlink_to(folder)
    return tmp_path


@pytest.mark.parametrize("language", SPELLINGS)
def test_each_language_has_words_of_its_own(language):
    mine = Language(250, 1, language)
    assert len(set(mine.words)) == 250 and all(word.isalpha() and word.islower() and len(word) >= 3 for word in mine.words)
    others = {word for name in SPELLINGS if name != language for word in Language(250, 1, name).words}
    assert len(others & set(mine.words)) < 25
    assert len(mine.sentence(numpy_generator("test", 0)).text.split()) > 3


def test_english_is_the_same_bytes_with_and_without(small_corpus, folder):
    both = Corpus(folder)
    assert both.languages == ["en"] and small_corpus.languages == ["en"]
    for path in sorted((small_corpus.folder / "audio").iterdir()):
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256((folder / "audio" / path.name).read_bytes()).digest()
    for name, rows in (("manifest", len(small_corpus) + 1), ("alignment", len(small_corpus.alignment()) + 1)):
        alone, lines = ((place / f"{name}.tsv").read_text().splitlines() for place in (small_corpus.folder, folder))
        assert [line.removesuffix("\ten").removesuffix("\tlanguage") for line in lines[:rows]] == alone
        assert len(lines) > rows
    for split in SPLITS:  # what a cell that names no language sees
        assert both.split(split).index.tolist() == small_corpus.split(split).index.tolist()
        assert both.trials(split).equals(small_corpus.trials(split))
    for hours, fixed in ((None, False), (0.01, False), (0.01, True)):
        assert both.subset(hours, fixed).tolist() == small_corpus.subset(hours, fixed).tolist()
    settings = DownstreamSettings(train_hours=0.02)
    for task in (task for name, task in TASKS.items() if not name.startswith("emotion")):  # the embedded corpus has none
        one, two = task.data(small_corpus, settings), task.data(both, settings)
        assert (one.train.tolist(), one.test.tolist(), one.classes) == (two.train.tolist(), two.test.tolist(), two.classes)


def test_the_second_language_has_exact_phones_and_splits_of_its_own(small_corpus, folder):
    german, english = Corpus(folder, ["de"]), Corpus(folder, ["en"])
    table = german.utterances.loc[german.rows]
    assert set(table["language"]) == {"de"} and not set(table["text"]) & set(small_corpus.utterances["text"])
    assert not set(table["speaker"]) & set(english.utterances.loc[english.rows, "speaker"])
    splits = {"text": {}, "speaker": {}}
    for split in SPLITS:
        part = german.split(split)
        assert len(part) and set(part["language"]) == {"de"}
        for column, owners in splits.items():
            for value in part[column].astype(str).str.removeprefix("de-"):
                assert owners.setdefault(value, split) == split
        heard = set(small_corpus.split(split)["speaker"].astype(str).str.removeprefix("en-us-"))
        assert set(part["speaker"].astype(str).str.removeprefix("de-")) == heard  # a variant keeps its split in every language
    phones = {name: set(labels.intervals(corpus, DownstreamSettings(train_hours=0.01)).classes) for name, corpus in
              (("de", german), ("en", english))}  # fmt: skip
    assert len(phones["de"] - phones["en"]) >= 10 and len(phones["de"] & phones["en"]) >= 10
    spoken = german.alignment().merge(table[["utterance", "frames", "text"]], on="utterance")
    tiers = {tier: dict(list(part.groupby("utterance"))) for tier, part in spoken.groupby("tier", observed=True)}
    for line in table.itertuples():
        sound, words = tiers["phone"][line.utterance], tiers["word"][line.utterance]
        edges = [*sound["start"], line.frames]
        assert edges[0] == 0 and edges[1:] == sound["end"].tolist() and np.diff(edges).min() > 0
        assert words["label"].tolist() == line.text.split()


def test_both_languages_are_each_as_alone(folder):
    both, parts = Corpus(folder, ["de", "en"]), [Corpus(folder, [name]) for name in ("en", "de")]
    assert both.languages == ["en", "de"]
    for hours, fixed in ((None, False), (0.01, True)):
        assert both.subset(hours, fixed).tolist() == [row for part in parts for row in part.subset(hours, fixed).tolist()]
    assert len(both.trials("test")) == sum(len(part.trials("test")) for part in parts)
    assert both.info["languages"]["de"]["train"]["utterances"] == len(parts[1].split("train"))


def test_targets_are_fitted_on_their_languages_and_label_no_others(made, folder):
    profile = Profile(
        profile="two",
        data={"corpus": Corpus(folder).info["settings"]},
        targets={
            name: TargetSettings(clusters=8, fit_hours=0.01, languages=languages) for name, languages in (("first", None), ("de", ["de"]))
        },
    )
    found = {name: Targets(build_targets(profile, name)) for name in profile.targets}
    english, german = (int(Corpus(folder, [name]).rows[0]) for name in ("en", "de"))
    assert found["first"].info["languages"] == ["en"] and found["de"].info["languages"] == ["de"]
    assert len(found["first"].labels(english, 0, 50, 320)) == len(found["de"].labels(german, 0, 50, 320)) == 50
    assert found["first"].info["labelled_frames"] + found["de"].info["labelled_frames"] > 100 * 0.9 * Corpus(folder).durations.sum()
    with pytest.raises(UserError, match="these targets are of de alone"):
        found["de"].labels(english, 0, 50, 320)
    cell = CellSettings(data={"languages": ["en", "de"]}, objective={"name": "masked_prediction", "targets": "de", "classes": 8})
    with pytest.raises(UserError, match=r"targets de are of de, .* data.languages are en, de: name the same under targets.de.languages"):
        _check(profile, cell, Corpus(folder, ["en", "de"]))
    _check(profile, cell, Corpus(folder, ["de"]))


def test_a_language_that_is_not_there_is_an_error(folder, small_corpus):
    with pytest.raises(NoSuchLanguage, match=r"^the corpus has no language 'es'; it has: en, de$"):
        Corpus(folder, ["es"])
    with pytest.raises(UserError, match="no language 'de'; it has: en"):
        Corpus(small_corpus.folder, ["en", "de"])


def test_settings_name_each_language_once():
    twice = [{"voice": "de", "hours": 1.0}, {"voice": "de", "hours": 2.0}]
    with pytest.raises(ValueError, match="a voice occurs twice"):
        CorpusSettings(languages=twice)
    with pytest.raises(ValueError, match="a language model is of one language"):
        CellSettings(data={"languages": ["en", "de"]}, downstream={"fine_tune": {"lm": {}}})


def test_all_voices_of_a_language_say_as_much():
    jobs = plan_voices(CorpusSettings(voices=80, languages=[LanguageSettings(voice="de", hours=2.0)]))
    german = [job for job in jobs if job["language"] == "de"]
    assert sum(job["seconds"] for job in german if job["split"] == "train") == pytest.approx(7200)
    assert len({job["voice"] for job in german}) == len(german) <= 80


def test_a_manifest_may_hold_two_languages(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["path\tspeaker\ttext\tlanguage"]
    for language in ("fi", "pl"):  # in this order, though "a" comes before "b"
        for speaker in range(4):
            name = f"{'b' if language == 'fi' else 'a'}{speaker}.wav"
            soundfile.write(tmp_path / name, rng.standard_normal(16_000) * 0.1, 16_000)
            lines.append(f"{name}\t{language}{speaker}\tthe words\t{language}")
    given = tmp_path / "manifest.tsv"
    given.write_text("\n".join(lines) + "\n")
    prepare(given, tmp_path / "out")
    corpus = Corpus(tmp_path / "out")
    assert list(corpus.info["languages"]) == ["fi", "pl"] and corpus.languages == ["fi"]
    for language in ("fi", "pl"):  # each has its own held-out speakers
        part = Corpus(tmp_path / "out", [language])
        assert [len(part.split(split)) for split in SPLITS] == [2, 1, 1]
        assert set(part.split("train")["speaker"].astype(str).str[:2]) == {language}
    given.write_text("\n".join([*lines[:-1], lines[-1].removesuffix("pl")]) + "\n")
    with pytest.raises(UserError, match="line 9: no language"):
        prepare(given, tmp_path / "out")
