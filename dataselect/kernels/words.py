r"""A document as a row of word hashes, by five definitions of a word.

All of them cut at white space, and what a chunk between white space becomes depends on the chunk alone.
Chunks of letters, most of a text, take a short way. A cache of the other chunks' words was tried: it was
hit half of the time and gained nothing.

SPACY      tokens of spaCy's blank English pipeline (datatrove 0.10); see spacy_words.py
UNISEG     words of UAX #29 that start with a letter or digit (DCLM: uniseg, ignore_punctuation)
SPLIT      str.split() (Gopher as in Dolma; DCLM's word lengths and stop words)
NORMAL     str.split() of lower-cased text without ASCII punctuation (RedPajama-V2's normalized words)
WORDPUNCT  runs of `\w` and of other characters (NLTK's WordPunctTokenizer, RedPajama-V2's raw words)

A chunk longer than CHUNK_BYTES is cut after the last character that fits, so that scratch space is bounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dataselect.kernels.layout import (
    N_ALPHA,
    N_ASCII_LETTER,
    N_ENDS,
    N_NOT_SYMBOL,
    N_PUNCT,
    N_STOP,
    N_WORD,
    N_WORD_COUNTS,
    N_WORDS,
    NORMAL,
    NOT_SYMBOL_CHARS,
    SPACY,
    SPLIT,
    STOP_MASK,
    UNISEG,
    WORD_CHARS,
    WORDPUNCT,
)
from dataselect.kernels.padded import PAD, bits_from, decode_valid, next_set, set_bit, span_hash
from dataselect.kernels.primitives import BLOCK, Word, helper, low_bits, range_mask, trailing_zeros
from dataselect.kernels.signal_tables import (
    ALNUM,
    ALPHABETIC,
    ASCII_PUNCT,
    LOWER,
    PREFIX,
    PUNCT,
    SENTENCE_END,
    SUFFIX,
    SYMBOL,
    UPPER,
    WB_ALETTER,
    WB_DOUBLE_QUOTE,
    WB_EXTEND,
    WB_EXTENDNUMLET,
    WB_FORMAT,
    WB_HEBREW,
    WB_KATAKANA,
    WB_MIDLETTER,
    WB_MIDNUM,
    WB_MIDNUMLET,
    WB_NUMERIC,
    WB_OTHER,
    WB_SINGLE_QUOTE,
    WB_ZWJ,
    WORD,
    WORD_BREAK_SHIFT,
)
from dataselect.kernels.spacy_words import (
    flags_at,
    may_be_special_hash,
    special_at,
    special_of,
    split_spacy,
)
from dataselect.kernels.tokens import ONE, encode

CHUNK_BYTES = 16_384
SHORT_BYTES = 64
"""Longest chunk that takes the short way."""
RECENT_WORDS = 1024
"""Words are counted when that many have been read: in loops over arrays, which LLVM vectorises."""

LENGTH_MASK = 0xFFFF
"""A word's info: code points in the low 16 bits, then these flags, then the stop word's number + 1."""
HAS_ALPHA = 1 << 16
"""A character is alphabetic."""
NOT_SYMBOL = 1 << 17
"""SPACY: a character is not in datatrove's punctuation. SPLIT: without "#" and U+2026."""
ENDS_SENTENCE = 1 << 18
"""SPACY: one of spaCy's sentence ends. SPLIT: a stop word in any case."""
IS_PUNCT = 1 << 19
"""SPACY: only punctuation. WORDPUNCT: str.isupper(). SPLIT: at most 3 word characters."""
HAS_WORD = 1 << 20
r"""A character is `\w`."""
HAS_ASCII_LETTER = 1 << 21
STOP_SHIFT = 24
TOP = np.uint64(63)


@helper
def joins(before: int, previous: int, current: int, following: int) -> bool:
    """Whether UAX #29 (WB5 to WB16) keeps `previous` and `current` together; Extend etc. are left out."""
    letter = previous == WB_ALETTER or previous == WB_HEBREW
    letter_now = current == WB_ALETTER or current == WB_HEBREW
    if letter and letter_now:
        return True
    mid = WB_SINGLE_QUOTE
    if letter and (current == WB_MIDLETTER or current == WB_MIDNUMLET or current == mid):
        if following == WB_ALETTER or following == WB_HEBREW:
            return True
        return previous == WB_HEBREW and current == mid
    middle = previous == WB_MIDLETTER or previous == WB_MIDNUMLET or previous == mid
    if letter_now and middle and (before == WB_ALETTER or before == WB_HEBREW):
        return True
    if current == WB_DOUBLE_QUOTE:
        return previous == WB_HEBREW and following == WB_HEBREW
    if previous == WB_DOUBLE_QUOTE:
        return before == WB_HEBREW and current == WB_HEBREW
    if current == WB_NUMERIC:
        if letter or previous == WB_NUMERIC or previous == WB_EXTENDNUMLET:
            return True
        middle = previous == WB_MIDNUM or previous == WB_MIDNUMLET or previous == mid
        return middle and before == WB_NUMERIC
    if previous == WB_NUMERIC:
        if letter_now or current == WB_EXTENDNUMLET:
            return True
        middle = current == WB_MIDNUM or current == WB_MIDNUMLET or current == mid
        return middle and following == WB_NUMERIC
    if previous == WB_KATAKANA:
        return current == WB_KATAKANA or current == WB_EXTENDNUMLET
    if current == WB_EXTENDNUMLET:
        return letter or previous == WB_EXTENDNUMLET
    return previous == WB_EXTENDNUMLET and (letter_now or current == WB_KATAKANA)


@helper
def is_ignored(kind: int) -> bool:
    return kind == WB_EXTEND or kind == WB_FORMAT or kind == WB_ZWJ


@helper
def split_uniseg(n_chars: int, scratch: Any) -> int:
    """Cut a chunk's characters at UAX #29 word boundaries, but for flags and joined emoji (no word has
    them).
    """
    flags, cuts = scratch[0], scratch[3]
    n, before, previous = 0, np.int64(WB_OTHER), flags[0] >> WORD_BREAK_SHIFT
    for i in range(1, n_chars):
        current = flags[i] >> WORD_BREAK_SHIFT
        if is_ignored(current):
            continue
        j = i + 1
        while j < n_chars and is_ignored(flags[j] >> WORD_BREAK_SHIFT):
            j += 1
        following = flags[j] >> WORD_BREAK_SHIFT if j < n_chars else np.int64(WB_OTHER)
        if not joins(before, previous, current, following):
            cuts[n] = i
            n += 1
        before, previous = previous, current
    cuts[n] = n_chars
    return n + 1


@helper
def split_wordpunct(n_chars: int, scratch: Any) -> int:
    flags, _, _, cuts, _ = scratch
    n = 0
    for i in range(1, n_chars):
        if (flags[i] ^ flags[i - 1]) & WORD:
            cuts[n] = i
            n += 1
    cuts[n] = n_chars
    return n + 1


@helper
def normalize(n_chars: int, tables: Any, scratch: Any) -> tuple[Word, int]:
    """(hash, code points) of the chunk, lower-cased and without ASCII punctuation; its bytes go to
    `spare`.
    """
    flags, chars = scratch[0], scratch[1]
    spare = tables[4]
    n_bytes = n_left = 0
    for i in range(n_chars):
        if not flags[i] & ASCII_PUNCT:
            code_point = np.int64(chars[i])
            entry = np.int64(tables[5][1][np.int64(tables[5][0][code_point >> 8]) << 8 | code_point & 255])
            encoded, n_encoded = encode(code_point + (entry >> 2))
            for k in range(n_encoded):
                spare[n_bytes + k] = np.uint8(encoded >> (8 * k) & 255)
            n_bytes += n_encoded
            n_left += 1
    return span_hash(spare, np.int64(0), n_bytes), n_left


@helper
def stop_number(word_hash: Word, stops: Any) -> int:
    """Place of the stop word with this hash, from 1, or 0."""
    slot = np.int64(word_hash & np.uint64(63))
    return np.int64(stops[1][slot]) & -np.int64(stops[0][slot] == word_hash)


@helper
def word_info(kind: int, first: int, last: int, word_hash: Word, tables: Any, scratch: Any) -> Any:
    """int64 info of the word of characters first to last - 1."""
    flags, chars = scratch[0], scratch[1]
    any_of, all_of, letters = np.int64(0), np.int64(-1), np.int64(0)
    for i in range(first, last):
        any_of |= flags[i]
        all_of &= flags[i]
        letters |= flags[i] & -np.int64(chars[i] < 0x80)
    letters &= ALPHABETIC
    info = np.int64(last - first)
    if any_of & ALPHABETIC:
        info |= HAS_ALPHA
    if any_of & WORD:
        info |= HAS_WORD
    if letters:
        info |= HAS_ASCII_LETTER
    if 2 <= last - first <= 4 and letters:
        info |= stop_number(word_hash, tables[3]) << STOP_SHIFT
    if kind == SPACY:
        if not all_of & SYMBOL:
            info |= NOT_SYMBOL
        if last - first == 1 and any_of & SENTENCE_END:
            info |= ENDS_SENTENCE
        if all_of & PUNCT:
            info |= IS_PUNCT
    elif kind == SPLIT:
        n_word, special = 0, False
        for i in range(first, last):
            n_word += (flags[i] & WORD) != 0
            special |= chars[i] == 35 or chars[i] == 0x2026
        if not special:
            info |= NOT_SYMBOL
        if 1 <= n_word <= 3:
            info |= IS_PUNCT
        if 2 <= last - first <= 4 and letters:
            lowered, _ = normalize(last, tables, scratch)
            if stop_number(lowered, tables[3]) and not any_of & ASCII_PUNCT:
                info |= ENDS_SENTENCE
    elif kind == WORDPUNCT and any_of & UPPER and not any_of & LOWER:
        info |= IS_PUNCT
    return info


@helper
def split_chunk(text: Any, start: int, end: int, kind: int, tables: Any, scratch: Any) -> int:
    """Decode the chunk text[start:end] into `scratch` and cut it into words; returns how many cuts."""
    flags, chars, at, cuts, _ = scratch
    n_chars, any_of = 0, np.int64(0)
    position = start
    page_of, pages = tables[0]
    first_page = np.int64(page_of[0]) << 8
    while position < end:
        code_point, n_read = np.int64(text[position]), np.int64(1)
        if code_point < 0x80:
            found = np.int64(pages[first_page | code_point])
        else:
            code_point, n_read = decode_valid(text, position)
            found = flags_at(code_point, tables[0])
        flags[n_chars] = found
        any_of |= found
        chars[n_chars] = code_point
        at[n_chars] = position
        n_chars += 1
        position += n_read
    at[n_chars] = end
    if kind == SPACY:
        return split_spacy(text, n_chars, any_of, tables, scratch)
    if kind == UNISEG:
        return split_uniseg(n_chars, scratch)
    if kind == WORDPUNCT:
        return split_wordpunct(n_chars, scratch)
    cuts[0] = n_chars
    return 1


@helper
def read_word(text: Any, k: int, kind: int, tables: Any, scratch: Any) -> tuple[Word, int]:
    """(hash, info) of the k-th cut of the chunk in `scratch`; info is 0 where it is no word of this kind."""
    flags, _, at, cuts, _ = scratch
    first, last = np.int64(0) if k == 0 else np.int64(cuts[k - 1]), np.int64(cuts[k])
    if kind == NORMAL:
        word_hash, n_left = normalize(last, tables, scratch)
        return word_hash, np.int64(n_left)
    if kind == UNISEG and not flags[first] & ALNUM:
        return np.uint64(0), np.int64(0)
    word_hash = span_hash(text, np.int64(at[first]), np.int64(at[last] - at[first]))
    return word_hash, word_info(kind, first, last, word_hash, tables, scratch)


@helper
def chunk_stop(text: Any, start: int, end: int) -> int:
    """End of what is read as one chunk from `start`: all of it, or a cut at a character's boundary."""
    if end - start <= CHUNK_BYTES:
        return end
    stop = start + CHUNK_BYTES
    while text[stop] & 0xC0 == 0x80:
        stop -= 1
    return stop


@helper
def add_sign(text: Any, at: int, tables: Any, recent: Any, n: int) -> int:
    """Append the ASCII character at `at`, no letter, as a word of SPACY; its flags."""
    flags = flags_at(np.int64(text[at]), tables[0])
    info = 1
    if not flags & SYMBOL:
        info |= NOT_SYMBOL
    if flags & SENTENCE_END:
        info |= ENDS_SENTENCE
    if flags & PUNCT:
        info |= IS_PUNCT
    if flags & WORD:
        info |= HAS_WORD
    recent[0][n] = span_hash(text, at, np.int64(1))
    recent[1][n] = info
    return flags


@helper
def is_special(text: Any, start: int, end: int, specials: Any) -> bool:
    return special_at(text, start, end, specials) != 0


@helper
def read_plain(
    text: Any, start: int, end: int, bits: Any, kind: int, marks: Any, tables: Any, recent: Any, n: int
) -> int:
    """Append the words of a chunk of ASCII letters and digits, with at most one sign before and after them.

    Nine of ten chunks are such. -1 where it is another, or spaCy may split the letters or not the signs.
    """
    first = start
    run = bits_from(bits[2], first)
    if not run & ONE and text[start] < 0x80 and kind == SPACY:
        if end - start == 1:
            flags = add_sign(text, start, tables, recent, n)
            if flags & SENTENCE_END:
                set_bit(marks[0], start)
            elif not flags & PUNCT:
                set_bit(marks[1], start)
            return n + 1
        if flags_at(np.int64(text[start]), tables[0]) & PREFIX:
            first += 1
            run = bits_from(bits[2], first)
    n_bytes = trailing_zeros(~run)
    last = first + n_bytes
    if (
        n_bytes == 0
        or last + 1 < end
        or (last < end and (kind != SPACY or not ends_word(text, last, tables)))
    ):
        return np.int64(-1)
    letters = bits_from(bits[1], first) & low_bits(n_bytes)
    if letters != low_bits(n_bytes) and letters >> np.uint64(n_bytes - 1):  # "5km", "3rd"
        return np.int64(-1)
    word_hash = span_hash(text, first, n_bytes)
    if may_be_special_hash(word_hash, tables[1]) and special_of(word_hash, tables[1]):
        return np.int64(-1)
    if last < end and is_special(text, first, end, tables[1]):
        return np.int64(-1)
    if first > start:
        if is_special(text, start, last, tables[1]) or (
            last < end and is_special(text, start, end, tables[1])
        ):
            return np.int64(-1)
        if add_sign(text, start, tables, recent, n) & SENTENCE_END:
            set_bit(marks[0], start)
        set_bit(marks[1], first)
        n += 1
    info = n_bytes | HAS_WORD
    if letters:
        info |= HAS_ALPHA | HAS_ASCII_LETTER
    if kind == SPACY:
        info |= NOT_SYMBOL
    if 2 <= n_bytes <= 4:
        info |= stop_number(word_hash, tables[3]) << STOP_SHIFT
    recent[0][n] = word_hash
    recent[1][n] = info
    n += 1
    if last < end:
        if add_sign(text, last, tables, recent, n) & SENTENCE_END:
            set_bit(marks[0], last)
        n += 1
    return n


@helper
def ends_word(text: Any, at: int, tables: Any) -> bool:
    """Whether spaCy always splits the character at `at` off at the end, after an ASCII letter or digit."""
    char = np.int64(text[at])
    if char == 46:
        before = text[at - 1]
        return 97 <= before <= 122 or before < 58
    return char < 0x80 and (flags_at(char, tables[0]) & SUFFIX) != 0


@helper
def add_words(recent: Any, n_recent: int, kind: int, words: Any) -> None:
    """Move the recently read words to `words`."""
    hashes, infos = recent
    kept, ends, lengths, counts, n_kept = words
    n_words, chars = counts[N_WORDS], counts[WORD_CHARS]
    n_now = min(n_recent, n_kept - n_words)
    for i in range(n_now):
        kept[n_words + i] = hashes[i]
        chars += np.int64(infos[i]) & LENGTH_MASK
        ends[n_words + i + 1] = chars
    n_chars = n_alpha = n_not_symbol = not_symbol_chars = mask = n_stop = n_ends = n_punct = n_word = (
        n_letter
    ) = 0
    for i in range(n_recent):
        info = infos[i]
        length = info & LENGTH_MASK
        n_chars += length
        n_alpha += info >> 16 & 1
        n_not_symbol += info >> 17 & 1
        not_symbol_chars += length & -(info >> 17 & 1)
        n_ends += info >> 18 & 1
        n_punct += info >> 19 & 1
        n_word += info >> 20 & 1
        n_letter += info >> 21 & 1
        stop = info >> STOP_SHIFT
        mask |= np.int64(1) << np.int64(stop)
        n_stop += stop != 0
    counts[N_WORDS] += n_recent
    counts[WORD_CHARS] += n_chars
    counts[N_ALPHA] += n_alpha
    counts[N_NOT_SYMBOL] += n_not_symbol
    counts[NOT_SYMBOL_CHARS] += not_symbol_chars
    counts[STOP_MASK] |= mask >> 1
    counts[N_STOP] += n_stop
    counts[N_ENDS] += n_ends
    counts[N_PUNCT] += n_punct
    counts[N_WORD] += n_word
    counts[N_ASCII_LETTER] += n_letter
    for i in range(n_recent if kind == SPLIT else 0):
        lengths[min(infos[i] & LENGTH_MASK, 255)] += 1


@helper
def add_chunk(
    text: Any, start: int, end: int, kind: int, marks: Any, tables: Any, scratch: Any, recent: Any, n: int
) -> int:
    """Append the chunk's words to recent[n:]; returns the new n."""
    hashes, infos = recent
    at, cuts = scratch[2], scratch[3]
    for k in range(split_chunk(text, start, end, kind, tables, scratch)):
        word_hash, info = read_word(text, k, kind, tables, scratch)
        if info:
            hashes[n] = word_hash
            infos[n] = info
            n += 1
            if kind == SPACY:
                first = np.int64(at[0] if k == 0 else at[cuts[k - 1]])
                if info & ENDS_SENTENCE:
                    set_bit(marks[0], first)
                elif not info & IS_PUNCT:
                    set_bit(marks[1], first)
    return n


@helper
def begin_marks(text: Any, n_bytes: int, bits: Any, marks: Any) -> None:
    """Marks before any chunk is read: white space but for single spaces, and chunks of letters.

    marks: bit i of marks[0]: a token that ends a sentence starts at byte i; of marks[1]: byte i is in a
    token that begins another sentence after it, which is any but punctuation.
    """
    spaces, _, alnums = bits
    before = ONE
    following = spaces[0] & low_bits(n_bytes)
    for b in range((n_bytes >> 6) + 1):
        space = following
        following = spaces[b + 1] & low_bits(max(n_bytes - (b + 1) * BLOCK, 0))
        after_space = space << ONE | before
        single = range_mask(text, b * BLOCK, 0, 32, 0) & ~after_space & ~(space >> ONE | following << TOP)
        marks[0][b] = 0
        marks[1][b] = (space & ~single) | (alnums[b] & after_space)
        before = space >> TOP


@helper
def read_words(
    text: Any,
    n_bytes: int,
    kind: int,
    bits: Any,
    marks: Any,
    tables: Any,
    scratch: Any,
    recent: Any,
    words: Any,
) -> None:
    """Fill `words` = (hashes uint64, ends int64, lengths int64[256], counts int64[N_WORD_COUNTS], n_kept).

    hashes[i] is word i's, which ends after ends[i + 1] code points of words (ends[0] = 0), for the first
    n_kept words; of SPLIT lengths[k] words have k code points (255: or more); counts are of all words.
    bits: white space, ASCII letters, those and digits. marks: of SPACY, see
    begin_marks. recent: hashes uint64, infos int32, for RECENT_WORDS + CHUNK_BYTES.
    """
    spaces = bits[0]
    ends, lengths, counts = words[1], words[2], words[3]
    for k in range(256):
        lengths[k] = 0
    for k in range(N_WORD_COUNTS):
        counts[k] = 0
    ends[0] = 0
    if kind == SPACY:
        begin_marks(text, n_bytes, bits, marks)
    is_fast = kind == SPACY or kind == UNISEG
    info = HAS_ALPHA | HAS_WORD | HAS_ASCII_LETTER | (NOT_SYMBOL if kind == SPACY else 0)
    n = start = np.int64(0)
    before, is_inside = ONE, False
    for b in range((n_bytes >> 6) + 1):
        space = spaces[b]
        edges = space ^ (space << ONE | before)
        before = space >> TOP
        while edges:
            position = b * BLOCK + trailing_zeros(edges)
            edges &= edges - ONE
            is_inside = not is_inside
            if is_inside:
                start = position
                continue
            n_letters = trailing_zeros(~bits_from(bits[1], start))
            if is_fast and start + n_letters == position:  # seven chunks of ten
                word_hash = span_hash(text, start, n_letters)
                if not (may_be_special_hash(word_hash, tables[1]) and special_of(word_hash, tables[1])):
                    recent[0][n] = word_hash
                    recent[1][n] = n_letters | info | stop_number(word_hash, tables[3]) << STOP_SHIFT
                    n += 1
                    continue
            if is_fast and position - start <= SHORT_BYTES:  # and most others
                n_after = read_plain(text, start, position, bits, kind, marks, tables, recent, n)
                if n_after >= 0:
                    n = n_after
                    continue
            n = read_chunk(text, start, position, kind, marks, tables, scratch, recent, words, n)
        if n >= RECENT_WORDS:
            add_words(recent, n, kind, words)
            n = np.int64(0)
    add_words(recent, n, kind, words)


@helper
def read_chunk(
    text: Any,
    start: int,
    end: int,
    kind: int,
    marks: Any,
    tables: Any,
    scratch: Any,
    recent: Any,
    words: Any,
    n: int,
) -> int:
    """Append the words of text[start:end] to recent[n:], and move them to `words` where they are many."""
    while start < end:
        stop = chunk_stop(text, start, end)
        n = add_chunk(text, start, stop, kind, marks, tables, scratch, recent, n)
        if n >= RECENT_WORDS:
            add_words(recent, n, kind, words)
            n = np.int64(0)
        start = stop
    return n


@helper
def count_sentences(start: int, end: int, marks: Any) -> int:
    """Sentences of text[start:end], whose ends are no white space, as spaCy's sentencizer finds them.

    At least 1, as datatrove counts.
    """
    n = 1
    position = next_set(marks[0], start, end)
    while position < end:
        position = next_set(marks[1], position, end)
        n += position < end
        position = next_set(marks[0], position, end)
    return n


def word_scratch(n_words: int) -> tuple[np.ndarray, Any, Any, Any]:
    """What `read_words` works in, for documents of fewer than n_words words of a kind.

    Returns lower-cased bytes uint8[:]; of a chunk, places int64[:] and four int32[:]; of recent words, hashes
    uint64[:] and infos int32[:]; and of a document `words` of `read_words`, as arrays.
    """
    lowered = np.zeros(4 * CHUNK_BYTES + PAD, np.uint8)
    chunk = np.empty(CHUNK_BYTES + 2, np.int64), *(np.empty(CHUNK_BYTES + 2, np.int32) for _ in range(4))
    n_recent = RECENT_WORDS + CHUNK_BYTES
    recent = np.empty(n_recent, np.uint64), np.empty(n_recent, np.int32)
    words = (
        np.empty(n_words, np.uint64),
        np.empty(n_words + 1, np.int64),
        np.empty(256, np.int64),
        np.empty(N_WORD_COUNTS, np.int64),
    )
    return lowered, chunk, recent, words
