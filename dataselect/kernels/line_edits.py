"""Which bytes of a document line filters take away, as edit spans."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from dataselect.kernels.layout import N_KEPT_LINES
from dataselect.kernels.lines import (
    BRACKET,
    citation_bytes,
    find_newline,
    find_phrases,
    judge_c4_line,
    line_words,
    matches,
)
from dataselect.kernels.padded import (
    PAD,
    break_bits,
    copy_document,
    decode_valid,
    next_set,
    next_unset,
    space_bits,
    strip,
)
from dataselect.kernels.primitives import BLOCK, I64, U8, U32, advance, helper, pointer_to
from dataselect.kernels.signal_tables import DIGIT, PAGE_OF, PAGES, UPPER, WORD
from dataselect.kernels.signals import PHRASES
from dataselect.kernels.spacy_words import flags_at

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


_CART, _MORE, _SIGN_IN, _COUNTED = 0, 14, 27, 35
_LINE_PHRASES = np.frombuffer(
    b"items in cart\0read more...\0sign-in\0likes\0shares\0comments\0retweets\0reposts\0quotes\0bookmarks\0"
    b"upvotes\0downvotes\0downloads\0views\0followers\0\0",
    np.uint8,
)
"""Ends of words are 0; what counters count begins at _COUNTED."""


@helper
def is_counter(text: Any, start: int, end: int, spaces: Any, classes: Any, phrases: Any) -> bool:
    r"""Whether the line is `\W*\d[\d,.]*[kmb]?\s+(likes|shares|...)\W*`, in any case."""
    at, n_read = start, np.int64(0)
    while at < end:
        code_point, n_read = decode_valid(text, at)
        if flags_at(code_point, classes) & WORD:
            break
        at += n_read
    if at == end or not flags_at(decode_valid(text, at)[0], classes) & DIGIT:
        return False
    while at < end:
        code_point, n_read = decode_valid(text, at)
        if not (code_point == 44 or code_point == 46 or flags_at(code_point, classes) & DIGIT):
            break
        at += n_read
    unit = text[at] | 32
    if at < end and (unit == 107 or unit == 109 or unit == 98):
        at += 1
    noun = next_unset(spaces, at, end)
    word = np.int64(_COUNTED)
    found = np.int64(0)
    while noun > at and found == 0 and phrases[word] != 0:
        length = np.int64(0)
        while phrases[word + length] != 0:
            length += 1
        if noun + length <= end and matches(text, noun, phrases, word):
            found = length
        word += length + 1
    at = noun + found
    while found and at < end:
        code_point, n_read = decode_valid(text, at)
        if flags_at(code_point, classes) & WORD:
            return False
        at += n_read
    return found > 0


@helper
def refinedweb_drops(
    text: Any, start: int, end: int, n_words: int, rules: Any, spaces: Any, classes: Any, phrases: Any
) -> bool:
    """Whether RefinedWeb's line filters take a line out that is not empty."""
    max_upper, min_words, _ = rules
    n_chars = n_upper = n_digits = np.int64(0)
    at = start
    while at < end:
        code_point, n_read = decode_valid(text, at)
        flags = flags_at(code_point, classes)
        n_upper += flags & UPPER != 0
        n_digits += flags & DIGIT != 0
        n_chars += 1
        at += n_read
    if n_upper > max_upper * n_chars or n_digits == n_chars or n_words < min_words:
        return True
    return is_counter(text, start, end, spaces, classes, phrases)


@helper
def cut_phrases(text: Any, start: int, end: int, phrases: Any, pieces: Any, n: int) -> int:
    """Pieces of a short line without the phrases of RefinedWeb; returns their number with those before."""
    first = n
    if end - start >= 7 and matches(text, start, phrases, _SIGN_IN):
        n = put_piece(start, start, False, pieces, n)
        start += 7
        start += start < end and (text[start] == 32 or 9 <= text[start] <= 13)
    if end - start >= 12 and matches(text, end - 12, phrases, _MORE):
        end -= 12
        end -= start < end and (text[end - 1] == 32 or 9 <= text[end - 1] <= 13)
    at = start
    while at + 13 <= end:
        if matches(text, at, phrases, _CART):
            stop = at - (start < at and (text[at - 1] == 32 or 9 <= text[at - 1] <= 13))
            if start < stop or n == first:
                n = put_piece(start, stop, False, pieces, n)
            start = at = at + 13
        else:
            at += 1
    return put_piece(start, end, False, pieces, n) if start < end or n == first else n


@helper
def refinedweb_pieces(
    text: Any, n_bytes: int, spaces: Any, rules: Any, tables: Any, pieces: Any, counts: Any
) -> int:
    """What RefinedWeb's line filters leave; counts[0] words of the document, counts[1] words that go."""
    classes, phrases = tables
    n = start = np.int64(0)
    while start <= n_bytes:
        end = find_newline(text, start, n_bytes)
        n_words = line_words(text, start, end, spaces, n_bytes)[0]
        counts[0] += n_words
        n_left, first = np.int64(0), n
        if start == end:
            n = put_piece(start, end, False, pieces, n)
        elif not refinedweb_drops(text, start, end, n_words, rules, spaces, classes, phrases):
            if n_words <= rules[2]:
                n = cut_phrases(text, start, end, phrases, pieces, n)
            else:
                n = put_piece(start, end, False, pieces, n)
            for i in range(first, n):
                n_left += line_words(text, pieces[0][i], pieces[1][i], spaces, n_bytes)[0]
            if n_left == 0 and n_words > 0:
                n = first
        counts[1] += n_words - n_left
        if n > first:
            pieces[2][first] = first > 0
        start = end + 1
    return n


@njit(
    types.void(
        I64, U8, types.Tuple((types.float64, types.int64, types.int64)), types.Tuple((U8, U32, U8)),
        _BYTES, types.Array(types.uint64, 1, "C"), types.Tuple((_LONGS, _LONGS, _BYTES)), _LONGS,
        types.Tuple((_LONGS, _LONGS, _BYTES)), types.Array(types.int64, 2, "C"),
    ),
    cache=True, nogil=True,
)  # fmt: skip
def _refinedweb_edits(
    offsets: np.ndarray,
    data: np.ndarray,
    rules: Any,
    arrays: Any,
    buffer: np.ndarray,
    bits: np.ndarray,
    scratch: Any,
    first_edit: np.ndarray,
    out: Any,
    counts: np.ndarray,
) -> None:
    source, text, spaces = pointer_to(data), pointer_to(buffer), pointer_to(bits)
    tables = (pointer_to(arrays[0]), pointer_to(arrays[1])), pointer_to(arrays[2])
    pieces = pointer_to(scratch[0]), pointer_to(scratch[1]), pointer_to(scratch[2])
    edits = pointer_to(out[0]), pointer_to(out[1]), pointer_to(out[2])
    n_edits = np.int64(0)
    for doc in range(offsets.size - 1):
        first_edit[doc] = n_edits
        n_bytes = offsets[doc + 1] - offsets[doc]
        is_ascii = copy_document(source, offsets[doc], offsets[doc + 1], text)
        space_bits(text, n_bytes, is_ascii, spaces)
        n = refinedweb_pieces(
            text, n_bytes, spaces, rules, tables, pieces, advance(pointer_to(counts), 2 * doc)
        )
        first, n = strip_pieces(spaces, pieces, n)
        n_edits = put_edits(text, n_bytes, pieces, first, n, edits, n_edits)
    first_edit[offsets.size - 1] = n_edits


def refinedweb_edits(
    offsets: np.ndarray, data: np.ndarray, max_upper: float = 0.5, min_words: int = 2, short_words: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What RefinedWeb's line filters (arXiv 2306.01116, appendix G.2, as in DCLM) take out of each document.

    offsets, data  as for `signals.document_counts`
    Lines end at newlines; empty ones stay. A line goes with a larger share of upper-case code points than
    max_upper, of digits alone, with fewer words than min_words, or that is a counter; out of those of at most
    short_words words go "items in cart", "Read more..." at the end and "Sign-in" at the start.
    Returns what `c4_edits` does, and int64[n_docs, 2]: words of each document, and words that go.
    """
    n_docs, n_bytes = len(offsets) - 1, int(np.diff(offsets).max(initial=0))
    used = data[offsets[0] : offsets[-1]]
    # A line more than newlines, and a piece more for each phrase.
    most = int((used == ord("\n")).sum()) + len(used) // 13 + 2 * n_docs + 2
    text = np.zeros(n_bytes + 2 * PAD + BLOCK, np.uint8)[PAD:]
    pieces, edits = (
        (np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.uint8)) for _ in range(2)
    )
    first, counts = np.empty(n_docs + 1, np.int64), np.zeros((n_docs, 2), np.int64)
    _refinedweb_edits(
        offsets, data, (max_upper, min_words, short_words), (PAGE_OF, PAGES, _LINE_PHRASES), text,
        np.empty(n_bytes // BLOCK + 2, np.uint64), pieces, first, edits, counts,
    )  # fmt: skip
    return first, *(values[: first[-1]].copy() for values in edits), counts
