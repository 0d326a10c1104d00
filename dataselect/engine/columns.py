"""Collecting what stages compute over a segment, and reading it back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from dataselect.core.errors import DataselectError
from dataselect.io.batch import BadRow, TextBatch
from dataselect.io.bundle import Bundle, BundleWriter
from dataselect.io.dedup_index import range_index
from dataselect.stages.base import Columns, DedupKeys, Texts

VECTOR = "list<float32>"
"""Type of a column of vectors, which has no alias in Arrow."""


def pack(mask: np.ndarray) -> np.ndarray:
    """bool[n] -> uint8 bits."""
    return np.packbits(mask, bitorder="little")


def unpack(bits: np.ndarray, n_rows: int) -> np.ndarray:
    """uint8 bits -> bool[n_rows]."""
    return np.unpackbits(bits, count=n_rows, bitorder="little").view(bool)


def as_columns(table: pa.Table) -> dict[str, Any]:
    """Numeric columns as numpy arrays (nulls as NaN, or 0 where integer), others as Arrow arrays."""
    out: dict[str, Any] = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
            column = column.fill_null(0) if column.null_count else column
        numeric = pa.types.is_primitive(column.type)
        out[name] = column.to_numpy(zero_copy_only=False) if numeric else column
    return out


class BaseSink:
    """What every later step needs of a row: is it good, how long, its id, its hash, its draw key."""

    def __init__(self, has_id: bool) -> None:
        self._has_id = has_id
        self._rows: list[np.ndarray] = []
        self._arrays: list[dict[str, np.ndarray]] = []
        self._ids: list[pa.Array] = []
        self._bad: list[BadRow] = []
        self._shard_rows: tuple[int, ...] = ()

    def add(self, batch: TextBatch, arrays: dict[str, np.ndarray], in_sample: np.ndarray) -> None:
        """One batch; `arrays` are those of `describe_texts`."""
        self._rows.append(batch.rows[in_sample])
        self._arrays.append({name: values[in_sample] for name, values in arrays.items()})
        if batch.ids is not None:
            self._ids.append(batch.ids.filter(pa.array(in_sample)))
        self._bad.extend(batch.bad)
        if batch.segment_end is not None:
            self._shard_rows = batch.segment_end.shard_rows

    def write(self, writer: BundleWriter, n_rows: int) -> dict[str, Any]:
        """Dense arrays over the segment's rows; meta with its totals."""
        rows = _concat(self._rows, np.int64)
        good = np.zeros(n_rows, bool)
        good[rows] = True
        writer.add_array("good", pack(good))
        names = self._arrays[0] if self._arrays else {}
        totals = {}
        for name in names:
            values = np.concatenate([arrays[name] for arrays in self._arrays])
            dense = np.zeros((n_rows, *values.shape[1:]), values.dtype)
            dense[rows] = values
            writer.add_array(name, dense)
            totals[name] = int(values.sum()) if name in ("n_bytes", "n_words") else None
        if self._has_id:
            ids = pa.concat_arrays(self._ids) if self._ids else pa.array([], pa.large_string())
            writer.add_table("ids", pa.table({"id": ids.take(_positions(rows, n_rows))}))
        bad = {
            "row": pa.array([b.row for b in self._bad], pa.int64()),
            "reason": pa.array([b.reason for b in self._bad], pa.string()),
            "detail": pa.array([b.detail for b in self._bad], pa.string()),
        }
        writer.add_table("bad", pa.table(bad))
        return {
            "n_rows": n_rows,
            "n_good": len(rows),
            "n_bad": len(self._bad),
            "n_bytes": totals.get("n_bytes", 0),
            "n_words": totals.get("n_words", 0),
            "shard_rows": list(self._shard_rows) or [n_rows],
        }


def describe_texts(texts: pa.Array, ids: pa.Array | None) -> dict[str, np.ndarray]:
    """n_bytes, n_words int32[n]; text_hash, key uint64[n, 2] of documents.

    key is the hash of the id, or of the text where there is no id: what random draws depend on.
    """
    from dataselect.kernels.arrow import text_buffers
    from dataselect.kernels.hashing import hash128
    from dataselect.kernels.text import count_words

    n_docs = len(texts)
    offsets, data = text_buffers(texts)
    n_words = np.empty(n_docs, np.int64)
    count_words(offsets, data, n_words)
    text_hash = np.empty((n_docs, 2), np.uint64)
    hash128(offsets, data, text_hash)
    key = text_hash.copy()
    if ids is not None:
        hash128(*text_buffers(ids), key)
        missing = ids.is_null().to_numpy(zero_copy_only=False)
        key[missing] = text_hash[missing]
    n_bytes = np.diff(offsets)
    return {
        "n_bytes": n_bytes.astype(np.int32),
        "n_words": n_words.astype(np.int32),
        "text_hash": text_hash,
        "key": key,
    }


class ColumnSink:
    """Columns of a MapStage or a FittedStage over a segment; rows it never saw are null."""

    def __init__(self, use: str, types: Mapping[str, str]) -> None:
        """Types are those of the stage's output_columns, so that no batch's values decide one."""
        self._stage = use
        self._types = {name: _arrow_type(alias) for name, alias in types.items()}
        self._rows: list[np.ndarray] = []
        self._columns: list[dict[str, pa.Array]] = []
        self.n_misfits = 0

    def is_empty(self) -> bool:
        """Whether no batch has come yet."""
        return not self._rows

    def add(self, rows: np.ndarray, columns: Columns) -> dict[str, pa.Array]:
        """Columns of these rows of the segment; returns them as they will be stored.

        DataselectError where they are not the declared ones, or not of one value a row.
        """
        if set(columns) != set(self._types):
            raise DataselectError(
                f"{self._stage}: columns() gave {sorted(columns)}, but output_columns() says "
                f"{sorted(self._types)}"
            )
        typed = {name: pa.array(values).cast(self._types[name]) for name, values in columns.items()}
        for name, array in typed.items():
            if len(array) != len(rows):
                raise DataselectError(
                    f"{self._stage}: column '{name}' has {len(array)} values for {len(rows)} documents"
                )
        self._rows.append(rows)
        self._columns.append(typed)
        return typed

    def write(self, writer: BundleWriter, n_rows: int) -> dict[str, Any]:
        rows = _concat(self._rows, np.int64)
        take = _positions(rows, n_rows)
        names = self._columns[0] if self._columns else {}
        joined = {name: pa.concat_arrays([columns[name] for columns in self._columns]) for name in names}
        writer.add_table("columns", pa.table({name: array.take(take) for name, array in joined.items()}))
        return {"n_rows": n_rows, "n_computed": len(rows), "n_misfits": self.n_misfits}


class KeySink:
    """Keys of a DedupStage over a segment: an exchange file, sorted by key; signatures sorted by row."""

    def __init__(self) -> None:
        self._parts: list[DedupKeys] = []
        self._rows: list[np.ndarray] = []

    def add(self, rows: np.ndarray, keys: DedupKeys) -> None:
        """`keys` as DedupStage.dedup_keys gives them, for documents at these rows."""
        with_keys = np.flatnonzero(np.bincount(keys.docs))
        signatures = None if keys.signatures is None else keys.signatures[with_keys]
        self._rows.append(rows[with_keys].astype(np.int32))
        self._parts.append(keys._replace(docs=rows[keys.docs].astype(np.int32), signatures=signatures))

    def write(self, writer: BundleWriter, n_rows: int) -> dict[str, Any]:
        rows = _concat([part.docs for part in self._parts], np.int32)
        keys = _concat([part.keys for part in self._parts], np.uint64)
        order = ascending(keys)
        keys = keys[order]
        writer.add_array("index", range_index(keys))
        writer.add_array("keys", keys)
        writer.add_array("rows", rows[order])
        checks = [part.check for part in self._parts if part.check is not None]
        if checks:
            writer.add_array("check", np.concatenate(checks)[order])
        signatures = [part.signatures for part in self._parts if part.signatures is not None]
        if signatures:
            writer.add_array("signature_rows", np.concatenate(self._rows))
            writer.add_array("signatures", np.concatenate(signatures))
        return {"n_rows": n_rows, "n_keys": len(keys)}


def ascending(keys: np.ndarray) -> np.ndarray:
    """int64[n]: np.argsort(keys, kind="stable"), three times as fast where few keys are equal.

    The vectorised sort of numpy 2 is not stable and not the same on all CPUs, so equal keys are put in order.
    """
    order = np.argsort(keys)
    _order_ties(order, keys)
    return order


def members_ascending(bucket: np.ndarray, texts: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """int64[n]: np.lexsort((ranks, texts, bucket)), five times as fast where few texts are equal.

    bucket uint32, texts uint64, ranks of any integer type.
    """
    n_bits = np.uint64(int(bucket.max(initial=0)).bit_length())
    keys = texts >> n_bits  # the bucket, and of the text's hash what there is room for
    keys |= bucket.astype(np.uint64) << (np.uint64(64) - n_bits) if n_bits else np.uint64(0)
    order = np.argsort(keys)
    _order_ties(order, keys, texts, ranks)
    return order


def _order_ties(order: np.ndarray, keys: np.ndarray, *others: np.ndarray) -> None:
    """Among equal keys, order by `others`, the first of them first, and then by place; in place."""
    new = np.ones(len(keys) + 1, bool)
    in_order = keys[order]
    np.not_equal(in_order[1:], in_order[:-1], out=new[1:-1])
    tied = np.flatnonzero(~(new[1:] & new[:-1]))
    del in_order
    of = order[tied]
    order[tied] = of[np.lexsort((of, *(values[of] for values in reversed(others)), keys[of]))]


def distinct(values: np.ndarray) -> np.ndarray:
    """The different values, ascending; `values` are sorted in place.

    numpy's `unique` puts them into a hash table first: 40 times as slow, and 40 bytes a value.
    """
    values.sort()
    new = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return values[new]


class SampleSink:
    """Samples of a FittedStage over a segment."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []

    def add(self, rows: np.ndarray, table: pa.Table) -> None:
        """`table` as FittedStage.sample gives it, for documents at these rows."""
        column = pa.array(rows[table["doc"].to_numpy()])
        self._tables.append(table.drop_columns("doc").add_column(0, "row", column))

    def write(self, writer: BundleWriter, n_rows: int) -> dict[str, Any]:
        table = (
            pa.concat_tables(self._tables) if self._tables else pa.table({"row": pa.array([], pa.int64())})
        )
        writer.add_table("sample", table)
        return {"n_rows": n_rows, "n_sampled": len(table)}


def _arrow_type(alias: str) -> pa.DataType:
    return pa.list_(pa.float32()) if alias == VECTOR else pa.type_for_alias(alias)


def empty_texts() -> Texts:
    """No documents: what a stage is asked for where a segment has none, to learn its column types."""
    return Texts(pa.array([], pa.large_string()), np.empty((0, 2), np.uint64))


def stored_columns(bundle: Bundle, mask: np.ndarray) -> dict[str, Any]:
    """A stage's stored columns for the rows of `mask`."""
    table = bundle.table("columns")  # of a stage without columns it has no rows either
    return as_columns(table if mask.all() or not table.num_columns else table.filter(pa.array(mask)))


def _concat(arrays: list[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)


def _positions(rows: np.ndarray, n_rows: int) -> pa.Array:
    """For every row of the segment its place in the collected values, or null."""
    positions = np.zeros(n_rows, np.int64)
    positions[rows] = np.arange(len(rows))
    seen = np.zeros(n_rows, bool)
    seen[rows] = True
    return pa.array(positions, mask=~seen)
