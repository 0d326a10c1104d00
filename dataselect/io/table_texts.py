"""Text and id columns of tables (Parquet row groups, Arrow record batches) to batches of texts."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from dataselect.core.errors import BadShard
from dataselect.io.batch import (
    INVALID_UTF8,
    MISSING_TEXT,
    TOO_LONG,
    BadRow,
    Source,
    TextBatch,
    TextSpec,
    empty_texts,
    id_path,
    joined_texts,
    split_path,
)
from dataselect.io.fields import FieldSpec, column_of, follow, null_column, table_keys

_STRING, _BINARY = pa.large_string(), pa.large_binary()


@dataclass(slots=True)
class Chunk:
    """Rows as read: large_string arrays, not yet checked for UTF-8, nulls still in."""

    texts: pa.LargeStringArray
    ids: pa.LargeStringArray | None
    fields: tuple[pa.Array, ...] = ()
    misfits: tuple[int, ...] = ()
    """Of the fields; counted with the first of the rows where a chunk is cut."""

    def __len__(self) -> int:
        return len(self.texts)

    def slice(self, start: int, length: int) -> Chunk:
        """Some of the rows."""
        return Chunk(
            self.texts.slice(start, length),
            None if self.ids is None else self.ids.slice(start, length),
            tuple(column.slice(start, length) for column in self.fields),
            self.misfits if start == 0 else (0,) * len(self.misfits),
        )


class Pending:
    """Joins small chunks and cuts them where batch_rows or batch_bytes are reached."""

    def __init__(self, batch_rows: int, batch_bytes: int) -> None:
        self._batch_rows, self._batch_bytes = batch_rows, batch_bytes
        self._chunks: list[Chunk] = []
        self._n_rows = self._n_bytes = 0

    def add(self, chunk: Chunk) -> Iterator[Chunk]:
        """Take rows; gives the chunks that are full."""
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

    def rest(self) -> Iterator[Chunk]:
        """What is left."""
        if self._chunks:
            ids = [chunk.ids for chunk in self._chunks if chunk.ids is not None]
            fields = zip(*(chunk.fields for chunk in self._chunks), strict=True)
            misfits = zip(*(chunk.misfits for chunk in self._chunks), strict=True)
            yield Chunk(
                pa.concat_arrays([chunk.texts for chunk in self._chunks]),
                pa.concat_arrays(ids) if ids else None,
                tuple(pa.concat_arrays(parts) for parts in fields),
                tuple(map(sum, misfits)),
            )
        self._chunks, self._n_rows, self._n_bytes = [], 0, 0


class TextColumns:
    """Where the text and the id of one file's rows are; how they become batches."""

    def __init__(
        self,
        source: Source,
        schema: pa.Schema,
        text: TextSpec,
        id_name: str | None,
        max_row_bytes: int,
        fields: Sequence[FieldSpec] = (),
    ) -> None:
        """Raises BadShard where a column is missing or of a wrong type."""
        self._max_row_bytes = max_row_bytes
        id_path(id_name, text)
        names = text_columns(source, schema, text)
        self._texts = [_find(source, schema, name, "text") for name in names]
        self._id = None if id_name is None else _find(source, schema, id_name, "id")
        self._fields = [(spec, table_keys(schema, spec.name)) for spec in fields]
        there = [spec.name for spec, keys in self._fields if keys is not None]
        self.names = list(dict.fromkeys([*names, *([id_name] if id_name is not None else []), *there]))
        """Dotted paths of the columns."""

    @property
    def tops(self) -> list[str]:
        """The outermost columns that hold them."""
        fields = [keys for _, keys in self._fields if keys is not None]
        paths = [*self._texts, *([] if self._id is None else [self._id]), *fields]
        return list(dict.fromkeys(keys[0] for keys in paths))

    def chunk(self, batch: pa.RecordBatch) -> Chunk:
        """The rows' texts and ids, unchecked, and fields."""
        texts = joined_texts([_strings(follow(batch, keys)) for keys in self._texts])
        ids = None if self._id is None else _id_strings(follow(batch, self._id))
        fields = [
            (null_column(spec, len(batch)), 0) if keys is None else column_of(follow(batch, keys), spec)
            for spec, keys in self._fields
        ]
        return Chunk(texts, ids, tuple(c for c, _ in fields), tuple(n for _, n in fields))

    def none(self) -> Chunk:
        """No rows."""
        return Chunk(empty_texts(), None if self._id is None else empty_texts())

    def batch(self, chunk: Chunk, first_row: int) -> TextBatch:
        """Good rows as arrays, bad ones as a list; first_row: number of the chunk's first row."""
        texts, ids, fields = chunk.texts, chunk.ids, chunk.fields
        refused = self._refused(chunk)
        good = np.ones(len(chunk), bool)
        if refused:
            good[list(refused)] = False
            texts = texts.filter(pa.array(good))
            ids = None if ids is None else ids.filter(pa.array(good))
            fields = tuple(column.filter(pa.array(good)) for column in fields)
        names = [spec.name for spec, _ in self._fields]
        return TextBatch(
            segment=0,
            first_row=first_row,
            n_rows=len(chunk),
            rows=np.flatnonzero(good) + first_row,
            texts=texts,
            ids=ids,
            bad=[BadRow(first_row + i, *refused[i]) for i in sorted(refused)],
            n_bytes_read=chunk.texts.nbytes,
            fields=dict(zip(names, fields, strict=False)),
            misfits=dict(zip(names, chunk.misfits, strict=False)),
        )

    def _refused(self, chunk: Chunk) -> dict[int, tuple[str, str]]:
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


def text_columns(source: Source, schema: pa.Schema, text: TextSpec) -> list[str]:
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


def _strings(array: pa.Array) -> pa.LargeStringArray:
    """As large_string, without a check: by way of binary, whose cast to string would fail as a whole."""
    return array.cast(_BINARY).view(_STRING)


def _id_strings(array: pa.Array) -> pa.LargeStringArray:
    if pt.is_floating(array.type):
        values = [None if x is None or not math.isfinite(x) else json.dumps(x) for x in array.to_pylist()]
        return pa.array(values, _STRING)
    return array.cast(_STRING) if _is_number(array.type) else _strings(array)


def retyped(kind: pa.DataType, types: Mapping[pa.DataType, pa.DataType]) -> pa.DataType:
    """The type with every type that `types` knows replaced, also inside; extensions become their storage."""
    if isinstance(kind, pa.BaseExtensionType):
        return retyped(kind.storage_type, types)
    if pt.is_dictionary(kind):
        return pa.dictionary(kind.index_type, retyped(kind.value_type, types), kind.ordered)
    if pt.is_struct(kind):
        return pa.struct([field.with_type(retyped(field.type, types)) for field in kind])
    if pt.is_map(kind):
        return pa.map_(retyped(kind.key_type, types), retyped(kind.item_type, types))
    if pt.is_list(kind) or pt.is_large_list(kind):
        make = pa.list_ if pt.is_list(kind) else pa.large_list
        return make(kind.value_field.with_type(retyped(kind.value_type, types)))
    if pt.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(retyped(kind.value_type, types)), kind.list_size)
    return types.get(kind, kind)


_NO_VIEWS = {pa.string_view(): _STRING, pa.binary_view(): _BINARY}


def filtered(table: pa.Table, mask: np.ndarray) -> pa.Table:
    """Rows where bool[n_rows] is true; also of string views, which Arrow's own filter does not know."""
    schema, rows = table.schema, pa.array(mask)
    fields = [
        field.with_type(retyped(field.type, _NO_VIEWS)) if "_view" in str(field.type) else field
        for field in schema
    ]
    if fields == list(schema):
        return table.filter(rows)
    return table.cast(pa.schema(fields, schema.metadata)).filter(rows).cast(schema)
