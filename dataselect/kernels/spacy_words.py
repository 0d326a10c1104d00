"""Words as spaCy 3.8's blank English tokenizer splits them, without making a string.

A chunk between white space is split by the tokenizer's own procedure: prefixes and suffixes are peeled off
while there are any and the rest is no special case; then the rest is a special case ("don't"), a URL, or is
split at infixes. The character classes are flags of signal_tables.py.

Different from spaCy: a URL whose host is a bare IP address is none; special cases inside a chunk are joined
left to right, longest first; a chunk of more than words.CHUNK_BYTES is cut there.

A chunk is given as its characters: flags int64, chars int32 (code points), at int32 (byte in `text`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dataselect.kernels.padded import span_hash
from dataselect.kernels.primitives import Word, helper
from dataselect.kernels.signal_tables import (
    ALPHA,
    ALPHA_LOWER,
    ALPHA_UPPER,
    BEFORE_PERIOD,
    CURRENCY,
    DIGIT,
    DOT,
    ICON,
    INFIX,
    LONGEST_SPECIAL,
    LONGEST_UNIT,
    PREFIX,
    QUOTE,
    SUFFIX,
    WORD,
)

_DOT, _ELLIPSIS, _HYPHEN, _EM_DASH, _DOLLAR = ord("."), ord("…"), ord("-"), ord("—"), ord("$")


@helper
def flags_at(code_point: int, classes: Any) -> Any:
    """int64 flags of a code point."""
    page_of, pages = classes
    return np.int64(pages[np.int64(page_of[code_point >> 8]) << 8 | code_point & 255])


@helper
def may_be_special(text: Any, start: int, end: int, specials: Any) -> bool:
    """Whether a special case of this length begins and ends like these bytes: one word in six."""
    if end - start > LONGEST_SPECIAL or end <= start:
        return False
    lengths = specials[2][np.int64(text[start])] & specials[2][256 + np.int64(text[end - 1])]
    return np.int64(lengths) >> (end - start) & 1 != 0


@helper
def may_be_special_hash(key: Word, specials: Any) -> bool:
    """Whether a special case has the same 15 bits of its hash: one word in 25."""
    bits = key >> np.uint64(49)
    return specials[3][bits >> np.uint64(6)] >> (bits & np.uint64(63)) & np.uint64(1) != 0


@helper
def special_at(text: Any, start: int, end: int, specials: Any) -> Any:
    """Value of the special case that these bytes are, or 0."""
    if not may_be_special(text, start, end, specials):
        return np.int64(0)
    return special_of(span_hash(text, start, end - start), specials)


@helper
def special_of(key: Word, specials: Any) -> Any:
    """Value of the special case with this hash, or 0."""
    slot = np.int64(key & np.uint64(4095))
    while specials[0][slot] != 0:
        if specials[0][slot] == key:
            return np.int64(specials[1][slot])
        slot = (slot + 1) & 4095
    return np.int64(0)


@helper
def is_digit(code_point: int) -> bool:
    return 48 <= code_point < 58


@helper
def dots(chars: Any, start: int, end: int) -> int:
    """Number of consecutive periods from `start`."""
    i = start
    while i < end and chars[i] == _DOT:
        i += 1
    return i - start


@helper
def prefix_length(flags: Any, chars: Any, low: int, high: int) -> int:
    if flags[low] & PREFIX:
        return 1
    char = chars[low]
    if char == 43:  # +
        return 0 if low + 1 < high and is_digit(chars[low + 1]) else 1
    if char == _DOT:
        run = dots(chars, low, high)
        return run if run > 1 else 0
    if (char == 65 or char == 67) and low + 1 < high and chars[low + 1] == _DOLLAR:
        return 2
    if char == 85 and low + 2 < high and chars[low + 1] == 83 and chars[low + 2] == _DOLLAR:
        return 3
    return 0


@helper
def unit_length(text: Any, chars: Any, at: Any, low: int, high: int, units: Any) -> int:
    """Characters of the longest unit that ends here after a digit, or 0."""
    for length in range(min(LONGEST_UNIT, high - low - 1), 0, -1):
        start = high - length
        if is_digit(chars[start - 1]):
            key = span_hash(text, np.int64(at[start]), np.int64(at[high] - at[start]))
            slot = np.int64(key & np.uint64(511))
            while units[slot] != 0:
                if units[slot] == key:
                    return length
                slot = (slot + 1) & 511
    return 0


@helper
def suffix_length(
    text: Any, flags: Any, chars: Any, at: Any, low: int, high: int, any_of: int, units: Any
) -> int:
    """Characters of the longest suffix of chars[low:high]; nothing before `low` is looked at."""
    if low >= high:
        return 0
    char = chars[high - 1]
    before = chars[high - 2] if high - 2 >= low else np.int32(0)
    if char == _DOT:
        if before == _DOT:
            run = 2
            while high - 1 - run >= low and chars[high - 1 - run] == _DOT:
                run += 1
            return run
        if high - 2 < low:
            return 0
        if flags[high - 2] & BEFORE_PERIOD:
            return 1
        if high - 3 >= low:
            if flags[high - 2] & ALPHA_UPPER and flags[high - 3] & ALPHA_UPPER:
                return 1
            lower = before | 32
            if chars[high - 3] == 0xB0 and (lower == 102 or lower == 99 or lower == 107):
                return 1
        return 0
    if char == 43 and is_digit(before):
        return 1
    if (char | 32) == 115 and (before == 39 or before == 0x2019):  # 's
        return 2
    length = 1 if flags[high - 1] & SUFFIX else 0
    if char == _ELLIPSIS and before == _ELLIPSIS:
        return 2
    if flags[high - 1] & CURRENCY:
        if is_digit(before):
            length = 1
        elif char == _DOLLAR:
            if high - 4 >= low and before == 83 and chars[high - 3] == 85 and is_digit(chars[high - 4]):
                length = 3
            elif high - 3 >= low and (before == 65 or before == 67) and is_digit(chars[high - 3]):
                length = 2
    return max(length, unit_length(text, chars, at, low, high, units)) if any_of & DIGIT else length


@helper
def infix_length(flags: Any, chars: Any, i: int, low: int, high: int) -> int:
    """Characters of the infix that starts at i, or 0."""
    char = chars[i]
    if char == _ELLIPSIS or flags[i] & ICON:
        return 1
    if char == _DOT and i + 1 < high and chars[i + 1] == _DOT:
        return dots(chars, i, high)
    if i == low or i + 1 >= high:
        return 0
    before, after = flags[i - 1], flags[i + 1]
    if char == _DOT:
        return 1 if before & (ALPHA_LOWER | QUOTE) and after & (ALPHA_UPPER | QUOTE) else 0
    digit_before = is_digit(chars[i - 1])
    sign = char == 43 or char == _HYPHEN or char == 42 or char == 94
    if digit_before and sign and (is_digit(chars[i + 1]) or chars[i + 1] == _HYPHEN):
        return 1
    if not (digit_before or before & ALPHA):
        return 0
    if char == 44:  # ,
        return 1 if before & ALPHA and after & ALPHA else 0
    if char == 58 or char == 60 or char == 61 or char == 62 or char == 47:  # :<=>/
        return 1 if after & ALPHA else 0
    if char == _HYPHEN or char == 0x2013 or char == _EM_DASH or char == 126:
        if after & ALPHA:
            return 1
        if char == _HYPHEN or char == _EM_DASH:
            longest = 3 if char == _HYPHEN else 2
            length = 1
            while length < longest and i + length < high and chars[i + length] == char:
                length += 1
            if length > 1 and i + length < high and flags[i + length] & ALPHA:
                return length
    return 0


@helper
def is_host(flags: Any, chars: Any, i: int, high: int) -> bool:
    """Labels with periods, a lower-case top level domain, and a port, a path or nothing after it."""
    n_labels = 0
    while True:
        start = i
        while i < high:
            char = chars[i]
            lower = char | 32
            letter = 97 <= lower <= 122 or is_digit(char) or 0xA1 <= char <= 0xFFFF
            if not (letter or char == 95 or char == _HYPHEN):
                break
            i += 1
        if i >= high or chars[i] != _DOT or i == start or i - start > 64:
            break
        first, last = chars[start], chars[i - 1]
        if first == 95 or first == _HYPHEN or last == 95 or last == _HYPHEN:
            return False
        n_labels += 1
        i += 1
    i = start
    while i < high and flags[i] & ALPHA_LOWER:
        i += 1
    if n_labels == 0 or i - start < 2 or i - start > 63:
        return False
    if i < high and chars[i] == 58:
        start = i + 1
        i = start
        while i < high and flags[i] & DIGIT:
            i += 1
        if i - start < 2 or i - start > 5:
            return False
    return i == high or chars[i] == 47 or chars[i] == 63 or chars[i] == 35


@helper
def is_url(flags: Any, chars: Any, low: int, high: int) -> bool:
    """SpaCy's URL_MATCH: [scheme://][anything@]host[:port][/path]."""
    if high - low < 4:
        return False
    if is_host(flags, chars, low, high):
        return True
    scheme = True
    for i in range(low, high - 4):
        char = chars[i]
        if char == 64 and i > low and is_host(flags, chars, i + 1, high):  # @
            return True
        if scheme and not (flags[i] & WORD or char == 43 or char == _HYPHEN or char == _DOT):
            scheme = False
            slashes = char == 58 and i - low >= 2 and chars[i + 1] == 47 and chars[i + 2] == 47
            if slashes and is_host(flags, chars, i + 3, high):
                return True
    return False


@helper
def cut_special(at: Any, low: int, high: int, value: int, cuts: Any, n: int) -> int:
    """Append the ends of a special case's tokens."""
    start = at[low]
    for i in range(low + 1, high):
        n_bytes = at[i] - start
        if n_bytes == (value >> 8 & 255) or (value & 255 == 3 and n_bytes == value >> 16):
            cuts[n] = i
            n += 1
    cuts[n] = high
    return n + 1


@helper
def join_specials(text: Any, at: Any, specials: Any, cuts: Any, stack: Any, n_tokens: int) -> int:
    """Tokens that make up a special case together, such as ":" and ")", become its tokens."""
    for k in range(n_tokens):
        stack[k] = cuts[k]
    n = k = np.int64(0)
    while k < n_tokens:
        start = np.int64(0) if k == 0 else np.int64(stack[k - 1])
        last = min(k + 6, n_tokens) - 1
        value = np.int64(0)
        if specials[2][np.int64(text[at[start]])] == 0:  # none begins like this
            last = k
        while last > k and value == 0:
            value = special_at(text, np.int64(at[start]), np.int64(at[stack[last]]), specials)
            last -= value == 0
        if value:
            n = cut_special(at, start, np.int64(stack[last]), value, cuts, n)
            k = last + 1
        else:
            cuts[n] = stack[k]
            n += 1
            k += 1
    return n


@helper
def split_spacy(text: Any, n_chars: int, any_of: int, tables: Any, scratch: Any) -> int:
    """Cut a chunk of n_chars characters into tokens; returns how many. Token k ends before character cuts[k].

    any_of: flags that any character has. scratch: flags, chars, at of the chunk; cuts, stack int32 of the
    same size.
    """
    flags, chars, at, cuts, stack = scratch
    low, high, n_before, n, n_stack = np.int64(0), n_chars, np.int64(-1), np.int64(0), np.int64(0)
    special = np.int64(0)
    while low < high and high - low != n_before:
        special = special_at(text, np.int64(at[low]), np.int64(at[high]), tables[1])
        if special:
            break
        n_before = high - low
        prefix = prefix_length(flags, chars, low, high)
        if prefix and low + prefix < high:
            special = special_at(text, np.int64(at[low + prefix]), np.int64(at[high]), tables[1])
        if prefix:
            cuts[n] = low + prefix
            n += 1
        if special:
            low += prefix
            break
        suffix = suffix_length(text, flags, chars, at, low + prefix, high, any_of, tables[2])
        if suffix and high - suffix > low:
            # As in spaCy, the prefix is still on: it is no token if what remains with it is a special case.
            special = special_at(text, np.int64(at[low]), np.int64(at[high - suffix]), tables[1])
        if suffix:
            stack[n_stack] = high
            n_stack += 1
            high -= suffix
        if special:
            n -= prefix > 0
            break
        low += prefix
    if low < high:
        if special:
            n = cut_special(at, low, high, special, cuts, n)
        elif not any_of & INFIX or (any_of & DOT and is_url(flags, chars, low, high)):
            cuts[n] = high
            n += 1
        else:
            i = piece = low
            while i < high:
                length = infix_length(flags, chars, i, low, high) if flags[i] & INFIX else 0
                if length and i > low:
                    if i > piece:
                        cuts[n] = i
                        n += 1
                    cuts[n] = i + length
                    n += 1
                    piece = i + length
                i += max(length, 1)
            if piece < high:
                cuts[n] = high
                n += 1
    while n_stack:
        n_stack -= 1
        cuts[n] = stack[n_stack]
        n += 1
    return join_specials(text, at, tables[1], cuts, stack, n) if n > 1 else n
