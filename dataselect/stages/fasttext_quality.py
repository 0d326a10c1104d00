"""Score documents with a supervised fastText model, as DCLM and others choose pretraining text."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from dataselect.stages.base import Columns, MapStage, Model, ModelPath, Rules, Texts


class FastTextQuality(MapStage):
    """Probability of one label of a supervised softmax fastText model (`.bin`), newlines read as spaces.

    The probability is the library's: softmax + 1e-5, so up to 1.00001. It is that of `label` whether or not
    the label wins. DCLM (arXiv 2406.11794) keeps P(hq) >= 0.018112 of its own model; a threshold belongs to
    its model.
    """

    use: ClassVar[str] = "fasttext_quality"
    version: ClassVar[int] = 1
    decide_fields: ClassVar[frozenset[str]] = frozenset({"min", "max"})

    model: ModelPath = Field(description="supervised fastText model (.bin, loss softmax)")
    label: str = Field(description="label whose probability is the score, with or without `__label__`")
    min: float | None = Field(None, description="drop documents that score less")
    max: float | None = Field(None, description="drop documents that score more")
    as_: str = Field("quality", alias="as", description="name of the score column (probability)")

    def check_files(self) -> None:
        """Raise BadModel where the model can't be used or lacks the label; reads no matrix."""
        from dataselect.io.fasttext_model import read_header

        read_header(self.model).label_index(self.label)

    def output_columns(self) -> dict[str, str]:
        return {self.as_: "float32"}

    def prepare(self) -> dict[str, np.ndarray]:
        """The folded model; see `io.fasttext_model.prepare`."""
        from dataselect.io.fasttext_model import prepare

        return prepare(self.model, self.label)

    def columns(self, texts: Texts, model: Model) -> Columns:
        from dataselect.kernels.fasttext import score_texts

        return {self.as_: score_texts(texts.offsets, texts.data, model)}

    def keep(self, columns: Columns) -> Rules:
        # Compared as float32: a threshold copied from the column keeps the row it was copied from.
        score = np.asarray(columns[self.as_], dtype=np.float32)
        rules = {}
        if self.min is not None:
            # Negated, so that a document without any prediction (NaN) is dropped.
            rules[f"{self.as_} < {self.min}"] = ~(score >= np.float32(self.min))
        if self.max is not None:
            rules[f"{self.as_} > {self.max}"] = score > np.float32(self.max)
        return rules
