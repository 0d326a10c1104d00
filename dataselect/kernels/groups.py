"""The duplicate graph: candidate pairs of a bucket, components, and who survives.

Documents are numbered by priority: of two duplicates the one with the smaller number stays. A pair is one
uint64, worse << 32 | better, so that sorted pairs come in the order in which documents are decided.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

from dataselect.kernels.primitives import I64, SHIFT_32, U8, U32, U64

ALL_PAIRS = 256
"""Candidate pairs that a bucket may have before it has only those with its first member."""

_MASK_32 = np.uint64(0xFFFFFFFF)


@njit(inline="always")
def _root(parent: np.ndarray, member: int) -> int:
    """The root of `member`; halves the path on the way (van Leeuwen and van der Weide 1977)."""
    while parent[member] != member:
        parent[member] = parent[parent[member]]
        member = parent[member]
    return member


@njit(types.void(I64, I64, types.uint32[::1]), cache=True, nogil=True)
def connect(left: np.ndarray, right: np.ndarray, parent: np.ndarray) -> None:
    """Union the components of left[i] and right[i] for every i; a component's root is its smallest member.

    left, right  int64[n_edges]  members, 0 <= member < n
    parent       uint32[n]       updated in place; starts as 0, 1, ..., n - 1; parent[i] <= i always

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


@njit(types.void(types.uint32[::1]), cache=True, nogil=True)
def find_roots(parent: np.ndarray) -> None:
    """Flatten in place: parent[i] becomes the root of i, the smallest member of its component.

    parent  uint32[n]  as `connect` leaves it: parent[i] <= i, so one ascending pass is enough
    """
    for member in range(parent.size):
        parent[member] = parent[parent[member]]


@njit(inline="always")
def n_leaders(n_members: int) -> int:
    """How many of a bucket's first members are compared with all others: all pairs up to 16 members.

    Linear: a bucket has at most max(ALL_PAIRS, n_members) candidate pairs.
    """
    return min(n_members - 1, max(1, ALL_PAIRS // max(n_members, 1)))


@njit(types.int64(U32, I64, U8, types.uint64[::1]), cache=True, nogil=True)
def bucket_pairs(members: np.ndarray, starts: np.ndarray, kept: np.ndarray, out: np.ndarray) -> int:
    """Candidate pairs of buckets: each bucket's leaders with all members that come after them.

    members  uint32[n]           documents, bucket by bucket, each in an order of its texts' own
    starts   int64[n_buckets+1]  bucket i is members[starts[i]:starts[i + 1]]
    kept     uint8[n_docs]       documents with 0 are left out, as if they were not there; empty: none is
    out      uint64[:]           overwritten; max(ALL_PAIRS, size) for every bucket are enough
    Returns the number of pairs written.
    """
    n_pairs = 0
    alive = np.empty(members.size, np.uint32)
    for bucket in range(starts.size - 1):
        n_alive = 0
        for i in range(starts[bucket], starts[bucket + 1]):
            if kept.size == 0 or kept[members[i]]:
                alive[n_alive] = members[i]
                n_alive += 1
        for i in range(n_leaders(n_alive)):
            for j in range(i + 1, n_alive):
                a = np.uint64(alive[i])
                b = np.uint64(alive[j])
                out[n_pairs] = max(a, b) << SHIFT_32 | min(a, b)
                n_pairs += 1
    return n_pairs


_F32 = types.Array(types.float32, 1, "C", readonly=True)


@njit(types.void(U64, _F32, U8, types.uint32[::1], types.float32[::1]), cache=True, nogil=True)
def keep_greedy(
    pairs: np.ndarray, similarity: np.ndarray, is_copy: np.ndarray, keeper: np.ndarray, best: np.ndarray
) -> None:
    """Drop every document of which a better duplicate is kept; the best such one is its keeper.

    pairs       uint64[n_pairs]   worse << 32 | better, ascending; later calls go on with larger ones
    similarity  float32[n_pairs]
    is_copy     uint8[n_pairs]    1: `worse` has the same text as `better`, and no other pair
    keeper      uint32[n_docs]    updated; starts as 0, 1, ..., n_docs - 1; keeper[i] == i: i is kept
    best        float32[n_docs]   updated: similarity of a dropped document to its keeper

    A copy of a dropped document has that one's keeper: their texts are the same.
    """
    for i in range(pairs.size):
        worse = np.int64(pairs[i] >> SHIFT_32)
        better = np.int64(pairs[i] & _MASK_32)
        if keeper[worse] != worse:
            continue
        if keeper[better] == better:
            keeper[worse] = better
            best[worse] = similarity[i]
        elif is_copy[i]:
            keeper[worse] = keeper[better]
            best[worse] = best[better]
