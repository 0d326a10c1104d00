"""Logistic regression on hashed TF-IDF vectors (tfidf.py), by stochastic gradient descent.

A document's vector x is divided by the sum of its |x_j|: log odds z = w x + b are a mean over its terms, as
in fastText, and no larger for a long document (with vectors of length 1 the 64 best of 22,000 documents had
2,300 words each). One step a document, in the order given, with a rate that falls to 0 on a line: with p = 1
/ (1 + exp(-z)) and y the label, w += rate (y - p) x / |x|^2 and b += rate (y - p). The division makes a
document move its own log odds by 2 rate (y - p), be it short or long (normalised least mean squares; Nagumo
and Noda 1967). Only +, -, * and / are used, one after the other, so the same documents in the same order
give the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from dataselect.kernels.primitives import I64, U32
from dataselect.kernels.tfidf import F64, TF, feature_weight

BOOL = types.Array(types.boolean, 1, "C", readonly=True)


@njit
def sigmoid(z: float) -> float:
    """1 / (1 + exp(-z)) within 1e-8; 40 is infinity. exp(-y) = exp(-y / 1024)^1024: no library's exp."""
    r = min(abs(z), 40.0) / 1024.0
    power = 1.0 - r * (1.0 - r / 2.0 * (1.0 - r / 3.0 * (1.0 - r / 4.0 * (1.0 - r / 5.0))))
    for _ in range(10):
        power *= power
    return 1.0 / (1.0 + power) if z >= 0.0 else power / (1.0 + power)


@njit
def _dot(
    features: Any, first: int, stop: int, tf: np.ndarray, idf: np.ndarray, weights: np.ndarray
) -> tuple[float, float]:
    """(w x, factor of a step along the undivided x) of one document; (0, 0) without features."""
    dot = 0.0
    size = 0.0
    square = 0.0
    for i in range(first, stop):
        bucket, x = feature_weight(np.int64(features[i]), tf, idf)
        dot += x * weights[bucket]
        size += abs(x)
        square += x * x
    if size == 0.0:
        return 0.0, 0.0
    return dot / size, size / square


@njit(types.float64(I64, U32, F64, F64, BOOL, types.int64, types.float64, types.float64[::1]),
      cache=True, nogil=True)  # fmt: skip
def _train_logistic(
    list_offsets: np.ndarray,
    features: np.ndarray,
    tf: np.ndarray,
    idf: np.ndarray,
    labels: np.ndarray,
    n_epochs: int,
    rate: float,
    weights: np.ndarray,
) -> float:
    n_docs = labels.size
    bias = 0.0
    for epoch in range(n_epochs):
        for doc in range(n_docs):
            first, stop = list_offsets[doc], list_offsets[doc + 1]
            dot, factor = _dot(features, first, stop, tf, idf, weights)
            left = 1.0 - (epoch * n_docs + doc) / (n_epochs * n_docs)
            step = rate * left * ((1.0 if labels[doc] else 0.0) - sigmoid(dot + bias))
            bias += step
            for i in range(first, stop):
                bucket, x = feature_weight(np.int64(features[i]), tf, idf)
                weights[bucket] += step * (x * factor)
    return bias


def train_logistic(
    list_offsets: np.ndarray,
    features: np.ndarray,
    idf: np.ndarray,
    labels: np.ndarray,
    n_epochs: int,
    rate: float,
) -> np.ndarray:
    """float64[n_buckets + 1]: weights, and the bias last.

    list_offsets, features, idf   as in tfidf.py, the documents in the order of the steps
    labels                        bool[n_docs]
    """
    weights = np.zeros(len(idf) + 1)
    weights[-1] = _train_logistic(list_offsets, features, TF, idf, labels, n_epochs, rate, weights[:-1])
    return weights


@njit(types.void(I64, U32, F64, F64, F64, types.float64[::1]), cache=True, nogil=True)
def _log_odds(
    list_offsets: np.ndarray,
    features: np.ndarray,
    tf: np.ndarray,
    idf: np.ndarray,
    weights: np.ndarray,
    out: np.ndarray,
) -> None:
    bias = weights[weights.size - 1]
    for doc in range(out.size):
        dot, factor = _dot(features, list_offsets[doc], list_offsets[doc + 1], tf, idf, weights)
        out[doc] = dot + bias if factor > 0.0 else np.nan


def log_odds(
    list_offsets: np.ndarray, features: np.ndarray, idf: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """float64[n_docs]: log odds of each document by weights of `train_logistic`; NaN without features.

    No probabilities: of the best documents many would be 1.
    """
    out = np.empty(len(list_offsets) - 1)
    _log_odds(list_offsets, features, TF, idf, weights, out)
    return out
