"""How well scores tell classes apart, by exact counts; ties are treated as a threshold would treat them."""

from __future__ import annotations

from typing import Any

import numpy as np

KEPT_SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)


def area_under_curve(scores: np.ndarray, is_positive: np.ndarray) -> float | None:
    """P(score of a positive > score of a negative), ties counted half (Mann-Whitney U by average ranks).

    None where one of the two classes is empty.
    """
    n_positive = int(is_positive.sum())
    n_negative = is_positive.size - n_positive
    if n_positive == 0 or n_negative == 0:
        return None
    _, group, group_size = np.unique(scores, return_inverse=True, return_counts=True)
    average_rank = np.cumsum(group_size) - (group_size - 1) / 2
    rank_sum = float(average_rank[group][is_positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def average_precision(scores: np.ndarray, is_positive: np.ndarray) -> float | None:
    """Sum over the distinct thresholds, from the highest, of precision times gain in recall.

    None without a positive.
    """
    n_positive = int(is_positive.sum())
    if n_positive == 0:
        return None
    _, group = np.unique(-scores, return_inverse=True)
    n_hits = np.bincount(group, weights=is_positive)
    precision = np.cumsum(n_hits) / np.cumsum(np.bincount(group))
    return float((precision * n_hits).sum() / n_positive)


def kept_at_shares(scores: np.ndarray, is_positive: np.ndarray) -> list[dict[str, float]]:
    """For each of KEPT_SHARES the threshold that keeps it (score >= threshold), and what it keeps.

    Documents that tie with the threshold are kept too, so `kept` may be above `share`.
    """
    rows = []
    descending = np.sort(scores)[::-1]
    for share in KEPT_SHARES:
        threshold = descending[max(round(share * len(scores)), 1) - 1]
        is_kept = scores >= threshold
        hits = int((is_kept & is_positive).sum())
        rows.append(
            {
                "share": share,
                "threshold": float(str(threshold)),  # the shortest number that is this float32
                "kept": float(is_kept.mean()),
                "precision": hits / int(is_kept.sum()),
                "recall": hits / max(int(is_positive.sum()), 1),
            }
        )
    return rows


def by_label(probability: np.ndarray, label: np.ndarray, labels: list[str]) -> dict[str, dict[str, Any]]:
    """Of each label: documents, AUC against the rest; precision, recall, F1 of the most probable label.

    probability float32[n_docs, n_labels], label int[n_docs]. None where a figure has no documents.
    """
    guess = probability.argmax(axis=1)
    figures = {}
    for code, name in enumerate(labels):
        is_it, is_guessed = label == code, guess == code
        hits, n_docs, n_guessed = int((is_it & is_guessed).sum()), int(is_it.sum()), int(is_guessed.sum())
        figures[name] = {
            "n_docs": n_docs,
            "auc": area_under_curve(probability[:, code], is_it),
            "precision": hits / n_guessed if n_guessed else None,
            "recall": hits / n_docs if n_docs else None,
            "f1": 2 * hits / (n_docs + n_guessed) if n_docs + n_guessed else None,
        }
    return figures


def mean_auc(probability: np.ndarray, label: np.ndarray) -> float | None:
    """Mean over the labels of the AUC of each against the rest; None where no label has one."""
    n_labels = probability.shape[1]
    areas = [area_under_curve(probability[:, code], label == code) for code in range(n_labels)]
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if known else None
