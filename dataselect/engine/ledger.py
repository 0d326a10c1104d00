"""The ledger of a piece: what became of its rows, in numbers that add up over pieces."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from dataselect.engine.inputs import SegmentRefs, row_digest
from dataselect.engine.job import Context
from dataselect.engine.phases import phase_totals
from dataselect.engine.resolve import KEPT, QUARANTINED, UNSAMPLED, Resolution


def ledger_of(
    context: Context, segments: Sequence[SegmentRefs], resolved: Sequence[Resolution]
) -> dict[str, Any]:
    """Rows by what became of them, the flow through every stage, and a digest of the kept rows."""
    ended = np.concatenate([r.ended for r in resolved]) if resolved else np.empty(0, np.int16)
    bad: dict[str, int] = {}
    for refs in segments:
        counts = context.bundle(refs.base).table("bad")["reason"].value_counts().to_pylist()
        for item in counts:
            bad[item["values"]] = bad.get(item["values"], 0) + item["counts"]
    written = [times_written(context, r) for r in resolved]
    return {
        "rows_in": len(ended),
        "rows_kept": int((ended == KEPT).sum()),
        "rows_written": int(sum(times.sum() for times in written)),
        "rows_heldout": sum(int(r.held.sum()) for r in resolved),
        "rows_dropped": int((ended >= 0).sum()),
        "rows_quarantined": int((ended == QUARANTINED).sum()),
        "rows_unsampled": int((ended == UNSAMPLED).sum()),
        "quarantined": dict(sorted(bad.items())),
        "stages": reduce(add_ledgers, (r.flow for r in resolved)),
        "phases": phase_totals(context, segments, written),
        "row_digest": _row_digest(context, segments, resolved),
    }


def times_written(context: Context, resolution: Resolution) -> np.ndarray:
    """int64[n_rows]: rows of the output that each row becomes."""
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


def _row_digest(
    context: Context, segments: Sequence[SegmentRefs], resolved: Sequence[Resolution]
) -> list[int]:
    """Two sums mod 2^64 over the id and text hashes of rows as they are written, as often as each is kept.

    The same for any cut into pieces.
    """
    sums = np.zeros(2, np.uint64)
    for refs, r in zip(segments, resolved, strict=True):
        sums += row_digest(context, refs, r.alive, r.copies, len(context.stages))
    return [int(s) for s in sums]
