"""Input fields of JSONL rows. Arrow reads them together with the text where it can.

Arrow's parser takes one type for a key and fails a whole block where a row has another. The field of such a
block is then read alone, as each type that Arrow could take for it, in halves down to a few rows, and
these by Python: the value of a row never depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataselect.io.fields import FieldSpec, finite, json_value, null_column
from dataselect.io.json_line import Refusal, load_object, lookup

_FEW_ROWS = 32  # read by Python: a call of Arrow's parser costs as much

Read = Callable[[np.ndarray, list[tuple[tuple[str, ...], pa.DataType]], int], pa.Table | None]
"""Arrow's answer for bytes, wanted paths with types and a number of rows; None where it can't be trusted."""
Span = Callable[[int, int], np.ndarray]
"""The bytes of rows lo .. hi - 1."""


class FieldReader:
    """Reads fields of runs of rows. Remembers the types it saw last, which changes its speed alone."""

    def __init__(self, specs: Sequence[FieldSpec], read: Read) -> None:
        self.specs = tuple(specs)
        self._read = read
        self._kinds = {
            s.name: [pa.large_string(), pa.int64()] if s.type == "string" else [s.arrow_type] for s in specs
        }
        self.n_misfits = {spec.name: 0 for spec in specs}

    def leaves(self) -> list[tuple[tuple[str, ...], pa.DataType]]:
        """Paths with the types to try first."""
        return [(spec.path, self._kinds[spec.name][0]) for spec in self.specs]

    def columns(self, table: pa.Table | None, span: Span, lo: int, hi: int) -> list[pa.Array]:
        """A column for every field of rows lo .. hi - 1, from `table` where it has them."""
        if table is not None:
            return [_typed(_column(table, spec.path), spec) for spec in self.specs]
        return [pa.concat_arrays(self._alone(spec, span, lo, hi)) for spec in self.specs]

    def _alone(self, spec: FieldSpec, span: Span, lo: int, hi: int) -> list[pa.Array]:
        n_rows = hi - lo
        if n_rows <= _FEW_ROWS:
            return [self._by_python(spec, [span(i, i + 1).tobytes() for i in range(lo, hi)])]
        kinds = self._kinds[spec.name]
        for kind in kinds:
            table = self._read(span(lo, hi), [(spec.path, kind)], n_rows)
            if table is not None:
                kinds.sort(key=lambda other: other != kind)
                return [_typed(_column(table, spec.path), spec)]
        middle = (lo + hi) // 2
        return [*self._alone(spec, span, lo, middle), *self._alone(spec, span, middle, hi)]

    def _by_python(self, spec: FieldSpec, lines: list[bytes]) -> pa.Array:
        pairs = [self._value(spec, line) for line in lines]
        self.n_misfits[spec.name] += sum(misfit for _, misfit in pairs)
        return pa.array([value for value, _ in pairs], spec.arrow_type)

    def _value(self, spec: FieldSpec, line: bytes) -> tuple[Any, bool]:
        try:
            return json_value(lookup(load_object(line), spec.path), spec.type)
        except Refusal:  # a repeated key, or an object is missing on the way
            return None, True
        except RecursionError:
            for kind in self._kinds[spec.name]:
                table = self._read(np.frombuffer(line, np.uint8), [(spec.path, kind)], 1)
                if table is not None:
                    return _typed(_column(table, spec.path), spec)[0].as_py(), False
            return None, True


def _column(table: pa.Table, path: tuple[str, ...]) -> pa.Array:
    array = table.column(path[0]).combine_chunks()
    for key in path[1:]:
        array = pc.struct_field(array, key)
    return array


def _typed(array: pa.Array, spec: FieldSpec) -> pa.Array:
    if pa.types.is_null(array.type):
        return null_column(spec, len(array))
    return finite(array.cast(spec.arrow_type))
