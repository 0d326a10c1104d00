"""A document in a padded buffer of its own, well-formed, with bit maps of its white space and line breaks.

What reads it may look 64 bytes past either end, so no loop needs a second version for the end of a text.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dataselect.kernels.primitives import (
    BLOCK,
    Word,
    helper,
    leading_zeros,
    load_u64,
    low_bits,
    popcount,
    range_mask,
    trailing_zeros,
)
from dataselect.kernels.tokens import ALL_BITS, HASH_START, ONE, decode, finish_hash, fold_block

PAD = 64
SUBSTITUTE = 0x1A
"""What a byte that is not part of a well-formed UTF-8 sequence is read as: the control character SUB."""


@helper
def copy_document(data: Any, start: int, end: int, text: Any) -> bool:
    """Copy data[start:end] to text[0:], ill-formed bytes as SUB, spaces after it; whether all is ASCII."""
    n_bytes = end - start
    high = np.uint8(0)
    for i in range(n_bytes):
        byte = data[start + i]
        text[i] = byte
        high |= byte
    for i in range(n_bytes, n_bytes + PAD):
        text[i] = 32
    if high < 0x80:
        return True
    position = 0
    while position < n_bytes:
        ahead = range_mask(text, position, 0, 0x80, 0x7F)
        if ahead == 0:
            position += BLOCK
            continue
        position += trailing_zeros(ahead)
        while position < n_bytes and text[position] >= 0x80:
            code_point, n_read = decode(text, position, n_bytes)
            if code_point < 0:
                text[position] = SUBSTITUTE
            position += n_read
    return False


@helper
def decode_valid(text: Any, position: int) -> tuple[int, int]:
    """(code point, bytes) of the character at `position` of well-formed UTF-8."""
    first = np.int64(text[position])
    if first < 0x80:
        return first, np.int64(1)
    second = np.int64(text[position + 1]) & 63
    if first < 0xE0:
        return (first & 31) << 6 | second, np.int64(2)
    third = np.int64(text[position + 2]) & 63
    if first < 0xF0:
        return (first & 15) << 12 | second << 6 | third, np.int64(3)
    return (first & 7) << 18 | second << 12 | third << 6 | np.int64(text[position + 3]) & 63, np.int64(4)


@helper
def span_hash(text: Any, start: int, n_bytes: int) -> Word:
    """Hash of `n_bytes` >= 0 bytes, by the formula of tokens.py."""
    token_hash = HASH_START
    left = n_bytes
    while left > 8:
        token_hash = fold_block(token_hash, load_u64(text, start))
        start += 8
        left -= 8
    if left > 0:
        token_hash = fold_block(token_hash, load_u64(text, start) & (ALL_BITS >> np.uint64(64 - 8 * left)))
    return finish_hash(token_hash, n_bytes)


@helper
def count_chars(text: Any, start: int, end: int) -> int:
    """Code points of text[start:end]: bytes that are no UTF-8 continuation byte."""
    n_chars = end - start
    while start < end:
        n_chars -= popcount(range_mask(text, start, 0, 0x80, 0x3F) & low_bits(end - start))
        start += BLOCK
    return n_chars


@helper
def is_set(bits: Any, i: int) -> bool:
    return bits[i >> 6] >> np.uint64(i & 63) & ONE != 0


@helper
def strip(bits: Any, start: int, end: int) -> tuple[int, int]:
    """text[start:end] without the white space at its ends."""
    while start < end and is_set(bits, start):
        start += 1
    while end > start and is_set(bits, end - 1):
        end -= 1
    return start, end


@helper
def space_bits(text: Any, n_bytes: int, is_ascii: bool, bits: Any) -> None:
    """Bit i of bits[b]: whether byte 64 b + i is part of white space (str.isspace), or after the end."""
    n_blocks = (n_bytes >> 6) + 1
    for b in range(n_blocks):
        bits[b] = range_mask(text, b * BLOCK, 0, 9, 4) | range_mask(text, b * BLOCK, 0, 28, 4)
    if not is_ascii:
        for b in range(n_blocks):
            position = b * BLOCK
            leads = range_mask(text, position, 0, 0xC2, 0) | range_mask(text, position, 0, 0xE1, 2)
            while leads:
                at = position + trailing_zeros(leads)
                leads &= leads - ONE
                for i in range(at, min(at + wide_space(text, at), n_bytes)):
                    bits[i >> 6] |= ONE << np.uint64(i & 63)
    bits[n_blocks - 1] |= ALL_BITS << np.uint64(n_bytes & 63)


@helper
def letter_bits(text: Any, n_bytes: int, letters: Any, alnums: Any) -> None:
    """Bit i of letters[b]: whether byte 64 b + i is an ASCII letter; of alnums[b]: or a digit."""
    for b in range((n_bytes >> 6) + 1):
        letters[b] = range_mask(text, b * BLOCK, 32, 97, 25)
        alnums[b] = letters[b] | range_mask(text, b * BLOCK, 0, 48, 9)


@helper
def wide_space(text: Any, at: int) -> int:
    """Bytes of the non-ASCII white space character that starts with 0xC2, 0xE1, 0xE2 or 0xE3, or 0."""
    first, second, third = text[at], text[at + 1], text[at + 2]
    if first == 0xC2:
        return 2 if second == 0x85 or second == 0xA0 else 0
    if first == 0xE1:
        return 3 if second == 0x9A and third == 0x80 else 0
    if first == 0xE3:
        return 3 if second == 0x80 and third == 0x80 else 0
    if second == 0x80:
        return 3 if third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF else 0
    return 3 if second == 0x81 and third == 0x9F else 0


@helper
def break_bits(text: Any, n_bytes: int, is_ascii: bool, bits: Any) -> None:
    """Bit i of bits[b]: whether byte 64 b + i ends a line (str.splitlines): the last byte of the break."""
    n_blocks = (n_bytes >> 6) + 1
    for b in range(n_blocks):
        position = b * BLOCK
        # A carriage return before a newline is no break of its own.
        crlf = range_mask(text, position, 0, 13, 0) & range_mask(text, position + 1, 0, 10, 0)
        controls = range_mask(text, position, 0, 10, 3) | range_mask(text, position, 0, 28, 2)
        bits[b] = controls & ~crlf
        if not is_ascii:
            bits[b] |= range_mask(text, position, 0, 0x85, 0) & range_mask(text, position - 1, 0, 0xC2, 0)
            wide = range_mask(text, position, 0, 0xA8, 1) & range_mask(text, position - 1, 0, 0x80, 0)
            bits[b] |= wide & range_mask(text, position - 2, 0, 0xE2, 0)
    bits[n_blocks - 1] &= low_bits(n_bytes & 63)


@helper
def bits_from(bits: Any, i: int) -> Word:
    """64 bits from bit `i` on; one more block must be there."""
    low, shift = bits[i >> 6] >> np.uint64(i & 63), np.uint64(63 - (i & 63))
    return low | (bits[(i >> 6) + 1] << ONE) << shift


@helper
def set_bit(bits: Any, i: int) -> None:
    bits[i >> 6] |= ONE << np.uint64(i & 63)


@helper
def next_set(bits: Any, i: int, end: int) -> int:
    """The first i <= position < end with its bit set, or `end`."""
    if i >= end:
        return end
    word = bits[i >> 6] & (ALL_BITS << np.uint64(i & 63))
    while word == 0:
        i = (i | 63) + 1
        if i >= end:
            return end
        word = bits[i >> 6]
    return min((i & ~63) + trailing_zeros(word), end)


@helper
def last_set(bits: Any, start: int, end: int) -> int:
    """The last start <= position < end with its bit set, or a number below `start`."""
    i = end - 1
    word = bits[i >> 6] & (ALL_BITS >> np.uint64(63 - (i & 63)))
    while word == 0 and i >= start:
        i = (i & ~63) - 1
        word = bits[i >> 6] if i >= start else np.uint64(0)
    return (i & ~63) + 63 - leading_zeros(word) if word else start - 1


@helper
def next_unset(bits: Any, i: int, end: int) -> int:
    """The first i <= position < end with its bit unset, or `end`."""
    if i >= end:
        return end
    word = ~bits[i >> 6] & (ALL_BITS << np.uint64(i & 63))
    while word == 0:
        i = (i | 63) + 1
        if i >= end:
            return end
        word = ~bits[i >> 6]
    return min((i & ~63) + trailing_zeros(word), end)
