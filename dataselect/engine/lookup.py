"""Tasks of stages that make columns, or the keys of a dedup, from columns: no shard is opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from dataselect.core.clock import Clock
from dataselect.engine.columns import ColumnSink, KeySink, unpack
from dataselect.engine.inputs import SegmentRefs, input_columns, row_digest
from dataselect.engine.job import Context, figures
from dataselect.io.bundle import BundleWriter
from dataselect.stages.base import ORDINAL, ColumnStage, DedupStage, Model


@dataclass(frozen=True)
class LookUpCall:
    """Arguments of `look_up_piece`: the segments of one piece."""

    stage: int
    segments: tuple[SegmentRefs, ...]
    first_number: int
    """Of the first segment among all, as in `alive`."""
    alive: str
    """Artifact of `mask_rows`."""
    model: str | None
    artifacts: tuple[str, ...]


def look_up_piece(context: Context, call: LookUpCall) -> dict[str, Any]:
    """A ColumnStage's columns, or a DedupStage's keys, of the rows of a piece that reach it."""
    clock = Clock()
    stage, model = context.stages[call.stage], context.model(call.model)
    masks = context.bundle(call.alive)
    for k, (refs, artifact) in enumerate(zip(call.segments, call.artifacts, strict=True)):
        if not context.work.exists(artifact):
            alive = unpack(masks.array(f"alive/{call.first_number + k}"), refs.n_rows)
            if isinstance(stage, DedupStage):
                _key_segment(context, call.stage, refs, alive, artifact)
            else:
                _look_up_segment(context, call.stage, model, refs, alive, artifact)
            clock.lap(f"{call.stage}:{stage.use}")
    return figures(clock)


def _look_up_segment(
    context: Context, index: int, model: Model, refs: SegmentRefs, alive: np.ndarray, artifact: str
) -> None:
    stage = cast("ColumnStage", context.stages[index])
    names = stage.input_columns()
    columns, counts = stage.look_up(input_columns(context, refs, names, alive, index), model)
    counts = {**counts, "n_rows": refs.n_rows}
    if ORDINAL in names:
        good = unpack(context.bundle(refs.base).array("good"), refs.n_rows)
        sums = row_digest(context, refs, good)
        counts |= {"digest_0": int(sums[0]), "digest_1": int(sums[1])}
    sink = ColumnSink(stage.use, stage.output_columns())
    sink.add(np.flatnonzero(alive), columns)

    def fill(writer: BundleWriter) -> dict[str, Any]:
        return sink.write(writer, refs.n_rows) | {"counts": counts}

    context.commit(artifact, fill)


def _key_segment(context: Context, index: int, refs: SegmentRefs, alive: np.ndarray, artifact: str) -> None:
    stage, sink = cast("DedupStage", context.stages[index]), KeySink()
    columns = input_columns(context, refs, stage.key_columns(), alive, index)
    sink.add(np.flatnonzero(alive), stage.keys_of(columns))

    def fill(writer: BundleWriter) -> dict[str, Any]:
        meta = sink.write(writer, refs.n_rows)
        return meta | {"counts": {"n_without_key": int(alive.sum()) - meta["n_keys"]}}

    context.commit(artifact, fill)
