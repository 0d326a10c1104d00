"""Texts as fastText reads them from a training file: the same tokens that scoring sees."""

from __future__ import annotations

_SEPARATORS_TO_SPACE = bytes.maketrans(b"\t\n\v\f\r\0", b"      ")
_PREFIX = "__label__"


def training_line(text: str) -> bytes:
    """The text as one line of fastText tokens, without a newline; empty where scoring would see no token.

    As in scoring, newlines are spaces, a token `</s>` ends the document, and tokens that begin with
    `__label__` are no words. In a training file they would be labels, and the rest after `</s>` a document.
    """
    line = text.encode().translate(_SEPARATORS_TO_SPACE)
    if b"</s>" in line or b"__label__" in line:
        tokens = line.split(b" ")
        if b"</s>" in tokens:
            tokens = tokens[: tokens.index(b"</s>")]
        line = b" ".join(token for token in tokens if not token.startswith(_PREFIX.encode()))
    return line if line.strip(b" ") else b""


def label_name(value: str) -> str:
    """A label as one token: without `__label__`, white space around it gone and inside it as `_`."""
    line = value.strip().removeprefix(_PREFIX).encode().translate(_SEPARATORS_TO_SPACE)
    return line.replace(b" ", b"_").decode()
