"""Write dataselect/kernels/unicode-<version>.npz from the Unicode data of the Python that runs this script.

    python scripts/make_unicode_tables.py

The tables decide what a word is, so a new version changes signatures and n-gram counts: raise the version
of the stages that use them, and UNICODE_VERSION in dataselect/kernels/unicode_tables.py, with the file.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np

KERNELS = Path(__file__).parents[1] / "dataselect" / "kernels"
N_CODE_POINTS = 0x110000
PAGE = 256
OTHER, WORD, SPACE = 0, 1, 2
CASED, CASE_IGNORABLE = 1, 2
CAPITAL_SIGMA, FINAL_SIGMA = "\u03a3", "\u03c2"
LOWER_SPECIAL = {0x0130: 0x0069}  # str.lower() gives two code points; UnicodeData.txt's simple mapping is "i"


def entry(code_point: int) -> int:
    """(lower-case code point - code point) * 4 + class: a difference, so that most pages are equal."""
    char = chr(code_point)
    is_word = char.isalnum() or char == "_"
    char_class = WORD if is_word else SPACE if char.isspace() else OTHER
    lower = char.lower()
    lower_code_point = ord(lower) if len(lower) == 1 else LOWER_SPECIAL[code_point]
    return (lower_code_point - code_point) * 4 + char_class


def case(code_point: int) -> int:
    """CASED or CASE_IGNORABLE, asked of str.lower(): a sigma is final after a cased character."""
    char = chr(code_point)
    if (char + CAPITAL_SIGMA).lower().endswith(FINAL_SIGMA):
        return CASED
    return CASE_IGNORABLE if ("A" + char + CAPITAL_SIGMA).lower().endswith(FINAL_SIGMA) else 0


def paged(entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(page_of uint8[0x1100], flat distinct pages in the entries' type)."""
    pages, page_of = np.unique(entries.reshape(-1, PAGE), axis=0, return_inverse=True)
    if len(pages) > 256:
        raise SystemExit(f"{len(pages)} distinct pages: page_of needs a wider type than uint8")
    return page_of.reshape(-1).astype(np.uint8), pages.reshape(-1)


def main() -> None:
    code_points = range(N_CODE_POINTS)
    page_of, pages = paged(np.array([entry(code_point) for code_point in code_points], np.int32))
    case_page_of, case_pages = paged(np.array([case(code_point) for code_point in code_points], np.uint8))
    path = KERNELS / f"unicode-{unicodedata.unidata_version}.npz"
    np.savez_compressed(path, page_of=page_of, pages=pages, case_page_of=case_page_of, case_pages=case_pages)
    n_pages = (len(pages) + len(case_pages)) // PAGE
    print(f"{path.name}: {n_pages} pages, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
