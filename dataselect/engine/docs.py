"""Documents of the whole corpus by number, for the tasks of a dedup: what is where, gathered from artifacts.

A document's number is dense over the rows of all segments in DocId order; its rank is its place in the order
in which duplicates are preferred, which is its number unless the recipe's `keep` says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataselect.engine.columns import unpack
from dataselect.engine.inputs import edited_values
from dataselect.engine.job import Context
from dataselect.io.bundle import Bundle
from dataselect.io.dedup_index import indexed_ids

MAX_DOCS = 1 << 32
"""Documents are numbered in 32 bits: a pair of them is one 64-bit word."""

_SHIFT = np.uint64(32)
_MASK = np.uint64(MAX_DOCS - 1)


def packed(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Pairs of ranks as uint64[n], worse << 32 | better."""
    left, right = left.astype(np.uint64), right.astype(np.uint64)
    return np.maximum(left, right) << _SHIFT | np.minimum(left, right)


def unpacked(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(worse, better) ranks, int64[n] each."""
    return (pairs >> _SHIFT).astype(np.int64), (pairs & _MASK).astype(np.int64)


@dataclass(frozen=True)
class Exchange:
    """Where a DedupStage's keys are, and what it needs to know of their documents."""

    stage: int
    keys: tuple[str, ...]
    """Artifact of each segment."""
    bases: tuple[str, ...]
    """Base columns of each segment."""
    n_rows: tuple[int, ...]
    alive: str
    """Artifact of `mask_rows`."""
    edits: tuple[tuple[str, ...], ...]
    """Of each segment: artifacts with the edits of its texts that stages before this one made."""
    ranks: str | None = None
    """Artifact of `rank_rows`; None: a document's rank is its number."""
    old: str | None = None
    """Artifact of `gather_old`: old documents, which have the numbers after all others."""
    n_old: int = 0
    old_first: bool = True
    """Whether old documents are better than all others, or worse."""

    @property
    def n_new(self) -> int:
        """Documents but the old ones."""
        return sum(self.n_rows)

    def is_old(self, ranks: np.ndarray) -> np.ndarray:
        """bool[n]: whether the documents of these ranks are old."""
        return ranks < self.n_old if self.old_first else ranks >= self.n_new


class Docs:
    """Look-ups by document number or rank."""

    def __init__(self, context: Context, exchange: Exchange) -> None:
        self._context, self._exchange = context, exchange
        old = () if exchange.old is None else (exchange.old,)
        n_rows = (*exchange.n_rows, *(exchange.n_old for _ in old))
        self.first_docs = np.concatenate([[0], np.cumsum(n_rows)]).astype(np.int64)
        """int64[n_segments + 1]: number of each segment's row 0; the last segment holds the old documents."""
        self.n_docs = int(self.first_docs[-1])
        self._keys = exchange.keys + old
        # Ranks of new and of old documents begin here.
        self._new_rank = exchange.n_old if exchange.old_first else 0
        self._old_rank = 0 if exchange.old_first else exchange.n_new
        ranks = None if exchange.ranks is None else context.bundle(exchange.ranks)
        # Mapped: looked up at random, never read whole.
        self._rank_of = None if ranks is None else ranks.array("rank_of", 0, exchange.n_new)
        self._doc_of = None if ranks is None else ranks.array("doc_of", 0, exchange.n_new)
        self._alive = context.bundle(exchange.alive)

    def ranks(self, docs: np.ndarray) -> np.ndarray:
        """Ranks, int64[n], of documents by number."""
        n_new = self._exchange.n_new
        if not self._exchange.n_old:
            return docs if self._rank_of is None else self._rank_of[docs].astype(np.int64)
        old = docs >= n_new
        new = np.where(old, 0, docs)
        ranks = new if self._rank_of is None else self._rank_of[new].astype(np.int64)
        return np.where(old, docs - n_new + self._old_rank, ranks + self._new_rank)

    def numbers(self, ranks: np.ndarray) -> np.ndarray:
        """Numbers, int64[n], of documents by rank."""
        if not self._exchange.n_old:
            return ranks if self._doc_of is None else self._doc_of[ranks].astype(np.int64)
        old = self._exchange.is_old(ranks)
        new = np.where(old, 0, ranks - self._new_rank)
        docs = new if self._doc_of is None else self._doc_of[new].astype(np.int64)
        return np.where(old, ranks - self._old_rank + self._exchange.n_new, docs)

    def has_text(self, ranks: np.ndarray) -> np.ndarray:
        """bool[n]: whether the texts of these documents can be read again."""
        out = np.ones(len(ranks), bool)
        old = self._exchange.is_old(ranks) if self._exchange.old is not None else ~out
        if old.any():
            with_text = self.old.array("has_text")
            out[old] = with_text[ranks[old] - self._old_rank]
        return out

    @property
    def old(self) -> Bundle:
        """The old documents."""
        assert self._exchange.old is not None
        return self._context.bundle(self._exchange.old)

    def alive(self, segment: int) -> np.ndarray:
        """bool[n_rows]: rows of a segment of new documents that reach the stage."""
        return unpack(self._alive.array(f"alive/{segment}"), self._exchange.n_rows[segment])

    def segments(self, docs: np.ndarray) -> np.ndarray:
        """Segment of each document."""
        return np.searchsorted(self.first_docs, docs, side="right") - 1

    def gather(
        self, docs: np.ndarray, shape: tuple[int, ...], dtype: Any, load: Callable[[int, np.ndarray], Any]
    ) -> np.ndarray:
        """One value a document, in the order of `docs`; load(segment, rows ascending) gives those of one."""
        order = np.argsort(docs)
        in_order = docs[order]
        bounds = np.searchsorted(in_order, self.first_docs.astype(docs.dtype))  # of another type: a copy
        out = np.empty((len(docs), *shape), dtype)

        def values(segment: int) -> tuple[np.ndarray, Any]:
            of = order[bounds[segment] : bounds[segment + 1]]
            return of, load(segment, docs[of] - self.first_docs[segment])

        for of, found in self._context.ahead(values, np.flatnonzero(np.diff(bounds)).tolist()):
            out[of] = found
        return out

    def text_hashes(self, docs: np.ndarray) -> np.ndarray:
        """uint64[n]: the first half of each text's hash, of new documents, as the texts reach the stage."""

        def load(segment: int, rows: np.ndarray) -> np.ndarray:
            n_rows = self._exchange.n_rows[segment]
            base = self._context.bundle(self._exchange.bases[segment])
            hashes = base.array("text_hash", 0, n_rows)[rows, 0]
            for name in self._exchange.edits[segment]:
                changed, values = edited_values(self._context.bundle(name), "text_hash", rows)
                hashes[changed] = values[:, 0]
            return hashes

        return self.gather(docs, (), np.uint64, load)

    def signatures(self, docs: np.ndarray, n_hashes: int) -> np.ndarray:
        """uint8[n, n_hashes]: compact signatures of documents that have keys."""

        def load(segment: int, rows: np.ndarray) -> np.ndarray:
            bundle = self._context.bundle(self._keys[segment])
            with_keys = bundle.array("signature_rows")
            return bundle.array("signatures", 0, len(with_keys))[np.searchsorted(with_keys, rows)]

        return self.gather(docs, (n_hashes,), np.uint8, load)


@dataclass(frozen=True)
class Places:
    """Where documents came from, to name them in decisions."""

    pieces: tuple[int, ...]
    """Number of each segment's piece."""
    names: tuple[tuple[tuple[str, ...], int], ...]
    """For every piece: its shards' names and its part number."""


class DocNames:
    """Document numbers to (shard, part, row): names that an inserted shard does not change."""

    def __init__(self, context: Context, exchange: Exchange, places: Places, docs: Docs) -> None:
        self._context, self._exchange, self._places, self._docs = context, exchange, places, docs
        self._pieces = np.array(places.pieces, np.int64)
        self._piece_start = np.zeros(len(places.names), np.int64)
        # The first segment of a piece comes last here, and so it stays.
        self._piece_start[self._pieces[::-1]] = docs.first_docs[: len(places.pieces)][::-1]
        self._names = pa.array([name for names, _ in places.names for name in names], pa.string())
        self._n_names = np.array([len(names) for names, _ in places.names], np.int64)
        self._first_name = np.cumsum(self._n_names) - self._n_names
        self._parts = np.array([part for _, part in places.names], np.int32)
        self._bounds_of: dict[int, np.ndarray] = {}

    def shards_of(self, segment: int) -> tuple[tuple[str, ...], np.ndarray]:
        """Names of a segment's shards, and the first row of each."""
        names, _ = self._places.names[self._places.pieces[segment]]
        return names, self._bounds(segment) if len(names) > 1 else np.zeros(1, np.int64)

    def table(self, docs: np.ndarray) -> pa.Table:
        """shard, part, shard_row; of old documents also source (what of `against` it is from) and id."""
        new = docs[docs < self._exchange.n_new]
        tables = [self._new(new)]
        if len(new) < len(docs):
            tables.append(self._old(docs[docs >= self._exchange.n_new] - self._exchange.n_new))
            place = np.argsort(np.argsort(docs >= self._exchange.n_new, kind="stable"), kind="stable")
            return pa.concat_tables(tables).take(pa.array(place))
        return tables[0]

    def _new(self, docs: np.ndarray) -> pa.Table:
        segments = self._docs.segments(docs)
        pieces = self._pieces[segments]
        rows = docs - self._piece_start[pieces]
        shards = self._first_name[pieces]
        for piece in np.unique(pieces[self._n_names[pieces] > 1]).tolist():
            of = np.flatnonzero(pieces == piece)  # a group, which is one segment
            bounds = self._bounds(int(segments[of[0]]))
            shard = np.searchsorted(bounds, rows[of], side="right") - 1
            rows[of] -= bounds[shard]
            shards[of] += shard
        return pa.table(
            {
                "source": pa.nulls(len(docs), pa.string()),
                "shard": self._names.take(pa.array(shards)),
                "part": pa.array(self._parts[pieces]),
                "shard_row": pa.array(rows, pa.int64()),
                "id": pa.nulls(len(docs), pa.large_string()),
            }
        )

    @cached_property
    def _old_names(self) -> tuple[pa.Table, dict[str, np.ndarray]]:
        """Read once: `table` is asked for every segment."""
        names = ("shard_codes", "parts", "shard_rows", "id_offsets", "id_bytes")
        return self._docs.old.table("shards"), {name: self._docs.old.array(name) for name in names}

    def _old(self, rows: np.ndarray) -> pa.Table:
        table, old = self._old_names
        shards = table.take(pa.array(old["shard_codes"][rows]))
        ids = indexed_ids(old["id_offsets"], old["id_bytes"], rows)
        return pa.table(
            {
                "source": shards["source"],
                "shard": shards["name"],
                "part": pa.array(old["parts"][rows]),
                "shard_row": pa.array(old["shard_rows"][rows]),
                "id": pc.if_else(pc.equal(ids, ""), None, ids),
            }
        )

    def ids(self, docs: np.ndarray) -> list[str | None]:
        """Ids of a few documents; None where the recipe names none."""
        found: list[str | None] = []
        for segment, doc in zip(self._docs.segments(docs).tolist(), docs.tolist(), strict=True):
            row = doc - int(self._docs.first_docs[segment])
            if doc >= self._exchange.n_new:
                found.append(self._old(np.array([row]))["id"][0].as_py())
                continue
            base = self._context.bundle(self._exchange.bases[segment])
            found.append(base.table("ids")["id"][row].as_py() if "ids" in base else None)
        return found

    def _bounds(self, segment: int) -> np.ndarray:
        """First row of every shard of a group (which is one segment)."""
        if segment not in self._bounds_of:
            shard_rows = self._context.bundle(self._exchange.bases[segment]).meta["shard_rows"]
            self._bounds_of[segment] = np.concatenate([[0], np.cumsum(shard_rows)])[:-1]
        return self._bounds_of[segment]
