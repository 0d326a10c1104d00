"""Reading tasks: one read of a piece's text, shared by all stages that need it.

Stages run on the rows that earlier filters of the same read kept. What a stage computes over a segment
is an artifact of its own, so that another threshold or another stage leaves the rest as it is; columns
that are already there are loaded instead of computed.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import pyarrow as pa

from dataselect.core.clock import Clock
from dataselect.core.errors import BadShard
from dataselect.core.keys import ALL_ROWS, column_name, identity_name
from dataselect.core.pieces import Piece
from dataselect.engine.columns import (
    BaseSink,
    ColumnSink,
    KeySink,
    SampleSink,
    as_columns,
    describe_texts,
    empty_texts,
    unpack,
)
from dataselect.engine.edits import EditSink, stored_edits
from dataselect.engine.inputs import SegmentRefs, input_columns
from dataselect.engine.job import Context, figures
from dataselect.io.batch import TextBatch
from dataselect.io.fields import FieldSpec
from dataselect.io.reader import iter_piece
from dataselect.stages.base import (
    TEXT_SIZES,
    Columns,
    DedupKeys,
    DedupStage,
    FittedStage,
    MapStage,
    Stage,
    Texts,
)
from dataselect.stages.draws import uniform_draws
from dataselect.stages.edits import Edits

BASE, FIELD = -1, -2
"""Stand for the base columns and for an input field among stage indices."""


@dataclass(frozen=True)
class Call:
    """One stage's part in a read."""

    stage: int
    """Index in the recipe, or BASE."""
    role: str
    """'base', 'field', 'columns', 'keys' or 'sample'; 'rules', and 'edits' of an earlier read, make no
    artifact."""
    chain: str
    """What the artifact's name depends on besides the segment; see keys.column_name. Empty without one."""
    model: str | None = None
    """Artifact with the stage's prepared or fitted model."""
    sample_share: float = 1.0
    field: FieldSpec | None = None


@dataclass(frozen=True)
class SegmentCall:
    """What is known of a segment before the read."""

    digest: str
    alive: tuple[str, str, str] | None = None
    """(artifact, section, digest) of the mask of rows that enter the read; None: all good rows."""
    refs: SegmentRefs | None = None
    """Artifacts of earlier reads, where there were any."""


@dataclass(frozen=True)
class ReadCall:
    """Arguments of `read_piece`."""

    piece: Piece
    calls: tuple[Call, ...]
    segments: tuple[SegmentCall, ...]
    """Known segments: of an unread piece none, of an interrupted one those that are committed."""
    complete: bool
    """Whether `segments` are all of them."""


def read_piece(context: Context, call: ReadCall) -> dict[str, Any]:
    """Read a piece once and commit every artifact of `call.calls` that is missing.

    Returns {"segments": [...]} and figures; {"bad": message} for a bad shard where the job says so.
    """
    try:
        return _PieceReader(context, call).run()
    except BadShard as error:
        if not context.job.quarantine_bad_shards:
            raise
        return {"bad": str(error)}


def artifact_names(calls: tuple[Call, ...], segment: SegmentCall) -> list[str]:
    """Artifact of each call over a segment, in order; an empty name where there is none."""
    alive = ALL_ROWS if segment.alive is None else segment.alive[2]
    return [column_name(c.chain, segment.digest, alive) if c.chain else "" for c in calls]


class _PieceReader:
    def __init__(self, context: Context, call: ReadCall) -> None:
        self._context, self._call = context, call
        self._clock = Clock()
        self._models = {c.stage: context.model(c.model) for c in call.calls}
        self._segments: list[dict[str, Any]] = []
        self._n_docs = self._n_text_bytes = 0

    def run(self) -> dict[str, Any]:
        known = self._call.segments
        skip = 0
        while skip < len(known) and not self._missing(skip):
            self._segments.append(self._stored_segment(known[skip]))
            skip += 1
        writer: _SegmentWriter | None = None
        read, fields = self._context.job.read, self._fields(skip)
        for batch in iter_piece(self._call.piece, read, skip, clock=self._clock, fields=fields):
            writer = writer or self._open_segment(len(self._segments))
            writer.add(batch)
            self._count(batch)
            if batch.segment_end is not None:
                self._close(writer, batch.segment_end.digest)
                writer = None
        if self._call.complete and len(self._segments) != len(known):
            raise BadShard(
                f"{self._call.piece.name}: the shard changed since it was first read; run with --rehash"
            )
        result = {"segments": self._segments, "n_docs": self._n_docs, "n_text_bytes": self._n_text_bytes}
        if not self._call.complete:
            self._remember(complete=True)
        return result | figures(self._clock)

    def _fields(self, skip: int) -> list[FieldSpec]:
        """The input fields to read: those that some segment lacks."""
        calls = self._call.calls
        lacking = set(range(len(calls)))
        if self._call.complete:
            lacking = set().union(*(self._missing(i) for i in range(skip, len(self._call.segments))))
        return [c.field for i, c in enumerate(calls) if c.field is not None and i in lacking]

    def _missing(self, index: int) -> set[int]:
        names = artifact_names(self._call.calls, self._call.segments[index])
        return {i for i, name in enumerate(names) if name and not self._context.work.exists(name)}

    def _open_segment(self, index: int) -> _SegmentWriter:
        known = self._call.segments[index] if index < len(self._call.segments) else None
        everything = {i for i, c in enumerate(self._call.calls) if c.chain}
        missing = everything if known is None else self._missing(index)
        return _SegmentWriter(self._context, self._call, known, missing, self._models, self._clock)

    def _close(self, writer: _SegmentWriter, digest: str) -> None:
        index = len(self._segments)
        if index < len(self._call.segments) and self._call.segments[index].digest != digest:
            raise BadShard(
                f"{self._call.piece.name}: the content changed although size and time did not; use --rehash"
            )
        self._segments.append(writer.commit(digest))
        self._clock.lap("commit")
        if not self._call.complete:
            self._remember(complete=False)

    def _stored_segment(self, known: SegmentCall) -> dict[str, Any]:
        base = next((c for c in self._call.calls if c.role == "base"), None)
        if base is None:
            return {"digest": known.digest}
        return {
            "digest": known.digest,
            "n_rows": self._context.bundle(column_name(base.chain, known.digest)).meta["n_rows"],
        }

    def _remember(self, *, complete: bool) -> None:
        remember_identity(self._context, self._call.piece, self._segments, complete=complete)

    def _count(self, batch: TextBatch) -> None:
        n_text_bytes = batch.texts.nbytes - 8 * len(batch.texts)
        self._n_docs += batch.n_rows
        self._n_text_bytes += n_text_bytes
        self._context.report(batch.n_rows, batch.n_bytes_read)


class _SegmentWriter:
    """All stages of a read over one segment."""

    def __init__(
        self,
        context: Context,
        call: ReadCall,
        known: SegmentCall | None,
        missing: set[int],
        models: dict[int, Any],
        clock: Clock,
    ) -> None:
        self._context, self._calls, self._missing = context, call.calls, missing
        self._models, self._clock = models, clock
        self._n_rows = 0
        self._alive = (
            None
            if known is None or known.alive is None
            else context.bundle(known.alive[0]).array(known.alive[1])
        )
        self._alive_digest = ALL_ROWS if known is None or known.alive is None else known.alive[2]
        self._sinks = {i: self._sink(c) for i, c in enumerate(call.calls) if i in missing}
        self._known = None if known is None else _known_refs(context, call.calls, known)
        last = max(missing, default=-1)
        self._stored: dict[int, pa.Table] = {}
        self._stored_edits: dict[int, Edits] = {}
        for i, c in enumerate(call.calls[:last]):
            if c.role == "edits":
                refs = cast("SegmentRefs", cast("SegmentCall", known).refs)
                self._stored_edits[i] = stored_edits(context.bundle(refs.columns[c.stage]))
            elif i not in missing and c.role == "columns" and known is not None:
                bundle = context.bundle(artifact_names(call.calls, known)[i])
                self._stored[i] = bundle.table("columns")
                if context.stages[c.stage].edits_text():
                    self._stored_edits[i] = stored_edits(bundle)
        rules = [context.stages[c.stage] for c in call.calls[:last] if c.role == "rules"]
        self._wanted = {name for stage in rules for name in stage.input_columns()}
        self._stored_inputs: dict[tuple[int, str], pa.Array] = {}
        self._last = last
        self._shared = self._shared_from(0)
        needs = any(call.calls[i].role in ("base", "sample") for i in missing)
        self._needs_keys = needs or (self._alive is None and context.job.sample_share < 1)

    def _sink(self, call: Call) -> BaseSink | ColumnSink | KeySink | SampleSink:
        if call.role == "base":
            return BaseSink(self._context.job.read.id is not None)
        if call.field is not None:
            return field_sink(call.field)
        if call.role == "columns":
            stage = self._context.stages[call.stage]
            return (EditSink if stage.edits_text() else ColumnSink)(stage.use, stage.output_columns())
        return KeySink() if call.role == "keys" else SampleSink()

    def _shared_from(self, first: int) -> dict[Hashable, int]:
        """What stages ask of `Texts.shared`, from this call on to the next one that changes the texts."""
        wanted: dict[Hashable, int] = {}
        for i, call in enumerate(self._calls[first:], first):
            if i in self._missing and call.role == "columns":
                name, bits = self._context.stages[call.stage].wants()
                wanted[name] = wanted.get(name, 0) | bits
            if self._edits_text(call):
                break
        return wanted

    def _edits_text(self, call: Call) -> bool:
        return call.role in ("columns", "edits") and self._context.stages[call.stage].edits_text()

    def add(self, batch: TextBatch) -> None:
        """Run the stages on one batch."""
        self._n_rows = max(self._n_rows, batch.first_row + batch.n_rows)
        arrays = describe_texts(batch.texts, batch.ids) if self._needs_keys else {}
        alive = self._enter(batch.rows, arrays.get("key"))
        self._clock.lap("base")
        if 0 in self._sinks and self._calls[0].role == "base":
            cast("BaseSink", self._sinks[0]).add(batch, arrays, alive)
        texts, rows = Texts(batch.texts, arrays.get("key"), self._shared).take(alive), batch.rows[alive]
        # Columns of the current rows that were computed here and that rules to come will ask for.
        live = self._base_inputs(batch, arrays, alive)
        for i, call in enumerate(self._calls[: self._last + 1]):
            if call.role == "base" or not len(texts):
                continue
            if call.field is not None:
                self._add_field(i, call.field, batch, alive, live)
                continue
            kept = self._run_stage(i, call, texts, rows, live)
            if self._edits_text(call):
                texts = self._edit(i, call, texts, rows, live)
            self._clock.lap(f"{call.stage}:{self._context.stages[call.stage].use}")
            if not kept.all():
                texts, rows = texts.take(kept), rows[kept]
                live = {name: column.filter(pa.array(kept)) for name, column in live.items()}

    def _base_inputs(
        self, batch: TextBatch, arrays: dict[str, np.ndarray], alive: np.ndarray
    ) -> dict[str, pa.Array]:
        columns: dict[str, pa.Array] = {
            name: pa.array(arrays[name]) for name in ("n_bytes", "n_words") if name in arrays
        }
        if batch.ids is not None:
            columns["id"] = batch.ids
        chosen = pa.array(alive)
        return {name: column.filter(chosen) for name, column in columns.items() if name in self._wanted}

    def _add_field(
        self, i: int, spec: FieldSpec, batch: TextBatch, alive: np.ndarray, live: dict[str, pa.Array]
    ) -> None:
        sink = self._sinks.get(i)
        if sink is None:
            return
        column = batch.fields[spec.name].filter(pa.array(alive))
        cast("ColumnSink", sink).n_misfits += batch.misfits.get(spec.name, 0)
        live |= cast("ColumnSink", sink).add(batch.rows[alive], {spec.name: column})

    def _enter(self, rows: np.ndarray, keys: np.ndarray | None) -> np.ndarray:
        """bool[n]: rows that take part in this read."""
        if self._alive is not None:
            return unpack(self._alive, 8 * len(self._alive))[rows]
        share = self._context.job.sample_share
        return (
            np.ones(len(rows), bool)
            if keys is None or share >= 1
            else uniform_draws(keys, 0, "sample run") < share
        )

    def _run_stage(
        self, i: int, call: Call, texts: Texts, rows: np.ndarray, live: dict[str, pa.Array]
    ) -> np.ndarray:
        """Feed the stage's sink; returns which of the rows go on to the next stage of this read."""
        stage: Stage = self._context.stages[call.stage]
        sink = self._sinks.get(i)
        everything = np.ones(len(rows), bool)
        if isinstance(sink, KeySink):
            sink.add(rows, DedupKeys(*cast("DedupStage", stage).dedup_keys(texts)))
        elif isinstance(sink, SampleSink):
            sink.add(rows, cast("FittedStage", stage).sample(texts, call.sample_share))
        if call.role not in ("columns", "rules"):
            return everything
        # Rules see what the artifact holds, or a row could pass here and not where masks are made.
        columns: dict[str, Any]
        if call.role == "rules":
            columns = {name: self._input(call.stage, name, rows, live) for name in stage.input_columns()}
        elif isinstance(sink, ColumnSink):
            typed = sink.add(rows, stage.columns(texts, self._models[call.stage]))
            live |= {name: column for name, column in typed.items() if name in self._wanted}
            columns = as_columns(pa.table(typed))
        else:
            columns = as_columns(self._stored[i].take(rows))
        for broken in stage.keep(columns).values():
            everything &= ~broken
        return everything

    def _edit(self, i: int, call: Call, texts: Texts, rows: np.ndarray, live: dict[str, pa.Array]) -> Texts:
        """The texts as the stage leaves them, by edits that are computed or were stored."""
        sink = self._sinks.get(i)
        if isinstance(sink, EditSink):
            stage = cast("MapStage", self._context.stages[call.stage])
            edits = stage.edits(texts, self._models[call.stage])
            edits.check(stage.use, texts.array)
            edited = edits.applied_to(texts.array)
            sink.add_edits(rows, edits, edited)
        else:
            edited = self._stored_edits[i].take(rows).applied_to(texts.array)
        if sizes := TEXT_SIZES & self._wanted:
            described = describe_texts(edited, None)
            live |= {name: pa.array(described[name]) for name in sizes}
        return texts.edited(edited, self._shared_from(i + 1))

    def _input(self, stage: int, name: str, rows: np.ndarray, live: dict[str, pa.Array]) -> pa.Array:
        """A column of these rows for a stage, computed in this read or stored by an earlier one."""
        if name in live:
            return live[name]
        if (stage, name) not in self._stored_inputs:
            refs = cast("SegmentRefs", self._known)
            whole = np.ones(refs.n_rows, bool)
            self._stored_inputs[stage, name] = input_columns(self._context, refs, [name], whole, stage)[name]
        return self._stored_inputs[stage, name].take(pa.array(rows))

    def commit(self, digest: str) -> dict[str, Any]:
        """Write every missing artifact of the segment."""
        for i, sink in self._sinks.items():
            call = self._calls[i]
            if isinstance(sink, ColumnSink) and sink.is_empty():
                sink.add(np.empty(0, np.int64), self._no_columns(call))
            name = column_name(call.chain, digest, self._alive_digest)
            self._context.commit(name, partial(sink.write, n_rows=self._n_rows))
        return {"digest": digest, "n_rows": self._n_rows}

    def _no_columns(self, call: Call) -> Columns:
        """What the call gives for no document at all."""
        if call.field is not None:
            return {call.field.name: pa.array([], call.field.arrow_type)}
        return self._context.stages[call.stage].columns(empty_texts(), self._models[call.stage])


def field_sink(spec: FieldSpec) -> ColumnSink:
    """Collects the column of an input field."""
    return ColumnSink("input.fields", {spec.name: str(spec.arrow_type)})


def _known_refs(context: Context, calls: tuple[Call, ...], known: SegmentCall) -> SegmentRefs | None:
    """Artifacts of a segment that some call of its first read may still lack."""
    if known.refs is not None:
        return known.refs
    names = dict(zip(calls, artifact_names(calls, known), strict=True))
    base = names[calls[0]]
    if not context.work.exists(base):
        return None
    columns = {c.stage: name for c, name in names.items() if c.role == "columns"}
    fields = {c.field.name: name for c, name in names.items() if c.field is not None}
    return SegmentRefs(0, 0, context.bundle(base).meta["n_rows"], base, columns, {}, fields)


def remember_identity(
    context: Context, piece: Piece, segments: list[dict[str, Any]], *, complete: bool
) -> None:
    """Record what a piece holds, so that a later listing can name its segments without reading it."""
    record = {"version": piece.version(), "segments": segments, "complete": complete}
    with context.work.commit(identity_name(piece.place(context.job.read.cut(piece)))) as file:
        file.write(json.dumps(record).encode())


@dataclass(frozen=True)
class IdentifyCall:
    """Arguments of `identify_piece`."""

    piece: Piece


def identify_piece(context: Context, call: IdentifyCall) -> dict[str, Any]:
    """Digests of a piece whose listing changed, without parsing: it is known again where its content is.

    Returns {"segments": [...]}; {"bad": message} for a bad shard where the job says so.
    """
    clock = Clock()
    segments = []
    try:
        for batch in iter_piece(call.piece, context.job.read, parse=False, clock=clock):
            context.report(0, batch.n_bytes_read)
            end = batch.segment_end
            if end is not None:
                segments.append({"digest": end.digest, "n_rows": end.n_rows})
    except BadShard as error:
        if not context.job.quarantine_bad_shards:
            raise
        return {"bad": str(error)}
    remember_identity(context, call.piece, segments, complete=True)
    return {"segments": segments} | figures(clock)
