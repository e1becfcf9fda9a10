import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sslrepro.data.corpus import Corpus
from sslrepro.errors import UserError


def speakers(corpus, rows):
    return set(corpus.utterances["speaker"].iloc[rows])


def test_audio_is_the_utterance_in_its_shard(small_corpus):
    line = small_corpus.utterances.iloc[3]
    whole, _ = soundfile.read(small_corpus.folder / line["path"], dtype="float32")
    expected = whole[line["start"] : line["start"] + line["frames"]]
    assert small_corpus.audio(3).dtype == np.float32
    np.testing.assert_array_equal(small_corpus.audio(3), expected)
    np.testing.assert_array_equal(small_corpus.audio(3, 100, 50), expected[100:150])
    np.testing.assert_array_equal(small_corpus.audio(3, len(expected) - 10, 50), expected[-10:])  # never into the next one
    assert small_corpus.samples(3) == len(expected) and small_corpus.name(3) == line["utterance"]


def test_threads_read_the_same(small_corpus):
    fresh = Corpus(small_corpus.folder)
    rows = list(range(len(fresh))) * 3
    with ThreadPoolExecutor(8) as threads:
        for row, audio in zip(rows, threads.map(fresh.audio, rows), strict=True):
            np.testing.assert_array_equal(audio, small_corpus.audio(row))


@pytest.mark.parametrize("fixed", [False, True])
def test_subsets_nest_and_hold_the_hours_asked_for(small_corpus, fixed):
    all_of_it = small_corpus.subset(None, fixed)
    assert all_of_it.tolist() == small_corpus.split("train").index.tolist()
    smaller: set[int] = set()
    for hours in (0.002, 0.006, 0.012, 0.02, 0.03):
        rows = small_corpus.subset(hours, fixed)
        assert smaller < set(rows)
        seconds = small_corpus.durations[rows]
        assert hours * 3600 <= seconds.sum() < hours * 3600 + seconds.max()  # no utterance more than needed
        smaller = set(rows)


def test_hours_add_speakers_unless_they_are_fixed(small_corpus):
    few, many = small_corpus.subset(0.008), small_corpus.subset(0.03)
    assert len(speakers(small_corpus, few)) == 1 < len(speakers(small_corpus, many))
    kept = small_corpus.subset(0.008, fixed_speakers=True)
    counts = small_corpus.utterances["speaker"].iloc[kept].astype(str).value_counts()
    assert set(counts.index) == speakers(small_corpus, many)
    assert counts.max() - counts.min() <= 1


def test_more_hours_than_there_are_is_an_error(small_corpus):
    with pytest.raises(UserError, match=r"5.0 hours of training audio were asked for, there are 0.03"):
        small_corpus.subset(5.0)


def test_a_folder_that_is_no_corpus_is_named(tmp_path):
    with pytest.raises(UserError, match=r"is not a corpus folder: it has no corpus.json"):
        Corpus(tmp_path)


BIG = """
import sys, time
from sslrepro.data.corpus import Corpus
start = time.process_time()
corpus = Corpus(sys.argv[1])
seconds = time.process_time() - start
corpus.subset(100.0); corpus.audio; corpus.durations; corpus.name(0); corpus.samples(0)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))  # unlike getrusage it does not begin at the parent's size
print(len(corpus), seconds, int(status["VmHWM"].split()[0]) / 1e3)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak memory of a process is read from /proc")
def test_a_manifest_as_long_as_librispeech_loads_quickly_in_little_memory(tmp_path):
    lines = ["utterance\tsplit\tspeaker\tpath\tstart\tframes\ttext\tintent\tkeyword"]
    for i in range(281_241):
        name = f"{i % 2338}-{i % 97}-{i:06d}"
        text = "a transcript of the usual length for this collection of read books " * 3
        lines.append(
            f"{name}\ttrain\t{i % 2338}\ttrain-clean-100/{i % 2338}/{i % 97}/{name}.flac\t0\t{150_000 + i % 90_000}\t{text}{i}\t\t"
        )
    (tmp_path / "manifest.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "corpus.json").write_text(json.dumps({"audio_root": ".", "layout": "files"}))
    out = subprocess.run([sys.executable, "-c", BIG, str(tmp_path)], check=True, capture_output=True, text=True).stdout.split()
    count, seconds, megabytes = int(out[0]), float(out[1]), float(out[2])
    assert count == 281_241
    assert seconds < 3.0  # of processor time
    assert megabytes < 500
