"""What all tests share. Two cores serve several test processes, so each keeps to one thread."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("WANDB_MODE", "offline")

from pathlib import Path

import pytest

from sslrepro.config import CorpusSettings

LONGEST = ("test_dvc.py", "test_exact.py", "test_width.py", "test_paper_cells.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: a process goes through a file alone, and at the end none should wait for another."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def tiny_corpus_dir(tmp_path_factory) -> Path:
    """An embedded corpus of about two minutes, six voices a split or fewer; read it, never write it."""
    from sslrepro.data.embedded import build_embedded

    folder = tmp_path_factory.mktemp("tiny") / "corpus"
    build_embedded(CorpusSettings(hours=0.03, voices=6, words=100), folder, 2)
    return folder


@pytest.fixture(scope="session")
def two_languages_dir(tmp_path_factory) -> Path:
    """The same English, with German besides; read it, never write it."""
    from sslrepro.data.embedded import build_embedded

    folder = tmp_path_factory.mktemp("two") / "corpus"
    languages = [{"voice": "de", "hours": 0.02, "words": 100}]
    build_embedded(CorpusSettings(hours=0.03, voices=6, words=100, languages=languages), folder, 2)
    return folder


@pytest.fixture
def onednn(monkeypatch) -> None:
    """Products of float32 as on processors that are not Intel's."""
    monkeypatch.setattr("sslrepro.models.linear._ONEDNN", True)


@pytest.fixture
def mkl(monkeypatch) -> None:
    """Products of float32 as on Intel's processors."""
    monkeypatch.setattr("sslrepro.models.linear._ONEDNN", False)


@pytest.fixture
def project(tmp_path, tiny_corpus_dir, monkeypatch) -> Path:
    """An empty project folder of its own whose profile `tiny` has that corpus: what is written goes there."""
    monkeypatch.setenv("SSLREPRO_ROOT", str(tmp_path))
    place = tmp_path / "artifacts" / "tiny"
    place.mkdir(parents=True)
    (place / "corpus").symlink_to(tiny_corpus_dir)
    return tmp_path


@pytest.fixture
def key_sums():
    """What a key's bias is known to. It adds the same to all of a softmax, so its gradient is a sum that comes to nothing but rounding.

    A function of a peer about to run: by the bias's name, once the backward pass has run, the largest over channels of the sum over frames
    of |gradient of a key|.
    """

    def watch(peer):
        found = {}
        for name, module in peer.named_modules():
            if name.endswith("k_proj"):

                def note(module, into, out, name=name) -> None:
                    found[f"{name}.bias"] = out[0].abs().sum((0, 1)).max()

                module.register_full_backward_hook(note)
        return found

    return watch
