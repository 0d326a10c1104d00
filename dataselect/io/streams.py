"""The decompressed bytes of a piece, read by need: memory stays the same however long the shard is."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO, Protocol

import pyarrow as pa

from dataselect.core.errors import BadShard
from dataselect.core.pieces import Codec
from dataselect.io.batch import Source

_CHUNK_BYTES = 64 << 10
_XZ_MEMORY_BYTES = 136 << 20  # a dictionary of 128 MiB and what else the decoder holds


class ByteStream(Protocol):
    """Bytes by need."""

    def readinto(self, view: memoryview, /) -> int:
        """Fill a part of `view`; 0 only at the end."""


@contextmanager
def piece_stream(source: Source, codec: Codec, start: int, stop: int | None) -> Iterator[ByteStream]:
    """All bytes of the lines that the piece [start, stop) owns, and no others.

    It owns the lines that start in (start, stop] of the decompressed stream, and the line at 0: it passes
    over everything through its first newline, and reads on through the first newline at or after `stop`.
    This needs no look at what comes before `start`, which for a compressed shard nobody knows.
    Whatever goes wrong in reading or decompressing is a BadShard; errors of the consumer pass untouched.
    """
    try:
        file = source.open()
    except OSError as error:
        raise BadShard(f"{source.name}: cannot be opened: {error.strerror or error}") from error
    with file:
        yield _PieceStream(source, file, codec, start, stop)


class _PieceStream:
    def __init__(self, source: Source, file: BinaryIO, codec: Codec, start: int, stop: int | None) -> None:
        self._source, self._file, self._codec = source, file, codec
        self._tail_start = source.size if codec in _MEMBERS or stop is None else min(stop, source.size)
        self._in_tail = False
        self._done = False
        self._pending = memoryview(b"")
        start = 0 if codec in _MEMBERS else start
        self._open(start, self._tail_start)
        if start > 0:
            self._pass_first_newline()

    def readinto(self, view: memoryview) -> int:
        if not len(self._pending) and not self._done and not self._in_tail:
            if n := self._decode(view):
                return n
            self._in_tail = True
            self._done = self._tail_start >= self._source.size
            if not self._done:
                self._open(self._tail_start, self._source.size)
        if not len(self._pending) and not self._done:
            self._read_tail()
        n = min(len(view), len(self._pending))
        view[:n] = self._pending[:n]
        self._pending = self._pending[n:]
        return n

    def _read_tail(self) -> None:
        chunk = bytearray(_CHUNK_BYTES)
        n = self._decode(memoryview(chunk))
        end = chunk.find(b"\n", 0, n) + 1
        self._done = n == 0 or end > 0
        self._pending = memoryview(chunk)[: end or n]

    def _pass_first_newline(self) -> None:
        chunk = bytearray(_CHUNK_BYTES)
        while n := self._decode(memoryview(chunk)):
            if end := chunk.find(b"\n", 0, n) + 1:
                self._pending = memoryview(chunk)[end:n]
                return
        self._done = True  # no newline: the piece before owns all of it

    def _open(self, start: int, stop: int) -> None:
        span = _Span(self._source, self._file, start, stop)
        if self._codec in _MEMBERS:
            self._decoder: ByteStream = _MemberStream(span, _MEMBERS[self._codec])
        elif self._codec == "zstd":
            # Arrow's stream reads across frames, knows a truncated frame from the end of the file (which
            # python-zstandard's reader does not), and refuses windows of more than 128 MiB.
            self._decoder = pa.CompressedInputStream(pa.PythonFile(span, mode="r"), "zstd")
        else:
            self._decoder = span
        if self._codec != "none" and self._source.size == 0:
            raise BadShard(f"{self._source.name}: is empty, truncated before its {self._codec} header")

    def _decode(self, view: memoryview) -> int:
        try:
            return self._decoder.readinto(view)
        except (OSError, zlib.error, lzma.LZMAError, EOFError, pa.ArrowException) as error:
            raise BadShard(f"{self._source.name}: {_explain(self._codec, str(error))}") from error


def _explain(codec: Codec, message: str) -> str:
    if codec == "none":
        return f"cannot be read: {message}"
    if "too much memory" in message:
        return (
            "was compressed with a window of more than 128 MiB (zstd --long=28 or more); "
            "compress it again with --long=27 or less"
        )
    if "Memory usage limit" in message:
        return (
            "was compressed with a dictionary of more than 128 MiB; "
            "compress it again with xz -9 (64 MiB) or less"
        )
    return f"the {codec} stream is truncated or corrupt ({message}); fetch or make the file again"


class _Span:
    """Bytes [start, stop) of a file, as the file object that decoders read from."""

    closed = False

    def __init__(self, source: Source, file: BinaryIO, start: int, stop: int) -> None:
        self._source, self._file = source, file
        self._left = max(0, stop - start)
        file.seek(start)

    def read(self, n_bytes: int) -> bytes:
        data = self._file.read(min(n_bytes, self._left))
        self._count(len(data))
        return data

    def readinto(self, view: memoryview) -> int:
        n: int = self._file.readinto(view[: self._left])  # type: ignore[attr-defined]
        self._count(n)
        return n

    def _count(self, n_bytes: int) -> None:
        if n_bytes == 0 and self._left:
            raise BadShard(
                f"{self._source.name}: ends {self._left} bytes early: truncated since it was listed"
            )
        self._left -= n_bytes

    def close(self) -> None:
        """The file is closed by whoever opened it."""


class _Member(Protocol):
    """What decodes one member of a file, in the manner of bz2.BZ2Decompressor."""

    @property
    def eof(self) -> bool:
        """Whether the member's end was decoded."""

    @property
    def needs_input(self) -> bool:
        """Whether more output takes more input."""

    @property
    def unused_data(self) -> bytes:
        """Bytes after the member's end."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most max_length bytes more."""


class _GzipMember:
    """zlib's decoder (RFC 1952) as a _Member."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


_MEMBERS: dict[Codec, Callable[[], _Member]] = {
    "gzip": _GzipMember,
    "bz2": bz2.BZ2Decompressor,
    "xz": partial(lzma.LZMADecompressor, lzma.FORMAT_XZ, _XZ_MEMORY_BYTES),
}
"""Codecs whose files are cut nowhere: a member is decoded from its start, and no index tells where one is."""


class _MemberStream:
    """All members of a file, one after another; zero bytes between and after them are padding."""

    def __init__(self, span: _Span, new_member: Callable[[], _Member]) -> None:
        self._span, self._new_member = span, new_member
        self._input = b""
        self._n_members = 0
        self._member: _Member | None = None

    def readinto(self, view: memoryview) -> int:
        while True:
            wants_input = self._member is None or self._member.needs_input
            if wants_input and not self._input:
                self._input = self._span.read(_CHUNK_BYTES)
            at_end = wants_input and not self._input
            if self._member is None:
                if self._n_members:
                    self._input = self._input.lstrip(b"\0")
                if at_end:
                    return 0
                if not self._input:
                    continue
                self._member = self._new_member()
                self._n_members += 1
            data = self._member.decompress(self._input, len(view))
            self._input = b""
            if self._member.eof:
                self._input = self._member.unused_data
                self._member = None
            elif at_end and not data:
                raise EOFError("it ends inside a member")
            if data:
                view[: len(data)] = data
                return len(data)
