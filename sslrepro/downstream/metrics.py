"""Error counts and rates. Counts are kept by speaker, because the claims' intervals resample speakers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def edit_errors(references: Sequence[Sequence], hypotheses: Sequence[Sequence]) -> np.ndarray:
    """Substitutions, deletions and insertions of each pair together: (pairs,). The error rate is their sum over the references' length."""
    from torchaudio.functional import edit_distance  # only scoring transcripts needs torchaudio

    return np.array([edit_distance(list(r), list(h)) for r, h in zip(references, hypotheses, strict=True)], dtype=np.int64)


def equal_error_rate(scores: np.ndarray, same: np.ndarray) -> float:
    """Where false acceptances and false rejections are the same share, between the points of the ROC curve linearly.

    scores (trials,), higher for the same speaker; same (trials,) bool. Raises ValueError unless both kinds of trial are there.
    """
    from sklearn.metrics import roc_curve  # here, because it takes half a second to import

    same = np.asarray(same, dtype=bool)
    if same.all() or not same.any():
        raise ValueError("an equal error rate needs trials of the same and of different speakers")
    accepted, right, _ = roc_curve(same, scores, drop_intermediate=False)
    gap = (1 - right) - accepted  # falls from 1 to -1
    after = int(np.argmax(gap <= 0))
    if gap[after] == 0:
        return float(accepted[after])
    place = gap[after - 1] / (gap[after - 1] - gap[after])
    return float(accepted[after - 1] + place * (accepted[after] - accepted[after - 1]))


def by_speaker(metric: str, speakers: Sequence[str], errors: np.ndarray, units: np.ndarray) -> list[tuple[str, str, float, float]]:
    """Rows of speakers.csv from counts of utterances, each (utterances,): metric, speaker, errors, units."""
    names, places = np.unique(np.asarray(speakers, dtype=str), return_inverse=True)
    sums = [np.bincount(places, weights=np.asarray(x, dtype=np.float64), minlength=len(names)) for x in (errors, units)]
    return [(metric, str(name), float(e), float(u)) for name, e, u in zip(names, *sums, strict=True)]
