"""What the readers take and give: a source of bytes, where the text is, batches of texts, bad rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataselect.core.errors import RecipeError

INVALID_JSON = "invalid JSON"
INVALID_UTF8 = "invalid UTF-8"
NOT_AN_OBJECT = "not a JSON object"
TWO_VALUES = "two JSON values on a line"
DUPLICATE_KEY = "duplicate key"
LONE_SURROGATE = "lone surrogate"
NUMBER_RANGE = "number out of range"
MISSING_TEXT = "text is missing"
TEXT_NOT_STRING = "text is not a string"
TOO_LONG = "row too long"

REASONS = (
    INVALID_JSON,
    INVALID_UTF8,
    NOT_AN_OBJECT,
    TWO_VALUES,
    DUPLICATE_KEY,
    LONE_SURROGATE,
    NUMBER_RANGE,
    MISSING_TEXT,
    TEXT_NOT_STRING,
    TOO_LONG,
)
"""Every reason for which a reader refuses a row; the ledger counts by these."""

DETAIL_CHARS = 200
JOINT = "\n"
"""Between the values of several text keys."""


class Source(Protocol):
    """A file to read, wherever it is."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def size(self) -> int:
        """Bytes, as listed; readers never read past it, and a file that ends earlier has changed."""

    def open(self) -> BinaryIO:
        """A new seekable reader."""


@dataclass(frozen=True, slots=True)
class TextSpec:
    """Where the text of a document is: one path, or several whose values are joined by a newline.

    A path is a tuple of keys from the outermost object inwards. Null values are skipped; the text is
    missing only where all of them are.
    """

    paths: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, value: str | list[str] | tuple[str, ...]) -> TextSpec:
        """From a recipe: "text", "doc.body" (nested), or a list of these. RecipeError where ambiguous."""
        names = [value] if isinstance(value, str) else list(value)
        paths = tuple(split_path(name) for name in names)
        if not paths:
            raise RecipeError("input.text: name at least one key")
        for i, path in enumerate(paths):
            for other in paths[i + 1 :]:
                shorter = min(len(path), len(other))
                if path[:shorter] == other[:shorter]:
                    raise RecipeError(f"input.text: '{'.'.join(path)}' and '{'.'.join(other)}' overlap")
        return cls(paths)

    def __str__(self) -> str:
        return " + ".join(".".join(path) for path in self.paths)


def split_path(name: str) -> tuple[str, ...]:
    """The keys of a dotted path; RecipeError where one is empty."""
    keys = tuple(name.split("."))
    if not all(keys):
        raise RecipeError(f"'{name}' is not a key or a dotted path of keys")
    return keys


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that goes to quarantine."""

    row: int
    """Number within its segment."""
    reason: str
    """One of REASONS."""
    detail: str = ""
    """What exactly, at most DETAIL_CHARS characters; never needed to count or to group."""


@dataclass(frozen=True, slots=True)
class SegmentEnd:
    """Comes with the last batch of a segment."""

    digest: str
    """128 bits in 32 hex digits: the identity of the segment's content."""
    n_bytes: int
    """Bytes that the digest covers."""
    n_rows: int
    """All rows of the segment, bad ones included."""
    shard_rows: tuple[int, ...] = ()
    """Rows of each shard, where the piece is a group of shards."""


@dataclass(slots=True)
class TextBatch:
    """Consecutive rows of one segment: the good ones as Arrow arrays, the bad ones as a list."""

    segment: int
    first_row: int
    """Number within the segment of the first row that this batch covers."""
    n_rows: int
    """Rows covered, good and bad."""
    rows: np.ndarray
    """int64[n_good]: the row number within the segment of each text, ascending."""
    texts: pa.LargeStringArray
    """n_good values, no nulls, valid UTF-8."""
    ids: pa.LargeStringArray | None
    """n_good values, null where the row has none; None where no id column is configured."""
    bad: list[BadRow] = field(default_factory=list)
    n_bytes_read: int = 0
    """Uncompressed bytes covered, for progress."""
    segment_end: SegmentEnd | None = None
    """Set on the last batch of each segment, which may have no rows."""
    fields: dict[str, pa.Array] = field(default_factory=dict)
    """Input fields that were asked for, n_good values each; see io.fields."""
    misfits: dict[str, int] = field(default_factory=dict)
    """For each of them how many values of good or bad rows are of another type."""


def id_path(name: str | None, text: TextSpec) -> tuple[str, ...] | None:
    """The path of the id; RecipeError where it goes through a text's value or a text's path through its."""
    if name is None:
        return None
    path = split_path(name)
    for other in text.paths:
        shorter = min(len(path), len(other))
        if path != other and path[:shorter] == other[:shorter]:
            raise RecipeError(f"input.id: '{name}' overlaps with the text '{'.'.join(other)}'")
    return path


def joined_texts(values: list[pa.Array]) -> pa.LargeStringArray:
    """Several large_string[n] as one, joined by newlines; null only where all of them are."""
    joined = values[0]
    for value in values[1:]:
        # Not null_handling="skip" over all columns: it loses rows in which every value is null (Arrow 26).
        both = pc.binary_join_element_wise(joined, value, pa.scalar(JOINT, pa.large_string()))
        joined = pc.coalesce(both, joined, value)
    return joined


def empty_texts() -> pa.LargeStringArray:
    """No text at all."""
    return pa.array([], pa.large_string())


def utf8_valid(data: np.ndarray) -> bool:
    """Whether uint8[n] is valid UTF-8 as a whole (4 GB/s)."""
    ends = pa.py_buffer(np.array([0, len(data)], np.int64))
    try:
        pa.LargeStringArray.from_buffers(1, ends, pa.py_buffer(data)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
