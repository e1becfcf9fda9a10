import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from sslrepro.config import DataSettings
from sslrepro.data.commands import data_prepare
from sslrepro.data.corpus import Corpus
from sslrepro.data.folders import prepare
from sslrepro.data.transcripts import normalise
from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError

SHARED = Path(__file__).parents[2].parent / "shared" / "speech"


def speak(path: Path, seconds=0.5, rate=16000, channels=1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (int(seconds * rate), channels) if channels > 1 else int(seconds * rate)
    soundfile.write(path, 0.1 * numpy_generator(path.name).standard_normal(shape), rate)
    return path


def libri(root: Path, subset: str, speaker: int, chapter: int, texts: list[str]) -> None:
    folder = root / subset / str(speaker) / str(chapter)
    lines = [f"{speaker}-{chapter}-{i:04d} {text}" for i, text in enumerate(texts)]
    for i in range(len(texts)):
        speak(folder / f"{speaker}-{chapter}-{i:04d}.flac")
    (folder / f"{speaker}-{chapter}.trans.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def made(root: Path, out: Path) -> Corpus:
    prepare(root, out)
    return Corpus(out)


def test_librispeech_as_unpacked(tmp_path):
    root = tmp_path / "data"
    for subset, speaker in (("train-clean-100", 19), ("train-other-500", 20), ("dev-clean", 30), ("dev-clean", 31), ("test-other", 40)):
        libri(root / "LibriSpeech", subset, speaker, 198, ["MISTER O'NEIL'S CAFÉ", "TWO"])
    (root / "LibriSpeech" / "SPEAKERS.TXT").write_text("; ID\n")
    corpus = made(root, tmp_path / "out")
    table = corpus.utterances
    assert table.groupby("split", observed=True)["speaker"].unique().map(sorted).to_dict() == {
        "train": ["19", "20"], "valid": ["30", "31"], "test": ["40"],
    }  # fmt: skip
    first = table.set_index("utterance").loc["19-198-0000"]
    assert first["text"] == "mister o'neil's cafe" and first["path"] == "train-clean-100/19/198/19-198-0000.flac"
    assert len(corpus.audio(0)) == 8000
    valid = corpus.trials("valid")
    assert valid["same"].sum() == 2 and len(valid) == 4
    assert corpus.trials("test").empty  # one speaker
    assert corpus.alignment().empty


def test_utterances_named_by_digits_are_tried_by_their_names(tmp_path):
    """Not by the places that those numbers would be."""
    names = ["007", "12", "3", "4", "5", "6"]
    paths = [speak(tmp_path / f"{name}.wav").name for name in names]
    lines = {"path": paths, "split": ["train", "valid", *["test"] * 4], "speaker": list("abccdd")}
    pd.DataFrame(lines).to_csv(tmp_path / "manifest.tsv", sep="\t", index=False)
    corpus = made(tmp_path / "manifest.tsv", tmp_path / "out")
    tried = corpus.trials("test")
    named = corpus.utterances.set_index("utterance")["speaker"]
    assert set(tried["left"]) | set(tried["right"]) <= {"3", "4", "5", "6"}
    assert (tried["same"] == (named[tried["left"]].to_numpy() == named[tried["right"]].to_numpy())).all()


def test_libri_light_speech_is_cut_by_its_voice_activity(tmp_path):
    book = tmp_path / "small" / "100" / "some_book"
    speak(book / "one_64kb.flac", 60)
    (book / "one_64kb.json").write_text(json.dumps({"speaker": "100", "voice_activity": [[1.0, 9.0], [10.0, 19.5], [25.0, 57.0]]}))
    speak(tmp_path / "small" / "200" / "other_book" / "two_64kb.flac", 50)  # without a description: equal pieces
    corpus = made(tmp_path, tmp_path.parent / "out")
    table = corpus.utterances.astype({"speaker": str})
    pieces = table[table["path"].str.contains("one_64kb")].sort_values("start")
    spans = ((pieces["start"] / 16000).tolist(), ((pieces["start"] + pieces["frames"]) / 16000).tolist())
    assert spans == ([1.0, 25.0, 41.0], [19.5, 41.0, 57.0])
    assert set(pieces["speaker"]) == {"100"}
    other = table[table["speaker"] == "200"]
    assert len(other) == 3 and other["frames"].sum() == 50 * 16000 and table["utterance"].is_unique
    assert len(corpus.audio(int(other.index[1]))) == other["frames"].iloc[1]


def test_any_folder_holds_out_speakers_the_same_way_each_time(tmp_path):
    root = tmp_path / "speech"
    for speaker in range(12):
        for i in range(3):
            speak(root / f"speaker {speaker}" / "deep" / f"take{i}.{['wav', 'flac', 'ogg'][i]}")
    one, two = made(root, tmp_path / "one"), made(root, tmp_path / "two")
    pd.testing.assert_frame_equal(one.utterances, two.utterances)
    groups = one.utterances.astype(str).groupby("split")["speaker"].unique().map(set)
    assert {split: len(group) for split, group in groups.items()} == {"train": 10, "valid": 1, "test": 1}
    assert len(set.union(*groups)) == 12  # no speaker in two splits


def test_files_without_speakers_are_held_out_by_file(tmp_path):
    for i in range(20):
        speak(tmp_path / "flat" / f"{i}.wav")
    corpus = made(tmp_path / "flat", tmp_path / "out")
    assert corpus.utterances["split"].value_counts().to_dict() == {"train": 17, "test": 2, "valid": 1}
    assert corpus.trials("test").empty


def test_a_manifest(tmp_path):
    speak(tmp_path / "audio" / "long file.wav", 3, rate=8000)
    lines = ["path\tsplit\tspeaker\tstart\tframes\ttext\tintent"]
    lines += ["audio/long file.wav\ttrain\tann\t0\t16000\tHello, World!\tgreet", "audio/long file.wav\tvalid\tbob\t16000\t32000\t\t"]
    lines += ["audio/long file.wav\ttest\tbob\t40000\t16000\t\t", "audio/missing.wav\ttest\tbob\t\t\t\t"]
    (tmp_path / "my.tsv").write_text("\n".join(lines) + "\n")
    corpus = made(tmp_path / "my.tsv", tmp_path / "out")
    assert corpus.utterances[["split", "speaker", "text", "intent"]].astype(str).to_numpy().tolist() == [
        ["train", "ann", "hello world", "greet"], ["valid", "bob", "", ""],
    ]  # fmt: skip
    assert len(corpus.audio(1)) == 32000
    assert {reason: part["count"] for reason, part in corpus.info["left_out"].items()} == {
        "start and frames lie outside the file": 1, "not readable": 1,
    }  # fmt: skip


def test_bad_files_are_left_out_and_counted(tmp_path):
    root = tmp_path / "in"
    libri(root, "train-x", 1, 1, ["A", "B", "C", "D"])
    whole = (root / "train-x/1/1/1-1-0001.flac").read_bytes()
    (root / "train-x/1/1/1-1-0001.flac").write_bytes(whole[: len(whole) // 2])
    (root / "train-x/1/1/1-1-0002.flac").write_bytes(b"")
    (root / "train-x/1/1/1-1-0003.flac").write_text("text")
    speak(root / "train-x/1/1/stereo.flac", rate=48000, channels=2)
    corpus = made(root, tmp_path / "out")
    assert {reason: part["count"] for reason, part in corpus.info["left_out"].items()} == {
        "truncated": 1, "empty file": 1, "not readable as audio": 1,
    }  # fmt: skip
    assert "1-1-0001.flac" in corpus.info["left_out"]["truncated"]["examples"][0]
    assert sorted(corpus.utterances["path"].str.split("/").str[-1]) == ["1-1-0000.flac", "stereo.flac"]
    assert all(corpus.audio(i).shape == (8000,) for i in range(2))


def test_what_is_resampled_or_averaged_is_counted_and_said(tmp_path, capsys):
    """Of the files that are used: not the broken one, and once where a file holds several utterances."""
    root = tmp_path / "in"
    for number, (rate, channels) in enumerate([(16000, 1), (8000, 1), (8000, 1), (48000, 2)]):
        speak(root / f"{number}.wav", 2, rate=rate, channels=channels)
    (root / "4.wav").write_bytes((root / "1.wav").read_bytes()[:100])
    info = data_prepare(DataSettings(root=str(root)), tmp_path / "out")
    assert (info["resampled"], info["averaged"]) == ({"8000": 2, "48000": 1}, {"2": 1}) and len(info["left_out"]) == 1
    said = capsys.readouterr().err
    assert "resampled when read: 2 files of 8000 Hz\n" in said and "resampled when read: 1 file of 48000 Hz\n" in said
    assert "averaged when read: 1 file of 2 channels\n" in said
    (root / "m.tsv").write_text("path\tstart\tframes\n1.wav\t0\t16000\n1.wav\t16000\t16000\n0.wav\t\t\n4.wav\t\t\n")
    assert made(root / "m.tsv", tmp_path / "listed").info["resampled"] == {"8000": 1}


def test_names_with_spaces_find_their_transcript_and_duplicates_stay_apart(tmp_path):
    folder = tmp_path / "in" / "6001" / "1"
    for name in ("6001-1-ä b 語 🎤.flac", "6001-1-ä.flac", "6001-1-0001.flac", "6001-1-0001.wav"):
        speak(folder / name)
    (folder / "6001-1.trans.txt").write_text("6001-1-ä b 語 🎤 NORTHANGER ABBEY\n6001-1-ä SHORT\n6001-1-0001 BOTH\n", encoding="utf-8")
    table = made(tmp_path / "in", tmp_path / "out").utterances.set_index("utterance")
    assert table.index.is_unique and len(table) == 4
    assert table.loc["6001-1-ä b 語 🎤", "text"] == "northanger abbey" and table.loc["6001-1-ä", "text"] == "short"
    assert set(table["speaker"]) == {"6001"}


def test_long_files_are_cut_and_lose_their_transcript_openly(tmp_path):
    libri(tmp_path / "in", "train", 1, 1, ["A", "B"])
    speak(tmp_path / "in/train/1/1/1-1-0000.flac", 50)
    corpus = made(tmp_path / "in", tmp_path / "out")
    pieces = corpus.utterances[corpus.utterances["path"].str.endswith("0000.flac")]
    assert len(pieces) == 3 and pieces["frames"].max() <= 20 * 16000 and set(pieces["text"]) == {""}
    assert corpus.info["left_out"]["transcript of a file longer than 40 s"]["count"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("split\tutt\ntrain\ta\n", "has no column `path`; it has split, utt"),
        ("path\tsplit\na.wav\tdev\n", "split 'dev' is none of train, valid, test"),
    ],
)
def test_wrong_manifests_are_named(tmp_path, content, message):
    (tmp_path / "m.tsv").write_text(content)
    with pytest.raises(UserError, match=message):
        prepare(tmp_path / "m.tsv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_or_useless_roots_are_named_and_write_nothing(tmp_path):
    with pytest.raises(UserError, match=r"data.root: .*nowhere does not exist; give a folder of audio"):
        data_prepare(DataSettings(root=str(tmp_path / "nowhere")), tmp_path / "out")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.flac").write_text("text")
    with pytest.raises(UserError, match=r"holds no usable audio \(1 not readable as audio\)"):
        data_prepare(DataSettings(root=str(tmp_path / "in")), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_text_is_normalised():
    assert normalise("  Don\u2019t — STOP, 3 naïve   Ærø! ") == "don't stop naive ærø"
    assert normalise("宋朝末年。Ж 42 ガ") == "宋朝末年 ж ガ"  # a letter is one of any script, as it is written there


@pytest.mark.skipif(not (SHARED / "librispeech_mini").is_dir(), reason="the sample of LibriSpeech is not here")
def test_a_sample_of_librispeech_with_other_tables_beside_it(tmp_path):
    corpus = made(SHARED / "librispeech_mini", tmp_path / "out")
    assert {split: part["utterances"] for split, part in corpus.info["splits"].items()} == {"train": 149, "valid": 48, "test": 100}
    assert corpus.info["left_out"] == {} and (corpus.utterances["text"] != "").all()
    given = pd.read_csv(SHARED / "librispeech_mini" / "manifest.tsv", sep="\t").set_index("utt")
    table = corpus.utterances.set_index("utterance")
    np.testing.assert_allclose(table["frames"] / 16000, given.loc[table.index, "seconds"], atol=6e-4)
    assert (table["text"] == given.loc[table.index, "text"].map(normalise)).all()


@pytest.mark.skipif(not (SHARED / "bad").is_dir(), reason="the collection of broken recordings is not here")
@pytest.mark.parametrize("case", sorted(p.name for p in (SHARED / "bad").glob("*") if p.is_dir()))
def test_each_broken_recording_is_left_out_or_read_right(tmp_path, case):
    corpus = made(SHARED / "bad" / case, tmp_path / "out")
    for index in range(len(corpus)):
        audio = corpus.audio(index)
        assert audio.shape == (corpus.samples(index),) and np.isfinite(audio).all() and len(audio) <= 40 * 16000
    names = {Path(path).name for path in corpus.utterances["path"]}
    assert (("6001-1-0000.flac" in names) is False) == (case in {"01_truncated_flac", "03_text_renamed", "13_unicode_space_name"})
    assert sum(part["count"] for part in corpus.info["left_out"].values()) == int(case[:2] in {"01", "03", "09"})
