"""Input fields as typed columns: what a value of a row becomes, whatever the shard's format.

type    JSON values                                         Parquet and Arrow columns
number  numbers, as float64                                 integers, floats, decimals
string  strings; numbers as written, true and false as so   strings, binaries, numbers, booleans, times
bool    true and false                                      booleans

A key that is missing, a null, NaN and infinities are null. So is a value of another type (an object, a
text where a number is wanted): a *misfit*, which is counted. Nothing about a field makes a row bad.
Integers over 2^53 lose digits as numbers; declare them as strings to compare them exactly.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from dataselect.core.errors import RecipeError
from dataselect.io.batch import TextSpec, id_path, split_path
from dataselect.io.json_line import Number

ARROW_TYPES = {"number": pa.float64(), "string": pa.large_string(), "bool": pa.bool_()}
FIELD_TYPES = tuple(ARROW_TYPES)


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """An input field that is read as a column."""

    name: str
    """Dotted path of keys; a Parquet column may have the dotted name itself."""
    type: str
    """One of FIELD_TYPES."""

    @property
    def path(self) -> tuple[str, ...]:
        """The keys from the outermost object inwards."""
        return split_path(self.name)

    @property
    def arrow_type(self) -> pa.DataType:
        """Of the column."""
        return ARROW_TYPES[self.type]


def check_apart(names: list[str], text: TextSpec, id_name: str | None) -> None:
    """RecipeError where one field's path leads through the value of another, of the text or of the id."""
    taken = [(f"the text '{'.'.join(path)}'", path) for path in text.paths]
    id_keys = id_path(id_name, text)
    if id_keys is not None:
        taken.append((f"the id '{id_name}'", id_keys))
    for name in names:
        path = split_path(name)
        for what, other in taken:
            shorter = min(len(path), len(other))
            if path == other and what.startswith("the id"):
                raise RecipeError(f"the field '{name}' is the document's id: write id")
            if path[:shorter] == other[:shorter]:
                raise RecipeError(f"the field '{name}' overlaps with {what}")
        taken.append((f"the field '{name}'", path))


def null_column(spec: FieldSpec, n_rows: int) -> pa.Array:
    """The column of rows that lack the field."""
    return pa.nulls(n_rows, spec.arrow_type)


def json_value(parsed: Any, kind: str) -> tuple[Any, bool]:
    """(value, whether it is a misfit) of a value as io.json_line parses it."""
    if parsed is None:
        return None, False
    if kind == "bool":
        return (parsed, False) if isinstance(parsed, bool) else (None, True)
    is_number = isinstance(parsed, Number)
    if kind == "number":
        if not is_number and not isinstance(parsed, float):  # NaN and Infinity, which Python writes
            return None, True
        value = float(parsed)
        return (value if math.isfinite(value) else None), False
    if isinstance(parsed, bool):
        return json.dumps(parsed), False
    if is_number:
        return ("0" if parsed == "-0" else str(parsed)), False
    return (parsed, False) if type(parsed) is str else (None, True)


def finite(array: pa.Array) -> pa.Array:
    """NaN and infinities as null."""
    if not pt.is_floating(array.type) or not len(array):
        return array
    values = array.to_numpy(zero_copy_only=False)
    bad = ~np.isfinite(values)
    return pa.array(values, array.type, mask=bad) if bad.any() else array


def column_of(array: pa.Array, spec: FieldSpec) -> tuple[pa.Array, int]:
    """(column, number of misfits) of plain values of a table (no dictionary, no extension type)."""
    kind = array.type
    if spec.type == "number" and (pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind)):
        return finite(array.cast(pa.float64(), safe=False)), 0
    if spec.type == "bool" and pt.is_boolean(kind):
        return array, 0
    if spec.type == "string":
        strings = _strings(array)
        if strings is not None:
            return strings, len(array) - array.null_count - (len(strings) - strings.null_count)
    return null_column(spec, len(array)), len(array) - array.null_count


def _strings(array: pa.Array) -> pa.Array | None:
    """As large_string; invalid UTF-8 is null; None where the type has no text."""
    kind = array.type
    if pt.is_floating(kind):
        values = [None if x is None or not math.isfinite(x) else json.dumps(x) for x in array.to_pylist()]
        return pa.array(values, pa.large_string())
    textual = pt.is_string_view(kind) or pt.is_binary_view(kind) or pt.is_string(kind) or pt.is_binary(kind)
    if textual or pt.is_large_string(kind) or pt.is_large_binary(kind):
        return _valid_utf8(array.cast(pa.large_binary()))
    if pt.is_integer(kind) or pt.is_decimal(kind) or pt.is_boolean(kind) or pt.is_temporal(kind):
        return array.cast(pa.large_string())
    return None


def _valid_utf8(binary: pa.Array) -> pa.Array:
    strings = binary.view(pa.large_string())
    try:
        strings.validate(full=True)
    except pa.ArrowInvalid:
        return pa.array([_decoded(value) for value in binary.to_pylist()], pa.large_string())
    return strings


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def follow(table: pa.Table | pa.RecordBatch, keys: tuple[str, ...]) -> pa.Array:
    """The array at the end of the keys, plain, null where a struct on the way is."""
    array = table.column(keys[0])
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    for key in keys[1:]:
        array = pc.struct_field(array, key)
    while isinstance(array, (pa.ExtensionArray, pa.DictionaryArray)):
        array = array.storage if isinstance(array, pa.ExtensionArray) else array.dictionary_decode()
    return array


def table_keys(schema: pa.Schema, name: str) -> tuple[str, ...] | None:
    """From a column to the field: one key where a column has the dotted name itself; None where missing."""
    keys = (name,) if name in schema.names else split_path(name)
    if schema.names.count(keys[0]) != 1:
        return None
    kind = schema.field(keys[0]).type
    for key in keys[1:]:
        if not pt.is_struct(kind) or kind.get_field_index(key) < 0:
            return None
        kind = kind.field(key).type
    return keys


def fits(kind: pa.DataType, field_type: str) -> bool:
    """Whether values of a table's column of this type can be of `field_type`."""
    while isinstance(kind, pa.BaseExtensionType) or pt.is_dictionary(kind):
        kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind.value_type
    if pt.is_null(kind):
        return True
    number = pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind)
    if field_type == "number":
        return bool(number)
    if field_type == "bool":
        return bool(pt.is_boolean(kind))
    return _strings(pa.nulls(0, kind)) is not None


def merged(counts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """Sum of two counts by name."""
    return {name: counts.get(name, 0) + more.get(name, 0) for name in [*counts, *more]}
