"""A file of scores, labels or vectors that somebody else made: Parquet, JSONL or npy."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from dataselect.core.errors import BadModel, BadShard
from dataselect.core.names import nearest
from dataselect.core.pieces import SUFFIXES, Shard, suffix_of
from dataselect.io.fields import FieldSpec, column_of, fits, follow, table_keys
from dataselect.io.json_fields import FieldReader, Span
from dataselect.io.jsonl import read_leaves
from dataselect.io.lines import LineBlock, iter_line_blocks
from dataselect.io.reader import ShardSource

_BATCH_ROWS = 1 << 17
_LOOKED_AT = 100
_TYPES = {"score": "number", "label": "string"}


@dataclass(frozen=True)
class ScorePart:
    """Some rows of the file."""

    first_row: int
    keys: list[pa.Array]
    """A large_string array for each key column."""
    values: Any
    """score: float64[n]; label: large_string array; vector: float32[n, dim]."""
    valid: np.ndarray
    """bool[n]: False where the value is null, whatever `values` holds there."""


@dataclass(frozen=True)
class ScoreFile:
    """Reads key columns and one value column; every mistake is a BadModel with the file's name."""

    path: str
    column: str
    kind: str
    """'score', 'label' or 'vector'."""
    keys: tuple[str, ...]
    """Names of key columns; none where rows are told by their order."""

    @property
    def _is_npy(self) -> bool:
        return self.path.endswith(".npy")

    def check(self) -> None:
        """Columns and types, from the footer, the header or the first rows."""
        if self._is_npy:
            self._npy()
        elif self.path.endswith(".parquet"):
            with self._parquet() as file:
                self._check_schema(file.schema_arrow)
        elif suffix_of(self.path) is not None:
            self._check_first_rows()
        else:
            raise BadModel(f"{self.path}: expected .npy, .parquet or JSONL ({', '.join(SUFFIXES)})")

    def parts(self) -> Iterator[ScorePart]:
        """All rows in order."""
        self.check()
        if self._is_npy:
            return self._npy_parts()
        return self._parquet_parts() if self.path.endswith(".parquet") else self._jsonl_parts()

    # npy ------------------------------------------------------------------------------------------------

    def _npy(self) -> np.ndarray:
        try:
            array: np.ndarray = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise BadModel(f"{self.path}: not a whole npy file of numbers: {error}") from None
        wanted = {"score": 1, "vector": 2}.get(self.kind)
        if wanted is None or array.ndim != wanted or array.dtype.kind not in "fiu":
            raise BadModel(
                f"{self.path}: an npy file of shape {array.shape}, {array.dtype}, holds no {self.kind}s; "
                "a score is one number a row, a vector one row of a matrix, and labels are not read from npy"
            )
        return array

    def _npy_parts(self) -> Iterator[ScorePart]:
        array = self._npy()
        for start in range(0, len(array), _BATCH_ROWS):
            dtype = np.float32 if self.kind == "vector" else np.float64
            values = np.asarray(array[start : start + _BATCH_ROWS], dtype)
            yield ScorePart(start, [], values, np.ones(len(values), bool))

    # Parquet --------------------------------------------------------------------------------------------

    def _parquet(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self.path, pre_buffer=False)
        except (OSError, pa.ArrowException) as error:
            raise BadModel(f"{self.path}: not a whole Parquet file: {_first_line(error)}") from None

    def _check_schema(self, schema: pa.Schema) -> None:
        for name in (*self.keys, self.column):
            keys = table_keys(schema, name)
            if keys is None:
                raise self._no_column(name, schema.names)
            kind = schema.field(keys[0]).type
            for key in keys[1:]:
                kind = kind.field(key).type
            wanted = "string" if name in self.keys else _TYPES.get(self.kind)
            fine = _is_vector(kind) if wanted is None else fits(kind, wanted)
            if not fine:
                raise BadModel(
                    f"{self.path}: '{name}' is of type {kind}, not a {wanted or 'list of numbers'}"
                )

    def _parquet_parts(self) -> Iterator[ScorePart]:
        names, first_row = list(dict.fromkeys((*self.keys, self.column))), 0
        with self._parquet() as file:
            paths = {name: table_keys(file.schema_arrow, name) or () for name in names}
            batches = file.iter_batches(_BATCH_ROWS, columns=names, use_threads=False)
            while True:
                try:
                    batch = next(batches, None)
                except (OSError, pa.ArrowException) as error:
                    raise BadModel(f"{self.path}: not a whole Parquet file: {_first_line(error)}") from None
                if batch is None:
                    return
                keys = [column_of(follow(batch, paths[n]), FieldSpec(n, "string"))[0] for n in self.keys]
                yield self._part(first_row, keys, follow(batch, paths[self.column]))
                first_row += len(batch)

    def _part(self, first_row: int, keys: list[pa.Array], array: pa.Array) -> ScorePart:
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        values: Any
        if self.kind == "label":
            values = column_of(array, FieldSpec(self.column, "string"))[0]
        elif self.kind == "score":  # not by column_of, for which NaN is null
            values = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        else:
            values = self._matrix(array, valid, first_row)
        return ScorePart(first_row, keys, values, valid)

    def _matrix(self, array: pa.Array, valid: np.ndarray, first_row: int) -> np.ndarray:
        vectors = array.drop_null()
        dims = pc.list_value_length(vectors).unique().to_pylist()
        if len(dims) > 1 or 0 in dims:
            raise BadModel(
                f"{self.path}: '{self.column}': rows from {first_row} on have vectors of different lengths"
            )
        out = np.full((len(array), dims[0] if dims else 1), np.nan, np.float32)
        flat = vectors.flatten().cast(pa.float32(), safe=False)
        out[valid] = flat.to_numpy(zero_copy_only=False).reshape(len(vectors), -1) if len(vectors) else 0
        return out

    # JSONL ----------------------------------------------------------------------------------------------

    def _blocks(self) -> Iterator[LineBlock]:
        stat = os.stat(self.path)
        path = os.path.abspath(self.path)
        source = ShardSource(Shard(self.path, path, stat.st_size, str(stat.st_mtime_ns)))
        codec = SUFFIXES[suffix_of(self.path) or ""][1]
        try:
            yield from (block for block in iter_line_blocks(source, codec=codec) if block.n_rows)
        except BadShard as error:
            raise BadModel(str(error)) from None

    def _check_first_rows(self) -> None:
        rows = []
        for block in itertools.islice(self._blocks(), 1):
            for start, end in zip(block.starts[:_LOOKED_AT].tolist(), block.ends.tolist(), strict=False):
                try:
                    rows.append(json.loads(block.data[start:end].tobytes()))
                except ValueError:
                    raise BadModel(f"{self.path}: row {len(rows)} is no JSON") from None
        for name in (*self.keys, self.column):
            if not any(_has(row, name) for row in rows):
                keys = [key for row in rows if isinstance(row, dict) for key in row]
                raise self._no_column(name, list(dict.fromkeys(keys)))

    def _jsonl_parts(self) -> Iterator[ScorePart]:
        specs = [FieldSpec(name, "string") for name in self.keys]
        if self.kind != "vector":
            specs.append(FieldSpec(self.column, _TYPES[self.kind]))
        reader, first_row = FieldReader(specs, read_leaves), 0
        for block in self._blocks():
            span, n_rows = _spans(block), block.n_rows
            table = None if block.too_long_bytes else read_leaves(span(0, n_rows), reader.leaves(), n_rows)
            columns = reader.columns(table, span, 0, n_rows)
            if sum(reader.n_misfits.values()):
                raise BadModel(
                    f"{self.path}: of the rows {first_row} to {first_row + n_rows - 1} some are no JSON "
                    f"objects, or '{self.column}' is no {self.kind} there"
                )
            values = self._json_vectors(span(0, n_rows), n_rows) if self.kind == "vector" else columns.pop()
            yield self._part(first_row, columns, values)
            first_row += n_rows

    def _json_vectors(self, data: np.ndarray, n_rows: int) -> pa.Array:
        table = read_leaves(data, [((self.column,), pa.list_(pa.float32()))], n_rows)
        if table is None:
            raise BadModel(f"{self.path}: '{self.column}' is not a list of numbers in every row")
        return table.column(0).combine_chunks()

    def _no_column(self, name: str, names: list[str]) -> BadModel:
        has = ", ".join(names[:12])
        return BadModel(f"{self.path}: no column '{name}', only {has}{nearest(name, names)}")


def _spans(block: LineBlock) -> Span:
    def span(lo: int, hi: int) -> np.ndarray:
        return block.data[block.starts[lo] : block.ends[hi - 1]]

    return span


def _has(row: Any, name: str) -> bool:
    for key in name.split("."):
        if not isinstance(row, dict) or key not in row:
            return False
        row = row[key]
    return True


def _is_vector(kind: pa.DataType) -> bool:
    lists = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
    return bool(lists and (pt.is_floating(kind.value_type) or pt.is_integer(kind.value_type)))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
