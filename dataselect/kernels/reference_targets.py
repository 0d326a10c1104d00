"""Slow, obvious twins of the kernels in tfidf.py, linear.py and overlap.py; see reference.py."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from dataselect.kernels.reference import M64, documents, mix64, run_value, token_hash, tokens
from dataselect.kernels.tfidf import COUNT_BITS, MOST_COUNT, TF, Index


def words(document: bytes) -> list[int]:
    return [token_hash(token) for token in tokens(document, punctuation=False)]


# tfidf.py


def feature_lists(offsets: np.ndarray, data: np.ndarray, n_bits: int) -> tuple[np.ndarray, np.ndarray]:
    list_offsets = [0]
    features: list[int] = []
    for document in documents(offsets, data):
        counts: dict[int, int] = {}
        hashes = words(document)
        for i, word in enumerate(hashes):
            for run in [[word], hashes[i - 1 : i + 1]] if i else [[word]]:
                term = mix64(run_value(run)) >> 63 - n_bits
                counts[term >> 1] = counts.get(term >> 1, 0) + (-1 if term & 1 else 1)
        for bucket, count in counts.items():
            if count:
                cut = min(max(count, -MOST_COUNT), MOST_COUNT)
                features.append(bucket << COUNT_BITS | cut + MOST_COUNT + 1)
        list_offsets.append(len(features))
    return np.array(list_offsets, np.int64), np.array(features, np.uint32)


def vectors(list_offsets: np.ndarray, features: np.ndarray, idf: np.ndarray) -> list[dict[int, float]]:
    """Of each document bucket -> x_j, and its norm under -1."""
    found = []
    for start, stop in pairwise(list_offsets.tolist()):
        vector: dict[int, float] = {}
        square = 0.0
        for feature in features[start:stop].tolist():
            count = feature % (1 << COUNT_BITS) - MOST_COUNT - 1
            bucket = feature >> COUNT_BITS
            vector[bucket] = math.copysign(float(TF[abs(count)]) * float(idf[bucket]), count)
            square += vector[bucket] ** 2
        found.append(vector | {-1: math.sqrt(square)})
    return found


def cosine_matrix(list_offsets: np.ndarray, features: np.ndarray, index: Index) -> np.ndarray:
    out = np.zeros((len(list_offsets) - 1, index.n_targets))
    for doc, vector in enumerate(vectors(list_offsets, features, index.idf)):
        norm = vector.pop(-1)
        for bucket, x in vector.items():
            for posting in range(index.starts[bucket], index.starts[bucket + 1]):
                out[doc, index.targets[posting]] += x * float(index.weights[posting])
        if norm:
            out[doc] /= norm
    return out


def nearest_targets(
    list_offsets: np.ndarray, features: np.ndarray, index: Index, ranked: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    best, nearest, turns = [], [], []
    for row, n in zip(cosine_matrix(list_offsets, features, index), np.diff(list_offsets), strict=True):
        positive = [(-value, target) for target, value in enumerate(row.tolist()) if value > 0]
        value, target = min(positive, default=(0.0, -1))
        best.append(-value if n else math.nan)
        nearest.append(target)
        ranks = [(int((ranked[:, t] > -value).sum()), t) for value, t in positive]
        turn, t = min(
            ((rank * index.n_targets + t, t) for rank, t in ranks if rank < len(ranked)),
            default=(math.inf, 0),
        )
        turns.append(turn + max(0.0, 1.0 - float(row[t])))
    return np.array(best, np.float64), np.array(nearest, np.int32), np.array(turns, np.float64)


# linear.py


def log_odds(
    list_offsets: np.ndarray, features: np.ndarray, idf: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    out = []
    for vector in vectors(list_offsets, features, idf):
        del vector[-1]
        size = sum(map(abs, vector.values()))
        dot = sum((x * float(weights[bucket]) for bucket, x in vector.items()), 0.0)
        out.append(dot / size + float(weights[-1]) if size else math.nan)
    return np.array(out, np.float64)


def train_logistic(
    list_offsets: np.ndarray,
    features: np.ndarray,
    idf: np.ndarray,
    labels: np.ndarray,
    n_epochs: int,
    rate: float,
) -> np.ndarray:
    weights = np.zeros(len(idf) + 1)
    found = vectors(list_offsets, features, idf)
    n_steps = n_epochs * len(found)
    for step in range(n_steps):
        vector = found[step % len(found)]
        norm = vector.get(-1, 0.0)
        vector = {bucket: x for bucket, x in vector.items() if bucket >= 0}
        size = sum(map(abs, vector.values())) or 1.0
        z = sum(x * float(weights[bucket]) for bucket, x in vector.items()) / size + float(weights[-1])
        change = rate * (1 - step / n_steps) * (float(labels[step % len(found)]) - 1 / (1 + math.exp(-z)))
        weights[-1] += change
        for bucket, x in vector.items():
            weights[bucket] += change * x * size / norm**2
    return weights


# overlap.py


def target_keys(
    offsets: np.ndarray, data: np.ndarray, n: int, min_words: int
) -> tuple[np.ndarray, np.ndarray]:
    keys, lengths = [], set()
    for document in documents(offsets, data):
        hashes = words(document)
        if len(hashes) >= min(n, min_words):
            lengths.add(min(n, len(hashes)))
            keys += [key for _, key in run_keys(hashes, min(n, len(hashes)))]
    return np.array(keys, np.uint64), np.array(sorted(lengths), np.int64)


def run_keys(hashes: list[int], n: int) -> list[tuple[int, int]]:
    """(first word, key) of every run of n."""
    runs = ((i, run_value(hashes[i : i + n])) for i in range(len(hashes) - n + 1))
    return [(i, mix64(value + n & M64) | 1) for i, value in runs]


def shared_words(offsets: np.ndarray, data: np.ndarray, lengths: np.ndarray, table: np.ndarray) -> np.ndarray:
    known = set(table.tolist()) - {0}
    out = np.zeros((len(offsets) - 1, 4), np.int32)
    for row, document in zip(out, documents(offsets, data), strict=True):
        hashes = words(document)
        shared = [(i, n) for n in lengths.tolist() for i, key in run_keys(hashes, n) if key in known]
        covered = {word for i, n in shared for word in range(i, i + n)}
        longest = run = 0
        for word in range(len(hashes)):
            run = run + 1 if word in covered else 0
            longest = max(longest, run)
        row[:] = len(shared), len(covered), longest, len(hashes)
    return out
