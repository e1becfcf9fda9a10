import numpy as np
import pytest
import soundfile

from sslrepro.data.corpus import Corpus
from sslrepro.data.folders import prepare
from sslrepro.draws import numpy_generator
from sslrepro.report.corpus import (
    draw_statistics,
    draw_utterance,
    in_each_language,
    nested_subsets,
    one_of_each_voice,
    overview,
    task_levels,
)


def test_figures_show_what_is_known(tiny_corpus_dir):
    corpus = Corpus(tiny_corpus_dir)
    index = one_of_each_voice(corpus)[1]
    wave, mels = draw_utterance(corpus, index).axes
    labels = corpus.alignment()
    mine = labels[labels["utterance"] == corpus.name(index)]
    assert [text.get_text() for text in mels.texts] == mine[mine["tier"] == "phone"]["label"].tolist()
    assert len(wave.patches) == (mine["tier"] == "word").sum()
    assert len(draw_statistics(corpus).axes[2].patches) == len(corpus.info["phones"])
    assert overview(corpus)["speakers"].tolist() == [3, 1, 2]


def test_real_speech_without_phones_or_text_is_shown_too(tmp_path):
    for i in range(6):
        (tmp_path / "in" / str(i % 3)).mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "in" / str(i % 3) / f"{i}.wav", 0.1 * numpy_generator("figure", i).standard_normal(8000), 16000)
    prepare(tmp_path / "in", tmp_path / "out")
    corpus = Corpus(tmp_path / "out")
    assert not draw_utterance(corpus, 0).axes[1].texts
    assert [axis.get_title() for axis in draw_statistics(corpus).axes[2:]] == ["Phone times are not known", "Words are not known"]


def test_languages_are_shown_apart(two_languages_dir, tiny_corpus_dir):
    english, german = in_each_language(Corpus(two_languages_dir))
    alone = Corpus(tiny_corpus_dir)
    assert len(in_each_language(alone)) == 1
    assert nested_subsets(english, 3).equals(nested_subsets(alone, 3)) and len(nested_subsets(german, 2)) == 4
    bars = [len(draw_statistics(corpus).axes[2].patches) for corpus in (alone, english, german)]
    assert bars[0] == bars[1] == len(alone.info["phones"]) and 20 < bars[2] < len(german.info["phones"])
    assert {line.split("-")[0] for line in map(german.name, one_of_each_voice(german))} == {"de"}
    table = overview(english)
    assert table.loc["en"].equals(overview(alone)) and table.loc[("de", "train"), "hours"] >= 0.02


def test_subsets_nest_and_keep_or_add_speakers(tiny_corpus_dir):
    table = nested_subsets(Corpus(tiny_corpus_dir), steps=3)
    assert (table["hours"] >= table.index.get_level_values("hours asked for")).all()
    assert set(table.loc["kept", "distinct speakers"]) == {3}
    assert table.loc["added", "distinct speakers"].is_monotonic_increasing and table.loc["added", "distinct speakers"].iloc[0] == 1


def test_levels_of_tasks_are_chance_and_floors(tiny_corpus_dir):
    corpus = Corpus(tiny_corpus_dir)
    levels = task_levels(corpus, ["phone", "keyword", "verification"], updates=30, hours=0.02)
    for floor in ("log-mels", "random encoder"):
        assert levels.loc["phone", "most frequent class"] < levels.loc["phone", floor] < levels.loc["phone", "best"] == 1.0
    assert levels.loc["phone", "log-mels"] != levels.loc["phone", "random encoder"]
    verification = levels.loc["verification"]
    assert verification["left out because"] or (verification["most frequent class"], verification["best"]) == (0.5, 0.0)
    test = corpus.split("test")["keyword"].astype(str)
    shares = test.value_counts(normalize=True)
    given = levels.loc["keyword", "most frequent class"]
    assert given == pytest.approx(0) or np.isclose(shares, given).any()
