"""decisions/: a row for each input row: what became of it and why, its scores, and whose duplicate it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataselect.core.pieces import Piece
from dataselect.engine.inputs import SegmentRefs, stage_table
from dataselect.engine.job import Context
from dataselect.engine.resolve import KEPT, QUARANTINED, UNSAMPLED, Resolution, pool_batch
from dataselect.io.writers import HashingFile, TableWriter
from dataselect.stages.base import SelectStage


def write_decisions(
    context: Context,
    generation: str,
    piece: Piece,
    segments: Sequence[SegmentRefs],
    resolved: Sequence[Resolution],
) -> dict[str, Any]:
    """Write the decisions of a piece; returns the file's entry in the manifest."""
    name = f"{generation}/decisions/{piece.name}.parquet"
    schema = None
    first_row = 0
    with context.output.commit(name) as file:
        out = HashingFile(file)
        with ExitStack() as stack:
            writer: TableWriter | None = None
            for refs, resolution in zip(segments, resolved, strict=True):
                table = _decisions(context, piece, refs, resolution, first_row)
                if writer is None:
                    schema = table.schema
                    writer = stack.enter_context(TableWriter(out, schema))
                writer.write(table.cast(schema))
                first_row += refs.n_rows
    return out.entry(name, first_row)


def reasons_of(context: Context, refs: SegmentRefs, resolution: Resolution) -> pa.Array:
    """string[n_rows]: why each row was dropped or quarantined, null for kept ones."""
    bad = context.bundle(refs.base).table("bad")
    index = np.full(refs.n_rows, -1, np.int64)
    index[bad["row"].to_numpy()] = np.arange(len(bad))
    pairs = zip(bad["reason"].to_pylist(), bad["detail"].to_pylist(), strict=True)
    texts = pa.array([f"{reason}: {detail}" if detail else reason for reason, detail in pairs], pa.string())
    reasons = texts.take(pa.array(index, mask=index < 0))
    for dropped in resolution.reasons.values():
        reasons = pc.coalesce(reasons, dropped)
    return reasons


def _decisions(
    context: Context, piece: Piece, refs: SegmentRefs, resolution: Resolution, first_row: int
) -> pa.Table:
    n_rows, ended = refs.n_rows, resolution.ended
    base = context.bundle(refs.base)
    shard, row = _places(context, piece, refs, first_row)
    ids = base.table("ids")["id"].combine_chunks() if "ids" in base else pa.nulls(n_rows, pa.large_string())
    columns: dict[str, Any] = {
        "shard": shard,
        "part": pa.array(np.full(n_rows, piece.part, np.int32)),
        "row": row,
        "id": ids,
        "stage": _ended_by(context, ended),
        "reason": reasons_of(context, refs, resolution),
        "copies": pa.array(resolution.copies.astype(np.int32)),
    }
    if context.job.output.holdout is not None:
        columns["heldout"] = pa.array(resolution.held)
    columns |= _duplicates(context, refs, n_rows)
    columns |= _scores(context, refs)
    return pa.table(columns | _draws(context, refs, resolution) | _expected(context, refs, resolution))


def _places(context: Context, piece: Piece, refs: SegmentRefs, first_row: int) -> tuple[pa.Array, pa.Array]:
    """Shard name and row of every row: within the shard for groups, else within the piece."""
    names = [shard.name for shard in piece.shards]
    if len(names) == 1:
        index = np.zeros(refs.n_rows, np.int32)
        rows = np.arange(first_row, first_row + refs.n_rows, dtype=np.int64)
    else:
        shard_rows = np.array(context.bundle(refs.base).meta["shard_rows"], np.int64)
        index = np.repeat(np.arange(len(shard_rows), dtype=np.int32), shard_rows)
        rows = np.arange(refs.n_rows) - np.repeat(np.cumsum(shard_rows) - shard_rows, shard_rows)
    return pa.DictionaryArray.from_arrays(pa.array(index), pa.array(names, pa.string())), pa.array(rows)


def _ended_by(context: Context, ended: np.ndarray) -> pa.Array:
    names = ["quarantine", "not sampled", *(stage.use for stage in context.stages)]
    codes = np.select([ended == QUARANTINED, ended == UNSAMPLED, ended >= 0], [0, 1, ended + 2], 0)
    indices = pa.array(codes.astype(np.int32), mask=ended == KEPT)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string()))


def _duplicates(context: Context, refs: SegmentRefs, n_rows: int) -> dict[str, pa.Array]:
    """duplicate_of_shard and so on, and similarity; null where the row is no dropped duplicate."""
    tables = []
    for name, number in refs.barriers.values():
        bundle = context.bundle(name)
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


def _scores(context: Context, refs: SegmentRefs) -> dict[str, pa.Array]:
    out: dict[str, pa.Array] = {}
    for stage in sorted([*refs.columns, *refs.barriers]):
        table = stage_table(context, refs, stage)
        out |= {name: table[name].combine_chunks() for name in table.column_names}
    return out


def _draws(context: Context, refs: SegmentRefs, resolution: Resolution) -> dict[str, pa.Array]:
    """The uniform draw behind the last selection that used one, for the rows that reached it."""
    for i, stage, reached in _selections(context, resolution):
        draws = stage.draws(pool_batch(context, refs, [], reached, i).keys)
        if draws is not None:
            return {"draw": _spread(draws, reached)}
    return {}


def _expected(context: Context, refs: SegmentRefs, resolution: Resolution) -> dict[str, pa.Array]:
    """Expected copies under the last selection that has them: 1/expected is the weight for estimates."""
    for i, stage, reached in _selections(context, resolution):
        batch = pool_batch(context, refs, stage.input_columns(), reached, i)
        found = stage.expected_copies(batch, context.model(refs.barriers[i][0]))
        if found is not None:
            return {"expected": _spread(found, reached)}
    return {}


def _selections(context: Context, resolution: Resolution) -> Iterator[tuple[int, SelectStage, np.ndarray]]:
    """(index, stage, rows that reached it), the last first."""
    for i, stage in reversed(list(enumerate(context.stages))):
        if isinstance(stage, SelectStage):
            yield i, stage, (resolution.ended == KEPT) | (resolution.ended >= i)


def _spread(values: np.ndarray, rows: np.ndarray) -> pa.Array:
    """float64[n_rows] with `values` where bool[n_rows] `rows` is True, null elsewhere."""
    dense = np.zeros(len(rows))
    dense[rows] = values
    return pa.array(dense, mask=~rows)
