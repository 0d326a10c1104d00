"""Score documents with a supervised fastText model, as DCLM and others choose pretraining text."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from dataselect.stages.base import Columns, MapStage, Model, ModelPath, Rules, Texts


class FastTextQuality(MapStage):
    """Probabilities of labels of a supervised fastText model (`.bin`, `.ftz`), newlines read as spaces.

    A probability is the library's, its 1e-5 included, so up to 1.00001. It is that of the label whether or
    not the label wins. DCLM (arXiv 2406.11794) keeps P(hq) >= 0.018112 of its own model; a threshold belongs
    to its model. A document that the library predicts nothing for has no score, and `min` drops it.
    """

    use: ClassVar[str] = "fasttext_quality"
    version: ClassVar[int] = 2
    decide_fields: ClassVar[frozenset[str]] = frozenset({"min", "max"})

    model: ModelPath = Field(description="supervised fastText model: .bin or .ftz, any loss")
    label: str | list[str] | None = Field(
        None, description="label whose probability is the score, or labels whose probabilities are added up"
    )
    labels: Literal["all"] | list[str] | None = Field(
        None, description="labels with a column each, named `<as>_<label>`; or `all`"
    )
    min: float | None = Field(None, description="drop documents that score less")
    max: float | None = Field(None, description="drop documents that score more")
    as_: str = Field("quality", alias="as", description="name of the score column (probability)")

    @model_validator(mode="after")
    def _check_labels(self) -> FastTextQuality:
        if not self._summed() and not self.labels:
            raise ValueError("label: name a label, or `labels: all` for a column of each")
        if not self._summed() and (self.min is not None or self.max is not None):
            raise ValueError("min: it compares the score, so `label` must be given too")
        return self

    def _summed(self) -> list[str]:
        return [self.label] if isinstance(self.label, str) else self.label or []

    @cached_property
    def _all_labels(self) -> list[str]:
        from dataselect.io.fasttext_model import read_header

        return read_header(self.model).labels

    def _apart(self) -> list[str]:
        """Labels with a column each; of `all` the header is read."""
        from dataselect.io.fasttext_model import LABEL_PREFIX

        if self.labels == "all":
            return self._all_labels
        return [label.removeprefix(LABEL_PREFIX) for label in self.labels or []]

    def check_files(self) -> None:
        """Raise BadModel where the model can't be used or lacks a label; reads no matrix."""
        from dataselect.io.fasttext_model import read_header

        model = read_header(self.model)
        for label in [*self._summed(), *self._apart()]:
            model.label_index(label)

    def output_columns(self) -> dict[str, str]:
        names = [*([self.as_] if self._summed() else []), *(f"{self.as_}_{name}" for name in self._apart())]
        return dict.fromkeys(names, "float32")

    def prepare(self) -> dict[str, np.ndarray]:
        """The folded model; see `io.fasttext_tables.prepare`."""
        from dataselect.io.fasttext_tables import prepare

        return prepare(self.model, [*self._summed(), *self._apart()])

    def columns(self, texts: Texts, model: Model) -> Columns:
        from dataselect.kernels.fasttext import score_texts

        scores = score_texts(texts.offsets, texts.data, model)
        n_summed = len(self._summed())
        columns = [scores[:, i] for i in range(n_summed, scores.shape[1])]
        if n_summed:
            columns.insert(0, scores[:, :n_summed].sum(axis=1, dtype=np.float64).astype(np.float32))
        return dict(zip(self.output_columns(), columns, strict=True))

    def keep(self, columns: Columns) -> Rules:
        rules = {}
        if self.min is not None or self.max is not None:
            # Compared as float32: a threshold copied from the column keeps the row it was copied from.
            score = np.asarray(columns[self.as_], dtype=np.float32)
        if self.min is not None:
            # Negated, so that a document without any prediction (NaN) is dropped.
            rules[f"{self.as_} < {self.min}"] = ~(score >= np.float32(self.min))
        if self.max is not None:
            rules[f"{self.as_} > {self.max}"] = score > np.float32(self.max)
        return rules
