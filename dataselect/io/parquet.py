"""Parquet shards to batches of texts, to whole tables, and to what planning needs to know of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from dataselect.core.errors import BadShard
from dataselect.io.batch import SegmentEnd, Source, TextBatch, TextSpec
from dataselect.io.fields import FieldSpec
from dataselect.io.table_texts import Pending, TextColumns, text_columns

RowGroups = tuple[int, int | None]
"""Row groups [first, stop); stop None: to the last."""

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
        columns = set(text_columns(source, file.schema_arrow, text)) if text is not None else None
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
    fields: Sequence[FieldSpec] = (),
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
            columns = TextColumns(source, file.schema_arrow, text, id, max_row_bytes, fields)
        groups = _group_range(source, file, row_groups)
        pending, n_rows = Pending(batch_rows, batch_bytes), 0
        for index in groups:
            for step in _steps(source, file, index, columns.names):
                with _shard_errors(source):
                    read = columns.chunk(step)
                for chunk in pending.add(read):
                    yield columns.batch(chunk, n_rows)
                    n_rows += len(chunk)
        for chunk in pending.rest():
            yield columns.batch(chunk, n_rows)
            n_rows += len(chunk)
        end = _content_digest(source, file, groups) if digest else SegmentEnd("", 0, n_rows)
        last = columns.batch(columns.none(), n_rows)
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
