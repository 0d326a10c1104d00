"""Connected components of the duplicate graph: union-find over dense document numbers, 8 bytes a document."""

from __future__ import annotations

import numpy as np
from numba import njit, types

from dataselect.kernels.primitives import I64


@njit(inline="always")
def _root(parent: np.ndarray, member: int) -> int:
    """The root of `member`; halves the path on the way (van Leeuwen and van der Weide 1977)."""
    while parent[member] != member:
        parent[member] = parent[parent[member]]
        member = parent[member]
    return member


@njit(types.void(I64, I64, types.int64[::1]), cache=True, nogil=True)
def connect(left: np.ndarray, right: np.ndarray, parent: np.ndarray) -> None:
    """Union the components of left[i] and right[i] for every i; a component's root is its smallest member.

    left, right  int64[n_edges]  members, 0 <= member < n
    parent       int64[n]        updated in place; starts as 0, 1, ..., n - 1; parent[i] <= i always

    Components depend on the set of edges alone, not on their order; `find_roots` gives them in a normal form.
    Raises IndexError for a member outside 0 .. n - 1, and then has changed nothing.
    """
    if left.size != right.size:
        raise ValueError("connect: left and right must have the same length")
    for i in range(left.size):
        if min(left[i], right[i]) < 0 or max(left[i], right[i]) >= parent.size:
            raise IndexError("connect: a member is outside parent")
    for i in range(left.size):
        a = _root(parent, left[i])
        b = _root(parent, right[i])
        if a < b:
            parent[b] = a
        else:
            parent[a] = b


@njit(types.void(types.int64[::1]), cache=True, nogil=True)
def find_roots(parent: np.ndarray) -> None:
    """Flatten in place: parent[i] becomes the root of i, the smallest member of its component.

    parent  int64[n]  as `connect` leaves it: parent[i] <= i, so one ascending pass is enough
    """
    for member in range(parent.size):
        parent[member] = parent[parent[member]]
