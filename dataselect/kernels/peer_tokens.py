r"""Tokens as other tools cut them, as lists of 64-bit hashes: what their shingles are made of.

spacy_tokens   spaCy's words (datatrove), of text that is normalised already; see spacy_words.py
split_tokens   re.split(r"\W", text.lower()), empty strings included (text-dedup)
code_points    every code point as it is (NeMo Curator)

Each takes (offsets int64[n_docs + 1], data uint8[:], UTF-8) and gives (first int64[n_docs + 1], hashes
uint64[:]): document i has the tokens hashes[first[i]:first[i + 1]]. A byte that is not part of a character is
U+001A for spaCy, a separator for split_tokens, and a token of its own for code_points.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from dataselect.kernels import unicode_tables
from dataselect.kernels.layout import N_WORDS, SPACY
from dataselect.kernels.padded import PAD, copy_document, letter_bits, space_bits
from dataselect.kernels.primitives import BLOCK, I32, I64, U8, U32, U64, mix64, pointer_to
from dataselect.kernels.signal_tables import (
    PAGE_OF,
    PAGES,
    SPECIAL_BITS,
    SPECIAL_KEYS,
    SPECIAL_LENGTHS,
    SPECIAL_VALUES,
    STOP_KEYS,
    STOP_NUMBERS,
    UNIT_KEYS,
)
from dataselect.kernels.tokens import HASH_START, decode, encode, finish_hash, fold_block
from dataselect.kernels.unicode_tables import WORD
from dataselect.kernels.words import read_words, word_scratch

_DOTTED_I = 0x130
"""str.lower() makes it "i" and U+0307, which is no word character."""
_BYTES, _WORDS, _INTS, _LONGS = (
    types.Array(t, 1, "C") for t in (types.uint8, types.uint64, types.int32, types.int64)
)


@njit(
    types.int64(
        I64,
        U8,
        types.Tuple((U8, U32, U64, I32, U64, U64, _BYTES, U8, I32, U32, I32, U64)),
        _BYTES,
        types.UniTuple(_WORDS, 5),
        types.Tuple((_LONGS, _INTS, _INTS, _INTS, _INTS)),
        types.Tuple((_WORDS, _INTS)),
        types.Tuple((_WORDS, _LONGS, _LONGS, _LONGS)),
        _LONGS,
        _WORDS,
    ),
    cache=True,
    nogil=True,
)
def _spacy_tokens(
    offsets: np.ndarray,
    data: np.ndarray,
    arrays: Any,
    padded: np.ndarray,
    bits: Any,
    chunk: Any,
    newest: Any,
    rows: Any,
    first: np.ndarray,
    out: np.ndarray,
) -> int:
    tables = (
        (pointer_to(arrays[0]), pointer_to(arrays[1])),
        (pointer_to(arrays[2]), pointer_to(arrays[3]), pointer_to(arrays[9]), pointer_to(arrays[11])),
        pointer_to(arrays[4]),
        (pointer_to(arrays[5]), pointer_to(arrays[10])),
        pointer_to(arrays[6]),
        (pointer_to(arrays[7]), pointer_to(arrays[8])),
    )
    source, text = pointer_to(data), pointer_to(padded)
    known = pointer_to(bits[0]), pointer_to(bits[1]), pointer_to(bits[2])  # spaces, letters, alnums
    marks = pointer_to(bits[3]), pointer_to(bits[4])
    scratch = (
        pointer_to(chunk[0]),
        pointer_to(chunk[1]),
        pointer_to(chunk[2]),
        pointer_to(chunk[3]),
        pointer_to(chunk[4]),
    )
    recent = pointer_to(newest[0]), pointer_to(newest[1])
    counts = pointer_to(rows[3])
    words = pointer_to(rows[0]), pointer_to(rows[1]), pointer_to(rows[2]), counts, np.int64(rows[0].size)
    n_total = 0
    first[0] = 0
    for doc in range(offsets.size - 1):
        n_bytes = offsets[doc + 1] - offsets[doc]
        is_ascii = copy_document(source, offsets[doc], offsets[doc + 1], text)
        space_bits(text, n_bytes, is_ascii, known[0])
        letter_bits(text, n_bytes, known[1], known[2])
        read_words(text, n_bytes, np.int64(SPACY), known, marks, tables, scratch, recent, words)
        for i in range(counts[N_WORDS]):
            out[n_total + i] = rows[0][i]
        n_total += counts[N_WORDS]
        first[doc + 1] = n_total
    return n_total


def spacy_tokens(offsets: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Words of spaCy's blank English pipeline, without white space."""
    n_bytes = int(np.diff(offsets).max(initial=0))
    lowered, chunk, newest, rows = word_scratch(n_bytes + 1)
    tables = (
        PAGE_OF,
        PAGES,
        SPECIAL_KEYS,
        SPECIAL_VALUES,
        UNIT_KEYS,
        STOP_KEYS,
        lowered,
        unicode_tables.PAGE_OF,
        unicode_tables.PAGES,
        SPECIAL_LENGTHS,
        STOP_NUMBERS,
        SPECIAL_BITS,
    )
    padded = np.zeros(n_bytes + 2 * PAD + BLOCK, np.uint8)
    bits = tuple(np.empty(n_bytes // BLOCK + 2, np.uint64) for _ in range(5))
    first = np.empty(len(offsets), np.int64)
    out = np.empty(int(offsets[-1] - offsets[0]), np.uint64)
    n_total = _spacy_tokens(offsets, data, tables, padded[PAD:], bits, chunk, newest, rows, first, out)
    return first, out[:n_total].copy()


@njit(types.int64(I64, U8, U8, I32, _LONGS, _WORDS), cache=True, nogil=True)
def _split_tokens(
    offsets: np.ndarray,
    data: np.ndarray,
    page_of: np.ndarray,
    pages: np.ndarray,
    first: np.ndarray,
    out: np.ndarray,
) -> int:
    n_total = 0
    first[0] = 0
    for doc in range(offsets.size - 1):
        position, end = offsets[doc], offsets[doc + 1]
        token_hash, n_bytes = HASH_START, 0
        while position < end:
            code_point, n_read = decode(data, position, end)
            position += n_read
            entry = np.int64(0)
            if code_point >= 0:
                entry = np.int64(pages[np.int64(page_of[code_point >> 8]) << 8 | code_point & 255])
            is_word = code_point >= 0 and entry & 3 == WORD
            if is_word:
                encoded, n_encoded = encode(code_point + (entry >> 2))
                token_hash = fold_block(token_hash, np.uint64(encoded))
                n_bytes += n_encoded
            if not is_word or code_point == _DOTTED_I:
                out[n_total] = finish_hash(token_hash, n_bytes)
                n_total += 1
                token_hash, n_bytes = HASH_START, 0
        out[n_total] = finish_hash(token_hash, n_bytes)
        n_total += 1
        first[doc + 1] = n_total
    return n_total


def split_tokens(offsets: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What stands between non-word characters, lower-cased: n of these make n + 1 tokens.

    Capital sigmas become U+03C3 also at the end of words.
    """
    first = np.empty(len(offsets), np.int64)
    out = np.empty(int(offsets[-1] - offsets[0]) + len(offsets), np.uint64)
    n_total = _split_tokens(offsets, data, unicode_tables.PAGE_OF, unicode_tables.PAGES, first, out)
    return first, out[:n_total].copy()


@njit(types.int64(I64, U8, _LONGS, _WORDS), cache=True, nogil=True)
def _code_points(offsets: np.ndarray, data: np.ndarray, first: np.ndarray, out: np.ndarray) -> int:
    n_total = 0
    first[0] = 0
    for doc in range(offsets.size - 1):
        position, end = offsets[doc], offsets[doc + 1]
        while position < end:
            code_point, n_read = decode(data, position, end)
            value = np.uint64(code_point) if code_point >= 0 else ~np.uint64(data[position])
            out[n_total] = mix64(value ^ HASH_START)
            n_total += 1
            position += n_read
        first[doc + 1] = n_total
    return n_total


def code_points(offsets: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every character, white space, punctuation and capitals included."""
    first = np.empty(len(offsets), np.int64)
    out = np.empty(int(offsets[-1] - offsets[0]), np.uint64)
    n_total = _code_points(offsets, data, first, out)
    return first, out[:n_total].copy()
