r"""The tokeniser of the kernels: text to one 64-bit hash per lower-cased token, without making a string.

A token is a run of word characters (`\w+`) or, where asked for, also a run of characters that are neither
word characters nor white space (`[^\w\s]+`), by the tables of unicode_tables.py. A byte that is not part of
a well-formed UTF-8 sequence counts as one character of the second kind.

hash(token) folds the lower-cased UTF-8 bytes, 8 at a time, little-endian, the last block ends in zeros:
h = 0x9E3779B97F4A7C15; h = scramble((h ^ block) * MULTIPLIER_1) for every block;
h = scramble((h ^ n_bytes) * MULTIPLIER_2), where scramble(x) = x ^ (x >> 32).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from dataselect.kernels.primitives import (
    BLOCK,
    MULTIPLIER_1,
    MULTIPLIER_2,
    SHIFT_32,
    Word,
    leading_zeros,
    load_u64,
    low_bits,
    mix64,
    pointer_to,
    popcount,
    range_mask,
    trailing_zeros,
)
from dataselect.kernels.unicode_tables import OTHER, SPACE, WORD

N_SCRATCH = 2048
"""Token hashes a kernel holds at a time: 16 kB, which stays in the first-level cache."""

HASH_START = np.uint64(0x9E3779B97F4A7C15)
ALL_BITS = np.uint64(0xFFFFFFFFFFFFFFFF)
ONE = np.uint64(1)


@njit(inline="always")
def fold_block(token_hash: Word, block: Word) -> Word:
    token_hash = (token_hash ^ block) * MULTIPLIER_1
    return token_hash ^ (token_hash >> SHIFT_32)


@njit(inline="always")
def finish_hash(token_hash: Word, n_bytes: int) -> Word:
    token_hash = (token_hash ^ np.uint64(n_bytes)) * MULTIPLIER_2
    return token_hash ^ (token_hash >> SHIFT_32)


@njit(inline="always")
def lower_ascii(block: Word) -> Word:
    """Lower-case 8 ASCII bytes: byte + 0x3F has the high bit from "A" on, byte + 0x25 after "Z"."""
    from_a = block + np.uint64(0x3F3F3F3F3F3F3F3F)
    after_z = block + np.uint64(0x2525252525252525)
    return block | (((from_a & ~after_z) & np.uint64(0x8080808080808080)) >> np.uint64(2))


@njit(inline="always")
def hash_ascii(data: Any, start: int, n_bytes: int) -> Word:
    """Hash of the ASCII token `data[start:start + n_bytes]`; 7 more bytes of data must exist after it."""
    token_hash = HASH_START
    left = n_bytes
    while left > 8:
        token_hash = fold_block(token_hash, lower_ascii(load_u64(data, start)))
        start += 8
        left -= 8
    block = load_u64(data, start) & (ALL_BITS >> np.uint64(64 - 8 * left))
    return finish_hash(fold_block(token_hash, lower_ascii(block)), n_bytes)


@njit(inline="always")
def continuation(data: Any, position: int, end: int) -> Any:
    """The 6 payload bits of a UTF-8 continuation byte, or -1 where there is none."""
    if position >= end or data[position] & 0xC0 != 0x80:
        return np.int64(-1)
    return np.int64(data[position] & 0x3F)


@njit
def decode(data: Any, position: int, end: int) -> tuple[int, int]:
    """(code point, bytes) of the UTF-8 character at `position`; (-1, 1) where no well-formed one starts."""
    first = np.int64(data[position])
    if first < 0x80:
        return first, 1
    if 0xC2 <= first < 0xF5:
        second = continuation(data, position + 1, end)
        if second >= 0:
            if first < 0xE0:
                return (first & 0x1F) << 6 | second, 2
            third = continuation(data, position + 2, end)
            if third >= 0:
                if first < 0xF0:
                    code_point = (first & 0x0F) << 12 | second << 6 | third
                    if code_point >= 0x800 and not 0xD800 <= code_point < 0xE000:
                        return code_point, 3
                    return np.int64(-1), 1
                fourth = continuation(data, position + 3, end)
                if fourth >= 0:
                    code_point = (first & 0x07) << 18 | second << 12 | third << 6 | fourth
                    if 0x10000 <= code_point < 0x110000:
                        return code_point, 4
    return np.int64(-1), 1


@njit(inline="always")
def encode(code_point: int) -> tuple[int, int]:
    """(UTF-8 bytes as a little-endian integer, how many)."""
    if code_point < 0x80:
        return code_point, 1
    last = 0x80 | (code_point & 0x3F)
    if code_point < 0x800:
        return (0xC0 | code_point >> 6) | last << 8, 2
    middle = 0x80 | (code_point >> 6 & 0x3F)
    if code_point < 0x10000:
        return (0xE0 | code_point >> 12) | middle << 8 | last << 16, 3
    return (0xF0 | code_point >> 18) | (0x80 | (code_point >> 12 & 0x3F)) << 8 | middle << 16 | last << 24, 4


@njit
def read_any_token(
    data: Any,
    position: int,
    end: int,
    page_of: Any,
    pages: Any,
    punctuation: bool,
) -> tuple[Word, int, int]:
    """(hash, its bytes, position after it) of the next token, in any script; 0 bytes if there is none."""
    token_class = SPACE
    token_hash = HASH_START
    block = np.uint64(0)
    n_bytes = 0
    while position < end:
        code_point, n_read = decode(data, position, end)
        if code_point < 0:
            char_class = OTHER
            lower = np.int64(0)
        else:
            entry = np.int64(pages[np.int64(page_of[code_point >> 8]) << 8 | code_point & 255])
            char_class = entry & 3
            lower = code_point + (entry >> 2)
        if char_class != token_class and n_bytes:
            break
        if char_class == WORD or (punctuation and char_class == OTHER):
            token_class = char_class
            if code_point < 0:
                encoded, n_encoded = np.int64(data[position]), 1
            else:
                encoded, n_encoded = encode(lower)
            filled = n_bytes & 7
            block |= np.uint64(encoded) << np.uint64(8 * filled)
            if filled + n_encoded >= 8:  # so filled >= 4, and the shift below is by less than 64
                token_hash = fold_block(token_hash, block)
                block = np.uint64(encoded) >> np.uint64(64 - 8 * filled)
            n_bytes += n_encoded
        position += n_read
    if n_bytes & 7:
        token_hash = fold_block(token_hash, block)
    return finish_hash(token_hash, n_bytes), n_bytes, position


@njit
def text_source(data: np.ndarray, page_of: np.ndarray, pages: np.ndarray) -> Any:
    """What `read_tokens` takes as `text`; only for array arguments of a kernel, see `pointer_to`."""
    return pointer_to(data), data.size, pointer_to(page_of), pointer_to(pages)


@njit
def read_tokens(
    text: Any,
    position: int,
    end: int,
    punctuation: bool,
    hashes: np.ndarray,
    n_hashes: int,
) -> tuple[int, int]:
    """Append hashes of the tokens of the bytes [position, end) to `hashes[n_hashes:]` while 64 or more fit.

    Returns (n_hashes, position), the position at a token boundary; all is read when it equals `end`.
    ASCII is classified 64 bytes at a time into bit masks, whose bit changes are the token boundaries. A token
    that touches a non-ASCII character or is longer than a block is read character by character.
    """
    data, n_bytes_data, page_of, pages = text
    while position < end and n_hashes + BLOCK <= hashes.size:
        # 8 bytes more than a block, for the 8-byte loads of hash_ascii.
        if data[position] < 0x80 and position + BLOCK + 8 <= n_bytes_data:
            non_ascii = range_mask(data, position, 0, 0x80, 0x7F)
            n_known = min(trailing_zeros(non_ascii), end - position)
            known = low_bits(n_known)
            in_word = known & (
                range_mask(data, position, 0x20, 0x61, 25)  # a-z, A-Z
                | range_mask(data, position, 0, 0x30, 9)
                | range_mask(data, position, 0, 0x5F, 0)
            )
            in_token = in_word
            changes = in_word ^ (in_word << ONE)
            starts = in_word & changes
            if punctuation:
                space = range_mask(data, position, 0, 0x09, 4) | range_mask(data, position, 0, 0x1C, 4)
                other = known & ~(in_word | space)
                other_changes = other ^ (other << ONE)
                in_token |= other
                changes |= other_changes
                starts |= other & other_changes
            next_position = position + n_known
            last = np.int64(-1)
            if next_position < end and in_token >> np.uint64(n_known - 1) & ONE:
                last = 63 - leading_zeros(starts)  # this token may go on after what is known
                starts ^= ONE << np.uint64(last)
                next_position = position + last
            while starts:
                start = trailing_zeros(starts)
                stop = trailing_zeros(changes & ((ALL_BITS - ONE) << np.uint64(start)))
                hashes[n_hashes] = hash_ascii(data, position + start, stop - start)
                n_hashes += 1
                starts &= starts - ONE
            position = next_position
            if last < 0 or (last > 0 and n_known == BLOCK):
                continue
        token_hash, n_bytes, position = read_any_token(data, position, end, page_of, pages, punctuation)
        if n_bytes:
            hashes[n_hashes] = token_hash
            n_hashes += 1
    return n_hashes, position


@njit
def is_unspaced(code_point: int) -> bool:
    """Whether a character is of a script that is written without spaces between words.

    Thai, Lao, Burmese, Khmer, kana and Chinese characters; not Hangul, which has spaces.
    """
    if code_point < 0x0E00:
        return False
    if code_point < 0x3040:
        return (
            code_point < 0x0F00
            or 0x1000 <= code_point < 0x10A0
            or 0x1780 <= code_point < 0x1800
            or 0x19E0 <= code_point < 0x1A00
        )
    return (
        code_point < 0x3100
        or 0x31F0 <= code_point < 0x3200
        or 0x3400 <= code_point < 0x4DC0
        or 0x4E00 <= code_point < 0xA000
        or 0xA9E0 <= code_point < 0xAA00
        or 0xAA60 <= code_point < 0xAA80
        or 0xF900 <= code_point < 0xFB00
        or 0xFF66 <= code_point < 0xFFA0
        or 0x20000 <= code_point < 0x40000
    )


@njit
def read_chars(text: Any, position: int, end: int, hashes: np.ndarray, n_hashes: int) -> tuple[int, int]:
    r"""As `read_tokens`, but every character of a word (lower-cased) is a token: for scripts without spaces.

    And every one of `is_unspaced`: \w has no vowel signs of Thai or Burmese.
    """
    data, _, page_of, pages = text
    while position < end and n_hashes < hashes.size:
        code_point, n_read = decode(data, position, end)
        position += n_read
        if code_point >= 0:
            entry = np.int64(pages[np.int64(page_of[code_point >> 8]) << 8 | code_point & 255])
            if entry & 3 == WORD or is_unspaced(code_point):
                hashes[n_hashes] = mix64(np.uint64(code_point + (entry >> 2)) ^ HASH_START)
                n_hashes += 1
    return n_hashes, position


@njit
def mainly_unspaced(text: Any, position: int, end: int) -> bool:
    """Whether a text has more characters of `is_unspaced` scripts than other letters.

    Other letters: A-Z, a-z, all else from U+00C0 to U+1FFF, and Hangul syllables.
    """
    data, n_bytes_data, _, _ = text
    n_unspaced = 0
    n_other = 0
    while position < end:
        if data[position] < 0x80 and position + BLOCK <= n_bytes_data:
            n_known = min(trailing_zeros(range_mask(data, position, 0, 0x80, 0x7F)), end - position)
            n_other += popcount(range_mask(data, position, 0x20, 0x61, 25) & low_bits(n_known))
            position += n_known
            continue
        code_point, n_read = decode(data, position, end)
        position += n_read
        if is_unspaced(code_point):
            n_unspaced += 1
        else:
            is_ascii_letter = 0x61 <= code_point | 0x20 <= 0x7A
            n_other += is_ascii_letter or 0xC0 <= code_point < 0x2000 or 0xAC00 <= code_point < 0xD7A4
    return n_unspaced > n_other
