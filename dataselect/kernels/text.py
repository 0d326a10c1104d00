"""Lengths of documents."""

from __future__ import annotations

import numpy as np
from numba import njit, types

from dataselect.kernels.primitives import BLOCK, I64, U8, low_bits, pointer_to, popcount, range_mask

_LENGTHS = types.void(I64, U8, types.int64[::1])


@njit(_LENGTHS, cache=True, nogil=True)
def count_chars(offsets: np.ndarray, data: np.ndarray, out: np.ndarray) -> None:
    """Write the number of Unicode code points of each document: bytes that are no UTF-8 continuation byte.

    offsets  int64[n_docs + 1]  document i is data[offsets[i]:offsets[i + 1]]
    data     uint8[:]           UTF-8; in invalid text the stray continuation bytes count nothing
    out      int64[n_docs]      overwritten
    """
    text = pointer_to(data)
    for doc in range(offsets.size - 1):
        position = offsets[doc]
        end = offsets[doc + 1]
        n_chars = end - position
        while position + BLOCK <= end:
            n_chars -= popcount(range_mask(text, position, 0, 0x80, 0x3F))
            position += BLOCK
        while position < end:
            n_chars -= text[position] & 0xC0 == 0x80
            position += 1
        out[doc] = n_chars


@njit(_LENGTHS, cache=True, nogil=True)
def count_words(offsets: np.ndarray, data: np.ndarray, out: np.ndarray) -> None:
    """Write the number of words of each document: runs of bytes other than ASCII white space (9-13 and 32).

    offsets  int64[n_docs + 1]  document i is data[offsets[i]:offsets[i + 1]]
    data     uint8[:]           UTF-8
    out      int64[n_docs]      overwritten
    """
    text = pointer_to(data)
    for doc in range(offsets.size - 1):
        position = offsets[doc]
        end = offsets[doc + 1]
        n_words = 0
        after_space = np.uint64(1)
        while position < end and position + BLOCK <= data.size:
            known = low_bits(end - position)
            space = range_mask(text, position, 0, 9, 4) | range_mask(text, position, 0, 32, 0)
            n_words += popcount(~space & (space << np.uint64(1) | after_space) & known)
            after_space = space >> np.uint64(63)
            position += BLOCK
        while position < end:
            is_space = text[position] == 32 or 9 <= text[position] <= 13
            n_words += after_space == 1 and not is_space
            after_space = np.uint64(is_space)
            position += 1
        out[doc] = n_words
