"""Rows of a block of lines, copied out with what follows them."""

from __future__ import annotations

import numpy as np
from numba import njit, types

from dataselect.kernels.primitives import I32, I64, U8, copy_bytes, pointer_to

_GATHER = types.void(U8, I64, I64, U8, I64, I32, types.uint8[::1])


@njit(_GATHER, cache=True, nogil=True)
def gather_rows(
    data: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    tails: np.ndarray,
    tail_offsets: np.ndarray,
    tail_of_row: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write every row followed by its tail, back to back.

    data          uint8[:]            the block
    starts, stops int64[n_rows]       row i is data[starts[i]:stops[i]]
    tails         uint8[:]            tail k is tails[tail_offsets[k]:tail_offsets[k + 1]]
    tail_offsets  int64[n_tails + 1]
    tail_of_row   int32[n_rows]
    out           uint8[n_bytes]      overwritten; exactly as long as rows and tails are
    """
    source, ends, target = pointer_to(data), pointer_to(tails), pointer_to(out)
    position = 0
    for row in range(starts.size):
        n_bytes = stops[row] - starts[row]
        copy_bytes(target, position, source, starts[row], n_bytes)
        position += n_bytes
        tail = tail_of_row[row]
        n_bytes = tail_offsets[tail + 1] - tail_offsets[tail]
        copy_bytes(target, position, ends, tail_offsets[tail], n_bytes)
        position += n_bytes
