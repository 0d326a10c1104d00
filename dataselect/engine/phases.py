"""Manifests of training phases: which rows of the output shards a phase uses, and how often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dataselect.engine.inputs import SegmentRefs, input_columns, text_column
from dataselect.engine.job import Context
from dataselect.engine.row_file import write_table

if TYPE_CHECKING:
    from dataselect.engine.write import WriteCall

PHASES = "phases"
"""Folder of a generation."""


def phase_copies(context: Context, refs: SegmentRefs, written: np.ndarray) -> dict[str, np.ndarray]:
    """Phase -> int64[n_rows] copies of each row in it; 0 for rows that are not in the output shards.

    written: int64[n_rows], how often each row is there.
    """
    everything = np.ones(refs.n_rows, bool)
    columns = input_columns(context, refs, context.job.output.phases, everything, len(context.stages))
    return {name: values.fill_null(0).to_numpy() * (written > 0) for name, values in columns.items()}


def phase_totals(
    context: Context, segments: Sequence[SegmentRefs], written: Sequence[np.ndarray]
) -> dict[str, dict[str, int]]:
    """Phase -> documents, and copies with their text bytes and words; for the ledger."""
    totals = {
        name: {"docs": 0, "copies": 0, "n_bytes": 0, "n_words": 0} for name in context.job.output.phases
    }
    for refs, times in zip(segments, written, strict=True):
        sizes = {
            size: text_column(context, refs, size, len(context.stages)) for size in ("n_bytes", "n_words")
        }
        for name, copies in phase_copies(context, refs, times).items():
            total = totals[name]
            total["docs"] += int((copies > 0).sum())
            total["copies"] += int(copies.sum())
            for size, values in sizes.items():
                total[size] += int((values * copies).sum(dtype=np.int64))
    return totals


def write_phases(
    context: Context, call: WriteCall, written: Sequence[np.ndarray], shard: dict[str, Any] | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(kind 'phases/<name>', entry) of the manifests of a piece; shard: the entry of its output shard."""
    if shard is None or not context.job.output.phases:
        return
    name = shard["name"].removeprefix(f"{call.generation}/")
    parts: dict[str, list[pa.Table]] = {phase: [] for phase in context.job.output.phases}
    n_written = 0
    for refs, times in zip(call.segments, written, strict=True):
        rows = np.cumsum(times) - times + n_written
        n_written += int(times.sum())
        for phase, copies in phase_copies(context, refs, times).items():
            chosen = np.flatnonzero(copies)
            columns = {"row": pa.array(rows[chosen]), "copies": pa.array(copies[chosen].astype(np.int32))}
            parts[phase].append(pa.table(columns))
    for phase, tables in parts.items():
        table = pa.concat_tables(tables)
        table = table.add_column(0, "shard", pa.repeat(pa.scalar(name), len(table)))
        if len(table):
            path = f"{call.generation}/{PHASES}/{phase}/{call.piece.name}.parquet"
            yield f"{PHASES}/{phase}", write_table(context.output, path, table)
