"""Tasks that find the old documents which new ones may duplicate: those that share a key with some new one.

Old documents are in saved indexes, or in shards that are signed here once. Only those that share a key take
part in the dedup, as one more segment, so a refresh costs what the new documents cost: their keys are looked
up in the sorted keys of the old ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pyarrow as pa

from dataselect.core.clock import Clock
from dataselect.core.errors import DataselectError
from dataselect.core.pieces import Piece
from dataselect.engine.columns import ascending, describe_texts, distinct
from dataselect.engine.exact import ShingleSink
from dataselect.engine.job import Context, Figures, figures
from dataselect.io.bundle import BundleWriter
from dataselect.io.dedup_index import INDEX_BITS, VALUES, DedupIndex, IndexedDocs, joined_ranges
from dataselect.io.fields import FieldSpec, null_column
from dataselect.io.reader import iter_piece
from dataselect.io.rows import iter_rows
from dataselect.stages.base import DedupStage, NearDedupStage, Texts

_ONE_SEGMENT = 1 << 62


@dataclass(frozen=True)
class OldPart:
    """Old documents: a saved index, or a piece of shards whose index is in the work store."""

    source: str
    """How decisions name it: as the recipe does."""
    place: str = ""
    """The index' path or URL, or its artifact."""
    digest: str = ""
    """Of an index that was given."""
    piece: Piece | None = None
    """Shards that are signed in this run."""
    texts: tuple[Piece | None, ...] = ()
    """Where the documents' texts can be read again; None for what is gone."""

    def open(self, context: Context) -> DedupIndex:
        """BadModel where an index is gone or not whole."""
        if self.piece is None:
            return DedupIndex.open(self.place)
        return DedupIndex(context.bundle(self.place), self.place)


@dataclass(frozen=True)
class SignCall:
    """Arguments of `sign_piece`."""

    stage: int
    piece: Piece
    fields: tuple[FieldSpec, ...]
    """Input fields that the stage's keys are made of."""
    artifact: str


def sign_piece(context: Context, call: SignCall) -> Figures:
    """Index of a piece of old shards: of each document that can be read its keys and signatures."""
    clock = Clock()
    stage = cast("DedupStage", context.stages[call.stage])
    signed = _Signed(stage, context.job.read.id is not None, call.fields)
    spec = replace(context.job.read, segment_bytes=_ONE_SEGMENT)
    n_rows = n_bad = 0
    for code, single in enumerate(call.piece.singles()):
        for batch in iter_piece(single, spec, clock=clock, fields=call.fields):
            context.report(batch.n_rows, batch.n_bytes_read)
            signed.add(code, single.part, batch.rows, batch.texts, batch.ids, batch.fields)
            n_rows, n_bad = n_rows + batch.n_rows, n_bad + len(batch.bad)
            clock.lap("sign")
    if n_rows and n_rows == n_bad:
        raise DataselectError(
            f"{call.piece.name} of `against`: none of its {n_rows:,} rows has a text (input.text: "
            f"{context.job.read.text})"
        )
    docs = signed.docs([shard.name for shard in call.piece.shards])
    digest = context.commit(call.artifact, lambda writer: docs.write(writer, stage.index_scheme()))
    return {"digest": digest} | figures(clock)


class _Signed:
    """Collects the documents of a piece."""

    def __init__(self, stage: DedupStage, has_ids: bool, fields: tuple[FieldSpec, ...]) -> None:
        self._stage, self._has_ids, self._fields = stage, has_ids, fields
        self._arrays: dict[str, list[np.ndarray]] = {}
        self._ids: list[pa.Array] = [pa.array([], pa.large_string())]
        self._n_docs = 0

    def add(
        self,
        code: int,
        part: int,
        rows: np.ndarray,
        texts: pa.Array,
        ids: pa.Array | None,
        fields: Mapping[str, pa.Array],
    ) -> None:
        if self._stage.key_columns():
            keys = self._stage.keys_of({"id": ids, **fields})
        else:
            keys = self._stage.dedup_keys(Texts(texts))
        with_keys = np.flatnonzero(np.bincount(keys.docs, minlength=len(texts)))
        numbers = np.zeros(len(texts), np.int64)
        numbers[with_keys] = np.arange(len(with_keys)) + self._n_docs
        found = {
            "keys": keys.keys,
            "rows": numbers[keys.docs],
            "check": keys.check,
            "signatures": None if keys.signatures is None else keys.signatures[with_keys],
            "text_hash": describe_texts(texts, None)["text_hash"][with_keys, 0],
            "shard_codes": np.full(len(with_keys), code),
            "parts": np.full(len(with_keys), part),
            "shard_rows": rows[with_keys],
            "text_codes": np.full(len(with_keys), code),
            "text_rows": rows[with_keys],
        }
        for name, values in found.items():
            if values is not None:
                self._arrays.setdefault(name, []).append(values)
        if ids is not None:
            self._ids.append(ids.take(pa.array(with_keys)))
        self._n_docs += len(with_keys)

    def docs(self, shards: list[str]) -> IndexedDocs:
        if not self._arrays:
            nothing = pa.array([], pa.large_string())
            fields = {spec.name: null_column(spec, 0) for spec in self._fields}
            self.add(0, 0, np.empty(0, np.int64), nothing, nothing if self._has_ids else None, fields)
        arrays: dict[str, Any] = {name: np.concatenate(parts) for name, parts in self._arrays.items()}
        order = ascending(arrays["keys"])
        for name in ("keys", "rows", "check"):
            arrays[name] = arrays[name][order] if name in arrays else None
        ids = pa.concat_arrays(self._ids) if self._has_ids else None
        return IndexedDocs(**{"signatures": None, **arrays}, ids=ids, shards=shards, texts=())


@dataclass(frozen=True)
class MatchCall:
    """Arguments of `match_keys`: partition `number` of `n_partitions` (a power of two) of the key space."""

    keys: tuple[str, ...]
    """Exchange files of the new documents."""
    parts: tuple[OldPart, ...]
    number: int
    n_partitions: int
    artifact: str


def match_keys(context: Context, call: MatchCall) -> Figures:
    """Entries of old documents whose keys some new document has.

    Sections keys/<part> uint64, rows/<part> int64 and (of 128-bit keys) check/<part> uint64, by key.
    """
    clock = Clock()
    step = (1 << INDEX_BITS) // call.n_partitions
    start, stop = call.number * step, (call.number + 1) * step
    new = [np.empty(0, np.uint64)]
    for name in call.keys:
        bundle = context.bundle(name)
        first, last = bundle.array("index")[[start, stop]].tolist()
        new.append(bundle.array("keys", first, last))
    wanted = distinct(np.concatenate(new))
    clock.lap("read")

    def fill(writer: BundleWriter) -> dict[str, Any]:
        n_entries = 0
        for k, part in enumerate(call.parts):
            found = part.open(context).entries(start, stop)
            at = _shared(found["keys"], wanted)
            n_entries += len(at)
            for name, values in found.items() if len(at) else ():
                writer.add_array(f"{name}/{k}", values[at])
        clock.lap("match")
        return {"n_entries": n_entries}

    return {"digest": context.commit(call.artifact, fill)} | figures(clock)


def _shared(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """int64[n]: positions in `keys` (ascending) of those in `wanted` (ascending, distinct).

    The shorter list is looked up in the longer: a large index is touched where the new keys are, no more.
    """
    if not len(keys) or not len(wanted):
        return np.empty(0, np.int64)
    if len(keys) < len(wanted):
        at = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
        return np.flatnonzero(wanted[at] == keys)
    first = np.searchsorted(keys, wanted)
    sizes = np.searchsorted(keys, wanted, side="right") - first
    return joined_ranges(first, sizes)


@dataclass(frozen=True)
class GatherCall:
    """Arguments of `gather_old`."""

    parts: tuple[OldPart, ...]
    matches: tuple[str, ...]
    """Artifacts of `match_keys`, by ascending keys."""
    artifact: str


def gather_old(context: Context, call: GatherCall) -> Figures:
    """The old documents that share a key with new ones: a segment for the dedup.

    The sections of an exchange file (keys, rows, check, index, signature_rows, signatures) and of an index
    (text_hash, shard_codes, parts, shard_rows, id_offsets, id_bytes; `shards` has their source, too), and
    part int32, has_text bool; text_codes count from 0 in each part.
    """
    clock = Clock()
    matches = [context.bundle(name) for name in call.matches]
    found = [_rows_of(matches, k) for k in range(len(call.parts))]
    firsts = np.concatenate([[0], np.cumsum([len(rows) for rows in found])]).astype(np.int64)

    def entries(name: str) -> Iterator[np.ndarray]:
        for bundle in matches:
            yield _entries(bundle, name, found, firsts)

    def fill(writer: BundleWriter) -> dict[str, Any]:
        parts = [
            part.open(context) if len(rows) else None for part, rows in zip(call.parts, found, strict=True)
        ]
        there = [(k, cast("DedupIndex", part), found[k]) for k, part in enumerate(parts) if len(found[k])]
        with_check = any("check" in part.bundle for _, part, _ in there)
        with_signatures = bool(there) and all("signatures" in part.bundle for _, part, _ in there)
        for name in ("keys", "check") if with_check else ("keys",):
            writer.add_chunks(name, np.uint64, entries(name))
        writer.add_chunks("rows", np.int32, entries("rows"))
        writer.add_array("index", _index_of(matches))
        if with_signatures:
            writer.add_array("signature_rows", np.arange(firsts[-1], dtype=np.int32))
            width = there[0][1].section("signatures").shape[1]
            values = (part.section("signatures")[rows] for _, part, rows in there)
            writer.add_chunks("signatures", np.uint8, values, width)
        for name, dtype in (VALUES | {"text_codes": np.uint32}).items():
            writer.add_chunks(name, dtype, (part.section(name)[rows] for _, part, rows in there))
        _add_names(writer, call.parts, there)
        writer.add_chunks("part", np.int32, (np.full(len(rows), k) for k, _, rows in there))
        writer.add_chunks(
            "has_text", np.bool_, (_has_text(call.parts[k], part, rows) for k, part, rows in there)
        )
        return {"n_docs": int(firsts[-1]), "n_rows": int(firsts[-1])}

    return {"digest": context.commit(call.artifact, fill)} | figures(clock)


def _has_text(part: OldPart, index: DedupIndex, rows: np.ndarray) -> np.ndarray:
    there = np.array([text is not None for text in part.texts], bool)
    return there[index.section("text_codes")[rows]]


def _rows_of(matches: list[Any], part: int) -> np.ndarray:
    rows = [bundle.array(f"rows/{part}") for bundle in matches if f"rows/{part}" in bundle]
    return distinct(np.concatenate(rows)).astype(np.int64) if rows else np.empty(0, np.int64)


def _entries(bundle: Any, name: str, found: list[np.ndarray], firsts: np.ndarray) -> np.ndarray:
    """One section of the entries of a partition, all parts together by key; rows with their new numbers."""
    keys, values = [np.empty(0, np.uint64)], [np.empty(0, np.uint64 if name != "rows" else np.int32)]
    for k, rows in enumerate(found):
        if f"keys/{k}" in bundle:
            keys.append(bundle.array(f"keys/{k}"))
            column = bundle.array(f"{name}/{k}")
            values.append(
                (np.searchsorted(rows, column) + firsts[k]).astype(np.int32) if name == "rows" else column
            )
    return np.concatenate(values)[np.argsort(np.concatenate(keys), kind="stable")]


def _index_of(matches: list[Any]) -> np.ndarray:
    """The index over the joined keys of all partitions."""
    counts = np.zeros(1 << INDEX_BITS, np.int64)
    for bundle in matches:
        for name in bundle.names():
            if name.startswith("keys/"):
                top = (bundle.array(name) >> np.uint64(64 - INDEX_BITS)).astype(np.int64)
                counts += np.bincount(top, minlength=1 << INDEX_BITS)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _add_names(
    writer: BundleWriter, parts: tuple[OldPart, ...], there: list[tuple[int, DedupIndex, np.ndarray]]
) -> None:
    """Where the documents came from: shard_codes, ids, and the table that the codes stand for."""
    from dataselect.kernels.arrow import text_buffers

    sources = [parts[k].source for k, part, _ in there for _ in part.shards]
    names = [name for _, part, _ in there for name in part.shards]
    bases = np.concatenate([[0], np.cumsum([len(part.shards) for _, part, _ in there])])
    codes = (
        part.section("shard_codes")[rows] + base for (_, part, rows), base in zip(there, bases, strict=False)
    )
    writer.add_chunks("shard_codes", np.uint32, codes)
    ids = pa.concat_arrays([pa.array([], pa.large_string()), *(part.ids(rows) for _, part, rows in there)])
    offsets, data = text_buffers(ids)
    writer.add_array("id_offsets", offsets - offsets[0])
    writer.add_array("id_bytes", data[offsets[0] : offsets[-1]])
    table = {"source": pa.array(sources, pa.string()), "name": pa.array(names, pa.string())}
    writer.add_table("shards", pa.table(table))


@dataclass(frozen=True)
class OldShinglesCall:
    """Arguments of `list_old_shingles`."""

    stage: int
    old: str
    """Artifact of `gather_old`."""
    part: int
    """Number of the part among the parts."""
    code: int
    """Of the file among the part's texts."""
    texts: Piece
    undecided: str
    """Artifact of `join_groups` with the rows."""
    segment: int
    """Number of the old documents' segment in it."""
    artifact: str


def list_old_shingles(context: Context, call: OldShinglesCall) -> Figures:
    """Shingle sets of old documents of one file, as `exact.list_shingles` gives those of new ones.

    A document whose text is not the one that was signed (the file was made anew, or the text edited after the
    dedup) has an empty set; see `exact.exact_similarities`.
    """
    clock = Clock()
    sink = ShingleSink(cast("NearDedupStage", context.stages[call.stage]))
    old = context.bundle(call.old)
    rows = context.bundle(call.undecided).array(f"rows/{call.segment}")
    rows = rows[(old.array("part")[rows] == call.part) & (old.array("text_codes")[rows] == call.code)]
    text_rows, text_hash = (old.array(name)[rows] for name in ("text_rows", "text_hash"))
    order = np.argsort(text_rows)
    rows, text_rows, text_hash = rows[order], text_rows[order], text_hash[order]
    spec = replace(context.job.read, segment_bytes=_ONE_SEGMENT)
    for _, found, texts, n_bytes in iter_rows(call.texts, spec, {0: text_rows}):
        context.report(len(found), n_bytes)
        same = np.zeros(len(found), bool)
        if len(texts) == len(found):
            wanted = text_hash[np.searchsorted(text_rows, found)]
            same = describe_texts(texts, None)["text_hash"][:, 0] == wanted
        clock.lap("read")
        sink.add(Texts(texts.filter(pa.array(same)) if same.any() else texts[:0]), same)
        clock.lap("shingles")

    def fill(writer: BundleWriter) -> dict[str, Any]:
        sink.write(writer, 0, rows)
        return {"n_docs": len(rows)}

    return {"digest": context.commit(call.artifact, fill)} | figures(clock)
