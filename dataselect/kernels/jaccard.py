"""Comparing candidate pairs: equal bytes of two compact signatures, common hashes of two shingle sets."""

from __future__ import annotations

import numpy as np
from numba import njit, types

from dataselect.kernels.primitives import I64, U64

_U8_2D = types.Array(types.uint8, 2, "C", readonly=True)


@njit(types.void(_U8_2D, _U8_2D, types.uint16[::1]), cache=True, nogil=True)
def count_matches(left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
    """Write in how many places row i of `left` equals row i of `right`.

    left, right  uint8[n_pairs, num_perm]  compact signatures, num_perm < 65,536
    out          uint16[n_pairs]           overwritten
    """
    if left.shape[0] != right.shape[0] or left.shape[1] != right.shape[1] or out.size != left.shape[0]:
        raise ValueError("count_matches: left, right and out must have the same shape")
    for i in range(left.shape[0]):
        n_equal = 0
        for j in range(left.shape[1]):
            n_equal += np.int64(left[i, j] == right[i, j])
        out[i] = n_equal


@njit(types.void(I64, U64, I64, I64, types.int64[::1]), cache=True, nogil=True)
def count_common(
    offsets: np.ndarray, hashes: np.ndarray, left: np.ndarray, right: np.ndarray, out: np.ndarray
) -> None:
    """Write how many hashes the sets left[i] and right[i] have in common.

    offsets      int64[n_sets + 1]
    hashes       uint64[:]          set k is hashes[offsets[k]:offsets[k + 1]], ascending, each once
    left, right  int64[n_pairs]     numbers of sets
    out          int64[n_pairs]     overwritten
    """
    for i in range(left.size):
        a, a_end = offsets[left[i]], offsets[left[i] + 1]
        b, b_end = offsets[right[i]], offsets[right[i] + 1]
        n_common = 0
        while a < a_end and b < b_end:
            x, y = hashes[a], hashes[b]
            n_common += np.int64(x == y)
            a += np.int64(x <= y)
            b += np.int64(y <= x)
        out[i] = n_common
