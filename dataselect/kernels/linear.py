"""Logistic regression on hashed TF-IDF vectors of unit length (tfidf.py), by stochastic gradient descent.

One step a document, in the order given, with a rate that falls to 0 on a line, as fastText trains (Joulin et al.
2017, section 2): with x the vector and p = 1 / (1 + exp(-(w x + b))), w += rate (y - p) x and b += rate (y - p).
Only +, -, * and / are used, one after the other, so the same documents in the same order give the same bits.
"""

from __future__ import annotations

import math
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
    """(w x, 1 / |x| before it was made 1) of one document; (0, 0) without features."""
    dot = 0.0
    square = 0.0
    for i in range(first, stop):
        bucket, x = feature_weight(np.int64(features[i]), tf, idf)
        dot += x * weights[bucket]
        square += x * x
    if square == 0.0:
        return 0.0, 0.0
    scale = 1.0 / math.sqrt(square)
    return dot * scale, scale


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
            dot, scale = _dot(features, first, stop, tf, idf, weights)
            left = 1.0 - (epoch * n_docs + doc) / (n_epochs * n_docs)
            step = rate * left * ((1.0 if labels[doc] else 0.0) - sigmoid(dot + bias))
            bias += step
            for i in range(first, stop):
                bucket, x = feature_weight(np.int64(features[i]), tf, idf)
                weights[bucket] += step * (x * scale)
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
def _logistic_scores(
    list_offsets: np.ndarray,
    features: np.ndarray,
    tf: np.ndarray,
    idf: np.ndarray,
    weights: np.ndarray,
    out: np.ndarray,
) -> None:
    bias = weights[weights.size - 1]
    for doc in range(out.size):
        dot, scale = _dot(features, list_offsets[doc], list_offsets[doc + 1], tf, idf, weights)
        out[doc] = sigmoid(dot + bias) if scale > 0.0 else np.nan


def logistic_scores(
    list_offsets: np.ndarray, features: np.ndarray, idf: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """float64[n_docs]: probability of each document by weights of `train_logistic`; NaN without features."""
    out = np.empty(len(list_offsets) - 1)
    _logistic_scores(list_offsets, features, TF, idf, weights, out)
    return out
