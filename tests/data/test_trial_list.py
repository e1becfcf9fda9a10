"""A list of verification trials as VoxCeleb1's takes the place of drawn ones, as it is; a wrong one says where and why."""

import json

import pandas as pd
import pytest
import soundfile

from sslrepro.config import DataSettings, DownstreamSettings, Profile, settings_hash
from sslrepro.data.commands import data_prepare
from sslrepro.data.corpus import Corpus
from sslrepro.data.trial_list import listed_trials
from sslrepro.downstream import TASKS
from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError
from sslrepro.paths import corpus_dir
from sslrepro.pipeline.sweep import _corpus_is_current

LIST = """1 id5/one/00001.wav id5/two/00001.wav
0 id5/two/00001.wav id6/one/00001.wav

1 id6/one/00002.wav id6/one/00001.wav
0 id6/one/00002.wav id5/one/00001.wav
"""


@pytest.fixture
def given(tmp_path):
    """A part `voices` of three training, two validation and two test speakers, beside a part `en`; and veri_test.txt."""
    lines = []
    for speaker, split in {1: "train", 2: "train", 3: "valid", 4: "valid", 5: "test", 6: "test"}.items():
        for place in ("one/00001", "two/00001", "one/00002"):
            lines.append((f"wav/id{speaker}/{place}.wav", split, f"id{speaker}", "voices"))
            lines.append((f"en/{speaker}/{place}.wav", split, f"e{speaker}", "en"))
    for path, *_ in lines:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / path, 0.1 * numpy_generator(path).standard_normal(8000), 16_000)
    pd.DataFrame(lines, columns=["path", "split", "speaker", "language"]).to_csv(tmp_path / "manifest.tsv", sep="\t", index=False)
    (tmp_path / "veri_test.txt").write_text(LIST)
    return tmp_path


def settings(folder, trials: str | None = "veri_test.txt") -> DataSettings:
    return DataSettings(root=str(folder / "manifest.tsv"), trials=trials and str(folder / trials))


def test_the_list_is_used_as_given(given):
    data_prepare(settings(given, None), given / "drawn")
    info = data_prepare(settings(given), given / "out")
    drawn, listed = (Corpus(given / name, ["voices"]) for name in ("drawn", "out"))
    found = listed.trials("test")[["left", "right", "same"]].to_records(index=False).tolist()
    stems = [("id5/one/00001", "id5/two/00001", 1), ("id5/two/00001", "id6/one/00001", 0)]
    stems += [("id6/one/00002", "id6/one/00001", 1), ("id6/one/00002", "id5/one/00001", 0)]
    assert found == [(f"wav/{left}", f"wav/{right}", same) for left, right, same in stems]
    assert len(drawn.trials("test")) == 12 and listed.trials("valid").equals(drawn.trials("valid"))
    assert Corpus(given / "out", ["en"]).trials("test").equals(Corpus(given / "drawn", ["en"]).trials("test"))
    assert info["trials"] == str(given / "veri_test.txt") and "trials" not in json.loads((given / "drawn" / "corpus.json").read_text())
    data = TASKS["verification_xvector"].data(listed, DownstreamSettings(train_hours=None))
    assert len(data.trials) == 4 and len(data.test) == 4 and data.classes == ["id1", "id2"]


def test_another_list_is_another_corpus_and_none_is_what_it_was(given, monkeypatch):
    monkeypatch.setenv("SSLREPRO_ROOT", str(given))
    with_it, without = (Profile(profile="mine", data=settings(given, name)) for name in ("veri_test.txt", None))
    data_prepare(with_it.data, corpus_dir("mine"))
    assert _corpus_is_current(with_it) and not _corpus_is_current(without)
    assert settings_hash(with_it.data) != settings_hash(without.data) and "trials" not in without.data.model_dump()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, ": no such file; give a list"),
        ("1 a.wav b.wav c.wav\n", ", line 1: '1 a.wav b.wav c.wav' is no trial; a line is `1 left.wav right.wav`"),
        ("\nsame id5/one/00001.wav id5/two/00001.wav\n", ", line 2: 'same .*' is no trial"),
        ("1 id5/one/00001.wav id5/two/00001.wav\n", " must have trials of one speaker and of two"),
        (LIST + "0 id5/one/00001.wav id9/one/00001.wav\n", ", line 6: no utterance of data.root has a path that ends in id9/one/00001.wav"),
        (LIST + "0 one/00001.wav id5/one/00001.wav\n", ", line 6: 12 utterances of data.root have a path that ends in one/00001.wav"),
        (LIST + "0 id1/one/00001.wav id5/one/00001.wav\n", ", line 6: id1/one/00001.wav is in the split 'train': give .* the split test"),
        (LIST + "1 id6/one/00001.wav id5/one/00001.wav\n", ", line 6: it says 1, and the manifest says speakers 'id6' and 'id5'"),
        (LIST + "0 id6/one/00001.wav en/5/one/00001.wav\n", ", line 6: .*5/one/00001 is of 'en', the trials before are of 'voices'"),
        (b"1 \xff a", " is not a list of trials: it is not UTF-8 text"),
    ],
)
def test_a_wrong_list_is_one_line_that_says_where(given, content, said):
    file = given / "veri_test.txt"
    file.unlink() if content is None else file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=f"data.trials: .*veri_test.txt{said}") as error:
        data_prepare(settings(given), given / "out")
    assert len(str(error.value).splitlines()) == 1 and not (given / "out").exists()


def test_a_list_without_a_root_is_named():
    with pytest.raises(ValueError, match="trials: the embedded corpus draws its own"):
        DataSettings(trials="veri_test.txt")


def test_a_table_without_languages(given):
    data_prepare(settings(given, None), given / "out")
    table = Corpus(given / "out").utterances.drop(columns="language")
    assert listed_trials(given / "veri_test.txt", table)[1] == ""
