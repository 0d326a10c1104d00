"""Slow, obvious twins of language_model.py: exact fractions from the definition, and a dictionary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np

from dataselect.kernels.reference import M64, documents, mix64, run_value, token_hash, tokens

START = 0xA0761D6478BD642F
Ngram = tuple[int, ...]


def token_lists(offsets: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = [[token_hash(token) for token in tokens(d, punctuation=True)] for d in documents(offsets, data)]
    token_offsets = np.cumsum([0, *map(len, found)]).astype(np.int64)
    return token_offsets, np.array([token for hashes in found for token in hashes], np.uint64)


def runs(token_offsets: np.ndarray, hashes: np.ndarray, order: int) -> list[list[Ngram]]:
    """For every document the last `order` tokens up to each of its tokens."""
    docs = [hashes[a:b].tolist() for a, b in pairwise(token_offsets.tolist())]
    padded = [[START] * (order - 1) + doc for doc in docs]
    return [[tuple(p[i : i + order]) for i in range(len(p) - order + 1)] for p in padded]


def probability(
    token_offsets: np.ndarray, hashes: np.ndarray, order: int, n_vocabulary: int
) -> Callable[[Ngram], Fraction]:
    """p(last token | those before it), exactly."""
    occurrences = [run for doc in runs(token_offsets, hashes, order) for run in doc]
    counts = [Counter(occurrences)]
    while len(counts) < order:
        counts.insert(0, Counter(run[1:] for run in counts[0]))
    after: list[dict[Ngram, list[int]]] = [{} for _ in counts]
    for n, of_length in enumerate(counts):
        for run, count in of_length.items():
            after[n].setdefault(run[:-1], []).append(count)
    discount = [[Fraction(0), *discounts(list(of_length.values()))] for of_length in counts]

    def p(run: Ngram) -> Fraction:
        n = len(run) - 1
        lower = p(run[1:]) if n else Fraction(1, n_vocabulary)
        found = after[n].get(run[:-1])
        if found is None:
            return lower
        total, count, d = sum(found), counts[n][run], discount[n]
        backoff = sum((d[min(c, 3)] for c in found), Fraction(0)) / total
        return (count - d[min(count, 3)]) / total + backoff * lower

    return p


def discounts(counts: list[int]) -> list[Fraction]:
    t1, t2, t3, t4 = (counts.count(i) for i in (1, 2, 3, 4))
    if t1 and t2 and t3:
        y = Fraction(t1, t1 + 2 * t2)
        found = [1 - 2 * y * t2 / t1, 2 - 3 * y * t3 / t2, 3 - 4 * y * t4 / t3]
        if all(0 < d < i for i, d in enumerate(found, 1)):
            return found
    return [Fraction(1, 2), Fraction(1), Fraction(3, 2)]


def key(run: Ngram) -> int:
    # run_value gives the first token the highest power, as the kernel's sum from the last token on does.
    return mix64((run_value(list(run)) + len(run)) & M64) | 1


def score_tokens(
    token_offsets: np.ndarray, hashes: np.ndarray, model: dict[str, np.ndarray], out: np.ndarray
) -> None:
    order, unseen = int(model["order"][0]), int(model["unseen"][0])
    packed = {entry[0]: entry[1] for entry in model["table"].tolist() if entry[0]}
    logs = {k: np.array([v], np.uint64).view(np.int32).tolist()[::-1] for k, v in packed.items()}

    def log_p(run: Ngram) -> int:
        if key(run) in logs and logs[key(run)][0] != -(1 << 31):
            return int(logs[key(run)][0])
        if len(run) == 1:
            return unseen
        return log_p(run[1:]) + int(logs.get(key(run[:-1]), (0, 0))[1])

    for i, doc in enumerate(runs(token_offsets, hashes, order)):
        out[i] = sum(map(log_p, doc))
