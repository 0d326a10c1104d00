"""Edits of texts as artifacts: collected over a segment, applied again wherever its text is read again.

They stand in the artifact of the stage that made them, beside its columns: `edits`, spans by row over the
text as it reached the stage; and `edited/...`, of the edited documents what the base columns say of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dataselect.engine.columns import ColumnSink, describe_texts
from dataselect.engine.job import Context
from dataselect.io.bundle import Bundle, BundleWriter
from dataselect.stages.edits import Edits

_EDITS = pa.schema(
    [("row", pa.int32()), ("start", pa.int32()), ("end", pa.int32()), ("text", pa.large_string())]
)


class EditSink(ColumnSink):
    """Columns and edits of a MapStage over a segment."""

    def __init__(self, use: str, types: Mapping[str, str]) -> None:
        super().__init__(use, types)
        self._edits: list[pa.Table] = []
        self._edited: list[dict[str, np.ndarray]] = []
        self.add_edits(np.empty(0, np.int64), Edits.of([]), pa.array([], pa.large_string()))

    def add_edits(self, rows: np.ndarray, edits: Edits, edited: pa.Array) -> None:
        """Edits of the documents at these rows of the segment, and the texts that they make."""
        n_edits = edits.n_of_doc
        columns = [np.repeat(rows, n_edits), edits.starts, edits.ends, edits.texts]
        typed = [pa.array(values).cast(kind) for values, kind in zip(columns, _EDITS.types, strict=True)]
        self._edits.append(pa.table(typed, schema=_EDITS))
        touched = n_edits > 0
        described = describe_texts(edited.filter(pa.array(touched)), None)
        del described["key"]
        self._edited.append({"row": rows[touched], **described})

    def write(self, writer: BundleWriter, n_rows: int) -> dict[str, Any]:
        writer.add_table("edits", pa.concat_tables(self._edits).combine_chunks())
        for name in self._edited[0]:
            writer.add_array(f"edited/{name}", np.concatenate([part[name] for part in self._edited]))
        return super().write(writer, n_rows)


def stored_edits(bundle: Bundle) -> Edits:
    """The edits that a stage made over a segment: those of row i are its document i's."""
    table = bundle.table("edits").combine_chunks()
    rows, starts, ends = (table[name].to_numpy().astype(np.int64) for name in ("row", "start", "end"))
    first = np.searchsorted(rows, np.arange(bundle.meta["n_rows"] + 1))
    return Edits(first, starts, ends, table["text"].combine_chunks())


class Editor:
    """Applies the stored edits of several stages, one after the other, over one segment."""

    def __init__(self, context: Context, artifacts: Sequence[str]) -> None:
        """`artifacts`: see `SegmentRefs.edits`."""
        bundles = [context.bundle(name) for name in artifacts]
        self._edits = [stored_edits(bundle) for bundle in bundles]
        self.touched = np.zeros(max((len(e.first) - 1 for e in self._edits), default=0), bool)
        """bool[n_rows], or bool[0] without stages: the rows that have any edit."""
        for edits in self._edits:
            self.touched |= edits.n_of_doc > 0

    def edited(self, rows: np.ndarray, texts: pa.Array) -> pa.Array:
        """The texts of these rows, int64[] ascending, as the last of the stages left them."""
        for edits in self._edits:
            texts = edits.take(rows).applied_to(texts)
        return texts
