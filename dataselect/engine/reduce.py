"""Tasks that look over all segments: masks, groups of equal keys, components, fitted models, thresholds.

Each streams over the segments' artifacts; what grows with the corpus is bits a document, and in
`join_groups` 8 bytes a document.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa

from dataselect.core.clock import Clock
from dataselect.engine.columns import INDEX_BITS, pack, unpack
from dataselect.engine.inputs import SegmentRefs
from dataselect.engine.job import Context, figures
from dataselect.engine.resolve import pool_batch, resolve
from dataselect.io.bundle import BundleWriter
from dataselect.stages.base import FittedStage, Pool, PoolBatch, SelectStage, Stage

Figures = dict[str, Any]


@dataclass(frozen=True)
class PrepareCall:
    """Arguments of `prepare_stage`."""

    stage: int
    artifact: str


def prepare_stage(context: Context, call: PrepareCall) -> Figures:
    """Make the arrays that a stage needs from its files."""
    clock = Clock()
    arrays = context.stages[call.stage].prepare() or {}
    clock.lap("prepare")
    return {"digest": context.commit(call.artifact, lambda w: _add_arrays(w, arrays))} | figures(clock)


@dataclass(frozen=True)
class MaskCall:
    """Arguments of `mask_rows`."""

    stage: int
    segments: tuple[SegmentRefs, ...]
    artifact: str


def mask_rows(context: Context, call: MaskCall) -> Figures:
    """Which rows reach a stage: section alive/<number> for every segment."""
    clock = Clock()

    def fill(writer: BundleWriter) -> dict[str, Any]:
        n_alive = []
        for number, refs in enumerate(call.segments):
            alive = resolve(context, refs, call.stage).alive
            writer.add_array(f"alive/{number}", pack(alive))
            n_alive.append(int(alive.sum()))
        clock.lap("resolve")
        return {"n_alive": n_alive}

    return {"digest": context.commit(call.artifact, fill)} | figures(clock)


@dataclass(frozen=True)
class Exchange:
    """Where a DedupStage's keys are."""

    keys: tuple[str, ...]
    """Artifact of each segment."""
    n_rows: tuple[int, ...]
    alive: str
    """Artifact of `mask_rows`."""

    def first_docs(self) -> np.ndarray:
        """int64[n_segments + 1]: dense document number of each segment's row 0."""
        return np.concatenate([[0], np.cumsum(self.n_rows)]).astype(np.int64)


@dataclass(frozen=True)
class GroupCall:
    """Arguments of `group_keys`: partition `number` of `n_partitions` (a power of two) of the key space."""

    exchange: Exchange
    number: int
    n_partitions: int
    artifact: str


def group_keys(context: Context, call: GroupCall) -> Figures:
    """Edges from every document to the first one with the same key, among documents that reach the stage."""
    clock = Clock()
    keys, docs, check = _partition(context, call)
    clock.lap("read")
    order = np.lexsort((keys,) if check is None else (check, keys))
    keys, docs = keys[order], docs[order]
    new = np.ones(len(keys), bool)
    new[1:] = keys[1:] != keys[:-1]
    if check is not None:
        check = check[order]
        new[1:] |= check[1:] != check[:-1]
    starts = np.flatnonzero(new)
    leader = np.minimum.reduceat(docs, starts) if len(docs) else docs
    size = np.diff(np.append(starts, len(docs)))
    leaders = np.repeat(leader, size)
    pairs = np.unique(np.stack([leaders, docs], axis=1)[leaders != docs], axis=0)
    clock.lap("group")

    def fill(writer: BundleWriter) -> dict[str, Any]:
        writer.add_array("left", pairs[:, 0])
        writer.add_array("right", pairs[:, 1])
        return {"n_groups": len(starts), "largest_group": int(size.max(initial=0))}

    return {"digest": context.commit(call.artifact, fill)} | figures(clock)


def _partition(context: Context, call: GroupCall) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    alive = context.bundle(call.exchange.alive)
    first_docs = call.exchange.first_docs()
    step = (1 << INDEX_BITS) // call.n_partitions
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []
    for number, name in enumerate(call.exchange.keys):
        bundle = context.bundle(name)
        start, stop = bundle.array("index")[[call.number * step, (call.number + 1) * step]]
        if start == stop:
            continue
        rows = bundle.array("rows", start, stop)
        reach = unpack(alive.array(f"alive/{number}"), call.exchange.n_rows[number])[rows]
        check = bundle.array("check", start, stop)[reach] if "check" in bundle else None
        parts.append((bundle.array("keys", start, stop)[reach], rows[reach] + first_docs[number], check))
    if not parts:
        return np.empty(0, np.uint64), np.empty(0, np.int64), None
    keys, docs, checks = zip(*parts, strict=True)
    check = None if checks[0] is None else np.concatenate(cast("tuple[np.ndarray, ...]", checks))
    return np.concatenate(keys), np.concatenate(docs), check


@dataclass(frozen=True)
class JoinCall:
    """Arguments of `join_groups`."""

    exchange: Exchange
    groups: tuple[str, ...]
    segments: tuple[SegmentRefs, ...]
    piece_names: tuple[tuple[tuple[str, ...], int], ...]
    """For every piece: its shards' names and its part number."""
    artifact: str


def join_groups(context: Context, call: JoinCall) -> Figures:
    """Components of the edges (union-find, 8 bytes a document); the first document of each stays.

    Sections keep/<number> (bits) and dups/<number> (table: row, and shard, part, row of the kept copy).
    """
    from dataselect.kernels.groups import connect, find_roots

    clock = Clock()
    first_docs = call.exchange.first_docs()
    parent = np.arange(first_docs[-1], dtype=np.int64)
    for name in call.groups:
        edges = context.bundle(name)
        connect(edges.array("left"), edges.array("right"), parent)
    find_roots(parent)
    clock.lap("join")
    names = _DocNames(context, call, first_docs)

    def fill(writer: BundleWriter) -> dict[str, Any]:
        for number in range(len(call.segments)):
            docs = np.arange(first_docs[number], first_docs[number + 1])
            roots = parent[first_docs[number] : first_docs[number + 1]]
            dropped = np.flatnonzero(roots != docs)
            writer.add_array(f"keep/{number}", pack(roots == docs))
            writer.add_table(f"dups/{number}", names.table(dropped, roots[dropped]))
        return {}

    return {"digest": context.commit(call.artifact, fill)} | figures(clock)


class _DocNames:
    """Dense document numbers to (shard, part, row): names that an inserted shard does not change."""

    def __init__(self, context: Context, call: JoinCall, first_docs: np.ndarray) -> None:
        self._context, self._call, self._first_docs = context, call, first_docs
        starts: dict[int, int] = {}
        for number, refs in enumerate(call.segments):
            starts.setdefault(refs.piece, int(first_docs[number]))
        self._piece_start = starts
        self._shard_rows: dict[int, np.ndarray] = {}

    def table(self, rows: np.ndarray, docs: np.ndarray) -> pa.Table:
        """The kept copies `docs` of the dropped rows `rows` of a segment."""
        segments = np.searchsorted(self._first_docs, docs, side="right") - 1
        shards, parts, in_shard = [], [], []
        for segment, doc in zip(segments.tolist(), docs.tolist(), strict=True):
            piece = self._call.segments[segment].piece
            names, part = self._call.piece_names[piece]
            row, shard = doc - self._piece_start[piece], 0
            if len(names) > 1:
                bounds = self._bounds(segment)
                shard = int(np.searchsorted(bounds, row, side="right")) - 1
                row -= int(bounds[shard])
            shards.append(names[shard])
            parts.append(part)
            in_shard.append(row)
        return pa.table(
            {
                "row": pa.array(rows.astype(np.int64)),
                "shard": pa.array(shards, pa.string()),
                "part": pa.array(parts, pa.int32()),
                "shard_row": pa.array(in_shard, pa.int64()),
            }
        )

    def _bounds(self, segment: int) -> np.ndarray:
        """First row of every shard of a group (which is one segment)."""
        if segment not in self._shard_rows:
            shard_rows = self._context.bundle(self._call.segments[segment].base).meta["shard_rows"]
            self._shard_rows[segment] = np.concatenate([[0], np.cumsum(shard_rows)])[:-1]
        return self._shard_rows[segment]


@dataclass(frozen=True)
class FitCall:
    """Arguments of `fit_stage`."""

    stage: int
    prepared: str | None
    samples: tuple[str, ...]
    n_rows: tuple[int, ...]
    alive: str
    artifact: str


def fit_stage(context: Context, call: FitCall) -> Figures:
    """Fit a FittedStage on the samples of documents that reach it."""
    clock = Clock()
    alive = context.bundle(call.alive)
    stage = cast("FittedStage", context.stages[call.stage])

    def samples() -> Iterator[pa.Table]:
        for number, name in enumerate(call.samples):
            table = context.bundle(name).table("sample")
            if len(table):
                mask = unpack(alive.array(f"alive/{number}"), call.n_rows[number])
                yield table.filter(pa.array(mask[table["row"].to_numpy()]))

    arrays = stage.fit_model(context.model(call.prepared), samples())
    clock.lap("fit")

    def fill(writer: BundleWriter) -> dict[str, Any]:
        _add_arrays(writer, arrays)
        return model_meta(stage)

    return {"digest": context.commit(call.artifact, fill)} | figures(clock)


def model_meta(stage: Stage) -> dict[str, Any]:
    """What a fitted model says of itself: the same in the work store and published, so its digest is too."""
    return {"stage": stage.use, "parameters": stage.compute_params()}


@dataclass(frozen=True)
class SelectCall:
    """Arguments of `select_rows`."""

    stage: int
    models: tuple[tuple[int, str], ...]
    """Stage that adds a score -> artifact with its model."""
    segments: tuple[SegmentRefs, ...]
    alive: str
    frozen: str | None
    """Artifact with the threshold to use instead of finding one."""
    artifact: str


def select_rows(context: Context, call: SelectCall) -> Figures:
    """Find the threshold over all rows that reach the stage; sections keep/<number> and the model."""
    clock = Clock()
    stage = cast("SelectStage", context.stages[call.stage])
    pool = _ArtifactPool(context, call)
    model = dict(stage.find_threshold(pool) if call.frozen is None else context.model(call.frozen))
    model = {name: array for name, array in model.items() if not name.startswith("keep/")}
    clock.lap("threshold")

    def fill(writer: BundleWriter) -> dict[str, Any]:
        state: dict[Any, Any] = {}
        for number, batch in enumerate(pool.batches()):
            kept = np.zeros(call.segments[number].n_rows, bool)
            kept[pool.alive(number)] = stage.chosen(batch, model, state)
            writer.add_array(f"keep/{number}", pack(kept))
        return _add_arrays(writer, model)

    return {"digest": context.commit(call.artifact, fill)} | figures(clock)


class _ArtifactPool(Pool):
    def __init__(self, context: Context, call: SelectCall) -> None:
        self._context, self._call = context, call
        self._alive = context.bundle(call.alive)
        self.masses = {
            column: mass
            for i, name in call.models
            for column, mass in context.stages[i].column_masses(context.model(name)).items()
        }

    def alive(self, number: int) -> np.ndarray:
        """bool[n_rows] of a segment."""
        return unpack(self._alive.array(f"alive/{number}"), self._call.segments[number].n_rows)

    def batches(self) -> Iterator[PoolBatch]:
        for number, refs in enumerate(self._call.segments):
            names = self._context.stages[self._call.stage].input_columns()
            yield pool_batch(self._context, refs, names, self.alive(number))


def _add_arrays(writer: BundleWriter, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    for name, array in sorted(arrays.items()):
        writer.add_array(name, array)
    return {}
