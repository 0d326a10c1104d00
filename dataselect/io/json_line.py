"""One JSON line by the standard library's parser: slow, obvious, and able to say what is wrong with it."""

from __future__ import annotations

import json
import re
from typing import Any

from dataselect.io.batch import (
    DUPLICATE_KEY,
    INVALID_JSON,
    INVALID_UTF8,
    JOINT,
    LONE_SURROGATE,
    MISSING_TEXT,
    NOT_AN_OBJECT,
    NUMBER_RANGE,
    TEXT_NOT_STRING,
    TWO_VALUES,
    TextSpec,
    split_path,
)
from dataselect.io.lines import WHITE_SPACE


class Refusal(Exception):
    """Why a row is bad: one of REASONS, and what exactly."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


TOO_DEEP = Refusal(INVALID_JSON, "nested too deeply")


def parse_line(
    line: bytes,
    text: TextSpec,
    id: str | None,  # noqa: A002
) -> tuple[str, str | None] | Refusal:
    """(text, id) of one line, or why it is bad: the slow twin of iter_jsonl.

    Known differences, all where iter_jsonl follows Arrow: nesting deeper than Python's recursion limit
    (about 1,000) is refused here; Arrow alone accepts `Inf` for Infinity.
    """
    try:
        obj = load_object(line)
        values = [_text_at(obj, path) for path in text.paths]
        strings = [value for value in values if value is not None]
        if not strings:
            return Refusal(MISSING_TEXT)
        return JOINT.join(strings), None if id is None else id_text(lookup(obj, split_path(id)))
    except Refusal as refusal:
        return refusal
    except RecursionError:
        return TOO_DEEP


def _text_at(obj: _Object, path: tuple[str, ...]) -> str | None:
    value = lookup(obj, path)
    if isinstance(value, _Astray):
        raise Refusal(TEXT_NOT_STRING, value)
    if value is not None and type(value) is not str:
        raise Refusal(TEXT_NOT_STRING, f"'{'.'.join(path)}' is {_kind(value)}")
    return value


class _Object(list[tuple[str, Any]]):
    """A JSON object as its pairs, so that repeated keys can be seen."""


class Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


class _Astray(str):
    """What was found where an object on the path was expected."""

    __slots__ = ()


_EXPONENT = re.compile(r"(?:\.([0-9]+))?[eE]\+?([0-9]+)$")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def _number(token: str) -> Number:
    """Arrow refuses an exponent of over 308 + (digits after the point), whatever comes before it."""
    match = _EXPONENT.search(token)
    if match:
        exponent = match[2].lstrip("0") or "0"
        if len(exponent) > 9 or int(exponent) > 308 + len(match[1] or ""):
            raise Refusal(NUMBER_RANGE, token)
    return Number(token)


_DECODER = json.JSONDecoder(object_pairs_hook=_Object, parse_int=_number, parse_float=_number)


def load_object(line: bytes) -> _Object:
    """The object on a line. Raises Refusal, RecursionError."""
    try:
        chars = line.decode().strip(WHITE_SPACE.decode())
        value, end = _DECODER.raw_decode(chars)
    except UnicodeDecodeError as error:
        raise Refusal(INVALID_UTF8, f"byte {error.start} of the line") from None
    except json.JSONDecodeError as error:
        raise Refusal(INVALID_JSON, f"{error.msg} at character {error.pos}") from None
    rest = chars[end:].strip(WHITE_SPACE.decode())
    if rest:
        try:
            _DECODER.raw_decode(rest)
        except json.JSONDecodeError:
            raise Refusal(INVALID_JSON, f"more after the value at character {end}") from None
        raise Refusal(TWO_VALUES)
    if not isinstance(value, _Object):
        raise Refusal(NOT_AN_OBJECT, f"it is {_kind(value)}")
    if _SURROGATE.search(line):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Refusal(LONE_SURROGATE) from None
    return value


def lookup(value: Any, path: tuple[str, ...]) -> Any:
    """The value at `path`, None where there is none. Refusal where a key on the way is there twice."""
    for depth, key in enumerate(path):
        if value is None:
            return None
        if not isinstance(value, _Object):
            return _Astray(f"'{'.'.join(path[:depth])}' is {_kind(value)}")
        found = [item for name, item in value if name == key]
        if len(found) > 1:
            raise Refusal(DUPLICATE_KEY, f"'{'.'.join(path[: depth + 1])}'")
        value = found[0] if found else None
    return value


def id_text(value: Any) -> str | None:
    if isinstance(value, Number):
        return "0" if value == "-0" else str(value)
    return value if type(value) is str else None


def _kind(value: Any) -> str:
    if isinstance(value, _Object):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (Number, float)):
        return "a number"
    return "null" if value is None else "a string"
