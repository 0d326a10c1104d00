r"""Which code points are word characters and white space, and their lower case: files of this package.

The tables and not the interpreter decide, so that results are the same on any Python. They hold, for Unicode
UNICODE_VERSION, exactly Python's `\w` (str.isalnum() or "_") and `\s` (str.isspace()), and the SIMPLE
lower-case mapping, one code point to one. Two deviations from str.lower() follow (wordpunct.py has neither):

- U+0130 (capital I with dot) becomes "i", not "i" followed by a combining dot;
- capital sigma always becomes U+03C3, also at the end of a word, where str.lower() gives U+03C2.

scripts/make_unicode_tables.py writes the file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

UNICODE_VERSION = "14.0.0"

OTHER, WORD, SPACE = 0, 1, 2
"""Classes of a code point; OTHER is `[^\\w\\s]`: punctuation, symbols, marks, unassigned."""

CASED, CASE_IGNORABLE = 1, 2
"""Case properties of a code point, for the rule of the final sigma; 0 is neither."""

with np.load(Path(__file__).with_name(f"unicode-{UNICODE_VERSION}.npz")) as _file:
    PAGE_OF: np.ndarray = _file["page_of"]
    """uint8[0x1100]: which page of 256 entries holds code points 256 * i to 256 * i + 255."""
    PAGES: np.ndarray = _file["pages"]
    """int32[n_pages * 256]: (lower-case code point - code point) * 4 + class."""
    CASE_PAGE_OF: np.ndarray = _file["case_page_of"]
    """uint8[0x1100], as PAGE_OF."""
    CASE_PAGES: np.ndarray = _file["case_pages"]
    """uint8[n_case_pages * 256]: CASED, CASE_IGNORABLE or 0."""
for _table in (PAGE_OF, PAGES, CASE_PAGE_OF, CASE_PAGES):
    _table.flags.writeable = False


def lookup(code_point: int) -> tuple[int, int]:
    """(class, lower-case code point) of one code point."""
    entry = int(PAGES[int(PAGE_OF[code_point >> 8]) * 256 + (code_point & 255)])
    return entry & 3, code_point + (entry >> 2)


def case_of(code_point: int) -> int:
    """CASED, CASE_IGNORABLE or 0."""
    return int(CASE_PAGES[int(CASE_PAGE_OF[code_point >> 8]) * 256 + (code_point & 255)])
