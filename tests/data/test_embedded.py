import hashlib
import shutil
from collections import defaultdict

import numpy as np
import pytest
import soundfile

import sslrepro.data.embedded as embedded
from sslrepro.config import CorpusSettings
from sslrepro.data.embedded import build_embedded, plan_voices
from sslrepro.data.synth import VARIANTS
from sslrepro.errors import UserError


def digests(folder) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_bytes_whatever_the_number_of_processes(small_corpus, tmp_path):
    settings = CorpusSettings(**small_corpus.info["settings"])
    build_embedded(settings, tmp_path / "alone", jobs=1)
    build_embedded(settings, tmp_path / "three", jobs=3)
    assert digests(tmp_path / "alone") == digests(small_corpus.folder) == digests(tmp_path / "three")
    assert not list(tmp_path.glob(".*"))  # nothing temporary is left


def test_splits_share_neither_a_voice_nor_a_sentence(small_corpus):
    table = small_corpus.utterances
    for column in ("speaker", "text"):
        owners = table.astype(str).groupby(column)["split"].nunique()
        assert owners.max() == 1, f"a {column} is in two splits"
    variants = {name: set(small_corpus.split(name)["speaker"].str.removeprefix("en-us-")) for name in ("train", "valid", "test")}
    assert [len(v) for v in variants.values()] == [3, 1, 2]
    assert small_corpus.info["splits"]["train"]["hours"] >= small_corpus.info["settings"]["hours"]


def test_audio_is_16_khz_mono_and_utterances_fill_their_shard(small_corpus):
    for path, part in small_corpus.utterances.groupby("path"):
        info = soundfile.info(small_corpus.folder / path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert part["frames"].sum() == info.frames
        assert (part["start"].to_numpy()[1:] == (part["start"] + part["frames"]).to_numpy()[:-1]).all()
    seconds = small_corpus.durations
    assert seconds.min() > 1.0 and seconds.max() < 7.0 and 2.0 < seconds.mean() < 4.5


def test_phones_cover_the_audio_and_words_are_those_of_the_text(small_corpus):
    tiers = {
        tier: dict(list(part.groupby("utterance", observed=True))) for tier, part in small_corpus.alignment().groupby("tier", observed=True)
    }
    for _, line in small_corpus.utterances.iterrows():
        phones, words = tiers["phone"][line.utterance], tiers["word"][line.utterance]
        edges = [*phones["start"].tolist(), line.frames]
        assert edges[0] == 0 and edges[1:] == phones["end"].tolist() and np.diff(edges).min() > 0
        assert words["label"].tolist() == line.text.split()
        assert set(words["start"]) <= set(edges) and set(words["end"]) <= set(edges)


def test_phone_times_match_the_sound(small_corpus):
    """Speech is louder than silence, and the spectrum changes more at boundaries than between, and more than 30 ms off them."""
    alignment = small_corpus.alignment()
    phones = dict(list(alignment[alignment["tier"] == "phone"].groupby("utterance", observed=True)))
    loud, at, beside, between = defaultdict(list), [], [], []
    for index in range(len(small_corpus)):
        audio, table = small_corpus.audio(index), phones[small_corpus.name(index)]
        frames = np.lib.stride_tricks.sliding_window_view(audio, 320)[::80] * np.hanning(320)
        spectrum = np.log(np.abs(np.fft.rfft(frames)) ** 2 + 1e-4)
        change = np.sqrt(((spectrum[3:] - spectrum[:-3]) ** 2).mean(1))  # 15 ms apart, about sample 80 * i + 280
        edges = ((table["start"].to_numpy()[1:] - 280) / 80).round().astype(int)
        edges = edges[(edges >= 6) & (edges < len(change) - 6)]
        inside = np.setdiff1d(np.arange(len(change)), (edges[:, None] + np.arange(-2, 3)).ravel())
        at.append(change[edges].mean())
        beside.append((change[edges - 6].mean() + change[edges + 6].mean()) / 2)
        between.append(change[inside].mean())
        for start, end, label in table[["start", "end", "label"]].itertuples(index=False):
            loud[label == "sil"].append(np.mean(audio[start:end] ** 2))
    assert np.mean(loud[False]) > 10 * np.mean(loud[True])
    assert np.mean(at) > 1.25 * np.mean(between)
    assert np.mean(at) > 1.1 * np.mean(beside)


def test_trials_are_balanced_pairs_of_one_split(small_corpus):
    trials = small_corpus.trials("test")
    speaker = small_corpus.utterances.set_index("utterance")["speaker"].astype(str)
    assert len(trials) > 50 and trials["same"].mean() == 0.5
    assert ((speaker[trials["left"]].to_numpy() == speaker[trials["right"]].to_numpy()) == (trials["same"] == 1)).all()
    assert (trials["left"] != trials["right"]).all() and not trials.duplicated(["left", "right"]).any()
    assert set(trials["left"]) | set(trials["right"]) <= set(small_corpus.split("test")["utterance"])
    assert small_corpus.trials("valid").empty  # one voice gives no pairs of two


def test_voices_beyond_the_variants_repeat_them_with_another_accent_in_the_same_split():
    jobs = plan_voices(CorpusSettings(voices=3 * len(VARIANTS)))
    assert len({job["speaker"] for job in jobs}) == 3 * len(VARIANTS)
    splits = defaultdict(set)
    for job in jobs:
        splits[job["voice"].partition("+")[2]].add(job["split"])
    assert {len(found) for found in splits.values()} == {1}


def test_quick_has_forty_voices_and_three_hours():
    jobs = plan_voices(CorpusSettings())
    assert len({job["voice"] for job in jobs}) >= 40
    hours = defaultdict(float)
    for job in jobs:
        hours[job["split"]] += job["seconds"] / 3600
    assert hours == pytest.approx({"train": 3.0, "valid": 0.25, "test": 0.5})


@pytest.mark.parametrize("voices", [3, 10_000])
def test_impossible_numbers_of_voices_are_refused(voices):
    with pytest.raises(UserError, match=f"data.corpus.voices is {voices}: from 6 to"):
        plan_voices(CorpusSettings(voices=voices))


def test_a_failing_worker_leaves_what_was_there(small_corpus, tmp_path, monkeypatch):
    shutil.copytree(small_corpus.folder, tmp_path / "corpus")
    before = digests(tmp_path / "corpus")
    monkeypatch.setattr(embedded, "ACCENTS", ("no-such-language",))
    with pytest.raises(UserError, match=r"speaking the embedded corpus failed: .*no voice 'no-such-language"):
        build_embedded(CorpusSettings(hours=0.02, voices=6), tmp_path / "corpus", jobs=1)
    assert digests(tmp_path / "corpus") == before
    assert [p.name for p in tmp_path.iterdir()] == ["corpus"]


def test_speech_holds_voices_that_differ(small_corpus):
    """Voices differ in their long-term spectrum by more than the halves of one voice do."""
    means = {}
    for speaker, part in small_corpus.utterances.groupby("speaker", observed=True):
        halves = []
        for half in (part.index[::2], part.index[1::2]):
            audio = np.concatenate([small_corpus.audio(i) for i in half])
            frames = np.lib.stride_tricks.sliding_window_view(audio, 400)[::400] * np.hanning(400)
            power = np.abs(np.fft.rfft(frames)) ** 2
            power = power[power.sum(1) > np.median(power.sum(1))].mean(0)[:200].reshape(40, 5).sum(1)
            halves.append(np.log(power / power.sum()))
        means[speaker] = halves
    within = np.mean([np.abs(a - b).mean() for a, b in means.values()])
    names = sorted(means)
    across = [np.abs(means[a][0] - means[b][0]).mean() for i, a in enumerate(names) for b in names[:i]]
    assert min(across) > within
