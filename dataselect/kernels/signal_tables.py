"""What the quality signals know of code points: flags, special cases and units, in a file of this package.

Properties of Unicode 14.0 as Python has them, the character classes of spaCy 3.8's English tokenizer,
datatrove 0.10's punctuation, and the word break property of Unicode 16 (uniseg 0.10, which DCLM uses).
scripts/make_signal_tables.py writes the file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

SPACE = 1 << 0
"""str.isspace()"""
ALPHABETIC = 1 << 1
"""str.isalpha()"""
ALNUM = 1 << 2
"""str.isalnum()"""
UPPER = 1 << 3
"""str.isupper()"""
LOWER = 1 << 4
"""str.islower(), or title case: a word with one is not upper case."""
NUMERIC = 1 << 5
"""str.isnumeric()"""
LINE_BREAK = 1 << 6
"""Where str.splitlines() splits."""
SYMBOL = 1 << 7
"""datatrove's PUNCTUATION and TERMINAL_PUNCTUATION."""
TERMINAL = 1 << 8
"""datatrove's TERMINAL_PUNCTUATION: Unicode's sentence terminators."""
SENTENCE_END = 1 << 9
"""spaCy's sentencizer: punct_chars."""
PUNCT = 1 << 10
"""General category P: spaCy's token.is_punct."""
PREFIX = 1 << 11
"""One character that spaCy splits off at the front."""
SUFFIX = 1 << 12
"""One character that spaCy splits off at the end, whatever is before it."""
ALPHA = 1 << 13
ALPHA_LOWER = 1 << 14
ALPHA_UPPER = 1 << 15
ICON = 1 << 16
QUOTE = 1 << 17
BEFORE_PERIOD = 1 << 18
"""A period after it is split off."""
CURRENCY = 1 << 19
DIGIT = 1 << 20
r"""\d"""
BULLET = 1 << 21
"""RedPajama-V2's bullets."""
ASCII_PUNCT = 1 << 22
"""string.punctuation"""
WORD = 1 << 23
r"""\w"""
INFIX = 1 << 24
"""spaCy may split around it inside a chunk."""
DOT = 1 << 25
"""A period, without which nothing is a URL."""
WORD_BREAK_SHIFT = 27
"""From here on the code of the word break property, in the order of the constants below."""

(
    WB_OTHER, WB_CR, WB_LF, WB_NEWLINE, WB_EXTEND, WB_ZWJ, WB_REGIONAL, WB_FORMAT, WB_KATAKANA, WB_HEBREW,
    WB_ALETTER, WB_SINGLE_QUOTE, WB_DOUBLE_QUOTE, WB_MIDNUMLET, WB_MIDLETTER, WB_MIDNUM, WB_NUMERIC,
    WB_EXTENDNUMLET, WB_WSEGSPACE,
) = range(19)  # fmt: skip

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")

LONGEST_SPECIAL = 29
"""Bytes of the longest special case."""
LONGEST_UNIT = 6
"""Characters of the longest unit."""

with np.load(Path(__file__).with_name("signal-tables.npz")) as _file:
    PAGE_OF: np.ndarray = _file["page_of"]
    """uint8[0x1100]: which page of 256 entries holds code points 256 * i to 256 * i + 255."""
    PAGES: np.ndarray = _file["pages"]
    """uint32[n_pages * 256]: the flags."""
    SPECIAL_KEYS: np.ndarray = _file["special_keys"]
    """uint64[4096]: hashes of spaCy's special cases, linear probing, 0 where empty."""
    SPECIAL_VALUES: np.ndarray = _file["special_values"]
    """int32[4096]: number of tokens | bytes of the first << 8 | bytes of the first two << 16."""
    UNIT_KEYS: np.ndarray = _file["unit_keys"]
    """uint64[512]: hashes of spaCy's units, linear probing, 0 where empty."""
    SPECIAL_LENGTHS: np.ndarray = _file["special_lengths"]
    """uint32[512]: bit n of [b] and [256 + b]: a special case of n bytes starts, or ends, with byte b."""
    STOP_KEYS: np.ndarray = _file["stop_keys"]
    """uint64[64]: hashes of Gopher's stop words (arXiv 2112.11446, appendix A.1.1), linear probing."""
    STOP_NUMBERS: np.ndarray = _file["stop_numbers"]
    """int32[64]: place of the word in STOP_WORDS, from 1."""
SPECIAL_BITS: np.ndarray = np.zeros(1 << 9, np.uint64)
"""uint64[512]: bit h: a special case whose hash has h as its highest 15 bits."""
for _key in SPECIAL_KEYS[SPECIAL_KEYS != 0].tolist():
    SPECIAL_BITS[_key >> 55] |= np.uint64(1 << (_key >> 49 & 63))
for _table in (
    PAGE_OF,
    PAGES,
    SPECIAL_KEYS,
    SPECIAL_VALUES,
    UNIT_KEYS,
    SPECIAL_LENGTHS,
    SPECIAL_BITS,
    STOP_KEYS,
    STOP_NUMBERS,
):
    _table.flags.writeable = False


def flags_of(code_point: int) -> int:
    """The flags of one code point."""
    return int(PAGES[int(PAGE_OF[code_point >> 8]) * 256 + (code_point & 255)])
