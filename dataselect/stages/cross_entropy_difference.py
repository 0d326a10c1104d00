"""How much more a document is like the target than like the raw corpus, by two language models.

Moore and Lewis 2010, "Intelligent Selection of Language Model Training Data": score = H_target(x) - H_raw(x),
in bits per token, of n-gram models of the target and of a random sample of the raw documents. Lower is
better: keep the lowest (`select: {by: ..., direction: min}`) or set `max`. CoLoR-Filter (Brandfonbrener et
al. 2024) is the same difference of two large models' losses, with the opposite sign.

The raw sample is cut in two by a hash of the text, with a model of each half, and a document is scored by the
half it can't be in: else sampled documents would look typical of raw only because their model has seen them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from dataselect.core.sizes import ByteSize
from dataselect.stages.base import Columns, FittedStage, Model, Rules, Texts
from dataselect.stages.draws import uniform_draws
from dataselect.stages.targets import TargetStage, unseen_warning

_MANY_UNSEEN = 0.5
"""Of words: a fitting target has some percent of them."""
_MODELS = ("target", "raw_0", "raw_1")


class CrossEntropyDifference(TargetStage, FittedStage):
    """Score documents by cross-entropy under the target's language model minus under the raw corpus'."""

    use: ClassVar[str] = "cross_entropy_difference"
    version: ClassVar[int] = 2
    figures: ClassVar[tuple[str, ...]] = ("target_counts", "unseen")
    decide_fields: ClassVar[frozenset[str]] = frozenset({"min", "max"})

    order: int = Field(3, ge=1, le=6, description="longest n-gram of the models, in tokens")
    sample_: ByteSize = Field(
        16 << 20,
        ge=1,
        alias="sample",
        description="about how much text the raw models are trained on; the paper: as much as the target has",
    )
    min: float | None = Field(None, description="drop documents whose score is less")
    max: float | None = Field(None, description="drop documents whose score is more: unlike the target")
    as_: str = Field(
        "entropy_difference",
        alias="as",
        description="score column: bits per token, LOWER is more like the target; NaN without tokens",
    )

    def output_columns(self) -> dict[str, str]:
        return {self.as_: "float64"}

    def prepare(self) -> dict[str, np.ndarray]:
        """Tokens uint64 and token_offsets int64[n_docs + 1] of the target."""
        from dataselect.io.reader import iter_file_texts

        parts = [
            _lists(Texts(array))
            for path in self.target_files
            for array in iter_file_texts(path, self.target_text)
        ]
        offsets, tokens = _joined(parts)
        if not len(tokens):
            raise self.no_words()
        n_docs = np.array([len(offsets) - 1, 0])
        return {"token_offsets": offsets, "tokens": tokens, "target_counts": n_docs}

    def sample_bytes(self) -> int:
        return self.sample_

    def sample(self, texts: Texts, share: float) -> pa.Table:
        chosen = uniform_draws(texts.keys, seed=0, purpose=self.use) < share
        docs = texts.take(chosen)
        offsets, tokens = _lists(docs)
        # As bytes, because Arrow takes 30 ns an element to filter lists.
        parts = [None, pa.py_buffer(offsets * tokens.itemsize), pa.py_buffer(tokens)]
        lists = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(docs), parts)
        return pa.table({"doc": np.flatnonzero(chosen), "half": _half(docs), "tokens": lists})

    def fit_model(self, prepared: Model, samples: Iterator[pa.Table]) -> dict[str, np.ndarray]:
        """The models of the target and of both halves of the sample, over one vocabulary."""
        from dataselect.kernels.language_model import train_model

        halves: list[list[tuple[np.ndarray, np.ndarray]]] = [[], []]
        for table in samples:
            half = table["half"].to_numpy()
            for number, parts in enumerate(halves):
                chosen = table["tokens"].filter(pa.array(half == number))
                parts += [_tokens_of(chunk) for chunk in chosen.chunks if len(chunk)]
        target = prepared["token_offsets"], prepared["tokens"]
        trained = dict(zip(_MODELS, [target, *map(_joined, halves)], strict=True))
        words = [np.unique(tokens) for _, tokens in trained.values()]
        n_vocabulary = len(np.unique(np.concatenate(words))) + 1  # one more for all words that neither has
        unseen = ~np.isin(prepared["tokens"], np.concatenate(words[1:]))
        figures = {"target_counts": prepared["target_counts"], "unseen": np.array([unseen.mean()])}
        return figures | {
            f"{name}_{key}": array
            for name, lists in trained.items()
            for key, array in train_model(*lists, self.order, n_vocabulary).items()
        }

    def warnings(self, figures: Model) -> list[str]:
        return super().warnings(figures) + unseen_warning(float(figures["unseen"][0]), _MANY_UNSEEN, "words")

    def columns(self, texts: Texts, model: Model) -> Columns:
        from dataselect.kernels.language_model import take_lists

        lists, half = _lists(texts), _half(texts)
        bits = -_log2_p(lists, model, "target")
        for number, other in enumerate(("raw_1", "raw_0")):  # the half that it is not in
            docs = np.flatnonzero(half == number)
            bits[docs] += _log2_p(take_lists(*lists, docs), model, other)
        with np.errstate(invalid="ignore"):
            return {self.as_: bits / np.diff(lists[0])}

    def keep(self, columns: Columns) -> Rules:
        score = columns[self.as_]
        rules = {}
        if self.min is not None:
            rules[f"{self.as_} < {self.min}"] = ~(score >= self.min)
        if self.max is not None:
            rules[f"{self.as_} > {self.max}"] = ~(score <= self.max)
        return rules


def _lists(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    from dataselect.kernels.language_model import token_lists

    return token_lists(texts.offsets, texts.data)


def _half(texts: Texts) -> np.ndarray:
    """int64[n], 0 or 1 by the text: equal texts are in one half."""
    from dataselect.kernels.hashing import hash128

    hashes = np.empty((len(texts), 2), np.uint64)
    hash128(texts.offsets, texts.data, hashes)
    return (hashes[:, 0] & np.uint64(1)).astype(np.int64)


def _log2_p(lists: tuple[np.ndarray, np.ndarray], model: Model, name: str) -> np.ndarray:
    """float64[n]: log2 p of every document under one of the models."""
    from dataselect.kernels.language_model import LOG_BITS, score_tokens

    own = {k.removeprefix(f"{name}_"): array for k, array in model.items() if k.startswith(f"{name}_")}
    out = np.empty(len(lists[0]) - 1, np.int64)
    score_tokens(*lists, own, out)
    return out * (2.0**-LOG_BITS / math.log(2))


def _tokens_of(chunk: pa.LargeBinaryArray) -> tuple[np.ndarray, np.ndarray]:
    """(token_offsets, tokens) of lists that were stored as bytes."""
    _, offsets, data = chunk.buffers()
    bounds = np.frombuffer(offsets, np.int64, len(chunk) + 1, 8 * chunk.offset) // 8
    tokens = np.frombuffer(data or b"", np.uint8).view(np.uint64)[bounds[0] : bounds[-1]]
    return bounds - bounds[0], tokens


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Lists of many batches as one."""
    counts = [np.diff(offsets) for offsets, _ in parts]
    offsets = np.concatenate([np.zeros(1, np.int64), *counts])
    return np.cumsum(offsets), np.concatenate([np.empty(0, np.uint64), *(tokens for _, tokens in parts)])
