"""What became of every row of a segment: the stages in order, from stored columns and barriers' answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dataselect.core.lengths import histogram
from dataselect.engine.columns import as_columns, stored_columns, unpack
from dataselect.engine.inputs import SegmentRefs, input_columns, text_column
from dataselect.engine.job import Context
from dataselect.stages.base import TEXT_SIZES, ColumnStage, PoolBatch, SelectStage

QUARANTINED = -1
KEPT = -2
UNSAMPLED = -3


@dataclass
class Resolution:
    """State of a segment's rows after some stages."""

    ended: np.ndarray
    """int16[n_rows]: index of the stage that dropped the row; QUARANTINED, UNSAMPLED or KEPT."""
    reasons: dict[int, pa.Array]
    """Stage index -> string[n_rows], null where the stage did not drop the row."""
    flow: list[dict[str, Any]]
    """For every stage: documents, bytes and words in, and by rule dropped; of a selection lengths too."""
    copies: np.ndarray
    """int64[n_rows]: how often each row is written, as far as the stages so far decide; 0 once dropped."""
    held: np.ndarray
    """bool[n_rows]: kept rows that are held out; their copies are 0."""

    @property
    def alive(self) -> np.ndarray:
        """bool[n_rows]"""
        return self.ended == KEPT


def resolve(context: Context, refs: SegmentRefs, upto: int) -> Resolution:
    """Apply stages 0 .. upto - 1 to a segment."""
    base = context.bundle(refs.base)
    good = unpack(base.array("good"), refs.n_rows)
    ended = np.where(good, KEPT, UNSAMPLED).astype(np.int16)
    ended[base.table("bad")["row"].to_numpy()] = QUARANTINED
    out = Resolution(ended, {}, [], (ended == KEPT).astype(np.int64), np.zeros(refs.n_rows, bool))
    sizes = _sizes(context, refs, 0)
    for stage in range(upto):
        alive = out.alive
        rules = _broken_rules(context, refs, stage, alive)
        before = sizes
        if context.stages[stage].edits_text():
            sizes = _sizes(context, refs, stage + 1)
        flow = _apply(out, stage, alive, rules, before, sizes)
        out.copies *= _copies(context, refs, stage) * out.alive
        if isinstance(context.stages[stage], SelectStage):
            flow["copies"] = _totals(np.flatnonzero(out.alive), sizes, out.copies)
            flow["lengths"] = {
                "in": _histograms(alive, sizes),
                "out": _histograms(out.alive, sizes),
            }
        out.flow.append(flow)
    return out


def _sizes(context: Context, refs: SegmentRefs, upto: int) -> dict[str, np.ndarray]:
    """int32[n_rows] each: bytes and words of the texts as they reach a stage."""
    return {name: text_column(context, refs, name, upto) for name in sorted(TEXT_SIZES)}


def _copies(context: Context, refs: SegmentRefs, stage: int) -> np.ndarray | int:
    """int64[n_rows]: how often this stage repeats each row."""
    if stage in refs.barriers:
        name, number = refs.barriers[stage]
        bundle = context.bundle(name)
        if f"copies/{number}" in bundle:
            return bundle.array(f"copies/{number}").astype(np.int64)
    return 1


def _broken_rules(
    context: Context, refs: SegmentRefs, stage: int, alive: np.ndarray
) -> dict[str, np.ndarray]:
    """Rule -> bool[alive rows]."""
    this = context.stages[stage]
    if isinstance(this, ColumnStage) or stage in refs.columns:
        own = stored_columns(context.bundle(refs.columns[stage]), alive) if stage in refs.columns else {}
        names = this.input_columns() if isinstance(this, ColumnStage) else []
        return this.keep(input_columns(context, refs, names, alive, stage) | own)
    if stage in refs.barriers:
        name, number = refs.barriers[stage]
        bundle = context.bundle(name)
        kept = unpack(bundle.array(f"keep/{number}"), refs.n_rows)
        reason = "not selected" if isinstance(context.stages[stage], SelectStage) else "duplicate"
        old = {}
        if f"old/{number}" in bundle:
            old = {"duplicate of an old document": unpack(bundle.array(f"old/{number}"), refs.n_rows)[alive]}
        return old | {reason: ~kept[alive]}
    return {}


def _apply(
    out: Resolution,
    stage: int,
    alive: np.ndarray,
    rules: dict[str, np.ndarray],
    sizes: dict[str, np.ndarray],
    sizes_after: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Drop the rows that break a rule, by the first one they break; returns the stage's figures.

    sizes: of the texts that reach the stage, and of those that leave it.
    """
    rows = np.flatnonzero(alive)
    flow: dict[str, Any] = {"in": _totals(rows, sizes), "dropped": {}}
    reasons = np.full(len(rows), -1, np.int16)
    for number, (rule, broken) in enumerate(rules.items()):
        first = np.asarray(broken, bool) & (reasons < 0)
        reasons[first] = number
        flow["dropped"][rule] = _totals(rows[first], sizes)
    out.ended[rows[reasons >= 0]] = stage
    if (reasons >= 0).any():
        dense = np.full(len(alive), -1, np.int16)
        dense[rows] = reasons
        out.reasons[stage] = pa.array(list(rules), pa.string()).take(pa.array(dense, mask=dense < 0))
    flow["out"] = _totals(rows[reasons < 0], sizes_after)
    return flow


def _totals(
    rows: np.ndarray, sizes: dict[str, np.ndarray], copies: np.ndarray | None = None
) -> dict[str, int]:
    """Documents and their sizes; each as often as `copies` (int64[n_rows]) says."""
    times = np.ones(len(rows), np.int64) if copies is None else copies[rows]
    sums = {name: int((values[rows] * times).sum(dtype=np.int64)) for name, values in sizes.items()}
    return {"docs": int(times.sum()), **sums}


def _histograms(alive: np.ndarray, sizes: dict[str, np.ndarray]) -> dict[str, dict[str, int]]:
    return {name: histogram(values[alive]) for name, values in sizes.items()}


def pool_batch(
    context: Context,
    refs: SegmentRefs,
    names: Sequence[str],
    alive: np.ndarray,
    stage: int,
) -> PoolBatch:
    """What a SelectStage, number `stage`, sees of a segment's alive rows; names: columns that it asks for."""
    base = context.bundle(refs.base)
    columns = as_columns(pa.table(input_columns(context, refs, names, alive, stage))) if names else {}
    sizes = _sizes(context, refs, stage)
    return PoolBatch(
        {name: _pool_column(values) for name, values in columns.items()},
        base.array("key")[alive] if "key" in base else np.empty((0, 2), np.uint64),
        sizes["n_bytes"][alive].astype(np.int64),
        sizes["n_words"][alive].astype(np.int64),
    )


def _pool_column(values: Any) -> Any:
    """Texts stay Arrow arrays, all else becomes float64."""
    if isinstance(values, pa.Array) and (_is_text(values.type) or pa.types.is_dictionary(values.type)):
        return values
    return np.asarray(values, np.float64)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
