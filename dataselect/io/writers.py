"""Output files whose bytes depend on their rows alone: fixed buffers, fixed row groups, no time stamps."""

from __future__ import annotations

import json
import math
import zlib
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
import zstandard

_BUFFER_BYTES = 1 << 20
_ROW_GROUP_BYTES = 32 << 20
_ROW_GROUP_ROWS = 1 << 16
ZSTD_LEVEL = 3
_GZIP_LEVEL = 6
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # no name, time 0, unknown system


class HashingFile:
    """A file that counts and digests what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = xxhash.xxh3_128()
        self.n_bytes = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Write all of `data`."""
        self._hash.update(data)
        self.n_bytes += memoryview(data).nbytes
        self._file.write(data)
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Nothing is buffered here."""

    def close(self) -> None:
        """The owner of the underlying file closes it."""

    def digest(self) -> str:
        """xxh3_128 of all bytes, in hex."""
        return self._hash.hexdigest()


class LineWriter:
    """Bytes to a plain, gzip or zstd file in buffers of a fixed size (compressors see the same chunks)."""

    def __init__(self, file: Any, codec: str) -> None:
        self._file, self._codec = file, codec
        self._buffer = bytearray()
        self._crc = self._n_bytes = 0
        if codec == "zstd":
            self._zstd = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compressobj()
        elif codec == "gzip":
            self._deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
            file.write(_GZIP_HEADER)

    def write(self, data: Any) -> None:
        """Append bytes."""
        self._buffer += data
        if len(self._buffer) >= _BUFFER_BYTES:
            end = len(self._buffer) // _BUFFER_BYTES * _BUFFER_BYTES
            view = memoryview(self._buffer)
            for start in range(0, end, _BUFFER_BYTES):
                self._put(bytes(view[start : start + _BUFFER_BYTES]))
            view.release()
            del self._buffer[:end]

    def _put(self, data: bytes) -> None:
        if self._codec == "zstd":
            self._file.write(self._zstd.compress(data))
        elif self._codec == "gzip":
            self._crc = zlib.crc32(data, self._crc)
            self._n_bytes += len(data)
            self._file.write(self._deflate.compress(data))
        else:
            self._file.write(data)

    def close(self) -> None:
        """Write what is buffered and the end of the stream."""
        self._put(bytes(self._buffer))
        if self._codec == "zstd":
            self._file.write(self._zstd.flush())
        elif self._codec == "gzip":
            self._file.write(self._deflate.flush())
            self._file.write(
                self._crc.to_bytes(4, "little") + (self._n_bytes & 0xFFFFFFFF).to_bytes(4, "little")
            )


class TableWriter:
    """Arrow tables to Parquet; row groups end after 32 MiB of text or 65,536 rows, wherever batches ended."""

    def __init__(self, file: Any, schema: pa.Schema, compression: str = "zstd") -> None:
        self._writer = pq.ParquetWriter(pa.PythonFile(file, mode="w"), schema, compression=compression)
        self._schema = schema
        self._pending: list[pa.Table] = []
        self._n_rows = self._n_bytes = 0

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()

    def write(self, table: pa.Table, n_bytes: np.ndarray | None = None) -> None:
        """Append rows; n_bytes int[n_rows]: size of each row for the cut, 0 if not given."""
        sizes = np.zeros(len(table), np.int64) if n_bytes is None else np.asarray(n_bytes, np.int64)
        start = 0
        while start < len(table):
            used = self._n_bytes + np.cumsum(sizes[start:])
            full = int(np.searchsorted(used, _ROW_GROUP_BYTES)) + 1  # rows up to the one that fills it
            take = min(full, _ROW_GROUP_ROWS - self._n_rows, len(table) - start)
            self._pending.append(table.slice(start, take))
            self._n_rows += take
            self._n_bytes = int(used[take - 1])
            start += take
            if self._n_bytes >= _ROW_GROUP_BYTES or self._n_rows >= _ROW_GROUP_ROWS:
                self._flush()

    def _flush(self) -> None:
        if self._n_rows:
            table = pa.concat_tables(self._pending).combine_chunks()
            self._writer.write_table(table, row_group_size=self._n_rows)
        self._pending, self._n_rows, self._n_bytes = [], 0, 0

    def close(self) -> None:
        """Write the last row group and the footer."""
        self._flush()
        self._writer.close()


def spliced(line: bytes, fields: dict[str, Any]) -> bytes:
    """A JSON object's line with fields added before its closing brace; all other bytes stay.

    Floats that JSON lacks (NaN, infinities) become null.
    """
    body = line.rstrip()
    tail = line[len(body) :]
    added = b"".join(b"," + _json(name) + b":" + _json(value) for name, value in fields.items())
    inner = body[:-1].rstrip()
    if inner.endswith(b"{"):
        added = added[1:]
    return inner + added + b"}" + tail


def _json(value: Any) -> bytes:
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    return json.dumps(value, ensure_ascii=False).encode()


def json_line(row: dict[str, Any]) -> bytes:
    """A row of a table as a JSON line; dates in ISO form, bytes as text (or hex where not UTF-8)."""
    return json.dumps(_plain(row), ensure_ascii=False).encode() + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
