"""Importance of each document for a target: hashed n-gram log ratios (DSIR, arXiv 2302.03169).

Definition in the paper's section 3 and the authors' package `data-selection` 1.0.3: features are hashed
uni- to `order`-grams of lower-cased word-and-punctuation tokens in `n_buckets` buckets; the log weight of
a document is sum_j c_j (ln(p_j + 1e-8) - ln(q_j + 1e-8)) with p fitted on the target and q on the raw
documents. Three differences: buckets by a fast hash instead of SHA-256; q is fitted on the documents that
reach the stage (a hash sample of them) instead of a prefix of each shard; ratios are rounded to 2^-24 and
summed as integers, so that a score never depends on order or platform.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from dataselect.core.errors import BadModel
from dataselect.stages.base import Columns, FittedStage, Model, ModelPath, Rules, Texts
from dataselect.stages.draws import uniform_draws

SCALE = 2.0**24
"""Log ratios are stored as integers in units of 2^-24."""
_EPSILON = 1e-8
_COUNTED_AT_ONCE = 1 << 20  # bincount widens its input to int64


class NgramImportance(FittedStage):
    """Score documents by the log ratio of their hashed n-grams under the target and the raw distribution."""

    use: ClassVar[str] = "ngram_importance"
    decide_fields: ClassVar[frozenset[str]] = frozenset({"min", "max"})

    target: ModelPath = Field(description="JSONL or Parquet file with documents like those wanted")
    target_text: str = Field("text", description="text column of the target file")
    order: int = Field(2, ge=1, le=5, description="longest n-gram, in tokens")
    n_buckets: int = Field(10_000, ge=16, le=65_536, description="hash buckets")
    smoothing: float = Field(0.0, ge=0, description="added to every target count (Laplace)")
    per_ngram: bool = Field(False, description="divide the log weight by the number of n-grams")
    min: float | None = Field(None, description="drop documents that score less")
    max: float | None = Field(None, description="drop documents that score more")
    as_: str = Field("importance", alias="as", description="name of the score column (natural log)")

    def output_columns(self) -> dict[str, str]:
        return {self.as_: "float64"}

    def prepare(self) -> dict[str, np.ndarray]:
        """Target counts int64[n_buckets]."""
        from dataselect.io.reader import iter_file_texts
        from dataselect.kernels.ngrams import count_ngrams

        counts = np.zeros(self.n_buckets, np.int64)
        for array in iter_file_texts(self.target, self.target_text):
            texts = Texts(array)
            count_ngrams(texts.offsets, texts.data, self.order, self.n_buckets, counts)
        if not counts.any():
            raise BadModel(
                f"{self.target}: the target has no words in '{self.target_text}', so nothing can be like it"
            )
        return {"target_counts": counts}

    def sample(self, texts: Texts, share: float) -> pa.Table:
        from dataselect.kernels.ngrams import ngram_lists

        chosen = uniform_draws(texts.keys, seed=0, purpose=self.use) < share
        sampled = texts.take(chosen)
        offsets, buckets = ngram_lists(sampled.offsets, sampled.data, self.order, self.n_buckets)
        lists = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(buckets))
        return pa.table({"doc": pa.array(np.flatnonzero(chosen)), "buckets": lists})

    def fit_model(self, prepared: Model, samples: Iterator[pa.Table]) -> dict[str, np.ndarray]:
        raw_counts = np.zeros(self.n_buckets, np.int64)
        for table in samples:
            buckets = table["buckets"].combine_chunks().flatten().to_numpy()
            for start in range(0, len(buckets), _COUNTED_AT_ONCE):
                raw_counts += np.bincount(buckets[start : start + _COUNTED_AT_ONCE], minlength=self.n_buckets)
        table = log_ratio_table(prepared["target_counts"], raw_counts, self.smoothing)
        return {"log_ratio": table, "target_counts": prepared["target_counts"], "raw_counts": raw_counts}

    def columns(self, texts: Texts, model: Model) -> Columns:
        from dataselect.kernels.ngrams import score_ngrams

        total = np.empty(len(texts), np.int64)
        n_grams = np.empty(len(texts), np.int64)
        score_ngrams(texts.offsets, texts.data, self.order, model["log_ratio"], total, n_grams)
        score = total / SCALE
        if self.per_ngram:
            # Rounded again, so that no platform's division decides a tie.
            score = np.rint(score / np.maximum(n_grams, 1) * SCALE) / SCALE
        return {self.as_: score}

    def keep(self, columns: Columns) -> Rules:
        score = columns[self.as_]
        rules = {}
        if self.min is not None:
            rules[f"{self.as_} < {self.min}"] = ~(score >= self.min)
        if self.max is not None:
            rules[f"{self.as_} > {self.max}"] = score > self.max
        return rules


def log_ratio_table(target_counts: np.ndarray, raw_counts: np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    """int64[n_buckets] in units of 2^-24: ln(p + 1e-8) - ln(q + 1e-8), p smoothed, q not (spec of DSIR).

    Without any sampled document q is taken as uniform, so that scores stay finite and say nothing of raw.
    """
    n_buckets = len(target_counts)
    p = (target_counts + smoothing) / max(1.0, float(target_counts.sum()) + smoothing * n_buckets)
    q = raw_counts / raw_counts.sum() if raw_counts.sum() else np.full(n_buckets, 1 / n_buckets)
    return np.rint((np.log(p + _EPSILON) - np.log(q + _EPSILON)) * SCALE).astype(np.int64)
