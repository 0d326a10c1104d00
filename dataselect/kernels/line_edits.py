"""Which bytes of a document line filters take away, as edit spans."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from dataselect.kernels.layout import N_KEPT_LINES
from dataselect.kernels.lines import BRACKET, citation_bytes, find_phrases, judge_c4_line
from dataselect.kernels.padded import (
    PAD,
    break_bits,
    copy_document,
    next_set,
    next_unset,
    space_bits,
    strip,
)
from dataselect.kernels.primitives import BLOCK, I64, U8, U32, helper, pointer_to
from dataselect.kernels.signal_tables import PAGE_OF, PAGES
from dataselect.kernels.signals import PHRASES

_BYTES, _LONGS = (types.Array(t, 1, "C") for t in (types.uint8, types.int64))
_BREAKS = np.zeros(256, bool)
_BREAKS[[10, 11, 12, 13, 28, 29, 30, 0x85, 0xA8, 0xA9, ord("[")]] = True
"""Bytes after which a kept piece may end: the last ones of line breaks, and the first of a citation."""


@helper
def put_piece(start: int, end: int, newline: bool, pieces: Any, n: int) -> int:
    """Note that text[start:end] stays, after a newline or as it follows; returns the number of pieces."""
    pieces[0][n], pieces[1][n], pieces[2][n] = start, end, newline
    return n + 1


@helper
def c4_pieces(
    text: Any, n_bytes: int, spaces: Any, breaks: Any, rules: Any, tables: Any, spare: Any, pieces: Any
) -> int:
    """What C4's line filter leaves of a document, its ends not yet stripped; returns how many pieces."""
    classes, phrases = tables
    n = position = np.int64(0)
    anything = find_phrases(text, position, n_bytes, phrases)
    while position < n_bytes:
        stop = min(next_set(breaks, position, n_bytes) + 1, n_bytes)
        start, end = strip(spaces, position, stop)
        position = stop
        verdict, _, _ = judge_c4_line(text, start, end, spaces, rules, classes, phrases, anything, spare)
        if verdict != N_KEPT_LINES:
            continue
        newline, first, at = n > 0, n, start
        while anything & BRACKET and at < end:
            skip = citation_bytes(text, at, end, classes, phrases)
            if skip:
                if at > start or n == first:
                    n = put_piece(start, at, newline and n == first, pieces, n)
                start = at = at + skip
            else:
                at += 1
        if start < end or n == first:
            n = put_piece(start, end, newline and n == first, pieces, n)
    return n


@helper
def strip_pieces(spaces: Any, pieces: Any, n: int) -> tuple[int, int]:
    """The pieces [first, n) that are left without the white space at both ends of the text."""
    first = 0
    while first < n:
        pieces[0][first] = next_unset(spaces, pieces[0][first], pieces[1][first])
        pieces[2][first] = 0
        if pieces[0][first] < pieces[1][first]:
            break
        first += 1
    while n > first:
        start, end = strip(spaces, pieces[0][n - 1], pieces[1][n - 1])
        if start < end:
            pieces[1][n - 1] = end
            break
        n -= 1
    return first, n


@helper
def put_edits(text: Any, n_bytes: int, pieces: Any, first: int, n: int, edits: Any, n_edits: int) -> int:
    """Turn what stays into what goes: the gaps between the pieces; returns the number of edits so far."""
    at = np.int64(0)
    for i in range(first, n + 1):
        start = pieces[0][i] if i < n else n_bytes
        newline = i < n and pieces[2][i] != 0
        same = start == at + 1 and text[at] == 10 if newline else start == at
        if not same:
            edits[0][n_edits], edits[1][n_edits], edits[2][n_edits] = at, start, newline
            n_edits += 1
        at = pieces[1][i] if i < n else n_bytes
    return n_edits


@njit(
    types.int64(
        I64, U8, types.UniTuple(types.int64, 3), types.Tuple((U8, U32, U8)), types.UniTuple(_BYTES, 2),
        types.UniTuple(types.Array(types.uint64, 1, "C"), 2), types.Tuple((_LONGS, _LONGS, _BYTES)), _LONGS,
        types.Tuple((_LONGS, _LONGS, _BYTES)),
    ),
    cache=True, nogil=True,
)  # fmt: skip
def _c4_edits(
    offsets: np.ndarray,
    data: np.ndarray,
    rules: Any,
    arrays: Any,
    buffers: Any,
    bits: Any,
    scratch: Any,
    first_edit: np.ndarray,
    out: Any,
) -> int:
    source, text, spare = pointer_to(data), pointer_to(buffers[0]), pointer_to(buffers[1])
    tables = (pointer_to(arrays[0]), pointer_to(arrays[1])), pointer_to(arrays[2])
    spaces, breaks = pointer_to(bits[0]), pointer_to(bits[1])
    pieces = pointer_to(scratch[0]), pointer_to(scratch[1]), pointer_to(scratch[2])
    edits = pointer_to(out[0]), pointer_to(out[1]), pointer_to(out[2])
    n_edits = np.int64(0)
    for doc in range(offsets.size - 1):
        first_edit[doc] = n_edits
        n_bytes = offsets[doc + 1] - offsets[doc]
        is_ascii = copy_document(source, offsets[doc], offsets[doc + 1], text)
        space_bits(text, n_bytes, is_ascii, spaces)
        break_bits(text, n_bytes, is_ascii, breaks)
        n = c4_pieces(text, n_bytes, spaces, breaks, rules, tables, spare, pieces)
        first, n = strip_pieces(spaces, pieces, n)
        n_edits = put_edits(text, n_bytes, pieces, first, n, edits, n_edits)
    first_edit[offsets.size - 1] = n_edits
    return n_edits


def c4_edits(
    offsets: np.ndarray,
    data: np.ndarray,
    min_line_words: int = 3,
    max_word_chars: int = 1000,
    terminal: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What C4's line filter, as in datatrove, takes out of each document.

    offsets, data  as for `signals.document_counts`, and the parameters too
    Returns (first, starts, ends, newlines): int64[n_docs + 1], int64[n], int64[n], uint8[n], as in
    stages.edits.Edits; where newlines[j] is 1, one comes in the place of what goes.
    """
    n_docs, n_bytes = len(offsets) - 1, int(np.diff(offsets).max(initial=0))
    most = int(_BREAKS[data[offsets[0] : offsets[-1]]].sum()) + 2 * n_docs + 2
    text = np.zeros(n_bytes + 2 * PAD + BLOCK, np.uint8)[PAD:]
    spare = np.zeros(n_bytes + 3 * PAD, np.uint8)[PAD:]
    spaces, breaks = (np.empty(n_bytes // BLOCK + 2, np.uint64) for _ in range(2))
    pieces, edits = (
        (np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.uint8)) for _ in range(2)
    )
    first = np.empty(n_docs + 1, np.int64)
    rules = min_line_words, max_word_chars, int(terminal)
    tables = PAGE_OF, PAGES, PHRASES
    n = _c4_edits(offsets, data, rules, tables, (text, spare), (spaces, breaks), pieces, first, edits)
    return first, edits[0][:n].copy(), edits[1][:n].copy(), edits[2][:n].copy()
