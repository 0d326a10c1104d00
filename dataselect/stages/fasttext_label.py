"""Name each document's most probable label of a supervised fastText model: a topic, a domain, a format."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from dataselect.stages.base import Columns, MapStage, Model, ModelPath, Rules, Texts


class FastTextLabel(MapStage):
    """The best label of a supervised fastText model (`.bin`, `.ftz`) and its probability.

    Of equal probabilities the later label in the model's order wins, as in the library. A document that the
    library predicts nothing for has no label and no score; `only` and `min` drop it.
    """

    use: ClassVar[str] = "fasttext_label"
    decide_fields: ClassVar[frozenset[str]] = frozenset({"only", "min"})

    model: ModelPath = Field(description="supervised fastText model: .bin or .ftz, any loss")
    only: list[str] | None = Field(None, description="drop documents with another label")
    min: float | None = Field(None, description="drop documents whose best label is less probable")
    as_: str = Field("label", alias="as", description="name of the label's column; `<as>_score` is the other")

    def check_files(self) -> None:
        """Raise BadModel where the model can't be used or lacks a label of `only`; reads no matrix."""
        from dataselect.io.fasttext_model import read_header

        model = read_header(self.model)
        for label in self.only or []:
            model.label_index(label)

    def output_columns(self) -> dict[str, str]:
        return {self.as_: "string", f"{self.as_}_score": "float32"}

    def prepare(self) -> dict[str, np.ndarray]:
        """The folded model; see `io.fasttext_tables.prepare`."""
        from dataselect.io.fasttext_tables import prepare

        return prepare(self.model)

    def columns(self, texts: Texts, model: Model) -> Columns:
        from dataselect.io.fasttext_tables import label_names
        from dataselect.kernels.fasttext import best_labels

        best, score = best_labels(texts.offsets, texts.data, model)
        label = pa.array(label_names(model), pa.string()).take(pa.array(best, mask=best < 0))
        return {self.as_: label, f"{self.as_}_score": score}

    def keep(self, columns: Columns) -> Rules:
        from dataselect.io.fasttext_model import LABEL_PREFIX

        rules = {}
        if self.only is not None:
            wanted = [label.removeprefix(LABEL_PREFIX) for label in self.only]
            found = pc.is_in(columns[self.as_], value_set=pa.array(wanted, pa.string()))
            rules[f"{self.as_} not in {', '.join(wanted)}"] = ~found.to_numpy(zero_copy_only=False)
        if self.min is not None:
            score = np.asarray(columns[f"{self.as_}_score"], dtype=np.float32)
            rules[f"{self.as_}_score < {self.min}"] = ~(score >= np.float32(self.min))
        return rules
