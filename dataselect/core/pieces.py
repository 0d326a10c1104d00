"""Shards as they are listed, and the pieces they are cut into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from dataselect.core.fingerprint import fingerprint

Format = Literal["jsonl", "parquet", "arrow"]
Codec = Literal["none", "gzip", "zstd", "bz2", "xz"]

_LINES = (".jsonl", ".ndjson", ".json")
_COMPRESSED: dict[str, Codec] = {"": "none", ".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
SUFFIXES: dict[str, tuple[Format, Codec]] = {
    **{lines + end: ("jsonl", codec) for end, codec in _COMPRESSED.items() for lines in _LINES},
    ".parquet": ("parquet", "none"),
    ".arrow": ("arrow", "none"),
}
"""File name endings that say how a shard is read; the longest match counts."""


TEXT_PER_BYTE: dict[Codec, int] = {"none": 1, "gzip": 3, "zstd": 4, "bz2": 4, "xz": 4}
"""Text bytes a byte on the store, about."""


def usual_text_bytes(n_bytes: int, form: Format, codec: Codec) -> int:
    """About how much text n_bytes on the store hold, by what compression usually does."""
    return n_bytes * (3 if form == "parquet" else TEXT_PER_BYTE[codec])


def suffix_of(name: str) -> str | None:
    """The ending of `name` that SUFFIXES knows, or None."""
    matches = [suffix for suffix in SUFFIXES if name.endswith(suffix)]
    return max(matches, key=len) if matches else None


@dataclass(frozen=True, slots=True)
class Shard:
    """One input file as the listing shows it."""

    name: str
    """Path relative to the input patterns' common folder, with '/' on every platform; orders rows."""
    url: str
    """Where it is; never part of a fingerprint."""
    size: int
    """Bytes on the store."""
    version: str
    """Modification time in ns, or an object store's ETag: changes when the content may have changed."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one task reads: a shard, a range of one, or a group of small shards; cut by the data alone.

    Pieces are ordered by (shard name, start), which with the row makes the DocId.
    """

    shards: tuple[Shard, ...]
    format: Format
    codec: Codec
    start: int = 0
    """First byte (JSONL; compressed bytes for zstd), first row group (Parquet), or first byte of a record
    batch (Arrow; 0 for the first one)."""
    stop: int | None = None
    """One past the last byte or row group; None: to the end."""
    part: int = 0
    """Number of this piece within its shard."""
    n_parts: int = 1
    n_bytes: int = 0
    """Bytes on the store; for progress and for estimates only."""

    @property
    def text_bytes(self) -> int:
        """About how much text it holds; for estimates only."""
        return usual_text_bytes(self.n_bytes, self.format, self.codec)

    @property
    def row_groups(self) -> tuple[int, int | None] | None:
        """(first, one past the last) row group of a Parquet piece; None for all of the file."""
        return None if self.start == 0 and self.stop is None else (self.start, self.stop)

    @property
    def suffix(self) -> str:
        """Ending of its shards' names."""
        return suffix_of(self.shards[0].name) or ""

    @property
    def stem(self) -> str:
        """Name without the ending: 'a/b', 'a/b-00003' for a part, 'a/b+12' for a group of 13 shards."""
        stem = self.shards[0].name.removesuffix(self.suffix)
        if self.n_parts > 1:
            stem += f"-{self.part:05d}"
        return stem + (f"+{len(self.shards) - 1}" if len(self.shards) > 1 else "")

    @property
    def name(self) -> str:
        """Name for messages and for the output shard."""
        return self.stem + self.suffix

    def place(self, cut: Sequence[Any]) -> str:
        """Key under which the store remembers this piece's identity (a look-up, not a fingerprint).

        cut: what its segments depend on besides its content; see io.reader.ReadSpec.
        """
        return fingerprint("place", [shard.url for shard in self.shards], self.start, self.stop, cut)

    def singles(self) -> list[Piece]:
        """A group's shards as pieces of their own."""
        return [replace(self, shards=(shard,), n_bytes=shard.size) for shard in self.shards]

    def version(self) -> str:
        """Changes when a listing shows that the content may have changed."""
        return fingerprint("version", [[shard.size, shard.version] for shard in self.shards])


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of rows of one piece with its own content digest: the unit in which artifacts are stored.

    Most pieces are one segment; a long one has one every `segment_bytes` of its decompressed stream (of
    its text for Parquet), so that a restart resumes inside it.
    """

    index: int
    """Number of the segment within its piece."""
    digest: str
    """128 bits over its rows' bytes, in hex: the identity that fingerprints use."""
    n_rows: int
    """Physical rows, quarantined ones included."""
