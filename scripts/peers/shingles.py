"""Word 5-grams in plain Python, for the libraries that take ready tokens."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+")
N = 5


def shingles(text: str) -> list[str]:
    r"""All runs of five \w words, lower-cased and joined by a space; fewer words are one shingle."""
    words = _WORD.findall(text.lower())
    return [" ".join(words[i : i + N]) for i in range(max(len(words) - N + 1, 1))]
