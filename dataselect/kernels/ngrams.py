r"""Hashed token n-gram counts: the features of DSIR (Xie et al. 2023, section 3; `data-selection` 1.0.3).

Tokens are the `\w+` and `[^\w\s]+` runs of the lower-cased text ("wordpunct"). N-grams of 1 to `order` tokens
share n_buckets buckets. The hash is not DSIR's SHA-256, its bottleneck: bucket numbers differ, statistics do
not; wordpunct.py has DSIR's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from dataselect.kernels.primitives import I32, I64, MULTIPLIER_2, SHIFT_32, SHIFT_33, U8, U16, Word
from dataselect.kernels.tokens import N_SCRATCH, read_tokens, text_source
from dataselect.kernels.unicode_tables import PAGE_OF, PAGES

VALUE_BITS = 44
"""Values of buckets are integers in units of 2^-VALUE_BITS."""
_FRACTION = (1 << VALUE_BITS) - 1
_UNIT = 2.0**-VALUE_BITS
_ADDED_AT_ONCE = 4096

NGRAM_BASE = np.uint64(0xD6E8FEB86659FD93)


@njit
def _next_buckets(
    text: Any,
    position: int,
    end: int,
    order: int,
    n_buckets: Word,
    tokens: np.ndarray,
    n_carried: int,
    buckets: np.ndarray,
) -> tuple[int, int, int, int]:
    """Read on until the scratch is full or the text ends; fill `buckets` with n-grams that end at new tokens.

    For every token: the n-grams of 1, 2, ... tokens that end at it. value = sum of token k from the end
    (0, 1, ...) * NGRAM_BASE^k; bucket = ((value ^ value >> 33) * MULTIPLIER_2 >> 32) * n_buckets >> 32.
    The last order - 1 tokens stay in `tokens` for the next call. Returns (n_grams, n_tokens, position,
    n_carried).
    """
    n_held, position = read_tokens(text, position, end, True, tokens, n_carried)
    n_tokens = n_held - n_carried
    n_grams = 0
    for last in range(n_carried, n_held):
        value = np.uint64(0)
        power = np.uint64(1)
        for k in range(min(order, last + 1)):
            value += tokens[last - k] * power
            power *= NGRAM_BASE
            hash32 = (value ^ (value >> SHIFT_33)) * MULTIPLIER_2 >> SHIFT_32
            buckets[n_grams] = np.uint32(hash32 * n_buckets >> SHIFT_32)
            n_grams += 1
    n_carried = min(n_held, order - 1)
    for i in range(n_carried):
        tokens[i] = tokens[n_held - n_carried + i]
    return n_grams, n_tokens, position, n_carried


@njit(inline="always")
def _as_float(high: int, low: int) -> float:
    """High + low units, rounded once: both terms are exact."""
    high += low >> VALUE_BITS
    return np.float64(high) + np.float64(low & _FRACTION) * _UNIT


@njit
def _scratch(order: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, buckets) of one kernel call."""
    return np.empty(N_SCRATCH + order, np.uint64), np.empty((N_SCRATCH + order) * order, np.uint32)


@njit(types.void(I64, U8, U8, I32, types.int64, types.uint64, types.int64[::1]), cache=True, nogil=True)
def _count_ngrams(
    offsets: np.ndarray,
    data: np.ndarray,
    page_of: np.ndarray,
    pages: np.ndarray,
    order: int,
    n_buckets: Word,
    out: np.ndarray,
) -> None:
    tokens, buckets = _scratch(order)
    text = text_source(data, page_of, pages)
    for doc in range(offsets.size - 1):
        position = offsets[doc]
        n_carried = 0
        while position < offsets[doc + 1]:
            n_grams, _, position, n_carried = _next_buckets(
                text, position, offsets[doc + 1], order, n_buckets, tokens, n_carried, buckets
            )
            for i in range(n_grams):
                out[buckets[i]] += 1


_LIST = (I64, U8, U8, I32, types.int64, types.uint64, types.int64, types.int64[::1])


@njit(
    [types.int64(*_LIST, types.uint16[::1]), types.int64(*_LIST, types.uint32[::1])], cache=True, nogil=True
)
def _list_ngrams(
    offsets: np.ndarray,
    data: np.ndarray,
    page_of: np.ndarray,
    pages: np.ndarray,
    order: int,
    n_buckets: Word,
    first_doc: int,
    bucket_offsets: np.ndarray,
    out: np.ndarray,
) -> int:
    """Returns the first document that did not fit into `out`, or the number of documents."""
    tokens, buckets = _scratch(order)
    n_total = bucket_offsets[first_doc]
    text = text_source(data, page_of, pages)
    for doc in range(first_doc, offsets.size - 1):
        position = offsets[doc]
        n_carried = 0
        while position < offsets[doc + 1]:
            n_grams, _, position, n_carried = _next_buckets(
                text, position, offsets[doc + 1], order, n_buckets, tokens, n_carried, buckets
            )
            if n_total + n_grams > out.size:
                return doc
            for i in range(n_grams):
                out[n_total + i] = buckets[i]
            n_total += n_grams
        bucket_offsets[doc + 1] = n_total
    return offsets.size - 1


@njit(
    types.void(I64, U8, U8, I32, types.int64, I64, types.float64[::1], types.int64[::1]),
    cache=True,
    nogil=True,
)
def _score_ngrams(
    offsets: np.ndarray,
    data: np.ndarray,
    page_of: np.ndarray,
    pages: np.ndarray,
    order: int,
    table: np.ndarray,
    out: np.ndarray,
    n_tokens: np.ndarray,
) -> None:
    tokens, buckets = _scratch(order)
    n_buckets = np.uint64(table.size)
    text = text_source(data, page_of, pages)
    for doc in range(offsets.size - 1):
        position = offsets[doc]
        n_carried = 0
        high = low = np.int64(0)
        n_total = 0
        while position < offsets[doc + 1]:
            n_grams, n_new, position, n_carried = _next_buckets(
                text, position, offsets[doc + 1], order, n_buckets, tokens, n_carried, buckets
            )
            part = np.int64(0)
            for i in range(n_grams):
                part += table[buckets[i]]
            high += part >> VALUE_BITS
            low += part & _FRACTION
            n_total += n_new
        out[doc] = _as_float(high, low)
        n_tokens[doc] = n_total


@njit(types.void(I64, U16, I64, types.float64[::1]), cache=True, nogil=True)
def _score_lists(bucket_offsets: np.ndarray, buckets: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    for doc in range(bucket_offsets.size - 1):
        high = low = np.int64(0)
        for first in range(bucket_offsets[doc], bucket_offsets[doc + 1], _ADDED_AT_ONCE):
            part = np.int64(0)
            for i in range(first, min(first + _ADDED_AT_ONCE, bucket_offsets[doc + 1])):
                part += table[buckets[i]]
            high += part >> VALUE_BITS
            low += part & _FRACTION
        out[doc] = _as_float(high, low)


def count_ngrams(offsets: np.ndarray, data: np.ndarray, order: int, n_buckets: int, out: np.ndarray) -> None:
    """Add the hashed n-gram counts of all documents together to `out`.

    offsets    int64[n_docs + 1]   document i is data[offsets[i]:offsets[i + 1]]; n-grams end with it
    data       uint8[:]            UTF-8
    order      longest n-gram in tokens, >= 1
    n_buckets  1 to 2^32
    out        int64[n_buckets]    added to
    """
    _check(order, n_buckets)
    if len(out) != n_buckets:
        raise ValueError(f"out must have n_buckets = {n_buckets} elements, not {len(out)}")
    _count_ngrams(offsets, data, PAGE_OF, PAGES, order, n_buckets, out)


def ngram_lists(
    offsets: np.ndarray, data: np.ndarray, order: int, n_buckets: int
) -> tuple[np.ndarray, np.ndarray]:
    """The buckets of every document's n-grams, as (bucket_offsets int64[n_docs + 1], buckets).

    Document i owns buckets[bucket_offsets[i]:bucket_offsets[i + 1]]: for every token, the n-grams of 1 to
    `order` tokens that end at it, the shortest first. `buckets` is uint16 for n_buckets <= 65536, else
    uint32. Arguments as for `count_ngrams`.
    """
    _check(order, n_buckets)
    dtype = np.uint16 if n_buckets <= 1 << 16 else np.uint32
    n_docs = len(offsets) - 1
    n_bytes = int(offsets[-1]) - int(offsets[0])
    bucket_offsets = np.zeros(n_docs + 1, np.int64)
    # A token takes 4.5 bytes of English prose and at least 1 of any text: start near one, grow to the other.
    buckets = np.empty(min(n_bytes, n_bytes // 4 + 4096) * order, dtype)
    first_doc = _list_ngrams(offsets, data, PAGE_OF, PAGES, order, n_buckets, 0, bucket_offsets, buckets)
    while first_doc < n_docs:
        grown = np.empty(min(n_bytes * order, 2 * len(buckets)), dtype)
        n_done = bucket_offsets[first_doc]
        grown[:n_done] = buckets[:n_done]
        buckets = grown
        first_doc = _list_ngrams(
            offsets, data, PAGE_OF, PAGES, order, n_buckets, first_doc, bucket_offsets, buckets
        )
    return bucket_offsets, buckets[: bucket_offsets[-1]].copy()


def score_ngrams(
    offsets: np.ndarray,
    data: np.ndarray,
    order: int,
    table: np.ndarray,
    out: np.ndarray,
    n_tokens: np.ndarray,
) -> None:
    """Write the sum of `table` over each document's n-grams: DSIR's log importance weight.

    offsets, data, order           as `count_ngrams`
    table     int64[n_buckets]     value of each bucket in units of 2^-VALUE_BITS, below 2^49 in size
    out       float64[n_docs]      overwritten: sum of the values of all n-grams, exact but for one rounding
    n_tokens  int64[n_docs]        overwritten: how many tokens
    """
    _check(order, len(table))
    _score_ngrams(offsets, data, PAGE_OF, PAGES, order, table, out, n_tokens)


def score_lists(bucket_offsets: np.ndarray, buckets: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    """`score_ngrams` where the buckets are known.

    bucket_offsets  int64[n_docs + 1]   document i owns buckets[bucket_offsets[i]:bucket_offsets[i + 1]]
    buckets         uint16              below len(table)
    table, out                          as `score_ngrams`
    """
    _score_lists(bucket_offsets, buckets, table, out)


def _check(order: int, n_buckets: int) -> None:
    if order < 1:
        raise ValueError(f"order must be >= 1 token, got {order}")
    if not 1 <= n_buckets <= 1 << 32:
        raise ValueError(f"n_buckets must be 1 to 2^32, got {n_buckets}")
