"""Writing tasks: the last read of a piece. JSONL rows pass through as bytes; only edited ones are parsed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataselect.core.clock import Clock
from dataselect.core.errors import DataselectError
from dataselect.core.keys import artifact_name
from dataselect.core.pieces import SUFFIXES, Piece
from dataselect.engine.edits import Editor
from dataselect.engine.holdout import held_out
from dataselect.engine.inputs import SegmentRefs, edit_artifacts, row_digest, stage_table, text_column
from dataselect.engine.job import Context, figures
from dataselect.engine.old_files import write_side_files
from dataselect.engine.phases import phase_totals, write_phases
from dataselect.engine.resolve import (
    KEPT,
    QUARANTINED,
    UNSAMPLED,
    Resolution,
    pool_batch,
    resolve,
)
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
    HashingFile,
    LineWriter,
    TableWriter,
    copied_lines,
    extended_lines,
    json_lines,
    line_ending,
)
from dataselect.stages.base import SelectStage

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
        "ledger": _ledger(context, call, resolved),
        "files": {},
    }
    if call.generation is not None:
        writer = _PieceWriter(context, call, resolved, clock)
        record["files"]["decisions"] = writer.write_decisions()
        clock.lap("decisions")
        record["files"] |= writer.write_rows()
        written, shard = [_times_written(context, r) for r in resolved], record["files"].get("shards")
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


def _ledger(context: Context, call: WriteCall, resolved: list[Resolution]) -> dict[str, Any]:
    """Rows by what became of them, the flow through every stage, and a digest of the kept rows."""
    ended = np.concatenate([r.ended for r in resolved]) if resolved else np.empty(0, np.int16)
    bad: dict[str, int] = {}
    for refs in call.segments:
        counts = context.bundle(refs.base).table("bad")["reason"].value_counts().to_pylist()
        for item in counts:
            bad[item["values"]] = bad.get(item["values"], 0) + item["counts"]
    return {
        "rows_in": len(ended),
        "rows_kept": int((ended == KEPT).sum()),
        "rows_written": int(sum(_times_written(context, r).sum() for r in resolved)),
        "rows_heldout": sum(int(r.held.sum()) for r in resolved),
        "rows_dropped": int((ended >= 0).sum()),
        "rows_quarantined": int((ended == QUARANTINED).sum()),
        "rows_unsampled": int((ended == UNSAMPLED).sum()),
        "quarantined": dict(sorted(bad.items())),
        "stages": reduce(add_ledgers, (r.flow for r in resolved)),
        "phases": phase_totals(context, call.segments, [_times_written(context, r) for r in resolved]),
        "row_digest": _row_digest(context, call, resolved),
    }


def _times_written(context: Context, resolution: Resolution) -> np.ndarray:
    """int64[n_rows]"""
    repeats = context.job.output.copies == "repeat"
    return resolution.copies if repeats else (resolution.copies > 0).astype(np.int64)


def add_ledgers(a: Any, b: Any) -> Any:
    """Sum of two nested structures of numbers; dictionaries by key, lists item by item."""
    if isinstance(a, dict):
        return {
            key: add_ledgers(a[key], b[key]) if key in a and key in b else a.get(key, b.get(key))
            for key in a | b
        }
    if isinstance(a, list):
        return [add_ledgers(x, y) for x, y in zip(a, b, strict=True)]
    return a + b


def _row_digest(context: Context, call: WriteCall, resolved: list[Resolution]) -> list[int]:
    """Two sums mod 2^64 over the id and text hashes of rows as they are written, as often as each is kept.

    The same for any cut into pieces.
    """
    sums = np.zeros(2, np.uint64)
    for refs, r in zip(call.segments, resolved, strict=True):
        sums += row_digest(context, refs, r.alive, r.copies, len(context.stages))
    return [int(s) for s in sums]


class _PieceWriter:
    def __init__(self, context: Context, call: WriteCall, resolved: list[Resolution], clock: Clock) -> None:
        self._context, self._call, self._resolved, self._clock = context, call, resolved, clock
        self.output_store = context.output
        self._output = context.job.output
        self._piece = call.piece
        self._open_editor: tuple[int, Editor | None] | None = None

    # Decisions -------------------------------------------------------------------------------------

    def write_decisions(self) -> dict[str, Any]:
        """One row per input row: what became of it and why, its scores, and whose duplicate it is."""
        name = f"{self._call.generation}/decisions/{self._piece.name}.parquet"
        schema = None
        first_row = 0
        with self._context.output.commit(name) as file:
            out = HashingFile(file)
            with ExitStack() as stack:
                writer: TableWriter | None = None
                for refs, resolution in zip(self._call.segments, self._resolved, strict=True):
                    table = self._decisions(refs, resolution, first_row)
                    if writer is None:
                        schema = table.schema
                        writer = stack.enter_context(TableWriter(out, schema))
                    writer.write(table.cast(schema))
                    first_row += refs.n_rows
        return {"name": name, "n_bytes": out.n_bytes, "digest": out.digest(), "rows": first_row}

    def _decisions(self, refs: SegmentRefs, resolution: Resolution, first_row: int) -> pa.Table:
        n_rows, ended = refs.n_rows, resolution.ended
        base = self._context.bundle(refs.base)
        shard, row = self._places(refs, first_row)
        ids = (
            base.table("ids")["id"].combine_chunks() if "ids" in base else pa.nulls(n_rows, pa.large_string())
        )
        columns: dict[str, Any] = {
            "shard": shard,
            "part": pa.array(np.full(n_rows, self._piece.part, np.int32)),
            "row": row,
            "id": ids,
            "stage": self._ended_by(ended),
            "reason": self._make_reasons(refs, resolution),
            "copies": pa.array(resolution.copies.astype(np.int32)),
        }
        if self._output.holdout is not None:
            columns["heldout"] = pa.array(resolution.held)
        columns |= self._duplicates(refs, n_rows)
        columns |= self._scores(refs)
        return pa.table(columns | self._draws(refs, resolution) | self._expected(refs, resolution))

    def _places(self, refs: SegmentRefs, first_row: int) -> tuple[pa.Array, pa.Array]:
        """Shard name and row of every row: within the shard for groups, else within the piece."""
        names = [shard.name for shard in self._piece.shards]
        if len(names) == 1:
            index = np.zeros(refs.n_rows, np.int32)
            rows = np.arange(first_row, first_row + refs.n_rows, dtype=np.int64)
        else:
            shard_rows = np.array(self._context.bundle(refs.base).meta["shard_rows"], np.int64)
            index = np.repeat(np.arange(len(shard_rows), dtype=np.int32), shard_rows)
            rows = np.arange(refs.n_rows) - np.repeat(np.cumsum(shard_rows) - shard_rows, shard_rows)
        return pa.DictionaryArray.from_arrays(pa.array(index), pa.array(names, pa.string())), pa.array(rows)

    def _ended_by(self, ended: np.ndarray) -> pa.Array:
        names = ["quarantine", "not sampled", *_stage_names(self._context)]
        codes = np.select([ended == QUARANTINED, ended == UNSAMPLED, ended >= 0], [0, 1, ended + 2], 0)
        indices = pa.array(codes.astype(np.int32), mask=ended == KEPT)
        return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string()))

    def _make_reasons(self, refs: SegmentRefs, resolution: Resolution) -> pa.Array:
        """string[n_rows]: why each row was dropped or quarantined, null for kept ones."""
        bad = self._context.bundle(refs.base).table("bad")
        index = np.full(refs.n_rows, -1, np.int64)
        index[bad["row"].to_numpy()] = np.arange(len(bad))
        pairs = zip(bad["reason"].to_pylist(), bad["detail"].to_pylist(), strict=True)
        texts = pa.array(
            [f"{reason}: {detail}" if detail else reason for reason, detail in pairs], pa.string()
        )
        reasons = texts.take(pa.array(index, mask=index < 0))
        for dropped in resolution.reasons.values():
            reasons = pc.coalesce(reasons, dropped)
        return reasons

    def _duplicates(self, refs: SegmentRefs, n_rows: int) -> dict[str, pa.Array]:
        """duplicate_of_shard and so on, and similarity; null where the row is no dropped duplicate."""
        tables = []
        for name, number in refs.barriers.values():
            bundle = self._context.bundle(name)
            if f"dups/{number}" in bundle:
                tables.append(bundle.table(f"dups/{number}"))
        if not tables:
            return {}
        table = pa.concat_tables(tables, promote_options="default")  # only some have old documents
        index = np.full(n_rows, -1, np.int64)
        # A row that an earlier stage dropped is alone in its group later, so no row stands in two tables.
        index[table["row"].to_numpy()] = np.arange(len(table))
        taken = table.take(pa.array(index, mask=index < 0))
        names = {"source": "source", "shard": "shard", "part": "part", "shard_row": "row", "id": "id"}
        found = {f"duplicate_of_{new}": taken[old] for old, new in names.items() if old in taken.column_names}
        found["similarity"] = taken["similarity"]
        return {name: column.combine_chunks() for name, column in found.items()}

    def _scores(self, refs: SegmentRefs) -> dict[str, pa.Array]:
        out: dict[str, pa.Array] = {}
        for stage in sorted([*refs.columns, *refs.barriers]):
            table = stage_table(self._context, refs, stage)
            out |= {name: table[name].combine_chunks() for name in table.column_names}
        return out

    def _draws(self, refs: SegmentRefs, resolution: Resolution) -> dict[str, pa.Array]:
        """The uniform draw behind the last selection that used one, for the rows that reached it."""
        for i, stage, reached in self._selections(resolution):
            draws = stage.draws(pool_batch(self._context, refs, [], reached, i).keys)
            if draws is not None:
                return {"draw": _spread(draws, reached)}
        return {}

    def _expected(self, refs: SegmentRefs, resolution: Resolution) -> dict[str, pa.Array]:
        """Expected copies under the last selection that has them: 1/expected is the weight for estimates."""
        for i, stage, reached in self._selections(resolution):
            batch = pool_batch(self._context, refs, stage.input_columns(), reached, i)
            found = stage.expected_copies(batch, self._context.model(refs.barriers[i][0]))
            if found is not None:
                return {"expected": _spread(found, reached)}
        return {}

    def _selections(self, resolution: Resolution) -> Iterator[tuple[int, SelectStage, np.ndarray]]:
        """(index, stage, rows that reached it), the last first."""
        for i, stage in reversed(list(enumerate(self._context.stages))):
            if isinstance(stage, SelectStage):
                yield i, stage, (resolution.ended == KEPT) | (resolution.ended >= i)

    # Rows --------------------------------------------------------------------------------------------

    def write_rows(self) -> dict[str, Any]:
        """shards/, and where there are any and they are asked for heldout/, dropped/ and quarantine/."""
        with ExitStack() as stack:
            outputs: dict[str, _RowFile | ScatterFile] = {
                kind: _RowFile(self, stack, kind, self._output_suffix()) for kind in _KEPT_KINDS
            }
            if self._output.shuffle is not None:
                outputs["shards"] = self._scatter_file(stack, self._output.shuffle.seed)
            if self._output.dropped:
                outputs["dropped"] = _RowFile(self, stack, "dropped", self._piece.suffix)
            outputs["quarantine"] = _RowFile(self, stack, "quarantine", self._piece.suffix)
            if self._piece.format == "jsonl":
                self._pass_lines(outputs)
            else:
                self._pass_tables(outputs)
            for output in outputs.values():
                output.close()
            written = {kind: file for kind, file in outputs.items() if isinstance(file, _RowFile)}
            return {kind: output.entry() for kind, output in written.items() if output.n_rows}

    def _scatter_file(self, stack: ExitStack, seed: int) -> ScatterFile:
        draws = [np.empty(0, np.uint64)]
        for refs, r in zip(self._call.segments, self._resolved, strict=True):
            times = r.copies if self._output.copies == "repeat" else (r.copies > 0).astype(np.int64)
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

    def path(self, kind: str, suffix: str) -> str:
        """Name in the output store."""
        stem = self._call.stem if kind in _KEPT_KINDS else self._piece.stem
        return f"{self._call.generation}/{kind}/{stem}{suffix}"

    def _pass_lines(self, outputs: Mapping[str, _RowFile | ScatterFile]) -> None:
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
        self, out: _RowFile | ScatterFile, segment: int, first_row: int, block: LineBlock, kept: np.ndarray
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
        return [
            self._make_reasons(refs, r) for refs, r in zip(self._call.segments, self._resolved, strict=True)
        ]

    @cached_property
    def _drop_endings(self) -> list[tuple[list[bytes], np.ndarray]]:
        """For each segment the few different ends of dropped lines, and which one each row gets."""
        out = []
        for reasons, resolution in zip(self._reasons, self._resolved, strict=True):
            stages = pa.array(np.where(resolution.ended >= 0, resolution.ended, 0)).cast(pa.string())
            pairs = pc.binary_join_element_wise(stages, reasons.fill_null(""), "\0").dictionary_encode()
            names = _stage_names(self._context)
            fields = [pair.split("\0", 1) for pair in pairs.dictionary.to_pylist()]
            endings = [line_ending({DROPPED_BY: names[int(i)], REASON: reason}) for i, reason in fields]
            out.append((endings, pairs.indices.to_numpy()))
        return out

    def _drop_fields(self, segment: int, rows: np.ndarray) -> list[dict[str, Any]]:
        resolution = self._resolved[segment]
        names = _stage_names(self._context)
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

    def _pass_tables(self, outputs: Mapping[str, _RowFile | ScatterFile]) -> None:
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
        out: _RowFile | ScatterFile,
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


class _RowFile:
    """One output file of a piece, made when its first row comes."""

    def __init__(self, owner: _PieceWriter, stack: ExitStack, kind: str, suffix: str) -> None:
        self._owner, self._stack, self._kind = owner, stack, kind
        self._name = owner.path(kind, suffix)
        self.suffix = suffix
        self.compression = "zstd"
        self.n_rows = 0
        self._out: HashingFile | None = None
        self._writer: LineWriter | TableWriter | None = None

    def _file(self) -> HashingFile:
        if self._out is None:
            self._out = HashingFile(self._stack.enter_context(self._owner.output_store.commit(self._name)))
        return self._out

    def lines(self, data: np.ndarray, n_rows: int) -> None:
        """Whole lines with their newlines, uint8[n_bytes]."""
        if not n_rows:
            return
        if self._writer is None:
            level = FAST_ZSTD_LEVEL if self._kind == "dropped" else ZSTD_LEVEL
            self._writer = LineWriter(self._file(), SUFFIXES[self.suffix][1], level)
        cast("LineWriter", self._writer).write(data)
        self.n_rows += n_rows

    def table(self, table: pa.Table, n_bytes: np.ndarray) -> None:
        """Rows of a Parquet or Arrow file, with their text sizes."""
        if not len(table):
            return
        if self._writer is None:
            form = SUFFIXES[self.suffix][0]
            self._writer = TableWriter(self._file(), table.schema, self.compression, form)
        cast("TableWriter", self._writer).write(table, n_bytes)
        self.n_rows += len(table)

    def close(self) -> None:
        """Complete the file; it is committed when the stack closes."""
        if self._writer is not None:
            self._writer.close()

    def entry(self) -> dict[str, Any]:
        """For the manifest."""
        assert self._out is not None
        return {
            "name": self._name,
            "rows": self.n_rows,
            "n_bytes": self._out.n_bytes,
            "digest": self._out.digest(),
        }


def _spread(values: np.ndarray, rows: np.ndarray) -> pa.Array:
    """float64[n_rows] with `values` where bool[n_rows] `rows` is True, null elsewhere."""
    dense = np.zeros(len(rows))
    dense[rows] = values
    return pa.array(dense, mask=~rows)


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


def _stage_names(context: Context) -> list[str]:
    return [stage.use for stage in context.stages]


def _spans(block: LineBlock, mask: np.ndarray) -> Iterator[tuple[int, int]]:
    return zip(block.starts[mask].tolist(), block.ends[mask].tolist(), strict=True)
