"""Drop documents by their ids: a take-down list, or a list of what alone may stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from dataselect.core.errors import BadModel, DataselectError
from dataselect.stages.base import Columns, ColumnStage, Model, ModelPath, Rules
from dataselect.stages.url_filter import equals

_RULES = {"drop_ids": "id in drop list", "keep_ids": "id not in keep list"}


class IdFilter(ColumnStage):
    """Drop documents whose id is in one list, or is not in another; lists are text or table files.

    A text file (or `.gz`) has one id a line, without the white space at its ends; a # is part of an id. Of a
    Parquet or JSONL file the column `id_column` is taken. Ids are compared as text (1 is "1") by 128-bit
    hashes, 16 bytes an id. Documents without an id are in no list. Changing a list reads no shard again.
    """

    use: ClassVar[str] = "id_filter"

    drop_ids: ModelPath | None = Field(None, description="list of ids whose documents are dropped")
    keep_ids: ModelPath | None = Field(None, description="list of ids; documents of all others are dropped")
    id_column: str = Field("id", min_length=1, description="column of a Parquet or JSONL list with the id")
    as_: str = Field("id_blocked", alias="as", description="name of the column with the reason, or null")

    @model_validator(mode="after")
    def _has_a_list(self) -> IdFilter:
        if not self.file_fields():
            raise ValueError("name a list: drop_ids or keep_ids")
        return self

    def check_files(self) -> None:
        """Raise BadModel where a list has no id; reads no more than its first part."""
        from dataselect.io.hash_index import listed_ids

        for path in self.file_fields().values():
            if not any(listed_ids(path, self.id_column)):
                raise BadModel(f"{path}: the list is empty")

    def input_columns(self) -> list[str]:
        return ["id"]

    def output_columns(self) -> dict[str, str]:
        return {self.as_: "large_string"}

    def prepare(self) -> dict[str, np.ndarray]:
        """Sorted hashes of the ids of each list, and how many there are as n_<list> int64[1]."""
        from dataselect.io.hash_index import listed_ids, make_set

        arrays: dict[str, np.ndarray] = {}
        for name, path in self.file_fields().items():
            arrays |= make_set(name, listed_ids(path, self.id_column))
            arrays[f"n_{name}"] = np.array([len(arrays[f"{name}.high"])], np.int64)
        return arrays

    def look_up(self, columns: Columns, model: Model) -> tuple[Columns, dict[str, int]]:
        from dataselect.io.hash_index import has_hashes, text_hashes

        ids = columns["id"].cast(pa.large_string())
        hashes, has_id = text_hashes(ids), ids.is_valid().to_numpy(zero_copy_only=False)
        listed = {name: has_hashes(model, name, hashes) & has_id for name in _RULES}
        counts = {name: int(found.sum()) for name, found in listed.items()}
        reason = np.full(len(ids), None, object)
        if self.keep_ids is not None:
            reason[~listed["keep_ids"]] = _RULES["keep_ids"]
        reason[listed["drop_ids"]] = _RULES["drop_ids"]
        return {self.as_: pa.array(reason, pa.large_string())}, {**counts, "n_reach": len(ids)}

    def check_counts(self, counts: Mapping[str, int], model: Model) -> None:
        found = counts["keep_ids"] or counts["is_sample"]  # which may well lack all ids of a short list
        if self.keep_ids is not None and counts["n_reach"] and not found:
            raise DataselectError(
                f"{self.keep_ids}: has the id of none of the {counts['n_reach']:,} documents that reach "
                f"{self.use}: is it of another corpus?"
            )

    def notes(self, counts: Mapping[str, int], model: Model) -> list[str]:
        found = [
            (name, path, int(model[f"n_{name}"][0]), counts[name])
            for name, path in self.file_fields().items()
        ]
        return [
            f"{name}: {n_docs:,} documents have one of the {n_ids:,} ids of {path.rsplit('/', 1)[-1]}"
            if n_docs
            else f"{name}: no document has one of the {n_ids:,} ids of {path.rsplit('/', 1)[-1]}"
            for name, path, n_ids, n_docs in found
        ]

    def keep(self, columns: Columns) -> Rules:
        reason: Any = columns[self.as_]
        return {rule: equals(reason, rule) for rule in _RULES.values()}
