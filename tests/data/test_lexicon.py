"""Phones of texts from a lexicon, further columns of a manifest, and what was made without either as it was."""

import json

import pandas as pd
import pytest
import soundfile

from sslrepro.config import DataSettings, DownstreamSettings, Profile, settings_hash
from sslrepro.data.commands import data_prepare
from sslrepro.data.corpus import Corpus
from sslrepro.data.lexicon import read_lexicon
from sslrepro.data.writer import MANIFEST
from sslrepro.downstream import Unavailable, labels
from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError
from sslrepro.paths import corpus_dir, root
from sslrepro.pipeline.profile import expand
from sslrepro.pipeline.sweep import _corpus_is_current
from sslrepro.report.readme import KEPT

LINES = [  # path, split, speaker, text, emotion, language
    ("a0.wav", "train", "a", "ONE TWO", "", "en"),
    ("a1.wav", "train", "a", "two zwei one", "", "en"),
    ("b0.wav", "valid", "b", "", "", "en"),
    ("c0.wav", "test", "c", "Two, one!", "", "en"),
    ("d0.wav", "train", "d", "", "glad", "moods"),
    ("e0.wav", "valid", "e", "", "sad", "moods"),
    ("f0.wav", "test", "f", "one", "sad", "moods"),
]
LEXICON = "ONE\tW AH1 N\nONE\tHH W AH1 N\n\nTWO   T UW1\nDON'T\tD OW1 N T\n"
ONE_TWO, TWO_ONE = ["W", "AH1", "N", "T", "UW1"], ["T", "UW1", "W", "AH1", "N"]


@pytest.fixture
def given(tmp_path):
    """manifest.tsv of LINES, with noise, and words.txt beside it."""
    for path, *_ in LINES:
        soundfile.write(tmp_path / path, 0.1 * numpy_generator(path).standard_normal(8000), 16_000)
    table = pd.DataFrame(LINES, columns=["path", "split", "speaker", "text", "emotion", "language"])
    table.to_csv(tmp_path / "manifest.tsv", sep="\t", index=False)
    (tmp_path / "words.txt").write_text(LEXICON)
    return tmp_path


def settings(folder, lexicon: str | None = "words.txt") -> DataSettings:
    return DataSettings(root=str(folder / "manifest.tsv"), lexicon=lexicon and str(folder / lexicon))


def test_the_first_pronunciation_counts_by_the_words_of_texts(given):
    assert read_lexicon(given / "words.txt") == {"one": "W AH1 N", "two": "T UW1", "don't": "D OW1 N T"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"ONE\tW AH1 N\nTWO\n", "line 2: 'TWO' has no phones; a line is a word, then its phones$"),
        (b"\n\n", "has no word"),
        ("EINS\tAI N S\nFÜNF\tF Y N F".encode("latin-1"), "it is not UTF-8 text$"),
    ],
)
def test_what_is_no_lexicon_is_one_line(given, content, said):
    (given / "words.txt").unlink() if content is None else (given / "words.txt").write_bytes(content)
    with pytest.raises(UserError, match=f"data.lexicon: .*words.txt.*{said}") as error:
        data_prepare(settings(given), given / "out")
    assert len(str(error.value).splitlines()) == 1 and not (given / "out").exists()


def test_texts_of_the_first_language_get_phones_and_the_rest_is_counted(given, capsys):
    info = data_prepare(settings(given), given / "out")
    corpus = Corpus(given / "out")
    assert list(corpus.utterances) == [*MANIFEST, "phones", "emotion", "language"]
    phones = corpus.utterances.set_index("utterance")["phones"]
    assert phones[phones != ""].to_dict() == {"a0": "W AH1 N T UW1", "c0": "T UW1 W AH1 N"}  # f0 is of another
    kind = "phones of a text with a word that the lexicon lacks"
    assert info["left_out"] == {kind: {"count": 1, "examples": [f"a1: {kind} (zwei)"]}}
    assert f"left out: 1 x {kind}; such as a1: {kind} (zwei)" in capsys.readouterr().err
    assert info["phones"] == ["AH1", "N", "T", "UW1", "W"] and info["emotions"] == ["glad", "sad"]
    data = labels.phones(corpus, DownstreamSettings(train_hours=None))
    assert [data.labels[row] for row in [*data.train, *data.test]] == [ONE_TWO, TWO_ONE]


def test_phones_that_a_manifest_gives_are_kept(given):
    table = pd.read_csv(given / "manifest.tsv", sep="\t", keep_default_na=False)
    table["phones"] = ["", " x  y ", "", "", "", "", ""]
    table.to_csv(given / "manifest.tsv", sep="\t", index=False)
    data_prepare(settings(given), given / "out")
    data = labels.phones(Corpus(given / "out"), DownstreamSettings(train_hours=None))
    assert [data.labels[row] for row in data.train] == [ONE_TWO, ["x", "y"]]


def test_without_phones_a_task_on_them_says_how_to_get_them(given):
    data_prepare(settings(given, lexicon=None), given / "out")
    with pytest.raises(Unavailable, match=r"data\.lexicon"):
        labels.phones(Corpus(given / "out"), DownstreamSettings(train_hours=None))


def test_the_alignment_goes_before_the_column(tiny_corpus_dir, tmp_path):
    """A corpus that had both would give the phones of the alignment."""
    for path in tiny_corpus_dir.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "manifest.tsv").unlink()
    table = pd.read_csv(tiny_corpus_dir / "manifest.tsv", sep="\t", quoting=3, keep_default_na=False)
    table.assign(phones="x").to_csv(tmp_path / "manifest.tsv", sep="\t", quoting=3, index=False)
    two = [labels.phones(Corpus(folder), DownstreamSettings(train_hours=0.01)) for folder in (tiny_corpus_dir, tmp_path)]
    assert two[0].labels == two[1].labels and "x" not in two[1].classes


def test_another_lexicon_is_another_corpus(given, monkeypatch):
    monkeypatch.setenv("SSLREPRO_ROOT", str(given))
    with_it, without = (Profile(profile="mine", data=settings(given, lexicon)) for lexicon in ("words.txt", None))
    data_prepare(with_it.data, corpus_dir("mine"))
    assert _corpus_is_current(with_it) and not _corpus_is_current(without)
    assert settings_hash(with_it.data) != settings_hash(without.data)


def test_what_was_made_without_a_lexicon_is_what_it_was(small_corpus):
    """By bytes: the embedded corpus has no further columns; by name: kept results are of the corpus that their profile describes."""
    header = (small_corpus.folder / "manifest.tsv").read_text().splitlines()[0]
    assert header.split("\t") == MANIFEST
    assert not {"emotions", "lexicon"} & set(small_corpus.info)
    for profile in KEPT:
        for path in (root() / "results" / profile).glob("*/runs.json"):
            kept = {run["corpus"] for seeds in json.loads(path.read_text()).values() for run in seeds.values()}
            assert settings_hash(expand(profile).data) in kept, path
