r"""Hashed TF-IDF vectors of documents, and their cosines with every target document.

Terms are the words (`\w+` of the lower-cased text) and pairs of neighbouring words. The top n_bits of a
term's 64-bit hash are its bucket, the next bit its sign, so that terms which share a bucket cancel on
average (Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning"). With c_j the sum of
the signs of a document's terms in bucket j:

    x_j = sgn(c_j) (1 + ln |c_j|) idf_j     idf_j = ln((1 + N) / (1 + df_j)) + 1     cosine = x y / (|x| |y|)

Sums are made in the order in which buckets first occur in the document: no batch, neighbour or platform
changes a bit of them. A feature is bucket << COUNT_BITS | c_j + MOST_COUNT + 1, |c_j| cut at MOST_COUNT.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numba import njit, types

from dataselect.core.fixed_log import FIXED_BITS, fixed_log
from dataselect.kernels.primitives import I32, I64, U8, U32, Word, mix64
from dataselect.kernels.tokens import N_SCRATCH, read_tokens, text_source
from dataselect.kernels.unicode_tables import PAGE_OF, PAGES

MAX_BITS = 20
"""Most bits of a bucket."""
COUNT_BITS = 12
MOST_COUNT = (1 << COUNT_BITS - 1) - 1
_PAIR_BASE = np.uint64(0xD6E8FEB86659FD93)
_LOW = np.uint64(0xFFFFFFFF)
_COUNT_0 = np.uint64(1 << 31)
_ONE = np.uint64(1)
_SHIFT_32 = np.uint64(32)
_FIRST_SLOTS = 1024
F32 = types.Array(types.float32, 1, "C", readonly=True)
F64 = types.Array(types.float64, 1, "C", readonly=True)
F64_2D = types.Array(types.float64, 2, "C", readonly=True)

TF = 1.0 + fixed_log(np.maximum(np.arange(MOST_COUNT + 1.0), 1.0)) * 2.0**-FIXED_BITS
"""float64[MOST_COUNT + 1]: 1 + ln c, the same on every platform."""


@njit
def _grow(table: np.ndarray, mask: Word, slots: np.ndarray, n_slots: int) -> Word:
    """Twice the slots, and the entries in the same order."""
    entries = np.empty(n_slots, np.uint64)
    for i in range(n_slots):
        entries[i] = table[slots[i]]
        table[slots[i]] = 0
    mask = mask * np.uint64(2) + _ONE
    for i in range(n_slots):
        slot = ((entries[i] >> _SHIFT_32) - _ONE) & mask
        while table[slot] != 0:
            slot = (slot + _ONE) & mask
        table[slot] = entries[i]
        slots[i] = slot
    return mask


@njit(inline="always")
def _count(table: np.ndarray, mask: Word, slots: np.ndarray, n_slots: int, term: Word) -> int:
    """Count a term of (bucket << 1 | sign). An entry is bucket + 1 << 32 | 2^31 + count; 0 is empty."""
    bucket = term >> _ONE
    slot = bucket & mask
    while table[slot] != 0 and table[slot] >> _SHIFT_32 != bucket + _ONE:
        slot = (slot + _ONE) & mask
    if table[slot] == 0:
        table[slot] = (bucket + _ONE) << _SHIFT_32 | _COUNT_0
        slots[n_slots] = slot
        n_slots += 1
    if term & _ONE:
        table[slot] -= _ONE
    else:
        table[slot] += _ONE
    return n_slots


@njit(types.void(I64, U8, U8, I32, types.int64, types.int64[::1], types.uint32[::1]), cache=True, nogil=True)
def _feature_lists(
    offsets: np.ndarray,
    data: np.ndarray,
    page_of: np.ndarray,
    pages: np.ndarray,
    n_bits: int,
    list_offsets: np.ndarray,
    out: np.ndarray,
) -> None:
    text = text_source(data, page_of, pages)
    words = np.empty(N_SCRATCH + 1, np.uint64)
    table = np.zeros(max(_FIRST_SLOTS, 2 << n_bits), np.uint64)
    slots = np.empty(1 << n_bits, np.int32)
    shift = np.uint64(63 - n_bits)
    n_out = 0
    for doc in range(offsets.size - 1):
        position = offsets[doc]
        mask = np.uint64(_FIRST_SLOTS - 1)
        n_slots = 0
        n_carried = 0
        while position < offsets[doc + 1]:
            n_held, position = read_tokens(text, position, offsets[doc + 1], False, words, n_carried)
            for i in range(n_carried, n_held):
                if np.uint64(2 * n_slots + 4) > mask and np.int64(mask) + 1 < table.size:
                    mask = _grow(table, mask, slots, n_slots)
                n_slots = _count(table, mask, slots, n_slots, mix64(words[i]) >> shift)
                if i > 0:
                    pair = mix64(words[i - 1] * _PAIR_BASE + words[i])
                    n_slots = _count(table, mask, slots, n_slots, pair >> shift)
            if n_held:
                words[0] = words[n_held - 1]
                n_carried = 1
        for i in range(n_slots):
            entry = table[slots[i]]
            table[slots[i]] = 0
            count = np.int64(entry & _LOW) - np.int64(_COUNT_0)
            if count:
                count = min(max(count, -MOST_COUNT), MOST_COUNT)
                bucket = np.int64(entry >> _SHIFT_32) - 1
                out[n_out] = np.uint32(bucket << COUNT_BITS | count + MOST_COUNT + 1)
                n_out += 1
        list_offsets[doc + 1] = n_out


def feature_lists(offsets: np.ndarray, data: np.ndarray, n_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The features of every document: (list_offsets int64[n_docs + 1], features uint32).

    offsets  int64[n_docs + 1]   document i is data[offsets[i]:offsets[i + 1]]
    data     uint8[:]            UTF-8
    n_bits   1 to MAX_BITS       2^n_bits buckets
    Document i owns features[list_offsets[i]:list_offsets[i + 1]], in the order in which they first occur.
    """
    if not 1 <= n_bits <= MAX_BITS:
        raise ValueError(f"n_bits must be 1 to {MAX_BITS}, got {n_bits}")
    list_offsets = np.zeros(len(offsets), np.int64)
    # A word and what ends it are two bytes, and make two terms; untouched pages cost nothing.
    out = np.empty(int(offsets[-1]) - int(offsets[0]) + len(offsets), np.uint32)
    _feature_lists(offsets, data, PAGE_OF, PAGES, n_bits, list_offsets, out)
    return list_offsets, out[: list_offsets[-1]].copy()


def buckets_of(features: np.ndarray) -> np.ndarray:
    """int64 bucket of each feature."""
    return (features >> COUNT_BITS).astype(np.int64)


def idf_table(document_frequency: np.ndarray, n_docs: int) -> np.ndarray:
    """float64[n_buckets]: ln((1 + n_docs) / (1 + df)) + 1, the same on every platform."""
    return fixed_log((1.0 + n_docs) / (1.0 + document_frequency)) * 2.0**-FIXED_BITS + 1.0


def feature_weights(features: np.ndarray, idf: np.ndarray) -> np.ndarray:
    """float64 x_j of each feature, not normalised."""
    counts = (features & np.uint32((1 << COUNT_BITS) - 1)).astype(np.int64) - (MOST_COUNT + 1)
    return np.sign(counts) * (TF[np.abs(counts)] * idf[buckets_of(features)])


class Index(NamedTuple):
    """Unit vectors of the target documents, by bucket."""

    idf: np.ndarray
    """float64[n_buckets]"""
    starts: np.ndarray
    """int32[n_buckets + 1]: bucket j owns postings starts[j]:starts[j + 1]."""
    targets: np.ndarray
    """int32[n_postings]: number of the target document, ascending within a bucket."""
    weights: np.ndarray
    """float32[n_postings]: y_j / |y|."""
    n_targets: int

    def arrays(self) -> dict[str, np.ndarray]:
        """To be stored; `of` takes them back."""
        return {name: getattr(self, name) for name in self._fields[:-1]}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], n_targets: int) -> Index:
        """From what `arrays` gave, and maybe more."""
        return cls(arrays["idf"], arrays["starts"], arrays["targets"], arrays["weights"], n_targets)


def build_index(list_offsets: np.ndarray, features: np.ndarray, idf: np.ndarray) -> Index:
    """The index of documents given as `feature_lists` gives them; without words they have no postings."""
    n_targets = len(list_offsets) - 1
    target = np.repeat(np.arange(n_targets), np.diff(list_offsets))
    weights = feature_weights(features, idf)
    norms = np.sqrt(np.bincount(target, weights * weights, n_targets))
    by_bucket = np.argsort(features >> COUNT_BITS, kind="stable")
    n_of_bucket = np.bincount(buckets_of(features), minlength=len(idf))
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(n_of_bucket)]).astype(np.int32)
    unit = (weights / norms[target]).astype(np.float32)
    return Index(idf, starts, target[by_bucket].astype(np.int32), unit[by_bucket], n_targets)


@njit
def feature_weight(feature: int, tf: np.ndarray, idf: np.ndarray) -> tuple[int, float]:
    """(bucket, x_j) of a feature."""
    bucket = feature >> COUNT_BITS
    count = (feature & ((1 << COUNT_BITS) - 1)) - (MOST_COUNT + 1)
    weight = tf[abs(count)] * idf[bucket]
    return bucket, weight if count > 0 else -weight


@njit
def _cosines(
    features: np.ndarray,
    first: int,
    stop: int,
    tf: np.ndarray,
    idf: np.ndarray,
    starts: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    out: np.ndarray,
) -> None:
    """Overwrite `out` with a document's cosine with each target; 0 where the document has no features."""
    out[:] = 0.0
    square = 0.0
    for i in range(first, stop):
        bucket, x = feature_weight(np.int64(features[i]), tf, idf)
        square += x * x
        for posting in range(starts[bucket], starts[bucket + 1]):
            out[targets[posting]] += x * np.float64(weights[posting])
    if square > 0.0:
        norm = math.sqrt(square)
        for target in range(out.size):
            out[target] /= norm


_INDEX = (F64, F64, I32, I32, F32)


@njit(types.void(I64, U32, *_INDEX, types.float64[:, ::1]), cache=True, nogil=True)
def _cosine_matrix(
    list_offsets: np.ndarray,
    features: np.ndarray,
    tf: np.ndarray,
    idf: np.ndarray,
    starts: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    out: np.ndarray,
) -> None:
    for doc in range(list_offsets.size - 1):
        _cosines(
            features, list_offsets[doc], list_offsets[doc + 1], tf, idf, starts, targets, weights, out[doc]
        )


def cosine_matrix(list_offsets: np.ndarray, features: np.ndarray, index: Index) -> np.ndarray:
    """float64[n_docs, n_targets]: every document's cosine with every target document."""
    out = np.empty((len(list_offsets) - 1, index.n_targets))
    _cosine_matrix(list_offsets, features, TF, *index[:4], out)
    return out


@njit(
    types.void(I64, U32, *_INDEX, F64_2D, types.float64[::1], types.int32[::1], types.float64[::1]),
    cache=True,
    nogil=True,
)
def _nearest_targets(
    list_offsets: np.ndarray,
    features: np.ndarray,
    tf: np.ndarray,
    idf: np.ndarray,
    starts: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    ranked: np.ndarray,
    cosine: np.ndarray,
    nearest: np.ndarray,
    turn: np.ndarray,
) -> None:
    n_ranks, n_targets = ranked.shape
    cosines = np.empty(n_targets)
    for doc in range(list_offsets.size - 1):
        first, stop = list_offsets[doc], list_offsets[doc + 1]
        _cosines(features, first, stop, tf, idf, starts, targets, weights, cosines)
        best = 0.0 if stop > first else np.nan
        best_target = -1
        rank, rank_target = n_ranks, 0
        for target in range(n_targets):
            value = cosines[target]
            if value <= 0.0:
                continue
            if value > best:
                best, best_target = value, target
            # Of equal ranks the first target's turn comes first, so only a better one is looked for.
            if rank > 0 and ranked[rank - 1, target] <= value:
                low, high = 0, rank - 1
                while low < high:
                    middle = (low + high) >> 1
                    if ranked[middle, target] <= value:
                        high = middle
                    else:
                        low = middle + 1
                rank, rank_target = low, target
        cosine[doc] = best
        nearest[doc] = best_target
        turn[doc] = np.inf
        if rank < n_ranks:
            turn[doc] = rank * n_targets + rank_target + max(0.0, 1.0 - cosines[rank_target])


def nearest_targets(
    list_offsets: np.ndarray,
    features: np.ndarray,
    index: Index,
    ranked: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(cosine float64[n], nearest int32[n], turn float64[n]) of documents as `feature_lists` gives them.

    ranked   float64[n_ranks, n_targets]  for each target cosines of documents, the largest first
    cosine   with the nearest target document: 0 where none is positive, NaN without features
    nearest  its number, the lower of two as near; -1 where there is none
    turn     when a round-robin comes to it: the least rank x n_targets + target over the targets with a
             positive cosine, where rank is how many of `ranked` are larger; infinite where all are. Plus
             1 - that cosine, which orders documents between the same two of `ranked`
    """
    n_docs = len(list_offsets) - 1
    cosine, nearest, turn = np.empty(n_docs), np.empty(n_docs, np.int32), np.empty(n_docs)
    _nearest_targets(list_offsets, features, TF, *index[:4], ranked, cosine, nearest, turn)
    return cosine, nearest, turn
