"""Columns by name over a segment: base columns, the row's place, input fields, columns of earlier stages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from dataselect.engine.job import Context
from dataselect.io.bundle import Bundle
from dataselect.stages.base import ORDINAL


@dataclass(frozen=True)
class SegmentRefs:
    """Artifacts of one segment, by stage index, and its place in the input."""

    piece: int
    index: int
    n_rows: int
    base: str
    columns: dict[int, str] = field(default_factory=dict)
    """MapStage, ColumnStage and FittedStage: artifact with their columns."""
    barriers: dict[int, tuple[str, int]] = field(default_factory=dict)
    """DedupStage and SelectStage: (artifact, number of the segment in it)."""
    fields: dict[str, str] = field(default_factory=dict)
    """Input field: artifact with its column."""
    shards: tuple[str, ...] = ()
    part: int = 0
    first_row: int = 0
    """Number within its piece of the segment's first row."""
    first_ordinal: int = 0
    """Number within the whole input of the segment's first row."""


def input_columns(
    context: Context, refs: SegmentRefs, names: Iterable[str], mask: np.ndarray, stage: int
) -> dict[str, pa.Array]:
    """These columns of the rows of `mask` (bool[n_rows]): Arrow arrays, null where there is no value.

    stage: who asks; sizes are those of the texts as they reach it.
    """
    chosen = pa.array(mask)
    out = {}
    for name in names:
        column = _column(context, refs, name, stage)
        out[name] = column if mask.all() else column.filter(chosen)
    return out


def _column(context: Context, refs: SegmentRefs, name: str, stage: int) -> pa.Array:
    stages = context.column_stages
    if name in stages:
        return _only(stage_table(context, refs, stages[name]), name)
    if name in refs.fields:
        return _only(context.bundle(refs.fields[name]).table("columns"), name)
    if name in ("shard", "part", "row", ORDINAL):
        return _place(context, refs, name)
    if name == "id":
        return _only(context.bundle(refs.base).table("ids"), "id")
    return pa.array(text_column(context, refs, name, stage))


def edit_artifacts(context: Context, refs: SegmentRefs, upto: int) -> list[str]:
    """Artifacts with the edits that stages 0 .. upto - 1 made over a segment, in their order."""
    return [refs.columns[i] for i, stage in enumerate(context.stages[:upto]) if stage.edits_text()]


def text_column(context: Context, refs: SegmentRefs, name: str, upto: int) -> np.ndarray:
    """n_bytes, n_words int32[n_rows] or text_hash uint64[n_rows, 2] of the texts as they reach stage `upto`.

    0 where no row of the segment is good.
    """
    base = context.bundle(refs.base)
    if name not in base:
        return np.zeros(refs.n_rows, np.int32)
    values, rows = base.array(name).copy(), np.arange(refs.n_rows)
    for artifact in edit_artifacts(context, refs, upto):
        changed, edited = edited_values(context.bundle(artifact), name, rows)
        values[changed] = edited
    return values


def edited_values(bundle: Bundle, name: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(which of these rows, int64[], a stage edited, as an index; n_bytes, n_words or text_hash of these)."""
    edited = bundle.array("edited/row")
    at = np.searchsorted(edited, rows)
    changed = np.flatnonzero(at < len(edited))
    changed = changed[edited[at[changed]] == rows[changed]]
    return changed, bundle.array(f"edited/{name}")[at[changed]]


def stage_table(context: Context, refs: SegmentRefs, stage: int) -> pa.Table:
    """All columns that a stage adds to a segment, one row for each of its rows; perhaps none."""
    if stage in refs.columns:
        return context.bundle(refs.columns[stage]).table("columns")
    name, number = refs.barriers[stage]
    bundle = context.bundle(name)
    return bundle.table(f"columns/{number}") if f"columns/{number}" in bundle else pa.table({})


def _only(table: pa.Table, name: str) -> pa.Array:
    column = table[name]
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _place(context: Context, refs: SegmentRefs, name: str) -> pa.Array:
    """Where every row is, as `decisions/` says it: row within the shard for groups, else within the piece."""
    rows = np.arange(refs.n_rows, dtype=np.int64)
    if name == ORDINAL:
        return pa.array(rows + refs.first_ordinal)
    if name == "part":
        return pa.array(np.full(refs.n_rows, refs.part, np.int32))
    if len(refs.shards) == 1:
        shard = np.zeros(refs.n_rows, np.int32)
        rows += refs.first_row
    else:
        shard_rows = np.array(context.bundle(refs.base).meta["shard_rows"], np.int64)
        shard = np.repeat(np.arange(len(shard_rows), dtype=np.int32), shard_rows)
        rows -= np.repeat(np.cumsum(shard_rows) - shard_rows, shard_rows)
    if name == "row":
        return pa.array(rows)
    return pa.DictionaryArray.from_arrays(pa.array(shard), pa.array(refs.shards, pa.large_string()))


def row_digest(
    context: Context, refs: SegmentRefs, mask: np.ndarray, copies: np.ndarray | None = None, upto: int = 0
) -> np.ndarray:
    """uint64[2]: sums over the rows of their mixed id and text hashes; see `row_digest` in manifest.json.

    mask bool[n_rows]; copies int64[n_rows]: how often each row counts, by default once; upto: the texts are
    those that reach this stage, so by default as they came.
    """
    base = context.bundle(refs.base)
    if "key" not in base:
        return np.zeros(2, np.uint64)
    key = base.array("key")[mask]
    text_hash = text_column(context, refs, "text_hash", upto)[mask]
    # Rows without an id have the text's hash as key: that of the text which a reader of the output finds.
    key = np.where(key == base.array("text_hash")[mask], text_hash, key)
    mixed = (text_hash ^ (key * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed ^= mixed >> np.uint64(29)
    if copies is not None:
        mixed *= copies[mask].astype(np.uint64)[:, None]
    digest: np.ndarray = mixed.sum(axis=0, dtype=np.uint64)
    return digest
