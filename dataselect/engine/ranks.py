"""A task of a dedup: the order of preference in which its documents are decided."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa

from dataselect.core.clock import Clock
from dataselect.engine.docs import DocNames, Docs, Exchange, Places
from dataselect.engine.inputs import SegmentRefs, input_columns, text_column
from dataselect.engine.job import Context, Figures, figures
from dataselect.io.bundle import BundleWriter
from dataselect.stages.base import DedupStage, KeepBy
from dataselect.stages.instants import instants


@dataclass(frozen=True)
class RankCall:
    """Arguments of `rank_rows`."""

    exchange: Exchange
    segments: tuple[SegmentRefs, ...]
    places: Places
    artifact: str


def rank_rows(context: Context, call: RankCall) -> Figures:
    """Order all documents by the stage's `keep`, best first, ties by DocId: rank_of and doc_of, uint32[n].

    meta n_unranked: documents that reach the stage without a value of the column that `keep` names.
    """
    clock = Clock()
    docs = Docs(context, call.exchange)
    names = DocNames(context, call.exchange, call.places, docs)
    keep = cast("DedupStage", context.stages[call.exchange.stage]).keep_

    def values_of(segment: int) -> np.ndarray:
        refs = call.segments[segment]
        if isinstance(keep, KeepBy) and keep.column is not None:
            return -_column_values(context, refs, keep, call.exchange.stage)
        if isinstance(keep, KeepBy) and keep.source is not None:
            return _source_order(keep.source, *names.shards_of(segment), refs.n_rows)
        return -text_column(context, refs, "n_bytes", call.exchange.stage).astype(np.float64)

    values = list(context.ahead(values_of, range(len(call.segments))))
    n_unranked = sum(int((np.isnan(v) & docs.alive(segment)).sum()) for segment, v in enumerate(values))
    # NaN and null sort last: a document without a score is the worst.
    doc_of = np.argsort(np.concatenate(values), kind="stable").astype(np.uint32)
    rank_of = np.empty(len(doc_of), np.uint32)
    rank_of[doc_of] = np.arange(len(doc_of), dtype=np.uint32)

    def fill(writer: BundleWriter) -> dict[str, Any]:
        writer.add_array("rank_of", rank_of)
        writer.add_array("doc_of", doc_of)
        return {"n_unranked": n_unranked}

    return {"digest": context.commit(call.artifact, fill)} | figures(clock)


def _column_values(context: Context, refs: SegmentRefs, keep: KeepBy, stage: int) -> np.ndarray:
    """float64[n_rows] of the column that `keep` names, larger is better, NaN where there is no value."""
    name, every = keep.column or "", np.ones(refs.n_rows, bool)
    column = input_columns(context, refs, [name], every, stage)[name]
    if keep.latest is not None:
        return instants(column)
    values: np.ndarray = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values


def _source_order(
    patterns: tuple[str, ...], shards: tuple[str, ...], first_rows: np.ndarray, n_rows: int
) -> np.ndarray:
    """float64[n_rows]: number of the first pattern that each row's shard matches."""
    order = [
        next((i for i, p in enumerate(patterns) if fnmatch.fnmatchcase(shard, p)), len(patterns))
        for shard in shards
    ]
    return np.repeat(np.array(order, np.float64), np.diff(np.append(first_rows, n_rows)))
