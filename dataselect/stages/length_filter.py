"""Keep documents by their length: the example to copy when writing a filter."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from dataselect.stages.base import Columns, MapStage, Model, Rules, Texts


class LengthFilter(MapStage):
    """Keep documents of min_chars to max_chars Unicode code points."""

    use: ClassVar[str] = "length_filter"
    decide_fields: ClassVar[frozenset[str]] = frozenset({"min_chars", "max_chars"})

    min_chars: int = Field(200, ge=0, description="fewest code points kept")
    max_chars: int | None = Field(None, ge=1, description="most code points kept; no limit by default")
    as_: str = Field("n_chars", alias="as", description="name of the column with the length in code points")

    def output_columns(self) -> dict[str, str]:
        return {self.as_: "int64"}

    def columns(self, texts: Texts, model: Model) -> Columns:
        from dataselect.kernels.text import count_chars

        n_chars = np.empty(len(texts), np.int64)
        count_chars(texts.offsets, texts.data, n_chars)
        return {self.as_: n_chars}

    def keep(self, columns: Columns) -> Rules:
        n_chars = columns[self.as_]
        rules = {f"{self.as_} < {self.min_chars}": n_chars < self.min_chars}
        if self.max_chars is not None:
            rules[f"{self.as_} > {self.max_chars}"] = n_chars > self.max_chars
        return rules
