"""Keep one of the documents with the same value of a column or an input field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from dataselect.stages.base import NUMBER, STRING, Columns, DedupKeys, DedupStage, Model


class FieldDedup(DedupStage):
    """Keep one document of every distinct value of a field, an id for example, whatever the texts are.

    Values are compared as texts, by a 128-bit hash. A document without a value, or with an empty one, is
    never a duplicate. The keys come from the stored column, so that the stage reads no shard.
    """

    use: ClassVar[str] = "field_dedup"

    field: str = Field(min_length=1, description="input field or column to compare")
    as_: str = Field(
        "n_same_field",
        alias="as",
        description="name of the column with the number of documents of the same value, itself included",
    )

    def key_columns(self) -> list[str]:
        return [self.field]

    def field_types(self, known: Mapping[str, str]) -> dict[str, str]:
        kind = known.get(self.field, STRING)
        if kind not in (STRING, NUMBER):
            raise ValueError(f"field: '{self.field}' is a {kind}, not a string or a number")
        return {self.field: kind} | super().field_types({self.field: kind, **known})

    def keys_of(self, columns: Columns) -> DedupKeys:
        from dataselect.io.hash_index import text_hashes

        values = self.values(columns[self.field].cast(pa.large_string()))
        docs = np.flatnonzero(pc.fill_null(pc.not_equal(values, ""), False).to_numpy(zero_copy_only=False))
        hashes = text_hashes(values.take(pa.array(docs)))
        return DedupKeys(docs, hashes[:, 0].copy(), hashes[:, 1].copy())

    def values(self, texts: pa.Array) -> pa.Array:
        """What is compared: large_string[n], null or empty where there is nothing to compare."""
        return texts

    def notes(self, counts: Mapping[str, int], model: Model) -> list[str]:
        n = counts["n_without_key"]
        without = [f"{n:,} documents without a value of {self.field}, which are no duplicates"] if n else []
        return without + super().notes(counts, model)
