"""Who is held out, who is balanced away or repeated, and in which order lines are trained on.

All of it by hashes of seed and text: copies of a text stay together, and neither the order of shards nor
that of their rows matters.
"""

from __future__ import annotations

import numpy as np

from dataselect.training.documents import CHOICE, ORDER, SPLIT


def held_out(keys: np.ndarray, holdout: float) -> np.ndarray:
    """bool[n_docs] of uint64[n_docs, 3] keys."""
    mask: np.ndarray = keys[:, SPLIT] < np.uint64(int(holdout * 2**64))
    return mask


def fold_of(keys: np.ndarray, holdout: float, n_folds: int) -> np.ndarray:
    """int64[n_docs]: fold 0 .. n_folds - 1 of documents that are not held out, about equal in size."""
    place = (keys[:, SPLIT] / 2.0**64 - holdout) / (1 - holdout)
    return np.clip((place * n_folds).astype(np.int64), 0, n_folds - 1)


def training_order(keys: np.ndarray, label: np.ndarray, balance: str) -> np.ndarray:
    """int64[n_lines]: the documents to train on, in order; keys uint64[n_docs, 3], label int32[n_docs].

    downsample: of each label as many as the rarest has. upsample: each label as often as the most frequent
    one; every document floor(ratio) times, some of them once more. The package learns line by line and never
    shuffles, so lines (copies too) stand in the order of a hash.
    """
    copies = _copies(keys, label, balance)
    chosen = np.repeat(np.arange(len(label)), copies)
    nth_copy = np.arange(len(chosen)) - np.repeat(np.cumsum(copies) - copies, copies)
    order = keys[chosen, ORDER] ^ _mix64(nth_copy.astype(np.uint64))
    return chosen[np.lexsort((label[chosen], order))]


def _copies(keys: np.ndarray, label: np.ndarray, balance: str) -> np.ndarray:
    """int64[n_docs]: how often each document is trained on."""
    counts = np.bincount(label)
    copies = np.ones(len(label), np.int64)
    if balance == "none":
        return copies
    wanted = counts[counts > 0].min() if balance == "downsample" else counts.max()
    for code in np.flatnonzero(counts):
        mine = np.flatnonzero(label == code)
        # Not by ORDER: the chosen would then stand at the front of the training file.
        first = mine[np.argsort(keys[mine, CHOICE], kind="stable")]
        copies[mine] = wanted // len(mine)
        copies[first[: wanted % len(mine)]] += 1
    return copies


def _mix64(word: np.ndarray) -> np.ndarray:
    """0 -> 0; other numbers to well-mixed ones (MurmurHash3's finaliser)."""
    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        word = (word ^ (word >> np.uint64(33))) * np.uint64(multiplier)
    mixed: np.ndarray = word ^ (word >> np.uint64(33))
    return mixed
