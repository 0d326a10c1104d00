"""Wrong labels by confident learning (Northcutt, Jiang and Chuang 2021, arXiv 1911.00068).

With out-of-fold probabilities P(j|x): t_j is the mean of P(j|x) over the documents labelled j. A document is
confidently of the label j with the largest P(j|x) among those with P(j|x) >= t_j. C[i, j] counts documents
labelled i that are confidently j; those off the diagonal are taken as label errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

N_FOLDS = 5
NO_LABEL = -1


@dataclass(frozen=True)
class Verdict:
    """What confident learning says of n_docs documents.

    threshold  float64[n_labels]            t_j; NaN for a label without documents
    joint      int64[n_labels, n_labels]    C
    suggested  int64[n_docs]                the confident label, NO_LABEL where there is none
    is_wrong   bool[n_docs]                 confidently of another label than the given one
    margin     float64[n_docs]              P(given) - largest other P: the lower, the more suspicious
    """

    threshold: np.ndarray
    joint: np.ndarray
    suggested: np.ndarray
    is_wrong: np.ndarray
    margin: np.ndarray


def judge(probability: np.ndarray, label: np.ndarray) -> Verdict:
    """By probability float[n_docs, n_labels], out of fold, and label int[n_docs]."""
    n_docs, n_labels = probability.shape
    counts = np.bincount(label, minlength=n_labels)
    given = probability[np.arange(n_docs), label].astype(np.float64)
    with np.errstate(invalid="ignore"):
        threshold = np.bincount(label, weights=given, minlength=n_labels) / counts
    confident = np.where(probability >= threshold, probability, -np.inf)  # never >= NaN
    suggested = np.where(np.isfinite(confident.max(axis=1)), confident.argmax(axis=1), NO_LABEL)
    known = suggested != NO_LABEL
    joint = np.zeros((n_labels, n_labels), np.int64)
    np.add.at(joint, (label[known], suggested[known]), 1)
    others = probability.astype(np.float64)
    others[np.arange(n_docs), label] = -np.inf
    return Verdict(threshold, joint, suggested, known & (suggested != label), given - others.max(axis=1))


def calibrated_joint(joint: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """float64[n_labels, n_labels]: C with rows scaled to the labels' documents: the estimated joint."""
    sums = joint.sum(axis=1, keepdims=True)
    return np.where(sums > 0, joint / np.maximum(sums, 1) * counts[:, None], np.diag(counts))
