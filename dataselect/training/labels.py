"""Two classes from a column of scores that is known for a sample: grades, similarities, influence.

FineWeb-Edu distils grades (>= 3 is positive), BETR (arXiv 2507.12466) ranks (top 10 % against the rest), and
PreSelect the highest against the lowest: limits are scores, or shares of the documents that have a score.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from dataselect.core.errors import DataselectError
from dataselect.training.documents import Documents
from dataselect.training.lines import label_name
from dataselect.training.spec import TrainSpec


def by_score(documents: Documents, spec: TrainSpec) -> tuple[Documents, dict[str, Any]]:
    """The documents with labels (-1: between the limits, or below both), and the figures for the card.

    Equal scores get equal labels: a share names the score of its last document, and all documents that
    tie with it are in. DataselectError where the two limits meet.
    """
    positive = label_name(spec.positive_label or "hq")
    labels = sorted([positive, label_name(spec.negative_label)])
    score = documents.score
    high = _limit(-score, spec.positive_top, spec.positive_min, sign=-1)
    low = _limit(score, spec.negative_bottom, spec.negative_max, sign=1)
    if low >= high:
        raise DataselectError(
            f"column '{spec.score_column}': negatives would reach up to {low:g} and positives down to "
            f"{high:g}; the scores have too many ties for these shares, or the limits overlap"
        )
    is_positive, is_negative = score >= high, score <= low
    label = np.full(len(score), -1, np.int32)
    label[is_positive] = labels.index(positive)
    label[is_negative] = 1 - labels.index(positive)
    figures = {
        "column": spec.score_column,
        "positive_min": high,
        "negative_max": low,
        "asked": {"positive_top": spec.positive_top, "negative_bottom": spec.negative_bottom},
        "n_scored": len(score),
        "n_positive": int(is_positive.sum()),
        "n_negative": int(is_negative.sum()),
        "n_between": int((label < 0).sum()),
        "quartiles": [float(x) for x in np.quantile(score, [0, 0.25, 0.5, 0.75, 1], method="lower")],
    }
    return dataclasses.replace(documents, label=label, labels=labels), figures


def _limit(ascending: np.ndarray, share: float | None, given: float | None, sign: int) -> float:
    """The given limit, or the score of the last document of the best `share` (at least one document)."""
    if share is None:
        assert given is not None
        return given
    rank = max(round(share * len(ascending)), 1) - 1
    return float(sign * np.partition(ascending, rank)[rank])
