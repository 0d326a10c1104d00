"""A classifier of what is near benchmark examples, made and applied in one run (BETR, arXiv 2507.12466).

Each target document ranks the sampled documents by similarity. A document's score is its best rank over all
of them (1/r, the maximum, which did better than means in the paper); the best `positive` share of
the sample are the positives, the rest the negatives, of a classifier that scores everything else.

Two things are not the paper's: the vectors are hashed TF-IDF (kernels/tfidf.py) where it has a language
model's embeddings, and the classifier is a logistic regression on the same vectors (kernels/linear.py) where
it has fastText on words and pairs of words: as linear as that, but its result is the same wherever it is
trained. Nothing is balanced: that moves the log odds of all documents alike.

The sample is cut in two by a hash of the text, with a classifier of each half, and a document is scored by
the half it can't be in: a classifier remembers its own documents' labels, and would repeat their ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from dataselect.core.sizes import Share
from dataselect.stages.base import Columns, Model, Rules, Texts
from dataselect.stages.targets import (
    TargetVectors,
    half_of,
    index_of,
    joined_sample,
    ranked_cosines,
    text_hashes,
)

_EPOCHS = 5
_RATE = 1.0


class Betr(TargetVectors):
    """Score documents by a classifier of those nearest to a target document, fitted on a sample."""

    use: ClassVar[str] = "betr"
    kernels: ClassVar[tuple[str, ...]] = ("dataselect.kernels.linear",)
    decide_fields: ClassVar[frozenset[str]] = frozenset({"min", "max"})

    positive: Share = Field(
        0.1, gt=0, lt=1, description="share of the sampled documents, by their best rank, that are positives"
    )
    min: float | None = Field(None, description="drop documents that score less, or have no words")
    max: float | None = Field(None, description="drop documents that score more, or have no words")
    as_: str = Field(
        "betr",
        alias="as",
        description="score column: log odds of being near a target document; NaN without words",
    )

    def output_columns(self) -> dict[str, str]:
        return {self.as_: "float64"}

    def fit_model(self, prepared: Model, samples: Iterator[pa.Table]) -> dict[str, np.ndarray]:
        """Idf float64[n_buckets] and the halves' weights float64[2, n_buckets + 1], the bias last."""
        from dataselect.kernels.language_model import take_lists
        from dataselect.kernels.linear import train_logistic
        from dataselect.kernels.tfidf import nearest_targets

        list_offsets, features, half = joined_sample(samples)
        index, unseen = index_of(prepared, features, len(list_offsets) - 1, self.n_bits)
        ranked = ranked_cosines(index, list_offsets, features)
        turn = nearest_targets(list_offsets, features, index, ranked)[2]
        labels = best(turn, self.positive)
        weights = []
        for number in (0, 1):
            docs = np.flatnonzero(half == number)
            lists = take_lists(list_offsets, features, docs)
            weights.append(train_logistic(*lists, index.idf, labels[docs], _EPOCHS, _RATE))
        return {
            "target_counts": prepared["target_counts"],
            "unseen": unseen,
            "idf": index.idf,
            "weights": np.stack(weights),
        }

    def columns(self, texts: Texts, model: Model) -> Columns:
        from dataselect.kernels.language_model import take_lists
        from dataselect.kernels.linear import log_odds

        lists, half = self.lists(texts), half_of(text_hashes(texts)[:, 0])
        out = np.empty(len(texts))
        for number, weights in enumerate(model["weights"][::-1]):  # those of the half that it is not in
            docs = np.flatnonzero(half == number)
            out[docs] = log_odds(*take_lists(*lists, docs), model["idf"], weights)
        return {self.as_: out}

    def keep(self, columns: Columns) -> Rules:
        score = columns[self.as_]
        rules = {}
        if self.min is not None:
            rules[f"{self.as_} < {self.min}"] = ~(score >= self.min)
        if self.max is not None:
            rules[f"{self.as_} > {self.max}"] = ~(score <= self.max)
        return rules


def best(turn: np.ndarray, share: float) -> np.ndarray:
    """bool[n]: the `share` of the documents whose turn comes first; equal turns are all or none positive."""
    n_positive = min(max(1, round(share * len(turn))), len(turn))
    if not n_positive:
        return np.zeros(0, bool)
    last = np.partition(turn, n_positive - 1)[n_positive - 1]
    return (turn <= last) & np.isfinite(turn)
