"""Parquet shards to batches of texts, to whole tables, and to what planning needs to know of them."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt
import xxhash

from dataselect.core.errors import BadShard
from dataselect.io.batch import (
    INVALID_UTF8,
    MISSING_TEXT,
    TOO_LONG,
    BadRow,
    SegmentEnd,
    Source,
    TextBatch,
    TextSpec,
    empty_texts,
    id_path,
    joined_texts,
    split_path,
)

RowGroups = tuple[int, int | None]
"""Row groups [first, stop); stop None: to the last."""

_STRING, _BINARY = pa.large_string(), pa.large_binary()
_STEP_BYTES = (
    256 << 10
)  # decoded at once: 16 steps a batch, so that one row group may mix short and long rows
_STEP_ROWS = 1024  # a dictionary page may hide how long the rows are
_TEXT_BUFFER_BYTES = 1 << 20
_TABLE_BUFFER_BYTES = 128 << 10  # one for each column
_DIGEST_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class RowGroupInfo:
    """What planning needs of a row group."""

    n_rows: int
    n_text_bytes: int
    """Uncompressed bytes of the text's pages (less than the text where they are dictionary-encoded)."""
    n_bytes: int
    """Uncompressed bytes of all columns."""


@dataclass(frozen=True, slots=True)
class ParquetInfo:
    """A file's footer."""

    schema: pa.Schema
    row_groups: tuple[RowGroupInfo, ...]


def describe(source: Source, text: TextSpec | None = None) -> ParquetInfo:
    """Schema and row groups, from the footer; n_text_bytes is n_bytes without `text`. Raises BadShard."""
    with _opened(source, _TABLE_BUFFER_BYTES) as file, _shard_errors(source):
        columns = set(_columns(source, file.schema_arrow, text)) if text is not None else None
        groups = []
        for index in range(file.num_row_groups):
            group = file.metadata.row_group(index)
            n_text_bytes = _uncompressed_bytes(group, columns)
            groups.append(RowGroupInfo(group.num_rows, n_text_bytes, group.total_byte_size))
        return ParquetInfo(file.schema_arrow, tuple(groups))


def iter_parquet(
    source: Source,
    *,
    text: TextSpec,
    id: str | None,  # noqa: A002
    row_groups: RowGroups | None = None,
    batch_rows: int = 16_384,
    batch_bytes: int = 4 << 20,
    max_row_bytes: int = 64 << 20,
    digest: bool = True,
) -> Iterator[TextBatch]:
    """The texts (and ids) of some row groups, as one segment, in batches cut by the data alone.

    A batch ends with the row that reaches batch_rows or batch_bytes of text. The text is any string or
    binary column, dictionary-encoded or not; a dotted path goes through structs, unless a column has
    just that name. Ids may be numbers: 1 -> "1", 1.0 -> "1.0", NaN -> null.
    The digest covers the schema with its metadata, the row counts, and the raw bytes of all columns;
    `digest=False` leaves it out (an empty string) where it is known already.
    Memory: a few batches and data pages, whatever the size of the row group.

    Raises BadShard where the shard is corrupt, or has no such column of a fitting type.
    """
    with _opened(source, _TEXT_BUFFER_BYTES) as file:
        with _shard_errors(source):
            reader = _TextReader(source, file, text, id, max_row_bytes)
        groups = _group_range(source, file, row_groups)
        pending, n_rows = _Pending(batch_rows, batch_bytes), 0
        for index in groups:
            for batch in reader.read(index):
                for chunk in pending.add(batch):
                    yield reader.batch(chunk, n_rows)
                    n_rows += len(chunk)
        for chunk in pending.rest():
            yield reader.batch(chunk, n_rows)
            n_rows += len(chunk)
        end = _content_digest(source, file, groups) if digest else SegmentEnd("", 0, n_rows)
        last = reader.batch(_Chunk(empty_texts(), None if id is None else empty_texts()), n_rows)
        last.segment_end = end
        yield last


def iter_parquet_tables(
    source: Source, row_groups: RowGroups | None = None, batch_bytes: int = 8 << 20
) -> Iterator[tuple[int, pa.Table]]:
    """(first row, table of about batch_bytes) of all columns; rows count from the range's first one.

    The tables' schema is the file's, metadata included. Raises BadShard.
    """
    with _opened(source, _TABLE_BUFFER_BYTES) as file:
        with _shard_errors(source):
            schema, first_row = file.schema_arrow, 0
        pending: list[pa.RecordBatch] = []
        n_bytes = 0
        for index in _group_range(source, file, row_groups):
            for batch in _steps(source, file, index, None):
                pending.append(batch)
                n_bytes += batch.nbytes
                if n_bytes >= batch_bytes:
                    with _shard_errors(source):
                        table = pa.Table.from_batches(pending, schema)
                    yield first_row, table
                    first_row, pending, n_bytes = first_row + len(table), [], 0
        if pending:
            yield first_row, pa.Table.from_batches(pending, schema)


def compression_of(source: Source) -> str:
    """The codec of the file's first column chunk, as ParquetWriter names it; zstd where there is none."""
    with _opened(source, _TABLE_BUFFER_BYTES) as file:
        if not file.num_row_groups or not file.metadata.num_columns:
            return "zstd"
        name = str(file.metadata.row_group(0).column(0).compression)
    return {"UNCOMPRESSED": "none", "LZ4_RAW": "lz4"}.get(name, name.lower())


def content_digest(source: Source, row_groups: RowGroups | None = None) -> SegmentEnd:
    """The digest that `iter_parquet` ends with, without decoding anything. Raises BadShard."""
    with _opened(source, _TABLE_BUFFER_BYTES) as file:
        return _content_digest(source, file, _group_range(source, file, row_groups))


def _content_digest(source: Source, file: pq.ParquetFile, groups: range) -> SegmentEnd:
    """xxh3_128 of schema, metadata, row counts and the column chunks' raw bytes of these row groups."""
    n_bytes = n_rows = 0
    with _shard_errors(source), source.open() as raw:
        total = xxhash.xxh3_128(_schema_bytes(file))
        for index in groups:
            group = file.metadata.row_group(index)
            n_rows += group.num_rows
            total.update(f"{group.num_rows};".encode())
            for column in range(group.num_columns):
                start, length = _chunk_range(group.column(column))
                total.update(f"{length};".encode())
                n_bytes += length
                raw.seek(start)
                while length > 0:
                    data = raw.read(min(length, _DIGEST_CHUNK_BYTES))
                    if not data:
                        raise BadShard(f"{source.name}: truncated: a column chunk ends after the file")
                    total.update(data)
                    length -= len(data)
    return SegmentEnd(total.hexdigest(), n_bytes, n_rows)


def _schema_bytes(file: pq.ParquetFile) -> bytes:
    """Columns and key-value metadata in a form that does not depend on Arrow's version."""
    columns = []
    for index in range(len(file.schema)):
        column = file.schema.column(index)
        levels = [column.max_definition_level, column.max_repetition_level, column.length]
        columns.append([column.path, column.physical_type, str(column.logical_type), *levels])
    metadata = file.metadata.metadata or {}
    pairs = sorted((key.hex(), value.hex()) for key, value in metadata.items())
    return json.dumps([columns, pairs]).encode()


def _chunk_range(column: pq.ColumnChunkMetaData) -> tuple[int, int]:
    start = column.data_page_offset
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < start:
        start = column.dictionary_page_offset
    return start, column.total_compressed_size


@contextmanager
def _shard_errors(source: Source) -> Iterator[None]:
    """Arrow's and the system's errors as one sentence with the shard's name."""
    try:
        yield
    except (
        OSError,
        pa.ArrowException,
        ValueError,
    ) as error:  # ValueError: names that are no UTF-8, offsets < 0
        if isinstance(error, OSError) and error.errno is not None:
            raise BadShard(f"{source.name}: cannot be read: {error.strerror or error}") from error
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise BadShard(f"{source.name}: not a whole Parquet file, truncated or corrupt: {reason}") from error


@contextmanager
def _opened(source: Source, buffer_bytes: int) -> Iterator[pq.ParquetFile]:
    """The file without pre-buffering, which would hold whole row groups; page checksums are verified."""
    with _shard_errors(source):
        raw = source.open()
    with raw:
        with _shard_errors(source):
            file = pq.ParquetFile(
                raw, pre_buffer=False, buffer_size=buffer_bytes, page_checksum_verification=True
            )
        yield file


def _group_range(source: Source, file: pq.ParquetFile, row_groups: RowGroups | None) -> range:
    first, stop = row_groups or (0, None)
    stop = file.num_row_groups if stop is None else stop
    if not 0 <= first <= stop <= file.num_row_groups:
        raise BadShard(
            f"{source.name}: has {file.num_row_groups} row groups where {first} to {stop} were planned; "
            "it changed during the run"
        )
    return range(first, stop)


def _uncompressed_bytes(group: pq.RowGroupMetaData, columns: set[str] | None) -> int:
    """Of the columns with these dotted paths; of all for None."""
    if columns is None:
        return int(group.total_byte_size)
    chunks = [group.column(index) for index in range(group.num_columns)]
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in columns)


def _steps(
    source: Source, file: pq.ParquetFile, index: int, columns: list[str] | None
) -> Iterator[pa.RecordBatch]:
    """A row group in record batches of about _STEP_BYTES by its own average."""
    n_rows = 0
    with _shard_errors(source):
        group = file.metadata.row_group(index)
        n_bytes = _uncompressed_bytes(group, None if columns is None else set(columns))
        step = min(max(1, _STEP_BYTES * group.num_rows // max(1, n_bytes)), _STEP_ROWS)
        batches = file.iter_batches(step, row_groups=[index], columns=columns, use_threads=False)
    while True:
        with _shard_errors(source):
            batch = next(batches, None)
        if batch is None:
            break
        n_rows += len(batch)
        yield batch
    if n_rows != group.num_rows:
        raise BadShard(
            f"{source.name}: row group {index} has {n_rows} rows where its footer says {group.num_rows}"
        )


@dataclass(slots=True)
class _Chunk:
    """Rows as read: large_string arrays, not yet checked for UTF-8, nulls still in."""

    texts: pa.LargeStringArray
    ids: pa.LargeStringArray | None

    def __len__(self) -> int:
        return len(self.texts)

    def slice(self, start: int, length: int) -> _Chunk:
        return _Chunk(
            self.texts.slice(start, length), None if self.ids is None else self.ids.slice(start, length)
        )


class _Pending:
    """Joins small chunks and cuts them where batch_rows or batch_bytes are reached."""

    def __init__(self, batch_rows: int, batch_bytes: int) -> None:
        self._batch_rows, self._batch_bytes = batch_rows, batch_bytes
        self._chunks: list[_Chunk] = []
        self._n_rows = self._n_bytes = 0

    def add(self, chunk: _Chunk) -> Iterator[_Chunk]:
        ends = np.cumsum(_sizes(chunk.texts))
        start = 0
        while start < len(chunk):
            before = int(ends[start - 1]) if start else 0
            full = int(np.searchsorted(ends, before + self._batch_bytes - self._n_bytes)) + 1
            stop = min(max(full, start + 1), start + self._batch_rows - self._n_rows, len(chunk))
            self._chunks.append(chunk.slice(start, stop - start))
            self._n_rows += stop - start
            self._n_bytes += int(ends[stop - 1]) - before
            start = stop
            if self._n_rows >= self._batch_rows or self._n_bytes >= self._batch_bytes:
                yield from self.rest()

    def rest(self) -> Iterator[_Chunk]:
        if self._chunks:
            ids = [chunk.ids for chunk in self._chunks if chunk.ids is not None]
            yield _Chunk(
                pa.concat_arrays([chunk.texts for chunk in self._chunks]),
                pa.concat_arrays(ids) if ids else None,
            )
        self._chunks, self._n_rows, self._n_bytes = [], 0, 0


class _TextReader:
    """Text and id columns of one file."""

    def __init__(
        self, source: Source, file: pq.ParquetFile, text: TextSpec, id_name: str | None, max_row_bytes: int
    ) -> None:
        self._source, self._file, self._max_row_bytes = source, file, max_row_bytes
        id_path(id_name, text)
        schema = file.schema_arrow
        names = _columns(source, schema, text)
        self._texts = [_find(source, schema, name, "text") for name in names]
        self._id = None if id_name is None else _find(source, schema, id_name, "id")
        self._names = list(dict.fromkeys([*names, *([id_name] if id_name is not None else [])]))

    def read(self, index: int) -> Iterator[_Chunk]:
        for batch in _steps(self._source, self._file, index, self._names):
            with _shard_errors(self._source):
                texts = joined_texts([_strings(_follow(batch, keys)) for keys in self._texts])
                ids = None if self._id is None else _id_strings(_follow(batch, self._id))
            yield _Chunk(texts, ids)

    def batch(self, chunk: _Chunk, first_row: int) -> TextBatch:
        texts, ids = chunk.texts, chunk.ids
        refused = self._refused(chunk)
        good = np.ones(len(chunk), bool)
        if refused:
            good[list(refused)] = False
            texts = texts.filter(pa.array(good))
            ids = None if ids is None else ids.filter(pa.array(good))
        return TextBatch(
            segment=0,
            first_row=first_row,
            n_rows=len(chunk),
            rows=np.flatnonzero(good) + first_row,
            texts=texts,
            ids=ids,
            bad=[BadRow(first_row + i, *refused[i]) for i in sorted(refused)],
            n_bytes_read=chunk.texts.nbytes,
        )

    def _refused(self, chunk: _Chunk) -> dict[int, tuple[str, str]]:
        """Reason and detail by index of the rows that are bad."""
        refused: dict[int, tuple[str, str]] = {}
        if chunk.ids is not None:
            refused |= _not_utf8(chunk.ids, "the id")
        refused |= _not_utf8(chunk.texts, "the text")
        sizes = _sizes(chunk.texts)
        for i in np.flatnonzero(sizes > self._max_row_bytes).tolist():
            refused[i] = (TOO_LONG, f"{sizes[i]} bytes")
        if chunk.texts.null_count:
            for i in np.flatnonzero(chunk.texts.is_null()).tolist():
                refused[i] = (MISSING_TEXT, "")
        return refused


def _sizes(array: pa.LargeStringArray) -> np.ndarray:
    """int64[n]: bytes of each value; Parquet stores none for a null."""
    offsets = np.frombuffer(array.buffers()[1] or bytes(8), np.int64)
    return np.diff(offsets[array.offset : array.offset + len(array) + 1])


def _not_utf8(array: pa.LargeStringArray, what: str) -> dict[int, tuple[str, str]]:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        refused = {}
        for i, value in enumerate(array.cast(_BINARY)):
            try:
                (value.as_py() or b"").decode()
            except UnicodeDecodeError as error:
                refused[i] = (INVALID_UTF8, f"byte {error.start} of {what}")
        return refused
    return {}


def _columns(source: Source, schema: pa.Schema, text: TextSpec) -> list[str]:
    """Dotted names of the text's columns; BadShard where one is missing or of a wrong type."""
    names = [".".join(path) for path in text.paths]
    for name in names:
        _find(source, schema, name, "text")
    return names


def _find(source: Source, schema: pa.Schema, name: str, role: str) -> tuple[str, ...]:
    """The keys from a column to its value; one key where a column has the dotted name itself."""
    keys = (name,) if name in schema.names else split_path(name)
    if schema.names.count(keys[0]) > 1:
        raise BadShard(f"{source.name}: has several columns named '{keys[0]}'")
    known, kind = list(schema.names), pa.struct(list(schema)) if keys[0] in schema.names else None
    for depth, key in enumerate(keys):
        if kind is None or not pt.is_struct(kind) or kind.get_field_index(key) < 0:
            if depth and kind is not None and pt.is_struct(kind):
                known = [".".join([*keys[:depth], kind.field(i).name]) for i in range(kind.num_fields)]
            nearest = sorted(known, key=lambda other: -difflib.SequenceMatcher(None, name, other).ratio())
            raise BadShard(f"{source.name}: has no {role} column '{name}'; it has {', '.join(nearest)}")
        kind = kind.field(key).type
    if not (_is_text(kind) or (role == "id" and _is_number(kind))):
        wanted = "string or number" if role == "id" else "string"
        raise BadShard(f"{source.name}: the {role} column '{name}' is of type {kind}, not {wanted}")
    return keys


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_type(kind.storage_type)
    return _plain_type(kind.value_type) if pt.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    kind = _plain_type(kind)
    views = pt.is_string_view(kind) or pt.is_binary_view(kind)
    return bool(views or pt.is_string(kind) or pt.is_binary(kind) or kind in (_STRING, _BINARY, pa.null()))


def _is_number(kind: pa.DataType) -> bool:
    kind = _plain_type(kind)
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))


def _follow(batch: pa.RecordBatch, keys: tuple[str, ...]) -> pa.Array:
    """The array at the end of the keys, plain, null where a struct on the way is."""
    array = batch.column(keys[0])
    for key in keys[1:]:
        array = pc.struct_field(array, key)
    while isinstance(array, (pa.ExtensionArray, pa.DictionaryArray)):
        array = array.storage if isinstance(array, pa.ExtensionArray) else array.dictionary_decode()
    return array


def _strings(array: pa.Array) -> pa.LargeStringArray:
    """As large_string, without a check: by way of binary, whose cast to string would fail as a whole."""
    return array.cast(_BINARY).view(_STRING)


def _id_strings(array: pa.Array) -> pa.LargeStringArray:
    if pt.is_floating(array.type):
        values = [None if x is None or not math.isfinite(x) else json.dumps(x) for x in array.to_pylist()]
        return pa.array(values, _STRING)
    return array.cast(_STRING) if _is_number(array.type) else _strings(array)
