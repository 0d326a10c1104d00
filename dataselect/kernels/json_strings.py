"""Where the strings of JSON lines are, and texts as such strings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from dataselect.kernels.primitives import (
    BLOCK,
    I64,
    U8,
    copy_bytes,
    helper,
    low_bits,
    pointer_to,
    range_mask,
    trailing_zeros,
)

_QUOTE, _BACKSLASH = 34, 92


@helper
def after_string(text: Any, position: int, end: int) -> int:
    """Behind the second quote of the string whose first is at `position`; `end` where there is none."""
    position += 1
    while position < end:
        if position + BLOCK <= end:
            found = range_mask(text, position, 0, _QUOTE, 0) | range_mask(text, position, 0, _BACKSLASH, 0)
            if found == 0:
                position += BLOCK
                continue
            position += trailing_zeros(found)
        if text[position] == _QUOTE:
            return position + 1
        position += 1 + (text[position] == _BACKSLASH)
    return end


@helper
def hex_value(text: Any, position: int) -> int:
    """The number that four hexadecimal digits make."""
    value = 0
    for i in range(4):
        digit = np.int64(text[position + i])
        value = value * 16 + (digit - 48 if digit < 58 else (digit | 32) - 87)
    return value


@helper
def is_key(text: Any, start: int, end: int, keys: Any, first: int, last: int) -> bool:
    """Whether text[start:end], a string without its quotes, is keys[first:last] once its escapes are read."""
    at = first
    while start < end:
        byte = np.int64(text[start])
        if byte != _BACKSLASH:
            if at >= last or keys[at] != byte:
                return False
            start += 1
            at += 1
            continue
        byte = np.int64(text[start + 1])
        start += 2
        code = byte  # of \" \\ and \/
        if byte == 117:
            code = hex_value(text, start)
            start += 4
            if 0xD800 <= code < 0xDC00:
                code = 0x10000 + ((code - 0xD800) << 10) + hex_value(text, start + 2) - 0xDC00
                start += 6
        elif byte == 98:
            code = 8
        elif byte == 102:
            code = 12
        elif byte == 110:
            code = 10
        elif byte == 114:
            code = 13
        elif byte == 116:
            code = 9
        n_bytes = 1 + (code >= 0x80) + (code >= 0x800) + (code >= 0x10000)
        if at + n_bytes > last:
            return False
        for i in range(n_bytes):
            six = (code >> (6 * (n_bytes - 1 - i))) & 0x3F
            expected = six | 0x80
            if i == 0:
                expected = code if n_bytes == 1 else (0xF00 >> n_bytes) & 0xFF | code >> (6 * (n_bytes - 1))
            if keys[at + i] != expected:
                return False
        at += n_bytes
    return at == last


@helper
def find_string(text: Any, position: int, end: int, keys: Any, key_ends: Any, n_keys: int) -> tuple[int, int]:
    """Span, with its quotes, of the string at the path of keys in the object text[position:end]."""
    depth = found = 0
    fits = False  # whether the key before this value is the one that is looked for
    while position < end:
        byte = text[position]
        if byte == _QUOTE:
            stop = after_string(text, position, end)
            if fits and found == n_keys - 1:
                return position, stop
            after = stop
            while after < end and (text[after] == 32 or 9 <= text[after] <= 13):
                after += 1
            if depth == found + 1 and after < end and text[after] == 58:
                first = key_ends[found - 1] if found else 0
                fits = is_key(text, position + 1, stop - 1, keys, first, key_ends[found])
                position = after + 1
            else:
                position = stop
            continue
        if byte == 123 or byte == 91:
            depth += 1
            found += fits and byte == 123 and found < n_keys - 1
        elif byte == 125 or byte == 93:
            depth -= 1
            if depth <= found:  # the object that the path leads through has no such key
                break
        if byte == 123 or byte == 91 or byte == 44:
            fits = False
        position += 1
    return np.int64(-1), np.int64(-1)


@njit(types.void(U8, I64, I64, U8, I64, types.int64[:, ::1]), cache=True, nogil=True)
def find_strings(
    data: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    keys: np.ndarray,
    key_ends: np.ndarray,
    out: np.ndarray,
) -> None:
    """Find the string at a path in each of some JSON objects.

    data          uint8[:]
    starts, ends  int64[n_rows]      row i is data[starts[i]:ends[i]], an object
    keys          uint8[:]           the path's keys, from the outermost inwards, back to back
    key_ends      int64[n_keys]      where each of them ends
    out           int64[n_rows, 2]   span of the string with its quotes; -1, -1 where there is none
    """
    text, path, path_ends = pointer_to(data), pointer_to(keys), pointer_to(key_ends)
    for row in range(starts.size):
        out[row, 0], out[row, 1] = find_string(text, starts[row], ends[row], path, path_ends, key_ends.size)


_ESCAPES = np.zeros(256, np.uint8)
_ESCAPES[[8, 9, 10, 12, 13, _QUOTE, _BACKSLASH]] = np.frombuffer(b'btnfr"\\', np.uint8)
"""What follows the backslash; 0 for control characters that are written in hexadecimal."""


@helper
def next_escaped(text: Any, position: int, end: int, n_data: int) -> int:
    """The next byte that a JSON string escapes: a quote, a backslash, a control character; or `end`."""
    while position < end:
        if position + BLOCK <= n_data:
            found = range_mask(text, position, 0, 0, 31)
            found |= range_mask(text, position, 0, _QUOTE, 0) | range_mask(text, position, 0, _BACKSLASH, 0)
            found &= low_bits(end - position)
            if found:
                return position + trailing_zeros(found)
            position += BLOCK
        else:
            byte = text[position]
            if byte < 32 or byte == _QUOTE or byte == _BACKSLASH:
                return position
            position += 1
    return end


@njit(types.void(I64, U8, U8, types.int64[::1]), cache=True, nogil=True)
def _string_bytes(offsets: np.ndarray, data: np.ndarray, escapes: np.ndarray, out: np.ndarray) -> None:
    text = pointer_to(data)
    for doc in range(offsets.size - 1):
        end = offsets[doc + 1]
        n_bytes = end - offsets[doc] + 2
        at = next_escaped(text, offsets[doc], end, data.size)
        while at < end:
            n_bytes += 1 if escapes[text[at]] else 5
            at = next_escaped(text, at + 1, end, data.size)
        out[doc] = n_bytes


@njit(types.void(I64, U8, U8, types.uint8[::1]), cache=True, nogil=True)
def _put_strings(offsets: np.ndarray, data: np.ndarray, escapes: np.ndarray, out: np.ndarray) -> None:
    text, target = pointer_to(data), pointer_to(out)
    n = np.int64(0)
    for doc in range(offsets.size - 1):
        start, end = offsets[doc], offsets[doc + 1]
        target[n] = _QUOTE
        n += 1
        while True:
            at = next_escaped(text, start, end, data.size)
            copy_bytes(target, n, text, start, at - start)
            n += at - start
            if at == end:
                break
            byte = text[at]
            target[n] = _BACKSLASH
            target[n + 1] = escapes[byte]
            n += 2
            if escapes[byte] == 0:
                target[n - 1] = 117
                target[n] = target[n + 1] = 48
                target[n + 2] = 48 + (byte >> 4)
                low = byte & 15
                target[n + 3] = low + 48 if low < 10 else low + 87
                n += 4
            start = at + 1
        target[n] = _QUOTE
        n += 1


def json_strings(offsets: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each document as a JSON string, all but quotes, backslashes and control characters as they are.

    offsets, data  int64[n_docs + 1], uint8[:], as in kernels.arrow
    Returns (offsets, bytes) of the strings, back to back.
    """
    sizes = np.empty(len(offsets) - 1, np.int64)
    _string_bytes(offsets, data, _ESCAPES, sizes)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    out = np.empty(ends[-1], np.uint8)
    _put_strings(offsets, data, _ESCAPES, out)
    return ends, out
