import pytest

from sslrepro.data.corpus import Corpus


@pytest.fixture(scope="session")
def small_corpus(tiny_corpus_dir) -> Corpus:
    """Three voices to train on, one to validate, two to test."""
    return Corpus(tiny_corpus_dir)
