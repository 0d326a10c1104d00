"""Lines, paragraphs and C4's line filter over a padded document."""

from __future__ import annotations

from typing import Any

import numpy as np

from dataselect.kernels.layout import (
    DUP_ALL,
    DUP_LATER,
    DUP_LATER_CHARS,
    MOST_LINES,
    N_BREAK_BULLETS,
    N_BREAK_ELLIPSIS,
    N_BREAK_LINES,
    N_C4_COUNTS,
    N_C4_SENTENCES,
    N_CURLY_LINES,
    N_EMPTY,
    N_FEW_WORDS,
    N_JAVASCRIPT,
    N_KEPT_LINES,
    N_LINE_COUNTS,
    N_LONG_WORD,
    N_LOREM_LINES,
    N_NO_TERMINAL,
    N_NONBLANK,
    N_POLICY,
    N_RAW_ELLIPSIS,
    N_RPJ_BULLETS,
    N_RPJ_ELLIPSIS,
    N_RPJ_TERMINAL,
    N_SEGMENT_COUNTS,
    N_SEGMENTS,
    N_SHORT,
    N_STAR_BULLETS,
    N_STRIPPED_BULLETS,
    N_STRIPPED_ELLIPSIS,
    N_TERMINAL,
    NONBLANK_CHARS,
    NONBLANK_LATER_CHARS,
    SPACY,
    STRIPPED_ALL,
)
from dataselect.kernels.padded import (
    count_chars,
    decode_valid,
    last_set,
    letter_bits,
    next_set,
    space_bits,
    span_hash,
    strip,
)
from dataselect.kernels.primitives import (
    BLOCK,
    advance,
    helper,
    low_bits,
    popcount,
    range_mask,
    trailing_zeros,
)
from dataselect.kernels.repetition import clear_table, find_slot
from dataselect.kernels.signal_tables import BULLET, DIGIT, TERMINAL
from dataselect.kernels.spacy_words import flags_at
from dataselect.kernels.tokens import ALL_BITS, ONE
from dataselect.kernels.words import count_sentences, read_words

LOREM, JAVASCRIPT, POLICY, CURLY, BRACKET = 1, 2, 4, 8, 16


@helper
def last_char(text: Any, start: int, end: int) -> int:
    """The code point before `end`, or -1 where start == end."""
    if start == end:
        return np.int64(-1)
    position = end - 1
    while text[position] & 0xC0 == 0x80:
        position -= 1
    return decode_valid(text, position)[0]


@helper
def ends_ellipsis(text: Any, start: int, end: int) -> int:
    """1 where text[start:end] ends with "..." or U+2026, 2 where with ". . .", else 0."""
    if end - start < 3:
        return 0
    a, b, c = text[end - 3], text[end - 2], text[end - 1]
    if (a == 46 and b == 46 and c == 46) or (a == 0xE2 and b == 0x80 and c == 0xA6):
        return 1
    if end - start >= 5 and a == 46 and b == 32 and c == 46 and text[end - 5] == 46 and text[end - 4] == 32:
        return 2
    return 0


@helper
def add_copy(key: Any, n_chars: int, table: Any, mask: int, is_room: bool, out: Any) -> bool:
    """Count a copy of a segment: out[0], out[1] all copies of repeated ones; whether it is not the first."""
    keys, values = table
    slot = find_slot(keys, mask, key)
    if keys[slot] == 0:
        if is_room:
            keys[slot] = max(key, ONE)
            values[slot] = 1
        return False
    copies = 2 if values[slot] == 1 else 1
    values[slot] = 2
    out[0] += copies
    out[1] += copies * n_chars
    return True


@helper
def add_segment(
    text: Any, start: int, end: int, spaces: Any, tables: Any, masks: Any, out: Any
) -> tuple[int, int]:
    """Count one line or paragraph; returns its stripped span. tables: raw and stripped keys and values."""
    out[N_SEGMENTS] += 1
    if start == end:
        out[N_EMPTY] += 1
        return start, end
    n_chars = count_chars(text, start, end)
    key = span_hash(text, start, end - start)
    is_room = out[N_SEGMENTS] - out[N_EMPTY] <= MOST_LINES
    later = add_copy(key, n_chars, tables[0], masks[0], is_room, advance(out, DUP_ALL))
    out[DUP_LATER] += later
    out[DUP_LATER_CHARS] += n_chars * later
    first, last = strip(spaces, start, end)
    if first < last:
        stripped_chars = n_chars
        if first > start or last < end:
            stripped_chars = count_chars(text, first, last)
            key = span_hash(text, first, last - first)
        out[N_NONBLANK] += 1
        out[NONBLANK_CHARS] += stripped_chars
        out[NONBLANK_LATER_CHARS] += n_chars * later
        add_copy(key, stripped_chars, tables[1], masks[1], is_room, advance(out, STRIPPED_ALL))
    return first, last


@helper
def count_newlines(text: Any, n_bytes: int) -> int:
    n = 0
    position = 0
    while position < n_bytes:
        n += popcount(range_mask(text, position, 0, 10, 0) & low_bits(n_bytes - position))
        position += BLOCK
    return n


@helper
def find_newline(text: Any, position: int, end: int) -> int:
    """Position of the next newline, or `end`."""
    while position < end:
        newlines = range_mask(text, position, 0, 10, 0)
        if newlines:
            return min(position + trailing_zeros(newlines), end)
        position += BLOCK
    return end


@helper
def count_lines(
    text: Any, n_bytes: int, n_newlines: int, short_chars: int, spaces: Any, tables: Any, pair: Any, out: Any
) -> None:
    """Lines between newlines: out[0:N_SEGMENT_COUNTS], then N_LINE_COUNTS counts of what they start and
    end with.
    """
    n_entries = min(n_newlines + 1, np.int64(MOST_LINES))
    masks = clear_table(pair[0][0], n_entries), clear_table(pair[1][0], n_entries)
    for i in range(N_SEGMENT_COUNTS + N_LINE_COUNTS):
        out[i] = 0
    at = N_SEGMENT_COUNTS
    start = np.int64(0)
    while start <= n_bytes:
        end = find_newline(text, start, n_bytes)
        first, last = add_segment(text, start, end, spaces, pair, masks, out)
        if start < end:
            char = text[start]
            out[at + N_STAR_BULLETS] += char == 42 or char == 45
            final = last_char(text, start, end)
            out[at + N_RAW_ELLIPSIS] += final == 0x2026
            if first < last:
                out[at + N_TERMINAL] += (flags_at(final, tables[0]) & TERMINAL) != 0
                out[at + N_SHORT] += end - start <= 4 * short_chars and (
                    end - start <= short_chars or count_chars(text, start, end) <= short_chars
                )
                code_point = decode_valid(text, first)[0]
                out[at + N_STRIPPED_BULLETS] += (
                    code_point == 42 or code_point == 45 or code_point == 0x2022 or code_point == 0x25CF
                )
                ellipsis = ends_ellipsis(text, first, last)
                out[at + N_STRIPPED_ELLIPSIS] += ellipsis > 0
                out[at + N_RPJ_ELLIPSIS] += ellipsis == 1
                out[at + N_RPJ_BULLETS] += (flags_at(code_point, tables[0]) & BULLET) != 0
                final = last_char(text, first, last)
                out[at + N_RPJ_TERMINAL] += final == 46 or final == 33 or final == 63 or final == 0x201D
        start = end + 1


@helper
def count_paragraphs(text: Any, n_bytes: int, n_newlines: int, spaces: Any, pair: Any, out: Any) -> None:
    """Paragraphs of the stripped text, between runs of two and more newlines: out[0:N_SEGMENT_COUNTS]."""
    n_entries = min(n_newlines + 1, np.int64(MOST_LINES))
    masks = clear_table(pair[0][0], n_entries), clear_table(pair[1][0], n_entries)
    for i in range(N_SEGMENT_COUNTS):
        out[i] = 0
    start, stop = strip(spaces, np.int64(0), n_bytes)
    while start <= stop:
        end = find_newline(text, start, stop)
        while end + 1 < stop and text[end + 1] != 10:
            end = find_newline(text, end + 1, stop)
        add_segment(text, start, end, spaces, pair, masks, out)
        start = end
        while start < stop and text[start] == 10:
            start += 1
        if start == stop:
            break


@helper
def count_break_lines(text: Any, n_bytes: int, spaces: Any, breaks: Any, out: Any) -> None:
    """Lines by str.splitlines(): N_BREAK_LINES, N_BREAK_BULLETS, N_BREAK_ELLIPSIS."""
    out[0] = out[1] = out[2] = 0
    start = np.int64(0)
    while start < n_bytes:
        end = min(next_set(breaks, start, n_bytes) + 1, n_bytes)
        first, last = strip(spaces, start, end)
        out[N_BREAK_LINES] += 1
        if first < last:
            code_point = decode_valid(text, first)[0]
            out[N_BREAK_BULLETS] += code_point == 45 or code_point == 0x2022
            out[N_BREAK_ELLIPSIS] += ends_ellipsis(text, first, last) == 1
        start = end


@helper
def matches(text: Any, position: int, phrase: Any, first: int) -> bool:
    """Whether the ASCII letters at `position`, lower-cased, are phrase[first:] up to its 0."""
    i = first
    while phrase[i] != 0:
        byte = text[position + i - first]
        if 65 <= byte <= 90:
            byte |= 32
        if byte != phrase[i]:
            return False
        i += 1
    return True


@helper
def find_signs(text: Any, start: int, end: int) -> int:
    """CURLY | BRACKET: whether text[start:end] has a { or a [."""
    found = 0
    position = start
    while position < end:
        known = low_bits(end - position)
        if range_mask(text, position, 0, 123, 0) & known:
            found |= CURLY
        if range_mask(text, position, 0, 91, 0) & known:
            found |= BRACKET
        position += BLOCK
    return found


@helper
def find_phrases(text: Any, start: int, end: int, phrases: Any) -> int:
    """Which of C4's phrases and signs are in text[start:end]: LOREM | JAVASCRIPT | POLICY | CURLY | BRACKET.

    Candidates are found 64 bytes at a time by the first three letters of a phrase.
    """
    found = find_signs(text, start, end)
    position = start
    while position < end:
        second, third = position + 1, position + 2
        e, o, r = (
            range_mask(text, second, 32, 101, 0),
            range_mask(text, second, 32, 111, 0),
            range_mask(text, third, 32, 114, 0),
        )
        starts = range_mask(text, position, 32, 108, 0) & o & r  # lor
        starts |= range_mask(text, position, 32, 116, 0) & e & r  # ter
        starts |= range_mask(text, position, 32, 99, 0) & o & range_mask(text, third, 32, 111, 0)  # coo
        pri = range_mask(text, position, 32, 112, 0) & range_mask(text, second, 32, 114, 0)
        starts |= pri & range_mask(text, third, 32, 105, 0)
        use = range_mask(text, position, 32, 117, 0) & range_mask(text, second, 32, 115, 0)
        starts |= use & range_mask(text, third, 32, 101, 0)
        jav = range_mask(text, position, 32, 106, 0) & range_mask(text, second, 32, 97, 0)
        starts |= jav & range_mask(text, third, 32, 118, 0)
        starts &= low_bits(end - position)
        while starts:
            at = position + trailing_zeros(starts)
            starts &= starts - ONE
            for k in range(8):
                n = phrases[32 * k + 31]
                if at + n <= end and matches(text, at, phrases, 32 * k):
                    found |= phrases[32 * k + 30]
        position += BLOCK
    return found


@helper
def citation_bytes(text: Any, position: int, end: int, classes: Any, phrases: Any) -> int:
    r"""Bytes of the `\[\d*]|\[edit]|\[citation needed]` that begins at `position`, or 0."""
    if text[position] != 91:
        return np.int64(0)
    at = position + 1
    while at < end:
        code_point, n_read = decode_valid(text, at)
        if not flags_at(code_point, classes) & DIGIT:
            break
        at += n_read
    if at < end and text[at] == 93:
        return at + 1 - position
    for k in range(8, 10):
        length = np.int64(phrases[32 * k + 31])
        same = position + length <= end
        i = 0
        while same and i < length:
            same = text[position + i] == phrases[32 * k + i]
            i += 1
        if same:
            return length
    return np.int64(0)


@helper
def has_citation(text: Any, start: int, end: int, classes: Any, phrases: Any) -> bool:
    position = start
    while position < end:
        brackets = range_mask(text, position, 0, 91, 0) & low_bits(end - position)
        while brackets:
            if citation_bytes(text, position + trailing_zeros(brackets), end, classes, phrases):
                return True
            brackets &= brackets - ONE
        position += BLOCK
    return False


@helper
def remove_citations(text: Any, start: int, end: int, classes: Any, phrases: Any, spare: Any) -> int:
    """Copy text[start:end] to `spare` without its citations; returns its bytes."""
    n = np.int64(0)
    position = start
    while position < end:
        skip = citation_bytes(text, position, end, classes, phrases)
        if skip:
            position += skip
        else:
            spare[n] = text[position]
            n += 1
            position += 1
    for i in range(n, n + BLOCK):
        spare[i] = 32
    return n


@helper
def count_chunks(spaces: Any, start: int, end: int) -> int:
    """Runs between white space in text[start:end]."""
    n = np.int64(0)
    before = ONE
    for b in range(start >> 6, (end + 63) >> 6):
        space, known = spaces[b], low_bits(end - b * BLOCK)
        if b == start >> 6:
            space |= low_bits(start & 63)
            known &= ALL_BITS << np.uint64(start & 63)
        n += popcount((space << ONE | before) & ~space & known)
        before = space >> np.uint64(63)
    return n


@helper
def has_long_word(text: Any, start: int, end: int, spaces: Any, longest: int) -> bool:
    """Whether a word between white space has more than `longest` code points."""
    while end - start > longest:
        space = last_set(spaces, start, start + longest + 1)
        if space >= start:  # nothing before it is longer
            start = space + 1
            continue
        stop = next_set(spaces, start, end)
        if count_chars(text, start, stop) > longest:
            return True
        start = stop
    return False


@helper
def line_words(text: Any, start: int, end: int, spaces: Any, longest: int) -> tuple[int, bool]:
    """(words between white space, whether one has more than `longest` code points) of a line."""
    return count_chunks(spaces, start, end), has_long_word(text, start, end, spaces, longest)


@helper
def ends_c4(text: Any, start: int, end: int) -> bool:
    """One of . ? ! " ' at the end, and not "..."."""
    if start == end:
        return False
    final = text[end - 1]
    if final == 46:
        return not (end - start >= 3 and text[end - 2] == 46 and text[end - 3] == 46)
    return final == 63 or final == 33 or final == 34 or final == 39


@helper
def judge_c4_line(
    text: Any,
    start: int,
    end: int,
    spaces: Any,
    rules: Any,
    classes: Any,
    phrases: Any,
    anything: int,
    spare: Any,
) -> tuple[int, int, int]:
    """What C4's line filter, as in datatrove, does with a stripped line: (verdict, what was found, n).

    verdict: the place of its count (N_KEPT_LINES where it stays). n: bytes of the line without its citations,
    which is in `spare`, or -1 where it has none and was not copied.
    rules: least words and most code points of a word of a line, whether terminal punctuation is needed;
    anything: what `find_phrases` finds in the whole document.
    """
    min_words, longest_word, terminal = rules
    n_words, too_long = line_words(text, start, end, spaces, longest_word)
    if too_long:
        return N_LONG_WORD, 0, np.int64(-1)
    found = 0
    if anything & (LOREM | JAVASCRIPT | POLICY):
        found = find_phrases(text, start, end, phrases)
    elif anything:
        found = find_signs(text, start, end)
    n = np.int64(-1)
    if found & BRACKET and has_citation(text, start, end, classes, phrases):
        n = remove_citations(text, start, end, classes, phrases, spare)
        found = find_phrases(spare, np.int64(0), n, phrases)
    good_end = ends_c4(text, start, end) if n < 0 else ends_c4(spare, np.int64(0), n)
    verdict = N_KEPT_LINES
    if terminal and not good_end:
        verdict = N_NO_TERMINAL
    elif n_words < min_words:
        verdict = N_FEW_WORDS
    elif found & JAVASCRIPT:
        verdict = N_JAVASCRIPT
    elif found & POLICY:
        verdict = N_POLICY
    return verdict, found, n


@helper
def count_c4(
    text: Any,
    n_bytes: int,
    is_ascii: bool,
    spaces: Any,
    breaks: Any,
    marks: Any,
    rules: Any,
    tables: Any,
    spare: Any,
    scratch: Any,
    recent: Any,
    words: Any,
    out: Any,
) -> None:
    """Counts of what C4's line filter does: out[0:N_C4_COUNTS]. rules: see `judge_c4_line`.

    marks: of the document's SPACY words. spare: text, bits and marks for lines without their citations.
    """
    other, other_bits, other_marks = spare
    for i in range(N_C4_COUNTS):
        out[i] = 0
    position = np.int64(0)
    anything = find_phrases(text, position, n_bytes, tables[6])
    while position < n_bytes:
        stop = min(next_set(breaks, position, n_bytes) + 1, n_bytes)
        start, end = strip(spaces, position, stop)
        position = stop
        verdict, found, n = judge_c4_line(
            text, start, end, spaces, rules, tables[0], tables[6], anything, other
        )
        out[verdict] += 1
        if verdict == N_KEPT_LINES or verdict == N_JAVASCRIPT or verdict == N_POLICY:
            out[N_LOREM_LINES] += found & LOREM != 0
            out[N_CURLY_LINES] += verdict != N_JAVASCRIPT and found & CURLY != 0
        if verdict == N_KEPT_LINES and n < 0:
            out[N_C4_SENTENCES] += count_sentences(start, end, marks)
        elif verdict == N_KEPT_LINES:
            space_bits(other, n, is_ascii, other_bits[0])
            letter_bits(other, n, other_bits[1], other_bits[2])
            read_words(other, n, np.int64(SPACY), other_bits, other_marks, tables, scratch, recent, words)
            out[N_C4_SENTENCES] += count_sentences(np.int64(0), n, other_marks)
