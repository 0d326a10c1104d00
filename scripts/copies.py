"""More text out of real text: copies in which every word carries a suffix, so that copies share no n-gram."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator

SUFFIX_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
# The end of a run of word characters. Not of what stands between spaces: in a path, in code and in Chinese
# that would leave runs of words without any suffix, and copies would share n-grams.
_WORD_END = re.compile(r"(?<=\w)(?!\w)")
_MARK = "\U0010ffff"  # a noncharacter: no text has a use for it
_MARK_BYTES = _MARK.encode()


def marked(text: str) -> str:
    """The text with a mark at the end of every word, for `with_suffix`."""
    return _WORD_END.sub(_MARK, text)


def json_escaped(text: str) -> bytes:
    """The text as it stands between the quotes of a JSON string; marks stay."""
    return json.dumps(text, ensure_ascii=False).encode()[1:-1]


def with_suffix(marked_text: bytes, suffix: bytes) -> bytes:
    """One copy: every mark becomes the suffix."""
    return marked_text.replace(_MARK_BYTES, suffix)


def n_words(marked_text: bytes) -> int:
    """Number of marks."""
    return marked_text.count(_MARK_BYTES)


def suffixes(n_copies: int) -> Iterator[bytes]:
    """At least `n_copies` distinct suffixes of one length, the shortest that gives so many.

    One length for all: no copy has longer words than another, and no word is in two copies.
    """
    length = 1
    while len(SUFFIX_LETTERS) ** length < n_copies:
        length += 1
    return ("".join(letters).encode() for letters in itertools.product(SUFFIX_LETTERS, repeat=length))


def json_line(id_: str, escaped_text: bytes) -> bytes:
    """A row {"id", "text"} with its newline."""
    return b'{"id": %b, "text": "%b"}\n' % (json.dumps(id_, ensure_ascii=False).encode(), escaped_text)
