"""MinHash signatures over word n-grams, in the `affine32` family of datasketch 2.0, and their band hashes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from dataselect.kernels.primitives import (
    I32,
    I64,
    MULTIPLIER_1,
    SHIFT_32,
    U8,
    U32,
    U32_2D,
    U64,
    fmix32,
    mix64,
)
from dataselect.kernels.tokens import N_SCRATCH, mainly_unspaced, read_chars, read_tokens, text_source
from dataselect.kernels.unicode_tables import PAGE_OF, PAGES

EMPTY = np.uint32(0xFFFFFFFF)
"""Every value of the signature of a document without a word."""

# Odd, so that no word's bits are lost, and 3 mod 4, so that swapping words changes all but the top bit or so.
SHINGLE_BASE = np.uint64(0xD6E8FEB86659FD93)
WORDS, CHARS, AUTO = 0, 1, 2
"""Token kinds: words; word characters; characters for texts of scripts without spaces, words for others."""

TILE = 8
"""Shingles per pass over the signature: one load and store of a value per 8 updates of it."""


def affine32_params(num_perm: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(a, b), uint32[num_perm] each, of h -> a * h + b mod 2^32, equal to datasketch 2.0 `affine32`."""
    generator = np.random.RandomState(seed)
    a = generator.randint(0, 1 << 31, num_perm, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    b = generator.randint(0, 1 << 32, num_perm, dtype=np.uint32)
    return a, b


@njit
def _fill_shingles(
    words: np.ndarray,
    n_words: int,
    ngram: int,
    values: np.ndarray,
    shingles: np.ndarray,
) -> int:
    """Write the 32-bit hash of every run of `ngram` of the n_words word hashes; returns how many there are.

    hash = top half of mix64(sum of word k * SHINGLE_BASE^(ngram - 1 - k)), by Horner's rule; the loops over
    shingles are the inner ones, so that they vectorise.
    """
    n_shingles = n_words - ngram + 1
    for i in range(n_shingles):
        values[i] = words[i]
    for k in range(1, ngram):
        for i in range(n_shingles):
            values[i] = values[i] * SHINGLE_BASE + words[i + k]
    for i in range(n_shingles):
        shingles[i] = np.uint32(mix64(values[i]) >> SHIFT_32)
    return n_shingles


@njit
def _next_shingles(
    text: Any,
    position: int,
    end: int,
    ngram: int,
    chars: bool,
    words: np.ndarray,
    n_carried: int,
    n_before: int,
    values: np.ndarray,
    shingles: np.ndarray,
) -> tuple[int, int, int, int]:
    """Read on until the scratch is full or the text ends, and fill `shingles`.

    The last ngram - 1 words of the call before start `words` again (n_carried of them); n_before words were
    read before. Returns (n_shingles, position, n_carried, n_words). A document that ends with fewer than
    ngram words is one shingle of all its words.
    """
    if chars:
        n_held, position = read_chars(text, position, end, words, n_carried)
    else:
        n_held, position = read_tokens(text, position, end, False, words, n_carried)
    n_words = n_before + n_held - n_carried
    if 0 < n_words < ngram and position >= end:
        return _fill_shingles(words, n_held, n_held, values, shingles), position, 0, n_words
    n_shingles = 0
    if n_held >= ngram:
        n_shingles = _fill_shingles(words, n_held, ngram, values, shingles)
    n_carried = min(n_held, ngram - 1)
    for i in range(n_carried):
        words[i] = words[n_held - n_carried + i]
    return n_shingles, position, n_carried, n_words


@njit
def _update_signature(
    shingles: np.ndarray,
    n_shingles: int,
    a: np.ndarray,
    b: np.ndarray,
    signature: np.ndarray,
) -> None:
    """signature[j] = min(signature[j], a[j] * fmix32(shingle) + b[j]) over all shingles."""
    for i in range(n_shingles):
        shingles[i] = fmix32(shingles[i])
    # The last tile is filled up with the last shingle, which changes no minimum.
    for i in range(n_shingles, -(-n_shingles // TILE) * TILE):
        shingles[i] = shingles[n_shingles - 1]
    for i in range(0, n_shingles, TILE):
        h0, h1, h2, h3 = shingles[i], shingles[i + 1], shingles[i + 2], shingles[i + 3]
        h4, h5, h6, h7 = shingles[i + 4], shingles[i + 5], shingles[i + 6], shingles[i + 7]
        for j in range(signature.size):
            m0 = min(np.uint32(a[j] * h0 + b[j]), np.uint32(a[j] * h1 + b[j]))
            m1 = min(np.uint32(a[j] * h2 + b[j]), np.uint32(a[j] * h3 + b[j]))
            m2 = min(np.uint32(a[j] * h4 + b[j]), np.uint32(a[j] * h5 + b[j]))
            m3 = min(np.uint32(a[j] * h6 + b[j]), np.uint32(a[j] * h7 + b[j]))
            signature[j] = min(signature[j], m0, m1, m2, m3)


@njit(
    types.void(
        I64,
        U8,
        U8,
        I32,
        types.int64,
        types.int64,
        types.int64,
        U32,
        U32,
        types.uint32[:, ::1],
        types.int64[::1],
    ),
    cache=True,
    nogil=True,
)
def _minhash_signatures(
    offsets: np.ndarray,
    data: np.ndarray,
    page_of: np.ndarray,
    pages: np.ndarray,
    tokens: int,
    word_ngram: int,
    char_ngram: int,
    a: np.ndarray,
    b: np.ndarray,
    out: np.ndarray,
    n_words: np.ndarray,
) -> None:
    words = np.empty(N_SCRATCH + max(word_ngram, char_ngram), np.uint64)
    values = np.empty(words.size, np.uint64)
    shingles = np.empty(words.size + TILE, np.uint32)
    signature = np.empty(a.size, np.uint32)
    text = text_source(data, page_of, pages)
    for doc in range(offsets.size - 1):
        position = offsets[doc]
        end = offsets[doc + 1]
        chars = tokens == CHARS or (tokens == AUTO and mainly_unspaced(text, position, end))
        ngram = char_ngram if chars else word_ngram
        signature[:] = EMPTY
        n_carried = 0
        n_read = 0
        while position < end:
            n_shingles, position, n_carried, n_read = _next_shingles(
                text, position, end, ngram, chars, words, n_carried, n_read, values, shingles
            )
            _update_signature(shingles, n_shingles, a, b, signature)
        for j in range(a.size):
            out[doc, j] = signature[j]
        n_words[doc] = n_read


@njit(
    types.int64(I64, U8, U8, I32, types.int64, types.int64, types.int64, types.int64[::1], types.uint64[::1]),
    cache=True,
    nogil=True,
)
def _list_shingles(
    offsets: np.ndarray,
    data: np.ndarray,
    page_of: np.ndarray,
    pages: np.ndarray,
    tokens: int,
    word_ngram: int,
    char_ngram: int,
    shingle_offsets: np.ndarray,
    out: np.ndarray,
) -> int:
    words = np.empty(N_SCRATCH + max(word_ngram, char_ngram), np.uint64)
    values = np.empty(words.size, np.uint64)
    shingles = np.empty(words.size, np.uint32)
    n_total = 0
    shingle_offsets[0] = 0
    text = text_source(data, page_of, pages)
    for doc in range(offsets.size - 1):
        position = offsets[doc]
        end = offsets[doc + 1]
        chars = tokens == CHARS or (tokens == AUTO and mainly_unspaced(text, position, end))
        ngram = char_ngram if chars else word_ngram
        n_carried = 0
        n_read = 0
        while position < end:
            n_shingles, position, n_carried, n_read = _next_shingles(
                text, position, end, ngram, chars, words, n_carried, n_read, values, shingles
            )
            for i in range(n_shingles):
                out[n_total + i] = mix64(values[i])
            n_total += n_shingles
        shingle_offsets[doc + 1] = n_total
    return n_total


def minhash_signatures(
    offsets: np.ndarray,
    data: np.ndarray,
    ngram: int,
    a: np.ndarray,
    b: np.ndarray,
    out: np.ndarray,
    n_tokens: np.ndarray,
    tokens: int = WORDS,
    char_ngram: int = 1,
) -> None:
    r"""Write one MinHash signature (Broder 1997) per document over its runs of consecutive tokens.

    offsets   int64[n_docs + 1]         document i is data[offsets[i]:offsets[i + 1]]
    data      uint8[:]                  UTF-8; words are the `\w+` runs of the lower-cased text, see tokens.py
    ngram     words per shingle, >= 1   a document with 1 to ngram - 1 words is one shingle of all its words
    a, b      uint32[num_perm]          from `affine32_params`
    out       uint32[n_docs, num_perm]  overwritten: min over shingles s of a[j] * fmix32(s) + b[j] mod 2^32;
                                        all EMPTY for a document without a token
    n_tokens  int64[n_docs]             overwritten: tokens of each document
    tokens    WORDS, CHARS or AUTO
    char_ngram  characters per shingle, >= 1, where tokens are characters
    """
    ngrams = _checked(ngram), _checked(char_ngram)
    _minhash_signatures(offsets, data, PAGE_OF, PAGES, tokens, *ngrams, a, b, out, n_tokens)


def shingle_hashes(
    offsets: np.ndarray, data: np.ndarray, ngram: int, tokens: int = WORDS, char_ngram: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """The 64-bit hashes of all shingles, as (int64[n_docs + 1], uint64[:]).

    Document i owns the second array from first[i] to first[i + 1], in text order, repetitions included. Their
    upper 32 bits are what `minhash_signatures` feeds to fmix32.
    """
    shingle_offsets = np.zeros(len(offsets), np.int64)
    n_bytes = int(offsets[-1]) - int(offsets[0])
    # Words are at least a byte each and a byte apart, characters a byte; a short document has one shingle.
    out = np.empty((n_bytes // 2 if tokens == WORDS else n_bytes) + len(offsets), np.uint64)
    ngrams = _checked(ngram), _checked(char_ngram)
    n_total = _list_shingles(offsets, data, PAGE_OF, PAGES, tokens, *ngrams, shingle_offsets, out)
    return shingle_offsets, out[:n_total].copy()


@njit(
    types.int64(I64, U64, types.int64, types.int64[::1], types.uint64[::1], types.uint32[::1]),
    cache=True,
    nogil=True,
)
def _shingles_of_tokens(
    first: np.ndarray,
    tokens: np.ndarray,
    ngram: int,
    shingle_offsets: np.ndarray,
    out: np.ndarray,
    scratch: np.ndarray,
) -> int:
    n_total = 0
    shingle_offsets[0] = 0
    for doc in range(first.size - 1):
        n_tokens = first[doc + 1] - first[doc]
        if n_tokens > 0:
            words, values = tokens[first[doc] : first[doc + 1]], out[n_total:]
            n_shingles = _fill_shingles(words, n_tokens, min(ngram, n_tokens), values, scratch)
            for i in range(n_shingles):
                values[i] = mix64(values[i])
            n_total += n_shingles
        shingle_offsets[doc + 1] = n_total
    return n_total


def shingles_of_tokens(first: np.ndarray, tokens: np.ndarray, ngram: int) -> tuple[np.ndarray, np.ndarray]:
    """As `shingle_hashes`, of documents whose tokens' hashes are known: tokens[first[i]:first[i + 1]]."""
    shingle_offsets, out = np.empty(len(first), np.int64), np.empty(len(tokens), np.uint64)
    scratch = np.empty(int(np.diff(first).max(initial=0)), np.uint32)
    n_total = _shingles_of_tokens(first, tokens, _checked(ngram), shingle_offsets, out, scratch)
    return shingle_offsets, out[:n_total].copy()


@njit(types.void(I64, U64, U32, U32, types.uint32[:, ::1]), cache=True, nogil=True)
def signatures_of_shingles(
    first: np.ndarray, shingles: np.ndarray, a: np.ndarray, b: np.ndarray, out: np.ndarray
) -> None:
    """Write the signatures that `minhash_signatures` writes, from the shingles of `shingle_hashes`.

    first, shingles  int64[n_docs + 1], uint64[:]  document i has shingles[first[i]:first[i + 1]]
    a, b             uint32[num_perm]              from `affine32_params`
    out              uint32[n_docs, num_perm]      overwritten
    """
    part = np.empty(N_SCRATCH + TILE, np.uint32)
    signature = np.empty(a.size, np.uint32)
    for doc in range(first.size - 1):
        signature[:] = EMPTY
        for start in range(first[doc], first[doc + 1], N_SCRATCH):
            n = min(N_SCRATCH, first[doc + 1] - start)
            for i in range(n):
                part[i] = np.uint32(shingles[start + i] >> SHIFT_32)
            _update_signature(part, n, a, b, signature)
        for j in range(a.size):
            out[doc, j] = signature[j]


def compact_signatures(signatures: np.ndarray) -> np.ndarray:
    """One byte of every signature value: uint32[n_docs, num_perm] -> uint8[n_docs, num_perm].

    b-bit minwise hashing (Li and Koenig 2010), b = 8: unequal values agree with probability 1/256, which
    `jaccard_of_matches` takes off, so the estimate loses 1 % of its precision and 75 % of its size. The upper
    byte of a product with an odd number, because low bits of a * h + b depend on low bits of h alone.
    """
    return (signatures * np.uint32(0x9E3779B1) >> np.uint32(24)).astype(np.uint8)


@njit(types.void(U32_2D, types.int64, types.int64, types.uint64[:, ::1]), cache=True, nogil=True)
def band_hashes(signatures: np.ndarray, bands: int, rows: int, out: np.ndarray) -> None:
    """Write one 64-bit hash per band of `rows` signature values; equal values in two bands hash differently.

    signatures  uint32[n_docs, num_perm]  bands * rows <= num_perm; values beyond are not used
    out         uint64[n_docs, bands]     overwritten
    """
    if bands * rows > signatures.shape[1] or out.shape[1] != bands:
        raise ValueError("band_hashes: bands * rows must be <= num_perm, and out must have `bands` columns")
    for doc in range(signatures.shape[0]):
        for band in range(bands):
            band_hash = mix64(np.uint64(band + 1))
            for row in range(rows):
                band_hash = (band_hash ^ np.uint64(signatures[doc, band * rows + row])) * MULTIPLIER_1
                band_hash ^= band_hash >> SHIFT_32
            out[doc, band] = mix64(band_hash)


def _checked(ngram: int) -> int:
    if ngram < 1:
        raise ValueError(f"ngram must be >= 1 token, got {ngram}")
    return ngram
