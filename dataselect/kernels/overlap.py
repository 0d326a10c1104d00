r"""n-grams of words that a text shares with a target, by 64-bit hashes.

Words are the `\w+` of the lower-cased text, so case, punctuation and white space don't count. The key of n
words is mix64(their polynomial in _BASE + n) | 1; beside a target of 10^9 n-grams one of 10^10 others is
found by chance.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

from dataselect.kernels.primitives import BLOCK, I32, I64, SHIFT_32, U8, U64, Word, mix64
from dataselect.kernels.tokens import read_tokens, text_source
from dataselect.kernels.unicode_tables import PAGE_OF, PAGES

_BASE = np.uint64(0xD6E8FEB86659FD93)
_ONE = np.uint64(1)


@njit
def _keys(words: np.ndarray, n_words: int, n: int, keys: np.ndarray) -> int:
    """Write the keys of all runs of n of the words to `keys`; returns how many."""
    oldest = _ONE
    for _ in range(n):
        oldest *= _BASE
    value = np.uint64(0)
    for i in range(n_words):
        value = value * _BASE + words[i]
        if i >= n:
            value -= words[i - n] * oldest
        if i >= n - 1:
            keys[i - n + 1] = mix64(value + np.uint64(n)) | _ONE
    return max(0, n_words - n + 1)


@njit(inline="always")
def _home(key: Word, n_slots: int) -> int:
    return np.int64((key >> SHIFT_32) * np.uint64(n_slots) >> SHIFT_32)


@njit(types.int64(I64, U8, U8, I32, types.int64, types.int64, types.uint64[::1], types.boolean[::1]),
      cache=True, nogil=True)  # fmt: skip
def _target_keys(
    offsets: np.ndarray,
    data: np.ndarray,
    page_of: np.ndarray,
    pages: np.ndarray,
    n: int,
    min_words: int,
    out: np.ndarray,
    there: np.ndarray,
) -> int:
    text = text_source(data, page_of, pages)
    words = np.empty(data.size // 2 + BLOCK + 1, np.uint64)
    n_out = 0
    for doc in range(offsets.size - 1):
        n_words, _ = read_tokens(text, offsets[doc], offsets[doc + 1], False, words, 0)
        if n_words >= min(n, min_words):
            there[min(n, n_words)] = True
            n_out += _keys(words, n_words, min(n, n_words), out[n_out:])
    return n_out


def target_keys(
    offsets: np.ndarray, data: np.ndarray, n: int, min_words: int
) -> tuple[np.ndarray, np.ndarray]:
    """(keys uint64, lengths int64 ascending) of all documents' runs of n words, and of shorter documents.

    Of documents with min_words to n - 1 words it is the key of all their words; lengths are those there are.

    offsets  int64[n_docs + 1]   document i is data[offsets[i]:offsets[i + 1]]
    data     uint8[:]            UTF-8
    """
    out = np.empty(len(data) // 2 + len(offsets), np.uint64)
    there = np.zeros(n + 1, bool)
    n_keys = _target_keys(offsets, data, PAGE_OF, PAGES, n, min_words, out, there)
    return out[:n_keys].copy(), np.flatnonzero(there)


def key_table(keys: np.ndarray) -> np.ndarray:
    """uint64[n_slots]: different keys ascending, each in the first free slot from its home on; 0 is empty.

    A key's home is its place among 2^64 scaled to two slots a key and n_slots - len(keys) - 1 of them.
    """
    keys = np.unique(keys)
    n_homes = 2 * len(keys) + 1
    homes = ((keys >> SHIFT_32) * np.uint64(n_homes) >> SHIFT_32).astype(np.int64)
    rank = np.arange(len(keys))
    table = np.zeros(n_homes + len(keys) + 1, np.uint64)
    table[np.maximum.accumulate(homes - rank) + rank] = keys
    return table


@njit(types.void(I64, U8, U8, I32, I64, U64, types.int64, types.int32[:, ::1]), cache=True, nogil=True)
def _shared_words(
    offsets: np.ndarray,
    data: np.ndarray,
    page_of: np.ndarray,
    pages: np.ndarray,
    lengths: np.ndarray,
    table: np.ndarray,
    n_homes: int,
    out: np.ndarray,
) -> None:
    text = text_source(data, page_of, pages)
    longest_doc = np.int64(0)
    for doc in range(offsets.size - 1):
        longest_doc = max(longest_doc, offsets[doc + 1] - offsets[doc])
    words = np.empty(longest_doc // 2 + BLOCK + 1, np.uint64)
    keys = np.empty(words.size, np.uint64)
    ends = np.empty(words.size, np.int32)  # of the longest shared n-gram that starts at a word
    for doc in range(offsets.size - 1):
        n_words, _ = read_tokens(text, offsets[doc], offsets[doc + 1], False, words, 0)
        ends[:n_words] = 0
        n_shared = 0
        for n in lengths:
            for i in range(_keys(words, n_words, n, keys)):
                slot = _home(keys[i], n_homes)
                while table[slot] < keys[i] and table[slot] != 0:
                    slot += 1
                if table[slot] == keys[i]:
                    ends[i] = max(ends[i], i + n)
                    n_shared += 1
        covered, longest, start, end = 0, 0, 0, 0
        for i in range(n_words if n_shared else 0):
            if ends[i] > 0 and i > end:
                covered += end - start
                start = i
            end = max(end, ends[i])
            longest = max(longest, end - start)
        out[doc, 0] = n_shared
        out[doc, 1] = covered + end - start
        out[doc, 2] = longest
        out[doc, 3] = n_words


def shared_words(offsets: np.ndarray, data: np.ndarray, lengths: np.ndarray, table: np.ndarray) -> np.ndarray:
    """int32[n_docs, 4]: shared n-grams, words in them, words of the longest passage of them, all words.

    offsets  int64[n_docs + 1]   document i is data[offsets[i]:offsets[i + 1]]
    data     uint8[:]            UTF-8
    lengths  int64[:]            which n to look for
    table    uint64              of `key_table`
    Shared n-grams that overlap or touch are one passage.
    """
    out = np.empty((len(offsets) - 1, 4), np.int32)
    n_homes = len(table) - 1 - int(np.count_nonzero(table))
    _shared_words(offsets, data, PAGE_OF, PAGES, lengths, table, n_homes, out)
    return out
