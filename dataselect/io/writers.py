"""Output files whose bytes depend on their rows alone: fixed buffers, fixed row groups, no time stamps."""

from __future__ import annotations

import bz2
import json
import lzma
import math
import zlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
import zstandard

from dataselect.core.pieces import Format
from dataselect.io.lines import LineBlock

_BUFFER_BYTES = 1 << 20
_ROW_GROUP_BYTES = 32 << 20
_ROW_GROUP_ROWS = 1 << 16
_RECORD_BATCH_ROWS = 1000  # what `datasets` writes
ZSTD_LEVEL = 3
FAST_ZSTD_LEVEL = 1
"""For rows that are written to be looked at: 1.9 times as fast as level 3, and 10 % larger."""
_CLOSE = ord("}")
_GZIP_LEVEL = 6
_BZ2_LEVEL = 9
_XZ_PRESET = 1  # 13 MB/s of text a core, 3.4 : 1; the tool's preset 6 makes 4.1 : 1 at 1.8 MB/s
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

    def entry(self, name: str, n_rows: int) -> dict[str, Any]:
        """What the manifest says of the file."""
        return {"name": name, "rows": n_rows, "n_bytes": self.n_bytes, "digest": self.digest()}

    def digest(self) -> str:
        """xxh3_128 of all bytes, in hex."""
        return self._hash.hexdigest()


class LineWriter:
    """Bytes to a plain or compressed file in buffers of a fixed size (compressors see the same chunks)."""

    def __init__(self, file: Any, codec: str, level: int = ZSTD_LEVEL) -> None:
        """`level` is zstd's."""
        self._file, self._codec = file, codec
        self._buffer = np.empty(_BUFFER_BYTES, np.uint8)
        self._n_held = 0
        self._crc = self._n_bytes = 0
        if codec == "zstd":
            self._zstd = zstandard.ZstdCompressor(level=level, write_checksum=True).compressobj()
        elif codec == "gzip":
            self._deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
            file.write(_GZIP_HEADER)
        elif codec == "bz2":
            self._whole: bz2.BZ2Compressor | lzma.LZMACompressor = bz2.BZ2Compressor(_BZ2_LEVEL)
        elif codec == "xz":
            self._whole = lzma.LZMACompressor(preset=_XZ_PRESET)

    def write(self, data: np.ndarray) -> None:
        """Append uint8[n]."""
        while len(data):
            n = min(len(data), _BUFFER_BYTES - self._n_held)
            if n == _BUFFER_BYTES:
                self._put(data[:n].data)
            else:
                self._buffer[self._n_held : self._n_held + n] = data[:n]
                self._n_held += n
                if self._n_held == _BUFFER_BYTES:
                    self._put(self._buffer.data)
                    self._n_held = 0
            data = data[n:]

    def _put(self, data: memoryview) -> None:
        if self._codec == "zstd":
            self._file.write(self._zstd.compress(data))
        elif self._codec == "gzip":
            self._crc = zlib.crc32(data, self._crc)
            self._n_bytes += len(data)
            self._file.write(self._deflate.compress(data))
        elif self._codec in ("bz2", "xz"):
            self._file.write(self._whole.compress(data))
        else:
            self._file.write(data)

    def close(self) -> None:
        """Write what is buffered and the end of the stream."""
        self._put(self._buffer[: self._n_held].data)
        if self._codec == "zstd":
            self._file.write(self._zstd.flush())
        elif self._codec == "gzip":
            self._file.write(self._deflate.flush())
            self._file.write(
                self._crc.to_bytes(4, "little") + (self._n_bytes & 0xFFFFFFFF).to_bytes(4, "little")
            )
        elif self._codec in ("bz2", "xz"):
            self._file.write(self._whole.flush())


class TableWriter:
    """Arrow tables to Parquet or to an Arrow stream.

    Row groups end after 32 MiB of text or 65,536 rows, wherever batches ended; in a stream they are
    uncompressed record batches of up to 1,000 rows.
    """

    def __init__(
        self, file: Any, schema: pa.Schema, compression: str = "zstd", form: Format = "parquet"
    ) -> None:
        sink = pa.PythonFile(file, mode="w")
        self._to_arrow = form == "arrow"
        self._writer = (
            pa.ipc.new_stream(sink, schema)
            if self._to_arrow
            else pq.ParquetWriter(sink, schema, compression=compression)
        )
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
            if self._to_arrow:
                self._writer.write_table(table, max_chunksize=_RECORD_BATCH_ROWS)
            else:
                self._writer.write_table(table, row_group_size=self._n_rows)
        self._pending, self._n_rows, self._n_bytes = [], 0, 0

    def close(self) -> None:
        """Write the last row group and the footer or end mark."""
        self._flush()
        self._writer.close()


def copied_lines(block: LineBlock, mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The rows of the block where bool[n_rows] `mask` is True, each with its newline: (uint8[], n_rows)."""
    starts, stops = block.starts[mask], block.ends[mask]
    return _gathered(block.data, starts, stops, [b"\n"], np.zeros(len(starts), np.int32)), len(starts)


def extended_lines(
    block: LineBlock, mask: np.ndarray, endings: Sequence[bytes], ending_of_row: np.ndarray
) -> tuple[np.ndarray, int]:
    """As `copied_lines`, with fields added to every row; its other bytes stay.

    Rows are JSON objects that are not empty. endings: made by `line_ending`; ending_of_row int[]: which of
    them each of the chosen rows gets.
    """
    starts, stops = block.starts[mask], block.ends[mask] - 1
    endings, ending_of_row = list(endings), ending_of_row.astype(np.int32)
    for i in np.flatnonzero(block.data[stops] != _CLOSE).tolist():
        line = block.data[starts[i] : stops[i] + 1].tobytes()
        stops[i] = starts[i] + line.rindex(b"}")
        white_space = line[stops[i] - starts[i] + 1 :]
        endings.append(endings[ending_of_row[i]][:-1] + white_space + b"\n")
        ending_of_row[i] = len(endings) - 1
    return _gathered(block.data, starts, stops, endings, ending_of_row), len(starts)


def _gathered(
    data: np.ndarray, starts: np.ndarray, stops: np.ndarray, tails: Sequence[bytes], tail_of_row: np.ndarray
) -> np.ndarray:
    from dataselect.kernels.rows import gather_rows

    offsets = np.cumsum([0, *map(len, tails)])
    n_bytes = (stops - starts).sum() + np.diff(offsets)[tail_of_row].sum()
    out = np.empty(n_bytes, np.uint8)
    gather_rows(data, starts, stops, np.frombuffer(b"".join(tails), np.uint8), offsets, tail_of_row, out)
    return out


def line_ending(fields: dict[str, Any]) -> bytes:
    """What follows the last value of a JSON line to add fields to it; NaN and infinities become null."""
    return b"".join(b"," + _json(name) + b":" + _json(value) for name, value in fields.items()) + b"}\n"


def _json(value: Any) -> bytes:
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    return json.dumps(value, ensure_ascii=False).encode()


def json_lines(table: pa.Table) -> bytes:
    """A table's rows as JSON lines; dates in ISO form, bytes as text (or hex where not UTF-8).

    Raises ValueError for values that Python has no type for, such as dates after the year 9999.
    """
    try:
        rows = table.to_pylist()
    except UnicodeDecodeError:  # Parquet's strings may hold anything
        fields = [field.with_type(_as_bytes(field.type)) for field in table.schema]
        rows = table.cast(pa.schema(fields)).to_pylist()
    except OverflowError as error:
        raise ValueError(str(error)) from None
    return b"".join(json_line(row) for row in rows)


def _as_bytes(kind: pa.DataType) -> pa.DataType:
    """The type with binary instead of string, also in lists, structs and maps."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as_bytes(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_as_bytes(kind.key_type), _as_bytes(kind.item_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_as_bytes(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_as_bytes(kind.value_type), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(_as_bytes(kind.value_type))
    if pa.types.is_dictionary(kind):
        return _as_bytes(kind.value_type)
    return {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(kind, kind)


def json_line(row: dict[str, Any]) -> bytes:
    """A row of a table as a JSON line."""
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
