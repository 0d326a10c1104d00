"""Words that documents share with a target in long n-grams: contamination, where the target is a benchmark.

Selecting for a target also selects its copies. An n-gram of 13 words is the usual sign (GPT-3, arXiv
2005.14165, appendix C; lm-evaluation-harness; NeMo Curator); documents of the target that are shorter are
looked for whole. Overlapping n-grams are one passage: a quotation of w words has w - 12 of them. N-grams
that are frequent in the corpus count as any other, and documents are dropped whole, not cut.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from dataselect.stages.base import Columns, MapStage, Model, Rules, Texts
from dataselect.stages.targets import TargetStage


class TargetOverlap(TargetStage, MapStage):
    """Count words in n-grams that a target has too, and drop documents with any, or with too many."""

    use: ClassVar[str] = "target_overlap"
    kernels: ClassVar[tuple[str, ...]] = ("dataselect.kernels.overlap",)
    decide_fields: ClassVar[frozenset[str]] = frozenset({"max_words", "max_share"})

    n: int = Field(13, ge=1, le=1000, description="words of an n-gram; case and punctuation don't count")
    min_target_words: int = Field(
        8, ge=1, description="target documents of fewer than n words are looked for whole, from this many on"
    )
    max_words: int | None = Field(
        0, ge=0, description="drop documents with a longer shared passage, in words; null: drop none"
    )
    max_share: float | None = Field(
        None, ge=0, le=1, description="drop documents with a larger share of their words in shared n-grams"
    )
    as_: str = Field(
        "overlap",
        alias="as",
        description="column with the share of words in shared n-grams; <as>_ngrams: how many these are; "
        "<as>_words: words of the longest shared passage",
    )

    def output_columns(self) -> dict[str, str]:
        return {self.as_: "float64", f"{self.as_}_ngrams": "int32", f"{self.as_}_words": "int32"}

    def prepare(self) -> dict[str, np.ndarray]:
        """The target's n-grams (kernels.overlap.key_table) and their lengths int64."""
        from dataselect.kernels.overlap import key_table, target_keys

        texts, _ = self.read_target()
        keys, lengths = target_keys(texts.offsets, texts.data, self.n, self.min_target_words)
        if not len(keys):
            raise self.no_words(f"documents of {min(self.n, self.min_target_words)} words or more")
        return {"table": key_table(keys), "lengths": lengths}

    def columns(self, texts: Texts, model: Model) -> Columns:
        from dataselect.kernels.overlap import shared_words

        n_ngrams, covered, longest, n_words = shared_words(
            texts.offsets, texts.data, model["lengths"], model["table"]
        ).T
        columns = covered / np.maximum(n_words, 1), n_ngrams, longest
        return dict(zip(self.output_columns(), map(np.ascontiguousarray, columns), strict=True))

    def keep(self, columns: Columns) -> Rules:
        rules = {}
        if self.max_words is not None:
            name = f"{self.as_}_words"
            rules[f"{name} > {self.max_words}"] = columns[name] > self.max_words
        if self.max_share is not None:
            rules[f"{self.as_} > {self.max_share}"] = columns[self.as_] > self.max_share
        return rules
