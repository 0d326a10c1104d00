"""Tasks that look over all segments: masks, fitted models, thresholds. Those of a dedup: group, verify, join.

Each streams over the segments' artifacts; what grows with the corpus is bits a document.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa

from dataselect.core.clock import Clock
from dataselect.engine.columns import distinct, pack, unpack
from dataselect.engine.inputs import SegmentRefs
from dataselect.engine.job import Context, Figures, figures
from dataselect.engine.resolve import pool_batch, resolve
from dataselect.io.bundle import BundleWriter
from dataselect.stages.base import FittedStage, Pool, PoolBatch, SelectStage, Stage


@dataclass(frozen=True)
class PrepareCall:
    """Arguments of `prepare_stage`."""

    stage: int
    artifact: str


def prepare_stage(context: Context, call: PrepareCall) -> Figures:
    """Make the arrays that a stage needs from its files."""
    clock = Clock()
    arrays = context.stages[call.stage].on_disk().prepare() or {}
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
        found = context.ahead(lambda refs: resolve(context, refs, call.stage).alive, call.segments)
        for number, alive in enumerate(found):
            writer.add_array(f"alive/{number}", pack(alive))
            n_alive.append(int(alive.sum()))
        clock.lap("resolve")
        return {"n_alive": n_alive}

    return {"digest": context.commit(call.artifact, fill)} | figures(clock)


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

    def table_of(name: str) -> pa.Table:
        return context.bundle(name).table("sample")

    def samples() -> Iterator[pa.Table]:
        # Of a sample without bounds a piece may have a gigabyte: one at a time.
        bounded = stage.sample_bytes() is not None
        tables = context.ahead(table_of, call.samples) if bounded else map(table_of, call.samples)
        for number, table in enumerate(tables):
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
    """Find the threshold over all rows that reach the stage.

    Sections keep/<number>, where rows may be repeated copies/<number>, where copies are a column
    columns/<number>, and the model; meta: its tally.
    """
    clock = Clock()
    stage = cast("SelectStage", context.stages[call.stage])
    pool = _ArtifactPool(context, call)
    model = dict(stage.find_threshold(pool) if call.frozen is None else context.model(call.frozen))
    model = {name: array for name, array in model.items() if "/" not in name}
    clock.lap("threshold")

    def fill(writer: BundleWriter) -> dict[str, Any]:
        state: dict[Any, Any] = {}
        tally = stage.tally(model)
        for number, batch in enumerate(pool.batches()):
            chosen = stage.chosen(batch, model, state).astype(np.int64)
            if tally is not None:
                tally.add(batch, chosen)
            alive, copies = pool.alive(number), np.zeros(call.segments[number].n_rows, np.uint16)
            copies[alive] = chosen
            columns = stage.output_columns()
            writer.add_array(f"keep/{number}", pack(alive if columns else copies > 0))
            if columns:
                values = pa.array(copies.astype(np.int32), mask=~alive)
                writer.add_table(f"columns/{number}", pa.table(dict.fromkeys(columns, values)))
            if stage.repeats():
                writer.add_array(f"copies/{number}", copies)
        _add_arrays(writer, model)
        report = {} if tally is None else tally.report()
        drawn = stage.draws(np.empty((0, 2), np.uint64)) is not None
        return {"selection": report | ({"repeated_keys": _repeated_keys(pool)} if drawn else {})}

    return {"digest": context.commit(call.artifact, fill)} | figures(clock)


_KEYS_AT_ONCE = 1 << 23  # 64 MB


def _repeated_keys(pool: Pool) -> int:
    """How many rows of the pool have the draw key of another before them: they share its draw."""
    n_docs = sum(len(batch) for batch in pool.batches())
    n_parts = -(-n_docs // _KEYS_AT_ONCE)
    n_repeated = 0
    for part in range(n_parts):
        keys = [batch.keys[:, 1][batch.keys[:, 0] % np.uint64(n_parts) == part] for batch in pool.batches()]
        in_part = np.concatenate(keys)
        n_repeated += len(in_part) - len(distinct(in_part))
    return n_repeated


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
        stage = self._call.stage
        names = self._context.stages[stage].input_columns()

        def batch(number: int) -> PoolBatch:
            refs = self._call.segments[number]
            return pool_batch(self._context, refs, names, self.alive(number), stage)

        return self._context.ahead(batch, range(len(self._call.segments)))


def _add_arrays(writer: BundleWriter, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    for name, array in sorted(arrays.items()):
        writer.add_array(name, array)
    return {}
