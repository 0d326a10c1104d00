"""Documents in memory as a few numbers each (50 bytes), and the tokens of some of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataselect.compare.spec import Documents
from dataselect.core.errors import RecipeError
from dataselect.core.listener import Listener
from dataselect.core.names import nearest
from dataselect.core.pieces import SUFFIXES, Piece, Shard, suffix_of
from dataselect.engine.columns import describe_texts
from dataselect.io.batch import TextBatch
from dataselect.io.fields import FieldSpec
from dataselect.io.peek import column_names
from dataselect.io.reader import iter_piece

Lists = tuple[np.ndarray, np.ndarray]
"""(token_offsets int64[n + 1], tokens uint64) of kernels.language_model."""


@dataclass(frozen=True)
class Grouping:
    """Documents by the value of a column."""

    of_doc: np.ndarray
    """int64[n]: index into `names`."""
    names: list[str]


@dataclass(frozen=True)
class Corpus:
    """The documents of some shards in the order of shards and rows; bad rows are left out."""

    documents: Documents
    keys: np.ndarray
    """uint64[n, 2]: hash of the id, or of the text; what draws depend on and what documents are known by."""
    text_ids: np.ndarray
    """uint64[n]: hash of the text."""
    n_tokens: np.ndarray
    """int64[n]."""
    n_bytes: np.ndarray
    """int64[n] of text."""
    shard: np.ndarray
    """int32[n]: index into documents.shards."""
    groups: dict[str, Grouping]
    """Column -> its values, of the columns that were asked for."""
    n_bad_rows: int

    def __len__(self) -> int:
        return len(self.n_tokens)

    @property
    def name(self) -> str:
        """Of the selection, or 'raw', 'target'."""
        return self.documents.name

    def key_ids(self) -> np.ndarray:
        """uint64[n]: what documents are told apart by; among 10^8, two are equal with probability 0.0003."""
        return self.keys[:, 0]


def read_corpus(
    documents: Documents,
    listener: Listener,
    seen: Callable[[np.ndarray, np.ndarray], None],
    columns: Collection[str] = (),
) -> Corpus:
    """Read all shards once; `seen` gets the token lists of each batch. BadShard."""
    from dataselect.kernels.language_model import token_lists

    keys, text_ids = [np.empty((0, 2), np.uint64)], [np.empty(0, np.uint64)]
    n_tokens, n_bytes, shard = [], [], []
    n_bad, codes = 0, {column: _Codes() for column in columns}
    for number, batch in _batches(documents, listener, columns):
        described = describe_texts(batch.texts, batch.ids)
        offsets, tokens = token_lists(*_buffers(batch.texts))
        seen(offsets, tokens)
        keys.append(described["key"])
        text_ids.append(described["text_hash"][:, 0].copy())
        n_bytes.append(described["n_bytes"].astype(np.int64))
        n_tokens.append(np.diff(offsets))
        shard.append(np.full(len(offsets) - 1, number, np.int32))
        n_bad += len(batch.bad)
        for column, values in batch.fields.items():
            codes[column].add(values)
    none = np.empty(0, np.int64)
    return Corpus(
        documents,
        np.concatenate(keys),
        np.concatenate(text_ids),
        np.concatenate([none, *n_tokens]),
        np.concatenate([none, *n_bytes]),
        np.concatenate([np.empty(0, np.int32), *shard]),
        {column: found.grouping() for column, found in codes.items()},
        n_bad,
    )


def read_tokens(corpus: Corpus, wanted: np.ndarray, listener: Listener) -> tuple[np.ndarray, Lists]:
    """(place int64[n], lists): document i of the corpus is list place[i], where wanted[i] (bool[n])."""
    from dataselect.kernels.language_model import take_lists, token_lists

    counts, parts, first = [np.zeros(1, np.int64)], [np.empty(0, np.uint64)], 0
    for _, batch in _batches(corpus.documents, listener):
        docs = np.flatnonzero(wanted[first : first + len(batch.texts)])
        first += len(batch.texts)
        if len(docs):
            offsets, tokens = take_lists(*token_lists(*_buffers(batch.texts)), docs)
            counts.append(np.diff(offsets))
            parts.append(tokens)
    return np.cumsum(wanted) - 1, (np.cumsum(np.concatenate(counts)), np.concatenate(parts))


class _Codes:
    """Numbers for the different values of a column."""

    def __init__(self) -> None:
        self._code: dict[str, int] = {}
        self._parts = [np.empty(0, np.int64)]

    def add(self, values: pa.Array) -> None:
        encoded = pc.dictionary_encode(values.fill_null(""))
        new = [self._code.setdefault(value, len(self._code)) for value in encoded.dictionary.to_pylist()]
        self._parts.append(np.array(new, np.int64)[encoded.indices.to_numpy(zero_copy_only=False)])

    def grouping(self) -> Grouping:
        names = sorted(self._code)
        place = np.empty(len(names), np.int64)  # by name, not by first appearance
        place[[self._code[name] for name in names]] = np.arange(len(names))
        return Grouping(place[np.concatenate(self._parts)], names)


def check_column(documents: Documents, column: str, option: str) -> None:
    """RecipeError where the first shard has no such column."""
    for shard in documents.shards[:1]:
        names = column_names(shard)
        if names and column not in names:
            raise RecipeError(
                f"{option}: no column '{column}' in {shard.name}, which has {', '.join(names[:12])}"
                f"{nearest(column, names)}"
            )


def _batches(
    documents: Documents, listener: Listener, columns: Collection[str] = ()
) -> Iterator[tuple[int, TextBatch]]:
    shards, fields = documents.shards, [FieldSpec(column, "string") for column in columns]
    listener.phase(f"read {documents.name}", len(shards), len(shards), sum(shard.size for shard in shards))
    for number, shard in enumerate(shards):
        for batch in iter_piece(_piece(shard), documents.read, fields=fields):
            listener.progress(batch.n_rows, batch.n_bytes_read)
            yield number, batch
        listener.task_done(shard.name, shard.size, {})
    listener.phase_done()


def _piece(shard: Shard) -> Piece:
    form, codec = SUFFIXES[suffix_of(shard.name) or ""]
    return Piece((shard,), form, codec, n_bytes=shard.size)


def _buffers(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    from dataselect.kernels.arrow import text_buffers

    return text_buffers(texts)
