"""Importance of each document for a target: hashed n-gram log ratios (DSIR, arXiv 2302.03169).

Definition in the paper's section 3 and the authors' package `data-selection` 1.0.3: features are hashed
uni- to `order`-grams of lower-cased word-and-punctuation tokens in `n_buckets` buckets; the log weight of
a document is sum_j c_j (ln(p_j + 1e-8) - ln(q_j + 1e-8)) with p fitted on the target and q on the raw
documents. With `hash: sha256` the buckets are the package's. Two differences stay: q is fitted on the
documents that reach the stage (all, or a hash sample of them) instead of a prefix of each shard; ratios are
rounded to 2^-44 and summed as integers, so that a score never depends on order or platform.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import BeforeValidator, Field, field_validator

from dataselect.core.errors import BadModel
from dataselect.core.fixed_log import FIXED_BITS, fixed_log
from dataselect.core.sizes import ByteSize, parse_bytes
from dataselect.stages.base import Columns, FittedStage, Model, ModelPath, Rules, Texts
from dataselect.stages.draws import uniform_draws
from dataselect.stages.targets import MANY_UNSEEN, few_warning, share_unseen, unseen_warning

SCALE = 2.0**FIXED_BITS
"""Log ratios are stored as integers in units of 2^-FIXED_BITS."""
_EPSILON = 1e-8
_COUNTED_AT_ONCE = 1 << 20  # bincount widens its input to int64
_Files = ModelPath | list[ModelPath]


def _sample(value: object) -> object:
    with contextlib.suppress(ValueError):
        value = parse_bytes(value)
    if value != "all" and not (isinstance(value, (int, float)) and value >= 1):
        raise ValueError("expected a size such as 64MiB, or all")
    return value


class NgramImportance(FittedStage):
    """Score documents by the log ratio of their hashed n-grams under the target and the raw distribution."""

    use: ClassVar[str] = "ngram_importance"
    version: ClassVar[int] = 3
    figures: ClassVar[tuple[str, ...]] = ("target_docs", "unseen")
    decide_fields: ClassVar[frozenset[str]] = frozenset({"min", "max", "min_tokens"})

    target: _Files | dict[str, _Files] = Field(
        description="JSONL or Parquet file with documents like those wanted, or several as one target; or "
        "names and files: targets apart, each with a column of its own"
    )
    target_text: str = Field("text", description="text column of the target files")
    order: int = Field(2, ge=1, le=5, description="longest n-gram, in tokens")
    n_buckets: int = Field(10_000, ge=16, le=65_536, description="hash buckets")
    hash_: Literal["fast", "sha256"] = Field(
        "fast",
        alias="hash",
        description="sha256: the buckets and the lower case of the package data-selection, at a fifth of "
        "the speed",
    )
    smoothing: float = Field(0.0, ge=0, description="added to every target count (Laplace)")
    sample_: Annotated[Literal["all"] | ByteSize, BeforeValidator(_sample)] = Field(
        64 << 20,
        alias="sample",
        description="about how much text the raw side is counted on, at most: a size, or all",
    )
    per: Literal["document", "ngram", "token"] = Field(
        "document",
        description="what the log weight is divided by the number of: log weights grow with length",
    )
    min_tokens: int = Field(0, ge=0, description="drop documents of fewer tokens (words and punctuation)")
    min: float | None = Field(None, description="drop documents whose (best) score is less")
    max: float | None = Field(None, description="drop documents whose (best) score is more")
    as_: str = Field(
        "importance",
        alias="as",
        description="name of the score column (natural log), and prefix of <as>_tokens and <as>_<target>",
    )

    @field_validator("target")
    @classmethod
    def _names_are_names(cls, target: Any) -> Any:
        """At least one file for each target, and names that can stand in a column's."""
        if not target or (isinstance(target, dict) and not all(target.values())):
            raise ValueError("expected a file or a list of files")
        for name in target if isinstance(target, dict) else ():
            if not re.fullmatch(r"\w+", name) or name == "tokens":
                raise ValueError(
                    f"'{name}' can't name a target: expected letters, digits and _, not 'tokens'"
                )
        return target

    def _targets(self) -> dict[str, list[str]]:
        """Column -> files of its target."""
        apart = self.target if isinstance(self.target, dict) else {"": self.target}
        return {
            f"{self.as_}_{name}" if name else self.as_: [files] if isinstance(files, str) else list(files)
            for name, files in apart.items()
        }

    @property
    def _tokens(self) -> str:
        return f"{self.as_}_tokens"

    def output_columns(self) -> dict[str, str]:
        return {**dict.fromkeys(self._targets(), "float64"), self._tokens: "int32"}

    def compute_params(self) -> dict[str, Any]:
        return super().compute_params() | {"targets": list(self._targets())}

    def check_files(self) -> None:
        from dataselect.io.peek import check_text_column

        for path in self.file_fields().values():
            check_text_column(path, self.target_text)

    def prepare(self) -> dict[str, np.ndarray]:
        """Counts int64[n_targets, n_buckets]."""
        counts = np.zeros((len(self._targets()), self.n_buckets), np.int64)
        n_docs = [
            self._count_files(files, row) for row, files in zip(counts, self._targets().values(), strict=True)
        ]
        return {"target_counts": counts, "target_docs": np.array(n_docs)}

    def _count_files(self, files: list[str], counts: np.ndarray) -> int:
        from dataselect.io.reader import iter_file_texts

        n_docs = 0
        for file in files:
            for array in iter_file_texts(file, self.target_text):
                self._count(Texts(array), counts)
                n_docs += len(array)
        if not counts.any():
            raise BadModel(
                f"{', '.join(files)}: the target has no words in '{self.target_text}', "
                "so nothing can be like it"
            )
        return n_docs

    def _count(self, texts: Texts, counts: np.ndarray) -> None:
        from dataselect.kernels.ngrams import count_ngrams

        if self.hash_ == "fast":
            count_ngrams(texts.offsets, texts.data, self.order, self.n_buckets, counts)
        else:
            add_counts(self._lists(texts)[1], counts)

    def _lists(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        """(bucket_offsets int64[n + 1], buckets uint16) of every document's n-grams."""
        from dataselect.kernels.ngrams import ngram_lists
        from dataselect.kernels.wordpunct import sha256_ngram_lists

        make = ngram_lists if self.hash_ == "fast" else sha256_ngram_lists
        return make(texts.offsets, texts.data, self.order, self.n_buckets)[:2]

    def sample_bytes(self) -> int | None:
        return None if self.sample_ == "all" else self.sample_

    def sample(self, texts: Texts, share: float) -> pa.Table:
        chosen = uniform_draws(texts.keys, seed=0, purpose=self.use) < share
        offsets, buckets = self._lists(texts.take(chosen))
        # As bytes, because Arrow takes 30 ns an element to filter lists.
        parts = [None, pa.py_buffer(offsets * buckets.itemsize), pa.py_buffer(buckets)]
        lists = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(offsets) - 1, parts)
        return pa.table({"doc": pa.array(np.flatnonzero(chosen)), "buckets": lists})

    def fit_model(self, prepared: Model, samples: Iterator[pa.Table]) -> dict[str, np.ndarray]:
        """log_ratio int64[n_targets, n_buckets] in units of 2^-FIXED_BITS, and the counts it is made of."""
        raw_counts = np.zeros(self.n_buckets, np.int64)
        for table in samples:
            for chunk in table["buckets"].chunks:
                _, offsets, data = chunk.buffers()
                bounds = np.frombuffer(offsets, np.int64)[[chunk.offset, chunk.offset + len(chunk)]]
                first, stop = (bounds // 2).tolist()
                add_counts(np.frombuffer(data or b"", np.uint16)[first:stop], raw_counts)
        targets = prepared["target_counts"]
        tables = np.stack([log_ratio_table(counts, raw_counts, self.smoothing) for counts in targets])
        empty = raw_counts == 0
        in_empty = (targets * empty).sum(axis=1) / targets.sum(axis=1)
        unseen = [share_unseen(share, empty) for share in in_empty.tolist()]
        figures = {"target_docs": prepared["target_docs"], "unseen": np.array(unseen)}
        return {"log_ratio": tables, "target_counts": targets, "raw_counts": raw_counts, **figures}

    def warnings(self, figures: Model) -> list[str]:
        found = []
        for column, n_docs, unseen in zip(
            self._targets(), figures["target_docs"].tolist(), figures["unseen"].tolist(), strict=True
        ):
            name = f"the target of {column}"
            found += few_warning(n_docs, name) + unseen_warning(unseen, MANY_UNSEEN, "n-grams", name)
        return found

    def columns(self, texts: Texts, model: Model) -> Columns:
        scores, n_tokens = self._scores(texts, model["log_ratio"])
        if self.per != "document":
            shorter = range(self.order if self.per == "ngram" else 1)
            scores /= np.maximum(sum(np.maximum(n_tokens - k, 0) for k in shorter), 1)
        return {**dict(zip(self._targets(), scores, strict=True)), self._tokens: n_tokens.astype(np.int32)}

    def _scores(self, texts: Texts, tables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(log weights float64[n_targets, n], n_tokens int64[n])."""
        from dataselect.kernels.ngrams import score_lists, score_ngrams
        from dataselect.kernels.wordpunct import sha256_ngram_lists

        scores = np.empty((len(tables), len(texts)))
        if self.hash_ == "fast":
            n_tokens = np.empty(len(texts), np.int64)
            for table, out in zip(tables, scores, strict=True):
                score_ngrams(texts.offsets, texts.data, self.order, table, out, n_tokens)
        else:
            offsets, buckets, n_tokens = sha256_ngram_lists(
                texts.offsets, texts.data, self.order, self.n_buckets
            )
            for table, out in zip(tables, scores, strict=True):
                score_lists(offsets, buckets, table, out)
        return scores, n_tokens

    def column_masses(self, model: Model) -> dict[str, float]:
        """N-grams of each target, as the package shares among targets."""
        n_grams = model["target_counts"].sum(axis=1)
        return dict(zip(self._targets(), n_grams.astype(float).tolist(), strict=True))

    def keep(self, columns: Columns) -> Rules:
        score = np.maximum.reduce([columns[name] for name in self._targets()])
        rules = {}
        if self.min_tokens:
            rules[f"{self._tokens} < {self.min_tokens}"] = columns[self._tokens] < self.min_tokens
        if self.min is not None:
            rules[f"{self.as_} < {self.min}"] = ~(score >= self.min)
        if self.max is not None:
            rules[f"{self.as_} > {self.max}"] = score > self.max
        return rules


def add_counts(buckets: np.ndarray, counts: np.ndarray) -> None:
    """Add how often each bucket is there to counts int64[n_buckets]."""
    for start in range(0, len(buckets), _COUNTED_AT_ONCE):
        counts += np.bincount(buckets[start : start + _COUNTED_AT_ONCE], minlength=len(counts))


def log_ratio_table(target_counts: np.ndarray, raw_counts: np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    """int64[n_buckets] in units of 2^-44: ln(p + 1e-8) - ln(q + 1e-8), p smoothed, q not (spec of DSIR).

    Without any sampled document q is taken as uniform, so that scores stay finite and say nothing of raw.
    """
    n_buckets = len(target_counts)
    p = (target_counts + smoothing) / max(1.0, float(target_counts.sum()) + smoothing * n_buckets)
    q = raw_counts / raw_counts.sum() if raw_counts.sum() else np.full(n_buckets, 1 / n_buckets)
    return fixed_log(p + _EPSILON) - fixed_log(q + _EPSILON)
