"""A pronunciation lexicon in the format of LibriSpeech's librispeech-lexicon.txt: a line a pronunciation, `WORD PHONE PHONE …`."""

from __future__ import annotations

from pathlib import Path

from sslrepro.data.transcripts import normalise
from sslrepro.errors import UserError


def read_lexicon(path: Path) -> dict[str, str]:
    """Words, as texts have them, and their phones, apart by one space; of several pronunciations of a word the first counts.

    Raises UserError for a file that is not there or not such a lexicon.
    """
    if not path.is_file():
        raise UserError(f"data.lexicon: {path}: no such file; give LibriSpeech's librispeech-lexicon.txt or its like, or null")
    lexicon: dict[str, str] = {}
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            word, *phones = line.split() or [""]
            if word and not phones:
                raise UserError(f"data.lexicon: {path}, line {number}: {word!r} has no phones; a line is a word, then its phones")
            lexicon.setdefault(normalise(word), " ".join(phones))
    except UnicodeDecodeError:
        raise UserError(f"data.lexicon: {path} is not a lexicon: it is not UTF-8 text") from None
    lexicon.pop("", None)
    if not lexicon:
        raise UserError(f"data.lexicon: {path} has no word; a line is a word, then its phones")
    return lexicon
