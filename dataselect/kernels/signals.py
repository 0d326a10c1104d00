"""Counts of each document from which all quality signals follow: one pass, document by document.

A document is copied to a padded buffer (padded.py), stays in the first-level cache, and is read by as many of
these groups as are wanted. `document_counts` is the one compiled kernel; it writes integers, and the
stages make ratios of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from dataselect.kernels import lines, unicode_tables
from dataselect.kernels.layout import (
    BREAK_LINES_AT,
    C4,
    C4_AT,
    CHARACTERS,
    CHARACTERS_AT,
    GENERAL_AT,
    LINES,
    LINES_AT,
    MEDIAN_TWICE,
    MOST_LINES,
    MOST_WORDS,
    N_ALNUM_FIELDS_AT,
    N_ALPHABETIC,
    N_CHARS,
    N_COUNTS,
    N_CURLY,
    N_ELLIPSIS_SIGNS,
    N_END_NEWLINES,
    N_HASH_SIGNS,
    N_LAST_NEWLINE,
    N_LONG_SENTENCES,
    N_NEWLINES,
    N_NUMERIC,
    N_SENTENCES,
    N_SPACED_DOTS,
    N_THREE_DOTS,
    N_UPPER,
    N_WORD_COUNTS,
    NORMAL,
    NORMAL_AT,
    NORMAL_WORDS,
    PARAGRAPHS_AT,
    RAW_AT,
    RAW_WORDS,
    REPETITION,
    SPACY,
    SPACY_AT,
    SPACY_REPETITION,
    SPACY_WORDS,
    SPLIT,
    SPLIT_AT,
    SPLIT_REPETITION,
    SPLIT_WORDS,
    UNISEG,
    UNISEG_AT,
    UNISEG_REPETITION,
)
from dataselect.kernels.lines import (
    count_break_lines,
    count_c4,
    count_lines,
    count_newlines,
    count_paragraphs,
)
from dataselect.kernels.padded import (
    PAD,
    break_bits,
    copy_document,
    count_chars,
    decode_valid,
    letter_bits,
    space_bits,
)
from dataselect.kernels.primitives import (
    BLOCK,
    I32,
    I64,
    U8,
    U32,
    U64,
    advance,
    helper,
    low_bits,
    pointer_to,
    popcount,
    range_mask,
    trailing_zeros,
)
from dataselect.kernels.repetition import count_repetition
from dataselect.kernels.signal_tables import (
    ALNUM,
    ALPHABETIC,
    NUMERIC,
    PAGE_OF,
    PAGES,
    SPECIAL_BITS,
    SPECIAL_KEYS,
    SPECIAL_LENGTHS,
    SPECIAL_VALUES,
    STOP_KEYS,
    STOP_NUMBERS,
    UNIT_KEYS,
    UPPER,
    WORD,
)
from dataselect.kernels.spacy_words import flags_at
from dataselect.kernels.tokens import ONE
from dataselect.kernels.words import read_words, word_scratch


@helper
def count_general(text: Any, n_bytes: int, out: Any) -> None:
    hashes = three_dots = ellipses = spaced = 0
    after_dots = after_spaced = position = 0
    while position < n_bytes:
        known = low_bits(n_bytes - position)
        hashes += popcount(range_mask(text, position, 0, 35, 0) & known)
        wide = range_mask(text, position, 0, 0xE2, 0) & range_mask(text, position + 1, 0, 0x80, 0)
        ellipses += popcount(wide & range_mask(text, position + 2, 0, 0xA6, 0) & known)
        period = range_mask(text, position, 0, 46, 0) & range_mask(text, position + 2, 0, 46, 0) & known
        found = period & range_mask(text, position + 1, 0, 46, 0)
        while found:
            at = position + trailing_zeros(found)
            found &= found - ONE
            if at >= after_dots:
                three_dots += 1
                after_dots = at + 3
        period &= range_mask(text, position + 1, 0, 32, 0) & range_mask(text, position + 3, 0, 32, 0)
        found = period & range_mask(text, position + 4, 0, 46, 0)
        while found:
            at = position + trailing_zeros(found)
            found &= found - ONE
            if at >= after_spaced:
                spaced += 1
                after_spaced = at + 5
        position += BLOCK
    out[N_CHARS] = count_chars(text, np.int64(0), n_bytes)
    out[N_HASH_SIGNS], out[N_THREE_DOTS], out[N_ELLIPSIS_SIGNS] = hashes, three_dots, ellipses
    out[N_SPACED_DOTS] = spaced
    out[N_NEWLINES] = count_newlines(text, n_bytes)
    out[N_LAST_NEWLINE] = n_bytes > 0 and text[n_bytes - 1] == 10
    out[N_END_NEWLINES] = out[N_LAST_NEWLINE] + (n_bytes > 0 and text[0] == 10)


@helper
def count_characters(text: Any, n_bytes: int, tables: Any, out: Any) -> None:
    for i in range(6):
        out[i] = 0
    n_words = 0
    in_word = False
    position = np.int64(0)
    while position < n_bytes:
        code_point, n_read = decode_valid(text, position)
        flags = flags_at(code_point, tables[0])
        out[N_UPPER] += (flags & UPPER) != 0
        out[N_NUMERIC] += (flags & NUMERIC) != 0
        out[N_ALPHABETIC] += (flags & ALPHABETIC) != 0
        out[N_CURLY] += code_point == 123 or code_point == 125
        if flags & WORD and not in_word:
            n_words += 1
            in_word = True
        elif flags & 1:
            in_word = False
        position += n_read
        stop = code_point == 46 or code_point == 33 or code_point == 63
        if (stop or position >= n_bytes) and n_words:
            out[N_SENTENCES] += 1
            out[N_LONG_SENTENCES] += n_words > 2
            n_words = 0
        in_word = in_word and not stop


@helper
def count_alnum_fields(text: Any, n_bytes: int, tables: Any) -> int:
    n = 0
    after_space = True
    for i in range(n_bytes):
        byte = text[i]
        space = byte == 32 or 9 <= byte <= 13 or byte == 0
        if after_space and not space:
            n += (flags_at(decode_valid(text, i)[0], tables[0]) & ALNUM) != 0
        after_space = space
    return n


@helper
def median_twice(lengths: Any, n_words: int) -> int:
    """Twice the median of the lengths that a histogram of 256 bins holds; 0 without words."""
    total = np.int64(0)
    seen, length = np.int64(0), -1
    for rank in (((n_words - 1) >> 1) + 1, (n_words >> 1) + 1):
        while seen < rank and length < 255:
            length += 1
            seen += lengths[length]
        total += length
    return total if n_words else np.int64(0)


@helper
def count_words_group(
    text: Any,
    n_bytes: int,
    kind: int,
    repeated: bool,
    bits: Any,
    marks: Any,
    tables: Any,
    scratch: Any,
    recent: Any,
    words_out: Any,
    table: Any,
    lists: Any,
    out: Any,
) -> None:
    """Counts of one definition of words, and of its repetition where wanted."""
    read_words(text, n_bytes, kind, bits, marks, tables, scratch, recent, words_out)
    counts = words_out[3]
    for i in range(N_WORD_COUNTS):
        out[i] = counts[i]
    out[MEDIAN_TWICE] = median_twice(words_out[2], counts[0]) if kind == SPLIT else 0
    if repeated:
        count_repetition(words_out, kind == NORMAL, table, lists, advance(out, REPETITION))


_BYTES, _WORD, _INT, _LONG = (
    types.Array(t, 1, "C") for t in (types.uint8, types.uint64, types.int32, types.int64)
)
_SIGNATURE = types.void(
    I64,
    U8,
    types.int64,
    types.UniTuple(types.int64, 4),
    types.Tuple((U8, U32, U64, I32, U64, U64, _BYTES, U8, I32, U8, U32, I32, U64)),
    types.UniTuple(_BYTES, 2),
    types.UniTuple(_WORD, 11),
    types.Tuple((_LONG, _INT, _INT, _INT, _INT)),
    types.Tuple((_WORD, _INT)),
    types.Tuple((_WORD, _LONG, _LONG, _LONG)),
    types.UniTuple(_WORD, 2),
    types.UniTuple(_INT, 2),
    types.UniTuple(_INT, 4),
    types.Array(types.int64, 2, "C"),
)


@helper
def group_of(kind: int) -> tuple[int, int, int]:
    """(group, group with repetition, first count) of a definition of words."""
    if kind == SPACY:
        return SPACY_WORDS | C4, SPACY_REPETITION, SPACY_AT
    if kind == UNISEG:
        return 0, UNISEG_REPETITION, UNISEG_AT
    if kind == SPLIT:
        return SPLIT_WORDS, SPLIT_REPETITION, SPLIT_AT
    if kind == NORMAL:
        return 0, NORMAL_WORDS, NORMAL_AT
    return RAW_WORDS, 0, RAW_AT


@njit(_SIGNATURE, cache=True, nogil=True)
def _document_counts(
    offsets: np.ndarray,
    data: np.ndarray,
    wanted: int,
    rules: Any,
    arrays: Any,
    buffers: Any,
    bits: Any,
    chunk: Any,
    newest: Any,
    rows: Any,
    keys: Any,
    values: Any,
    lists: Any,
    out: np.ndarray,
) -> None:
    source, text = pointer_to(data), pointer_to(buffers[0])
    tables = (
        (pointer_to(arrays[0]), pointer_to(arrays[1])),  # character classes
        (
            pointer_to(arrays[2]),
            pointer_to(arrays[3]),
            pointer_to(arrays[10]),
            pointer_to(arrays[12]),
        ),  # special
        pointer_to(arrays[4]),  # units
        (pointer_to(arrays[5]), pointer_to(arrays[11])),  # stop words
        pointer_to(arrays[6]),
        (pointer_to(arrays[7]), pointer_to(arrays[8])),  # lower case
        pointer_to(arrays[9]),  # phrases
    )
    both = pointer_to(bits[0]), pointer_to(bits[1]), pointer_to(bits[2])  # spaces, letters, alnums
    marks, breaks = (pointer_to(bits[3]), pointer_to(bits[4])), pointer_to(bits[5])
    spaces = both[0]
    spare = (
        pointer_to(buffers[1]),
        (pointer_to(bits[6]), pointer_to(bits[7]), pointer_to(bits[8])),
        (pointer_to(bits[9]), pointer_to(bits[10])),
    )
    recent = pointer_to(newest[0]), pointer_to(newest[1])
    scratch = (
        pointer_to(chunk[0]),
        pointer_to(chunk[1]),
        pointer_to(chunk[2]),
        pointer_to(chunk[3]),
        pointer_to(chunk[4]),
    )
    n_kept = np.int64(rows[0].size)
    word_rows = pointer_to(rows[0]), pointer_to(rows[1]), pointer_to(rows[2]), pointer_to(rows[3]), n_kept
    first, second = (
        (pointer_to(keys[0]), pointer_to(values[0])),
        (pointer_to(keys[1]), pointer_to(values[1])),
    )
    ngrams = pointer_to(lists[0]), pointer_to(lists[1]), pointer_to(lists[2]), pointer_to(lists[3])
    short_chars, c4_rules = rules[0], (rules[1], rules[2], rules[3])
    for doc in range(offsets.size - 1):
        row = advance(pointer_to(out), doc * N_COUNTS)
        n_bytes = offsets[doc + 1] - offsets[doc]
        is_ascii = copy_document(source, offsets[doc], offsets[doc + 1], text)
        count_general(text, n_bytes, advance(row, GENERAL_AT))
        space_bits(text, n_bytes, is_ascii, spaces)
        letter_bits(text, n_bytes, both[1], both[2])
        if wanted & CHARACTERS:
            count_characters(text, n_bytes, tables, advance(row, CHARACTERS_AT))
        if wanted & LINES:
            n_newlines = row[GENERAL_AT + N_NEWLINES]
            count_lines(
                text,
                n_bytes,
                n_newlines,
                short_chars,
                spaces,
                tables,
                (first, second),
                advance(row, LINES_AT),
            )
            count_paragraphs(text, n_bytes, n_newlines, spaces, (first, second), advance(row, PARAGRAPHS_AT))
        if wanted & (LINES | C4):
            break_bits(text, n_bytes, is_ascii, breaks)
            count_break_lines(text, n_bytes, spaces, breaks, advance(row, BREAK_LINES_AT))
        if wanted & UNISEG_REPETITION:
            row[N_ALNUM_FIELDS_AT] = count_alnum_fields(text, n_bytes, tables)
        for kind in range(5):
            group, repeated, at = group_of(kind)
            if wanted & (group | repeated):
                count_words_group(
                    text,
                    n_bytes,
                    kind,
                    wanted & repeated != 0,
                    both,
                    marks,
                    tables,
                    scratch,
                    recent,
                    word_rows,
                    first,
                    ngrams,
                    advance(row, at),
                )
            if kind == SPACY and wanted & C4:
                count_c4(
                    text,
                    n_bytes,
                    is_ascii,
                    spaces,
                    breaks,
                    marks,
                    c4_rules,
                    tables,
                    spare,
                    scratch,
                    recent,
                    word_rows,
                    advance(row, C4_AT),
                )


_PHRASES = (
    ("lorem ipsum", lines.LOREM),
    ("javascript", lines.JAVASCRIPT),
    ("terms of use", lines.POLICY),
    ("privacy policy", lines.POLICY),
    ("cookie policy", lines.POLICY),
    ("uses cookies", lines.POLICY),
    ("use of cookies", lines.POLICY),
    ("use cookies", lines.POLICY),
    ("[edit]", 0),
    ("[citation needed]", 0),
)


def _phrase_rows() -> np.ndarray:
    """uint8[32 * n]: a phrase, zeros, its bit at 30 and its length at 31."""
    rows = np.zeros((len(_PHRASES), 32), np.uint8)
    for row, (phrase, bit) in zip(rows, _PHRASES, strict=True):
        row[: len(phrase)] = np.frombuffer(phrase.encode(), np.uint8)
        row[30], row[31] = bit, len(phrase)
    return rows.reshape(-1)


PHRASES = _phrase_rows()
"""What `lines.find_phrases` looks for."""


def document_counts(
    offsets: np.ndarray,
    data: np.ndarray,
    wanted: int,
    out: np.ndarray,
    short_chars: int = 30,
    min_line_words: int = 3,
    max_word_chars: int = 1000,
    terminal: bool = True,
) -> None:
    """Write the counts of each document.

    offsets          int64[n_docs + 1]        document i is data[offsets[i]:offsets[i + 1]]
    data             uint8[:]                 UTF-8; a byte that is not part of a character is read as U+001A
    wanted           sum of the groups to fill; C4 fills SPACY_WORDS, too
    out              int64[n_docs, N_COUNTS]  places of groups that are not wanted are left as they are
    short_chars      most code points of a short line (FineWeb: 30)
    min_line_words, max_word_chars, terminal  C4's line filter
    """
    n_bytes = int(np.diff(offsets).max(initial=0))
    n_words = (
        min(n_bytes // 2 + 1 if not wanted & ~(SPLIT_WORDS | SPLIT_REPETITION) else n_bytes, MOST_WORDS) + 1
    )
    n_slots = 1 << (2 * max(n_words, 8) - 1).bit_length()
    line_slots = 1 << (2 * max(min(n_bytes + 1, MOST_LINES), 8) - 1).bit_length() if wanted & LINES else 16
    n_blocks = n_bytes // BLOCK + 2
    spare_bytes = n_bytes if wanted & C4 else 0
    padded = np.empty(n_bytes + 2 * PAD + BLOCK, np.uint8)
    padded[:PAD] = 0
    spare = np.zeros(spare_bytes + 3 * PAD, np.uint8)
    lowered, chunk, newest, words_rows = word_scratch(n_words)
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
        PHRASES,
        SPECIAL_LENGTHS,
        STOP_NUMBERS,
        SPECIAL_BITS,
    )
    spare_blocks = spare_bytes // BLOCK + 2
    bits = tuple(np.empty(n, np.uint64) for n in 6 * (n_blocks,) + 5 * (spare_blocks,))
    keys = np.empty(max(n_slots, line_slots), np.uint64), np.empty(line_slots, np.uint64)
    values = np.empty(max(n_slots, line_slots), np.int32), np.empty(line_slots, np.int32)
    lists = tuple(np.empty(n_words, np.int32) for _ in range(4))
    rules = short_chars, min_line_words, max_word_chars, int(terminal)
    _document_counts(
        offsets,
        data,
        wanted,
        rules,
        tables,
        (padded[PAD:], spare[PAD:]),
        bits,
        chunk,
        newest,
        words_rows,
        keys,
        values,
        lists,
        out,
    )
