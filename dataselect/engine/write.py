"""Writing tasks: the last read of a piece. JSONL rows pass through as bytes; only edited ones are parsed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataselect.core.clock import Clock
from dataselect.core.errors import DataselectError
from dataselect.core.keys import artifact_name
from dataselect.core.pieces import SUFFIXES, Piece
from dataselect.engine.decisions import reasons_of, write_decisions
from dataselect.engine.edits import Editor
from dataselect.engine.holdout import held_out
from dataselect.engine.inputs import SegmentRefs, edit_artifacts, stage_table, text_column
from dataselect.engine.job import Context, figures
from dataselect.engine.ledger import ledger_of, times_written
from dataselect.engine.old_files import write_side_files
from dataselect.engine.phases import write_phases
from dataselect.engine.resolve import (
    QUARANTINED,
    Resolution,
    resolve,
)
from dataselect.engine.row_file import RowFile
from dataselect.engine.shuffle import ScatterFile, shuffle_draws
from dataselect.io.batch import TextSpec
from dataselect.io.jsonl import parse_blocks
from dataselect.io.lines import LineBlock
from dataselect.io.parquet import compression_of
from dataselect.io.reader import ShardSource, piece_lines, piece_tables
from dataselect.io.rows import texts_of
from dataselect.io.splice import spliced_lines, table_texts, with_texts
from dataselect.io.table_texts import filtered
from dataselect.io.writers import (
    FAST_ZSTD_LEVEL,
    ZSTD_LEVEL,
    copied_lines,
    extended_lines,
    json_lines,
    line_ending,
)

WRITTEN = "written"
"""Folder of the work store with a record for every piece that was written."""
_KEPT_KINDS = ("shards", "heldout")
DROPPED_BY, REASON = "_dropped_by", "_reason"
"""Fields that a dropped row gets."""


@dataclass(frozen=True)
class WriteCall:
    """Arguments of `write_piece`."""

    piece: Piece
    segments: tuple[SegmentRefs, ...]
    column_stages: tuple[tuple[str, int], ...]
    """Column name -> index of the stage that adds it."""
    generation: str | None
    """Folder of the output to write to; None writes nothing and only counts (sample runs)."""
    record: str
    """Key under which the work store remembers what was written."""
    stem: str
    """Name of the output shard without its ending."""
    index_keys: tuple[tuple[int, tuple[str, ...]], ...] = ()
    """Dedups that save an index, each with the exchange file of every segment."""


def record_name(key: str) -> str:
    """Work-store name of a write record."""
    return artifact_name(WRITTEN, key) + ".json"


def write_piece(context: Context, call: WriteCall) -> dict[str, Any]:
    """Write a piece's kept rows, its decisions, and (where asked) its dropped and quarantined rows.

    Returns the files with their digests, and the piece's ledger; the same record goes to the work store
    after all files are committed.
    """
    clock = Clock()
    resolved = [_resolved(context, refs) for refs in call.segments]
    clock.lap("resolve")
    record: dict[str, Any] = {
        "piece": call.piece.name,
        "key": call.record,
        "ledger": ledger_of(context, call.segments, resolved),
        "files": {},
    }
    if call.generation is not None:
        writer = _PieceWriter(context, call, resolved, clock)
        record["files"]["decisions"] = write_decisions(
            context, call.generation, call.piece, call.segments, resolved
        )
        clock.lap("decisions")
        record["files"] |= writer.write_rows()
        written, shard = [times_written(context, r) for r in resolved], record["files"].get("shards")
        by_kind = {"shards": written, "heldout": [r.held.astype(np.int64) for r in resolved]}
        record["files"] |= write_side_files(context, call, by_kind, record["files"])
        record["files"] |= dict(write_phases(context, call, written, shard))
        clock.lap("write")
        record["generation"] = call.generation
        with context.work.commit(record_name(call.record)) as file:
            file.write(json.dumps(record).encode())
    return {"record": record} | figures(clock)


def _resolved(context: Context, refs: SegmentRefs) -> Resolution:
    """What became of every row in the end, those held out told from those of shards/."""
    resolution = resolve(context, refs, len(context.stages))
    resolution.held = held_out(context, refs, resolution.alive)
    resolution.copies[resolution.held] = 0
    return resolution


class _PieceWriter:
    def __init__(self, context: Context, call: WriteCall, resolved: list[Resolution], clock: Clock) -> None:
        self._context, self._call, self._resolved, self._clock = context, call, resolved, clock
        self._output = context.job.output
        self._piece = call.piece
        self._open_editor: tuple[int, Editor | None] | None = None

    def write_rows(self) -> dict[str, Any]:
        """shards/, and where there are any and they are asked for heldout/, dropped/ and quarantine/."""
        with ExitStack() as stack:
            outputs: dict[str, RowFile | ScatterFile] = {
                kind: self._row_file(stack, kind, self._output_suffix()) for kind in _KEPT_KINDS
            }
            if self._output.shuffle is not None:
                outputs["shards"] = self._scatter_file(stack, self._output.shuffle.seed)
            if self._output.dropped:
                outputs["dropped"] = self._row_file(stack, "dropped", self._piece.suffix)
            outputs["quarantine"] = self._row_file(stack, "quarantine", self._piece.suffix)
            if self._piece.format == "jsonl":
                self._pass_lines(outputs)
            else:
                self._pass_tables(outputs)
            for output in outputs.values():
                output.close()
            written = {kind: file for kind, file in outputs.items() if isinstance(file, RowFile)}
            return {kind: output.entry() for kind, output in written.items() if output.n_rows}

    def _scatter_file(self, stack: ExitStack, seed: int) -> ScatterFile:
        draws = [np.empty(0, np.uint64)]
        for refs, r in zip(self._call.segments, self._resolved, strict=True):
            times = times_written(self._context, r)
            if times.any():
                draws.append(shuffle_draws(self._context.bundle(refs.base).array("key"), times, seed))
        return ScatterFile(
            self._context,
            stack,
            self._call.record,
            np.concatenate(draws),
            self._output_suffix(),
            self._piece.name,
        )

    def _output_suffix(self) -> str:
        return self._piece.suffix if self._output.format == "same" else "." + self._output.format

    def _row_file(self, stack: ExitStack, kind: str, suffix: str) -> RowFile:
        stem = self._call.stem if kind in _KEPT_KINDS else self._piece.stem
        level = FAST_ZSTD_LEVEL if kind == "dropped" else ZSTD_LEVEL
        return RowFile(self._context.output, stack, f"{self._call.generation}/{kind}/{stem}", suffix, level)

    def _pass_lines(self, outputs: Mapping[str, RowFile | ScatterFile]) -> None:
        for block in self._clock.laps("read", piece_lines(self._piece, self._context.job.read)):
            self._context.report(block.n_rows, block.n_bytes)
            segment, rows = block.segment, np.arange(block.first_row, block.first_row + block.n_rows)
            if not len(block.data):  # a segment's end, or a row that is too long
                continue
            ended = self._resolved[segment].ended[rows]
            for kind in _KEPT_KINDS:
                chosen = self._chosen(kind, segment, rows)
                self._put_kept_lines(outputs[kind], segment, rows[0], block, chosen)
            if "dropped" in outputs:
                dropped = ended >= 0
                endings, codes = self._drop_endings[segment]
                outputs["dropped"].lines(*extended_lines(block, dropped, endings, codes[rows[dropped]]))
            outputs["quarantine"].lines(*copied_lines(block, ended == QUARANTINED))
            self._clock.lap("write")

    def _chosen(self, kind: str, segment: int, rows: np.ndarray) -> np.ndarray:
        """int64[]: which of these rows of a segment are written to `kind`, one number for every time."""
        resolution = self._resolved[segment]
        if kind == "heldout":
            return np.flatnonzero(resolution.held[rows])
        if self._output.copies == "repeat":
            return np.repeat(np.arange(len(rows)), resolution.copies[rows])
        return np.flatnonzero(resolution.copies[rows])

    def _put_kept_lines(
        self, out: RowFile | ScatterFile, segment: int, first_row: int, block: LineBlock, kept: np.ndarray
    ) -> None:
        """`kept` as `_chosen` gives it for the block's rows, the first of which is `first_row`."""
        if not len(kept):
            return
        rows = first_row + kept
        raw, block = block, self._edited_lines(segment, first_row, block, np.unique(kept))
        if out.suffix == ".parquet":
            lines = [raw.data[s:e].tobytes() for s, e in _spans(raw, kept)]
            table = self._converted(block, rows, lines, self._added(segment, rows))
            out.table(table, np.array([len(x) for x in lines]))
            return
        added = self._added(segment, rows)
        if added is None:
            out.lines(*copied_lines(block, kept))
        else:
            endings = [line_ending(values) for values in added.to_pylist()]
            out.lines(*extended_lines(block, kept, endings, np.arange(len(rows))))

    def _edited_lines(self, segment: int, first_row: int, block: LineBlock, kept: np.ndarray) -> LineBlock:
        """The block with the edited texts in those of its rows `kept` (int64[] ascending) that have edits."""
        editor = self._editor(segment)
        index = kept[editor.touched[first_row + kept]] if editor is not None else kept[:0]
        if editor is None or not len(index):
            return block
        texts = editor.edited(first_row + index, texts_of(block, index, self._text))
        return spliced_lines(block, index, texts, self._text)

    def _edited_table(self, segment: int, rows: np.ndarray, table: pa.Table) -> pa.Table:
        """The table with the edited texts; `rows` of the segment, int64[] ascending, are the table's."""
        editor = self._editor(segment)
        if editor is None or not editor.touched[rows].any():
            return table
        return with_texts(table, editor.edited(rows, table_texts(table, self._text)), self._text)

    def _editor(self, segment: int) -> Editor | None:
        """What edits the texts of a segment, None where no stage does; only the last one is held."""
        if self._open_editor is None or self._open_editor[0] != segment:
            refs, upto = self._call.segments[segment], len(self._context.stages)
            artifacts = edit_artifacts(self._context, refs, upto)
            self._open_editor = segment, Editor(self._context, artifacts) if artifacts else None
        return self._open_editor[1]

    @cached_property
    def _text(self) -> TextSpec:
        return TextSpec.of(self._context.job.read.text)

    def _added(self, segment: int, rows: np.ndarray) -> pa.Table | None:
        """The score columns that the recipe adds to kept rows, and where it is asked for their copies."""
        if self._output.copies == "column":
            resolution = self._resolved[segment]
            copies = pa.table({"copies": pa.array((resolution.copies + resolution.held)[rows])})
            if not self._output.add:
                return copies
            scores = self._scores_to_add[segment].take(pa.array(rows))
            return scores.append_column("copies", copies["copies"])
        if not self._output.add:
            return None
        return self._scores_to_add[segment].take(pa.array(rows))

    @cached_property
    def _scores_to_add(self) -> list[pa.Table]:
        stage_of = dict(self._call.column_stages)
        tables = []
        for refs in self._call.segments:
            found = {name: stage_table(self._context, refs, stage_of[name]) for name in self._output.add}
            tables.append(pa.table({name: table[name] for name, table in found.items()}))
        return tables

    @cached_property
    def _reasons(self) -> list[pa.Array]:
        segments = zip(self._call.segments, self._resolved, strict=True)
        return [reasons_of(self._context, refs, r) for refs, r in segments]

    @cached_property
    def _drop_endings(self) -> list[tuple[list[bytes], np.ndarray]]:
        """For each segment the few different ends of dropped lines, and which one each row gets."""
        out = []
        for reasons, resolution in zip(self._reasons, self._resolved, strict=True):
            stages = pa.array(np.where(resolution.ended >= 0, resolution.ended, 0)).cast(pa.string())
            pairs = pc.binary_join_element_wise(stages, reasons.fill_null(""), "\0").dictionary_encode()
            names = [stage.use for stage in self._context.stages]
            fields = [pair.split("\0", 1) for pair in pairs.dictionary.to_pylist()]
            endings = [line_ending({DROPPED_BY: names[int(i)], REASON: reason}) for i, reason in fields]
            out.append((endings, pairs.indices.to_numpy()))
        return out

    def _drop_fields(self, segment: int, rows: np.ndarray) -> list[dict[str, Any]]:
        resolution = self._resolved[segment]
        names = [stage.use for stage in self._context.stages]
        reasons = self._reasons[segment].take(pa.array(rows)).to_pylist()
        stages = [names[i] for i in resolution.ended[rows]]
        return [{DROPPED_BY: stage, REASON: reason} for stage, reason in zip(stages, reasons, strict=True)]

    def _converted(
        self, block: LineBlock, rows: np.ndarray, lines: list[bytes], added: pa.Table | None
    ) -> pa.Table:
        """id, text, the declared columns, scores, and the untouched row; types never depend on the data.

        block: with edited texts; lines: as they came.
        """
        read = self._context.job.read
        # As every read before did, so that a row that was good is good here too.
        batch = next(parse_blocks([block], self._text, read.id))
        taken = pa.array(np.searchsorted(batch.rows, rows))
        columns: dict[str, Any] = {}
        if batch.ids is not None:
            columns["id"] = batch.ids.take(taken)
        columns["text"] = batch.texts.take(taken)
        declared = dict(self._output.columns)
        if declared:
            spans = _spans(block, rows - block.first_row)
            objects = [_object(block.data[start:end].tobytes()) for start, end in spans]
            for name, kind in declared.items():
                columns[name] = pa.array([_typed(row.get(name), kind) for row in objects], _ARROW[kind])
        if added is not None:
            columns |= {name: added[name].combine_chunks() for name in added.column_names}
        columns["_row"] = pa.array([line.decode() for line in lines], pa.large_string())
        return pa.table(columns)

    def _pass_tables(self, outputs: Mapping[str, RowFile | ScatterFile]) -> None:
        sizes = [self._text_sizes(refs) for refs in self._call.segments]
        if self._piece.format == "parquet":
            for output in outputs.values():
                output.compression = compression_of(ShardSource(self._piece.shards[0]))
        tables = self._clock.laps("read", piece_tables(self._piece))
        for segment, first_row, table in self._segment_tables(tables):
            self._context.report(len(table), table.nbytes)
            rows, n_bytes = np.arange(first_row, first_row + len(table)), sizes[segment]
            ended = self._resolved[segment].ended[rows]
            for kind in _KEPT_KINDS:
                chosen = self._chosen(kind, segment, rows)
                mask = np.zeros(len(rows), bool)
                mask[chosen] = True
                kept = self._edited_table(segment, rows[mask], filtered(table, mask))
                if len(chosen) != len(kept):
                    kept = kept.take(pa.array(np.cumsum(mask)[chosen] - 1))
                self._put_kept_table(outputs[kind], kept, segment, rows[chosen], n_bytes)
            if "dropped" in outputs:
                dropped = ended >= 0
                taken, fields = filtered(table, dropped), self._drop_fields(segment, rows[dropped])
                for name in (DROPPED_BY, REASON):
                    taken = taken.append_column(name, pa.array([f[name] for f in fields], pa.string()))
                outputs["dropped"].table(taken, n_bytes[rows[dropped]])
            bad = ended == QUARANTINED
            outputs["quarantine"].table(filtered(table, bad), n_bytes[rows[bad]])
            self._clock.lap("write")

    def _text_sizes(self, refs: SegmentRefs) -> np.ndarray:
        return text_column(self._context, refs, "n_bytes", len(self._context.stages))

    def _segment_tables(self, tables: Iterator[tuple[int, pa.Table]]) -> Iterator[tuple[int, int, pa.Table]]:
        """(segment, row within it of the table's first row, table), tables cut where segments meet."""
        starts = np.concatenate([[0], np.cumsum([refs.n_rows for refs in self._call.segments])])
        for first_row, table in tables:
            after = first_row + len(table)
            for segment in range(len(self._call.segments)):
                lo, hi = max(first_row, int(starts[segment])), min(after, int(starts[segment + 1]))
                if lo < hi:
                    yield segment, lo - int(starts[segment]), table.slice(lo - first_row, hi - lo)

    def _put_kept_table(
        self,
        out: RowFile | ScatterFile,
        table: pa.Table,
        segment: int,
        rows: np.ndarray,
        n_bytes: np.ndarray,
    ) -> None:
        if not len(rows):
            return
        added = self._added(segment, rows)
        for name in added.column_names if added is not None else ():
            table = table.append_column(name, cast("pa.Table", added)[name])
        if SUFFIXES[out.suffix][0] != "jsonl":
            out.table(table, n_bytes[rows])
        else:
            try:
                lines = json_lines(table)
            except ValueError as error:
                raise DataselectError(
                    f"{self._piece.name}: a row can't be written as JSON: {error}; "
                    "output.format: parquet keeps it as it is"
                ) from None
            out.lines(np.frombuffer(lines, np.uint8), len(table))


_ARROW = {"string": pa.large_string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
_PYTHON: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "int64": int,
    "float64": (int, float),
    "bool": bool,
}


def _object(line: bytes) -> dict[str, Any]:
    """The row; empty where it is nested too deeply for Python (`_row` still holds it)."""
    try:
        return cast("dict[str, Any]", json.loads(line))
    except RecursionError:
        return {}


def _typed(value: Any, kind: str) -> Any:
    """The value, or null where it is not of the declared type (`_row` still holds it)."""
    fits = isinstance(value, _PYTHON[kind]) and (kind == "bool" or not isinstance(value, bool))
    return value if fits else None


def _spans(block: LineBlock, mask: np.ndarray) -> Iterator[tuple[int, int]]:
    return zip(block.starts[mask].tolist(), block.ends[mask].tolist(), strict=True)
