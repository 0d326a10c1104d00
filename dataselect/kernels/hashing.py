"""Content hashes of documents, and random draws that are a function of a document's key."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numba import njit, types

from dataselect.kernels.primitives import I64, U8, U64_2D, Word, load_u32, load_u64, mix64, pointer_to

SEEDS = (0, 0x9E3779B97F4A7C15)
"""XXH64 seeds of the two columns of `hash128`."""

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)
_SEED_0 = np.uint64(SEEDS[0])
_SEED_1 = np.uint64(SEEDS[1])
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@njit(inline="always")
def _rotate(word: Word, n_bits: int) -> Word:
    return word << np.uint64(n_bits) | word >> np.uint64(64 - n_bits)


@njit(inline="always")
def _round(lane: Word, scaled: Word) -> Word:
    """One step of an XXH64 lane; `scaled` is the input word times _P2, shared by both seeds."""
    return _rotate(lane + scaled, 31) * _P1


@njit(inline="always")
def _merge_lane(state: Word, lane: Word) -> Word:
    return (state ^ _round(np.uint64(0), lane * _P2)) * _P1 + _P4


@njit(inline="always")
def _merge_lanes(v1: Word, v2: Word, v3: Word, v4: Word) -> Word:
    state = _rotate(v1, 1) + _rotate(v2, 7) + _rotate(v3, 12) + _rotate(v4, 18)
    return _merge_lane(_merge_lane(_merge_lane(_merge_lane(state, v1), v2), v3), v4)


@njit(inline="always")
def _finish(state: Word, data: Any, position: int, end: int) -> Word:
    """The last 0 to 31 bytes and the final mix."""
    while position + 8 <= end:
        state ^= _round(np.uint64(0), load_u64(data, position) * _P2)
        state = _rotate(state, 27) * _P1 + _P4
        position += 8
    if position + 4 <= end:
        state ^= np.uint64(load_u32(data, position)) * _P1
        state = _rotate(state, 23) * _P2 + _P3
        position += 4
    while position < end:
        state ^= np.uint64(data[position]) * _P5
        state = _rotate(state, 11) * _P1
        position += 1
    state = (state ^ (state >> np.uint64(33))) * _P2
    state = (state ^ (state >> np.uint64(29))) * _P3
    return state ^ (state >> np.uint64(32))


@njit(types.void(I64, U8, types.uint64[:, ::1]), cache=True, nogil=True)
def hash128(offsets: np.ndarray, data: np.ndarray, out: np.ndarray) -> None:
    """Write two XXH64 hashes (xxHash specification 0.1.1, section "XXH64") of the bytes of each document.

    offsets  int64[n_docs + 1]   document i is data[offsets[i]:offsets[i + 1]]
    data     uint8[:]            any bytes
    out      uint64[n_docs, 2]   overwritten; column i has seed SEEDS[i]
    """
    text = pointer_to(data)
    for doc in range(offsets.size - 1):
        position = offsets[doc]
        end = offsets[doc + 1]
        n_bytes = np.uint64(end - position)
        h0 = _SEED_0 + _P5
        h1 = _SEED_1 + _P5
        if end - position >= 32:
            v1, v2, v3, v4 = _SEED_0 + _P1 + _P2, _SEED_0 + _P2, _SEED_0, _SEED_0 - _P1
            w1, w2, w3, w4 = _SEED_1 + _P1 + _P2, _SEED_1 + _P2, _SEED_1, _SEED_1 - _P1
            while position + 32 <= end:
                scaled = load_u64(text, position) * _P2
                v1, w1 = _round(v1, scaled), _round(w1, scaled)
                scaled = load_u64(text, position + 8) * _P2
                v2, w2 = _round(v2, scaled), _round(w2, scaled)
                scaled = load_u64(text, position + 16) * _P2
                v3, w3 = _round(v3, scaled), _round(w3, scaled)
                scaled = load_u64(text, position + 24) * _P2
                v4, w4 = _round(v4, scaled), _round(w4, scaled)
                position += 32
            h0 = _merge_lanes(v1, v2, v3, v4)
            h1 = _merge_lanes(w1, w2, w3, w4)
        out[doc, 0] = _finish(h0 + n_bytes, text, position, end)
        out[doc, 1] = _finish(h1 + n_bytes, text, position, end)


@njit(types.void(U64_2D, types.uint64, types.uint64, types.uint64[::1]), cache=True, nogil=True)
def _draw_u64(keys: np.ndarray, seed: Word, purpose: Word, out: np.ndarray) -> None:
    start = mix64(mix64(seed + _GOLDEN) ^ purpose) + _GOLDEN
    for doc in range(keys.shape[0]):
        out[doc] = mix64(mix64(mix64(start ^ keys[doc, 0]) + _GOLDEN ^ keys[doc, 1]) + _GOLDEN)


def draw_u64(keys: np.ndarray, seed: int, purpose: int, out: np.ndarray) -> None:
    """Write one 64-bit draw per document: a hash of (seed, purpose, key), so no order or batch matters.

    keys           uint64[n_docs, 2]  document keys; equal keys get equal draws
    seed, purpose  integers, taken mod 2^64
    out            uint64[n_docs]     overwritten

    Four rounds of MurmurHash3's 64-bit finaliser, one for each input word, and a last one.
    """
    _draw_u64(keys, _as_u64(seed), _as_u64(purpose), out)


def unit_draws(keys: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """uint64[n_docs] draws as `draw_u64`; the purpose is a name, hashed with BLAKE2b to 64 bits."""
    out = np.empty(len(keys), np.uint64)
    draw_u64(
        keys, seed, int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "little"), out
    )
    return out


def uniform(draws: np.ndarray) -> np.ndarray:
    """float64 ((x >> 11) + 0.5) / 2^53 of uint64 draws x: strictly inside (0, 1), and order-preserving."""
    # From 2^52 on the + 0.5 rounds to even, for the largest x to 2^53: hence the limit below 1.
    units: np.ndarray = np.minimum(
        ((draws >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53, 1.0 - 2.0**-53
    )
    return units


def _as_u64(value: int) -> np.uint64:
    wrapped: np.uint64 = np.uint64(int(value) & 0xFFFFFFFFFFFFFFFF)
    return wrapped
