"""How near each document is to the nearest target document, and its turn in a round-robin over all of them.

Cosines of hashed TF-IDF vectors (kernels/tfidf.py): no model is needed, and every document is compared with
every target document. Keeping the nearest is `select: {by: target_similarity}`. RDS+ (Ivison et al. 2025)
lets each target document in turn take its nearest one: after r rounds these are, of every target document,
the r nearest. So a document's turn is the least of rank x n_targets + number of the target over all targets,
and `select: {by: target_similarity_turn, direction: min}` is RDS+ for any budget. The paper's vectors are a
language model's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from dataselect.stages.base import Columns, Model, Rules, Texts
from dataselect.stages.targets import TargetVectors, index_of, joined_sample, ranked_cosines


class TargetSimilarity(TargetVectors):
    """Score documents by the cosine of their hashed TF-IDF vector with the nearest target document's."""

    use: ClassVar[str] = "target_similarity"
    kernels: ClassVar[tuple[str, ...]] = ("dataselect.kernels.tfidf",)
    decide_fields: ClassVar[frozenset[str]] = frozenset({"min"})

    min: float | None = Field(None, description="drop documents whose similarity is less, or has no value")
    as_: str = Field(
        "target_similarity",
        alias="as",
        description="score column (0 to 1; NaN without words); <as>_nearest: number of the target document, "
        "-1 where none has a word in common; <as>_turn: place in a round-robin over the target documents, "
        "LOWER is nearer, NaN where ranks in the sample don't reach",
    )

    def output_columns(self) -> dict[str, str]:
        return {self.as_: "float64", f"{self.as_}_nearest": "int32", f"{self.as_}_turn": "float64"}

    def fit_model(self, prepared: Model, samples: Iterator[pa.Table]) -> dict[str, np.ndarray]:
        """The target's index (kernels.tfidf.Index) and its documents' ranked cosines in the sample."""
        list_offsets, features, _ = joined_sample(samples)
        index, unseen = index_of(prepared, features, len(list_offsets) - 1, self.n_bits)
        ranked = ranked_cosines(index, list_offsets, features)
        told = {"target_counts": prepared["target_counts"], "unseen": unseen}
        return {**index.arrays(), "ranked": ranked, **told}

    def columns(self, texts: Texts, model: Model) -> Columns:
        from dataselect.kernels.tfidf import Index, nearest_targets

        index = Index.of(model, model["ranked"].shape[1])
        cosine, nearest, turn = nearest_targets(*self.lists(texts), index, model["ranked"])
        turns = np.where(np.isinf(turn), np.nan, turn)
        return dict(zip(self.output_columns(), (cosine, nearest, turns), strict=True))

    def keep(self, columns: Columns) -> Rules:
        if self.min is None:
            return {}
        return {f"{self.as_} < {self.min}": ~(columns[self.as_] >= self.min)}
