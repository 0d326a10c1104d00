"""Arrow IPC shards, as Hugging Face `datasets` saves them, to batches of texts and to whole tables.

A stream is a row of messages: the schema, then dictionaries and record batches, then an end mark (Arrow
columnar format, "Encapsulated message format"). Each says how long it is, so a part of a stream is read
without what lies before it. An IPC file is a stream with a magic around it and an index behind it.
"""

from __future__ import annotations

import itertools
import mmap
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import xxhash

from dataselect.core.errors import BadShard
from dataselect.io.batch import SegmentEnd, Source, TextBatch, TextSpec
from dataselect.io.fields import FieldSpec
from dataselect.io.table_texts import Pending, TextColumns, retyped

Span = tuple[int, int | None]
"""Bytes [start, stop) of a shard: 0, the start of a record batch's message, or None for the end."""

_MARK, _MAGIC = 0xFFFFFFFF, b"ARROW1"
_END = struct.pack("<II", _MARK, 0)
_SCHEMA, _DICTIONARY, _RECORD_BATCH = 1, 2, 3
_BYTES = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}
_STEP_BYTES, _STEP_ROWS = 1 << 20, 1024  # of a record batch at once: some writers make one of the whole table
_RELEASE_BYTES = 32 << 20
_DIGEST_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class _Message:
    kind: int
    start: int
    stop: int
    n_rows: int
    """Of a record batch."""


def schema_of(source: Source) -> pa.Schema:
    """The schema with its metadata. Raises BadShard."""
    with _opened(source) as file:
        return _Part(source, file, (0, 0)).reader().schema


def batch_offsets(source: Source) -> list[int]:
    """Where the shard may be cut: 0, and the first byte of each record batch but the first. Raises BadShard.

    Only 0 where it has dictionaries, because a record batch then needs what lies before it.
    """
    with _opened(source) as file:
        messages = _Part(source, file, (0, None)).messages
    if any(message.kind != _RECORD_BATCH for message in messages):
        return [0]
    return [0, *(message.start for message in messages[1:])]


def content_digest(source: Source, span: Span = (0, None)) -> SegmentEnd:
    """xxh3_128 of the schema's and the span's messages as they are; reads, but decodes nothing."""
    with _opened(source) as file:
        part = _Part(source, file, span)
        total = xxhash.xxh3_128(part.head)
        for chunk in part.raw():
            total.update(chunk)
    n_rows = sum(message.n_rows for message in part.messages)
    return SegmentEnd(total.hexdigest(), part.stop - part.start, n_rows)


def iter_arrow(
    source: Source,
    *,
    text: TextSpec,
    id: str | None,  # noqa: A002
    span: Span = (0, None),
    batch_rows: int = 16_384,
    batch_bytes: int = 4 << 20,
    max_row_bytes: int = 64 << 20,
    fields: Sequence[FieldSpec] = (),
) -> Iterator[TextBatch]:
    """The texts (and ids) of a span as one segment without its end; see io.parquet.iter_parquet.

    Memory: a few batches for a local file, which is mapped, unless its buffers are compressed; else the
    largest record batch. Raises BadShard where the shard is corrupt, or has no such column.
    """
    with _opened(source) as file:
        part = _Part(source, file, span)
        reader = part.reader()
        columns = TextColumns(source, reader.schema, text, id, max_row_bytes, fields)
        pending, n_rows = Pending(batch_rows, batch_bytes), 0
        for step in part.steps(reader, columns.tops):
            with _shard_errors(source):
                read = columns.chunk(step)
            for chunk in pending.add(read):
                yield columns.batch(chunk, n_rows)
                n_rows += len(chunk)
        for chunk in pending.rest():
            yield columns.batch(chunk, n_rows)
            n_rows += len(chunk)


def iter_arrow_tables(
    source: Source, span: Span = (0, None), batch_bytes: int = 8 << 20
) -> Iterator[tuple[int, pa.Table]]:
    """(first row, table of about batch_bytes) of all columns; rows count from the span's first one."""
    with _opened(source) as file:
        part = _Part(source, file, span)
        reader = part.reader()
        first_row = n_bytes = 0
        pending: list[pa.RecordBatch] = []
        for step in part.steps(reader, None):
            pending.append(step)
            n_bytes += step.nbytes
            if n_bytes >= batch_bytes:
                table = pa.Table.from_batches(pending, reader.schema)
                yield first_row, table
                first_row, pending, n_bytes = first_row + len(table), [], 0
        if pending:
            yield first_row, pa.Table.from_batches(pending, reader.schema)


class _Part:
    """The schema and the messages of a span, found without reading what the messages hold."""

    def __init__(self, source: Source, file: BinaryIO, span: Span) -> None:
        self._source, self._file = source, file
        first = 8 if _read(source, file, 0, 8).startswith(_MAGIC) else 0
        schema = next(_walk(source, file, first), None)
        if schema is None or schema.kind != _SCHEMA:
            raise _broken(source, "it does not begin with a schema")
        self.head = _read(source, file, schema.start, schema.stop - schema.start)
        start, stop = span
        self.start = max(start, schema.stop)
        walk = _walk(source, file, self.start)
        self.messages = list(itertools.takewhile(lambda m: stop is None or m.start < stop, walk))
        self.stop = self.messages[-1].stop if self.messages else self.start
        if any(message.kind not in (_DICTIONARY, _RECORD_BATCH) for message in self.messages):
            raise _broken(source, "a message is of no known kind")
        if stop is None:
            self._check_end(is_file=first > 0)

    def _check_end(self, *, is_file: bool) -> None:
        rest = self._source.size - self.stop - len(_END)
        if is_file and _read(self._source, self._file, self._source.size - 6, 6) != _MAGIC:
            raise _broken(self._source, "its index is missing")
        if rest and not is_file:
            raise _broken(self._source, f"{rest} bytes follow its end")

    def raw(self) -> Iterator[bytes]:
        """The messages' bytes."""
        for at in range(self.start, self.stop, _DIGEST_CHUNK_BYTES):
            yield _read(self._source, self._file, at, min(_DIGEST_CHUNK_BYTES, self.stop - at))

    def reader(self) -> pa.RecordBatchStreamReader:
        """Arrow's reader of the part."""
        self._bytes = _Mapped(self._source, self._file, self.start, self.stop, self.head)
        with _shard_errors(self._source):
            return pa.ipc.open_stream(pa.PythonFile(self._bytes, mode="r"))

    def steps(self, reader: pa.RecordBatchStreamReader, names: list[str] | None) -> Iterator[pa.RecordBatch]:
        """Record batches and slices of long ones, of the columns `names` or all."""
        schema = reader.schema
        chosen = [i for i, name in enumerate(schema.names) if names is None or name in names]
        n_rows = n_bytes = 0
        while True:
            with _shard_errors(self._source):
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    break
                # Before it is checked, nothing of a mapped array may be used, not even its size.
                for i in chosen:
                    _check(batch.column(i))
                batch = batch.select(chosen)
                step_rows = min(max(1, _STEP_BYTES * len(batch) // max(1, batch.nbytes)), _STEP_ROWS)
            for first in range(0, len(batch), step_rows):
                step = batch.slice(first, step_rows)
                n_rows, n_bytes = n_rows + len(step), n_bytes + step.nbytes
                yield step
                if n_bytes >= _RELEASE_BYTES:
                    self._bytes.release()
                    n_bytes = 0
        if n_rows != sum(message.n_rows for message in self.messages):
            raise _broken(self._source, f"{n_rows} rows are not what its messages say")


class _Mapped:
    """The file that Arrow reads: a schema, a part of a stream, the end mark.

    The part is mapped where the file system maps files, so that Arrow's buffers are the file's pages.
    """

    closed = False

    def __init__(self, source: Source, file: BinaryIO, start: int, stop: int, head: bytes) -> None:
        self._source, self._file, self._at, self._stop = source, file, start, stop
        self._head, self._tail = memoryview(head), memoryview(_END)
        self._map: mmap.mmap | None = None
        try:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # on an object store, or empty
            self._map = None

    def read(self, n_bytes: int) -> memoryview | bytes:
        """Arrow reads a message's head and its body at once each, never across the seams."""
        if self._head:
            data, self._head = self._head[:n_bytes], self._head[n_bytes:]
        elif self._at < self._stop:
            n_bytes = min(n_bytes, self._stop - self._at)
            if self._map is None:
                found: memoryview | bytes = _read(self._source, self._file, self._at, n_bytes)
            else:
                found = memoryview(self._map)[self._at : self._at + n_bytes]
            self._at += n_bytes
            return found
        else:
            data, self._tail = self._tail[:n_bytes], self._tail[n_bytes:]
        return data

    def release(self) -> None:
        """Take the mapped pages out of this process's memory; those still in use come back by themselves."""
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """The mapping goes with the last array that uses it."""


def _walk(source: Source, file: BinaryIO, at: int) -> Iterator[_Message]:
    """The messages from byte `at` to the end mark."""
    while True:
        mark, n_header_bytes = struct.unpack("<II", _read(source, file, at, 8))
        if mark != _MARK:
            raise _broken(source, f"no message begins at byte {at}")
        if n_header_bytes == 0:
            return
        try:
            kind, n_body_bytes, n_rows = _header(_read(source, file, at + 8, n_header_bytes))
        except struct.error:
            raise _broken(source, f"the message at byte {at} makes no sense") from None
        stop = at + 8 + n_header_bytes + n_body_bytes
        if n_body_bytes < 0 or stop > source.size:
            raise _broken(source, f"the message at byte {at} ends after the file")
        yield _Message(kind, at, stop, n_rows)
        at = stop


def _header(data: bytes) -> tuple[int, int, int]:
    """Kind, bytes of body and (of a record batch) rows of a message; struct.error where it is none.

    The flatbuffer `Message` of Arrow's Message.fbs: fields 1 header_type, 2 header, 3 bodyLength; field 0
    of a RecordBatch is its length.
    """

    def number(form: str, at: int) -> int:
        if at < 0:
            raise struct.error
        return int(struct.unpack_from("<" + form, data, at)[0])

    def field(table: int, index: int) -> int | None:
        vtable, slot = table - number("i", table), 4 + 2 * index
        offset = number("H", vtable + slot) if slot < number("H", vtable) else 0
        return table + offset if offset else None

    root = number("I", 0)
    places = [field(root, index) for index in (1, 2, 3)]
    kind, header, n_body_bytes = (
        0 if place is None else number(form, place) for form, place in zip("BIq", places, strict=True)
    )
    if kind != _RECORD_BATCH or places[1] is None:
        return kind, n_body_bytes, 0
    length = field(places[1] + header, 0)
    return kind, n_body_bytes, 0 if length is None else number("q", length)


def _read(source: Source, file: BinaryIO, at: int, n_bytes: int) -> bytes:
    with _shard_errors(source):
        file.seek(max(at, 0))
        data = file.read(n_bytes) if at + n_bytes <= source.size else b""
    if len(data) < n_bytes:
        raise _broken(source, f"it ends before byte {at + n_bytes}")
    return data


def _check(array: pa.Array) -> None:
    """ArrowInvalid where offsets or indices point outside; texts are not looked at (that is by row)."""
    array.view(retyped(array.type, _BYTES)).validate(full=True)


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    with _shard_errors(source):
        file = source.open()
    with file:
        yield file


@contextmanager
def _shard_errors(source: Source) -> Iterator[None]:
    """Arrow's and the system's errors as one sentence with the shard's name."""
    try:
        yield
    except (OSError, pa.ArrowException, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise BadShard(f"{source.name}: cannot be read: {error.strerror or error}") from error
        raise _broken(source, str(error).strip().split("\n")[0] or type(error).__name__) from error


def _broken(source: Source, why: str) -> BadShard:
    return BadShard(
        f"{source.name}: not a whole Arrow stream or file, truncated or corrupt: {why}; "
        "fetch or make the file again"
    )
