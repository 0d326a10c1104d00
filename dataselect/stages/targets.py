"""What stages that compare documents with a target share: its files, and its vectors and ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from dataselect.core.errors import BadModel
from dataselect.core.sizes import ByteSize
from dataselect.stages.base import FittedStage, Model, ModelPath, Stage, Texts
from dataselect.stages.draws import uniform_draws

if TYPE_CHECKING:
    from dataselect.kernels.tfidf import Index

FEW_DOCS = 20
MANY_UNSEEN = 0.75
"""Share of terms: of a fitting target it is a fifth at 30 MB of raw text, and more where that is less."""
_VALUES = 1 << 22
"""Cosines held at a time, and kept of all ranks together: 32 MB."""


def few_warning(n_docs: int, name: str = "the target") -> list[str]:
    """What to say of a target of so many documents."""
    few = n_docs < FEW_DOCS
    return [f"{name} has {n_docs:,} documents: what is like so few is chance"] if few else []


def unseen_warning(unseen: float, many: float, terms: str, name: str = "the target") -> list[str]:
    """What to say of a target of whose terms the share `unseen` is in no sampled document."""
    if unseen <= many:
        return []
    where = "are in no sampled document: another language or domain?"
    return [f"some {unseen:.0%} of {name}'s {terms} {where}"]


def share_unseen(in_empty: float, empty: np.ndarray) -> float:
    """About the share of a target's terms that no sampled document has, from the share in `empty` buckets.

    A term that is nowhere is in an empty bucket (bool[n_buckets]) as often as chance has it; where hardly any
    is empty, little can be said.
    """
    return min(1.0, in_empty / max(float(empty.mean()), 1 / len(empty)))


class TargetStage(Stage):
    """A stage with a target: documents like those wanted, or, for contamination, like those not wanted."""

    target: ModelPath | list[ModelPath] = Field(
        description="JSONL or Parquet file with documents like those wanted, or several"
    )
    target_text: str = Field("text", description="text column of the target files")

    def check_files(self) -> None:
        from dataselect.io.peek import check_text_column

        for path in self.file_fields().values():
            check_text_column(path, self.target_text)

    @property
    def target_files(self) -> list[str]:
        """One or several."""
        return [self.target] if isinstance(self.target, str) else list(self.target)

    def read_target(self) -> tuple[Texts, np.ndarray]:
        """All documents of the target in order, and int64[2]: how many, and how many repeat an earlier one.

        In place of a repeated one there is an empty text.
        """
        from dataselect.io.reader import iter_file_texts

        seen: set[str] = set()
        documents = []
        n_repeated = 0
        for path in self.target_files:
            for array in iter_file_texts(path, self.target_text):
                for text in array.to_pylist():
                    documents.append("" if text in seen else text)
                    n_repeated += text in seen
                    seen.add(text)
        return Texts(pa.array(documents, pa.large_string())), np.array([len(documents), n_repeated])

    def warnings(self, figures: Model) -> list[str]:
        n_docs, n_repeated = figures["target_counts"].tolist()
        found = few_warning(n_docs - n_repeated)
        if n_repeated:
            found.insert(0, f"{n_repeated:,} of {n_docs:,} target documents repeat others, and are left out")
        return found

    def no_words(self, wanted: str = "words") -> BadModel:
        """The error for a target that nothing can be compared with."""
        return BadModel(
            f"{', '.join(self.target_files)}: the target has no {wanted} in '{self.target_text}', "
            "so nothing can be like it"
        )


class TargetVectors(TargetStage, FittedStage):
    """Cosines of hashed TF-IDF vectors with every target document, and ranks by them in a sample of raw."""

    figures: ClassVar[tuple[str, ...]] = ("target_counts", "unseen")

    n_bits: int = Field(20, ge=8, le=20, description="2^n_bits hash buckets of words and pairs of words")
    sample_: ByteSize = Field(
        64 << 20,
        ge=1,
        alias="sample",
        description="about how much text idf and ranks are found on, at most; it is held in memory",
    )

    def prepare(self) -> dict[str, np.ndarray]:
        """The target's list_offsets int64[n_targets + 1] and features uint32 (kernels.tfidf), its counts."""
        texts, counts = self.read_target()
        list_offsets, features = self.lists(texts)
        if not len(features):
            raise self.no_words()
        return {"list_offsets": list_offsets, "features": features, "target_counts": counts}

    def warnings(self, figures: Model) -> list[str]:
        unseen = float(figures["unseen"][0])
        return super().warnings(figures) + unseen_warning(unseen, MANY_UNSEEN, "words and word pairs")

    def lists(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        """(list_offsets, features) of documents."""
        from dataselect.kernels.tfidf import feature_lists

        return feature_lists(texts.offsets, texts.data, self.n_bits)

    def sample_bytes(self) -> int:
        return self.sample_

    def sample(self, texts: Texts, share: float) -> pa.Table:
        chosen = uniform_draws(texts.keys, seed=0, purpose=self.use) < share
        docs = texts.take(chosen)
        offsets, features = self.lists(docs)
        # As bytes, because Arrow takes 30 ns an element to filter lists.
        parts = [None, pa.py_buffer(offsets * features.itemsize), pa.py_buffer(features)]
        lists = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(docs), parts)
        hash_0, hash_1 = (pa.array(np.ascontiguousarray(column)) for column in text_hashes(docs).T)
        return pa.table(
            {"doc": np.flatnonzero(chosen), "hash_0": hash_0, "hash_1": hash_1, "features": lists}
        )


def text_hashes(texts: Texts) -> np.ndarray:
    """uint64[n, 2] of the texts alone, whatever their ids."""
    from dataselect.kernels.hashing import hash128

    hashes = np.empty((len(texts), 2), np.uint64)
    hash128(texts.offsets, texts.data, hashes)
    return hashes


def half_of(hashes: np.ndarray) -> np.ndarray:
    """int64[n], 0 or 1: equal texts are in one half."""
    return (hashes & np.uint64(1)).astype(np.int64)


def joined_sample(samples: Iterator[pa.Table]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(list_offsets, features, half) of all sampled documents, in the order of their texts' hashes."""
    from dataselect.kernels.language_model import take_lists

    tables = [table.select(["hash_0", "hash_1", "features"]) for table in samples]
    if not tables:
        return np.zeros(1, np.int64), np.empty(0, np.uint32), np.empty(0, np.int64)
    table = pa.concat_tables(tables)
    counts, features = [], []
    for chunk in table["features"].chunks:
        _, offsets, data = chunk.buffers()
        bounds = np.frombuffer(offsets, np.int64, len(chunk) + 1, 8 * chunk.offset) // 4
        counts.append(np.diff(bounds))
        features.append(np.frombuffer(data or b"", np.uint32)[bounds[0] : bounds[-1]])
    list_offsets = np.cumsum(np.concatenate([np.zeros(1, np.int64), *counts]))
    hashes = table["hash_0"].to_numpy()
    order = np.lexsort((table["hash_1"].to_numpy(), hashes))
    return *take_lists(list_offsets, np.concatenate(features), order), half_of(hashes[order])


def index_of(target: Model, features: np.ndarray, n_docs: int, n_bits: int) -> tuple[Index, np.ndarray]:
    """The target's index, with idf from the features of n_docs sampled documents, and float64[1] unseen.

    unseen: the share of the target's terms that no sampled document has; of those whose bucket is empty
    there are as many as chance leaves.
    """
    from dataselect.kernels.tfidf import buckets_of, build_index, idf_table

    df = np.bincount(buckets_of(features), minlength=1 << n_bits)
    in_empty = (df[buckets_of(target["features"])] == 0).mean()
    unseen = share_unseen(float(in_empty), df == 0)
    index = build_index(target["list_offsets"], target["features"], idf_table(df, n_docs))
    return index, np.array([unseen])


def ranked_cosines(index: Index, list_offsets: np.ndarray, features: np.ndarray) -> np.ndarray:
    """float64[n_ranks, n_targets]: for each target the largest cosines of the documents, descending.

    Of all documents, and -inf after them, where these are few; else as many as make 32 MB.
    """
    from dataselect.kernels.tfidf import cosine_matrix

    n_docs, n_targets = len(list_offsets) - 1, index.n_targets
    most = max(1, _VALUES // n_targets)
    ranked = np.empty((0, n_targets))
    for first in range(0, n_docs, most):
        new = cosine_matrix(list_offsets[first : first + most + 1], features, index)
        ranked = np.concatenate([ranked, new])
        if len(ranked) > most:
            ranked = np.partition(ranked, len(ranked) - most, axis=0)[-most:]
    ranked = np.sort(ranked, axis=0)[::-1]
    last = np.full((int(n_docs <= most), n_targets), -np.inf)
    return np.ascontiguousarray(np.concatenate([ranked, last]))
