"""Other texts in rows that were read: everything else of a row stays as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from dataselect.io.batch import TextSpec
from dataselect.io.fields import follow, table_keys
from dataselect.io.lines import LineBlock


def spliced_lines(block: LineBlock, index: np.ndarray, texts: pa.Array, spec: TextSpec) -> LineBlock:
    """The block with other texts, as JSON strings, in its good rows `index` (int64[], ascending).

    The text is at one path. All other bytes of the lines stay.
    """
    from dataselect.kernels.arrow import text_buffers
    from dataselect.kernels.json_strings import find_strings, json_strings

    keys = [key.encode() for key in spec.paths[0]]
    spans = np.empty((len(index), 2), np.int64)
    key_ends = np.cumsum([len(key) for key in keys])
    path = np.frombuffer(b"".join(keys), np.uint8)
    find_strings(block.data, block.starts[index], block.ends[index], path, key_ends, spans)
    bounds, strings = json_strings(*text_buffers(texts))
    longer = np.zeros(block.n_rows, np.int64)
    longer[index] = np.diff(bounds) - np.diff(spans, axis=1)[:, 0]
    data, new, at = block.data.data, strings.data, 0
    parts: list[Any] = []
    for (start, end), (first, last) in zip(spans.tolist(), pairwise(bounds.tolist()), strict=True):
        parts += [data[at:start], new[first:last]]
        at = end
    ends = block.ends + np.cumsum(longer)
    return dataclasses.replace(
        block,
        data=np.frombuffer(b"".join([*parts, data[at:]]), np.uint8),
        starts=block.starts + np.cumsum(longer) - longer,
        ends=ends,
    )


def table_texts(table: pa.Table, spec: TextSpec) -> pa.LargeStringArray:
    """The texts of good rows of a table."""
    return follow(table, _keys(table, spec)).cast(pa.large_binary()).view(pa.large_string())


def with_texts(table: pa.Table, texts: pa.LargeStringArray, spec: TextSpec) -> pa.Table:
    """The table with other texts; columns keep their types and metadata."""
    top, *inner = _keys(table, spec)
    at = table.schema.get_field_index(top)
    column = _replaced(table.column(at).combine_chunks(), inner, texts)
    return table.set_column(at, table.schema.field(at), column)


def _keys(table: pa.Table, spec: TextSpec) -> tuple[str, ...]:
    keys = table_keys(table.schema, ".".join(spec.paths[0]))
    assert keys is not None
    return keys


def _replaced(array: pa.Array, keys: Sequence[str], texts: pa.LargeStringArray) -> pa.Array:
    """The array with other values, or with others in the field of its structs that the keys lead to."""
    if isinstance(array, pa.ExtensionArray):
        return pa.ExtensionArray.from_storage(array.type, _replaced(array.storage, keys, texts))
    if not keys:
        return _as_type(texts, array.type)
    fields = list(array.type)
    children = array.flatten()
    i = array.type.get_field_index(keys[0])
    children[i] = _replaced(children[i], keys[1:], texts)
    return pa.StructArray.from_arrays(children, fields=fields)


def _as_type(texts: pa.LargeStringArray, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return texts.cast(kind.value_type).dictionary_encode().cast(kind)
    return texts.cast(kind)
