"""Which kept rows are held out: whole groups of them, by a hash of the group's name."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dataselect.engine.inputs import SegmentRefs, input_columns
from dataselect.engine.job import Context
from dataselect.stages.draws import uniform_draws


def held_out(context: Context, refs: SegmentRefs, alive: np.ndarray) -> np.ndarray:
    """bool[n_rows]: the rows of `alive` (bool[n_rows]) that are held out.

    Documents with one value of the column `by` share their draw; one without a value has its own.
    """
    held = np.zeros(refs.n_rows, bool)
    spec = context.job.output.holdout
    if spec is None or not alive.any():
        return held
    keys = np.array(context.bundle(refs.base).array("key")[alive])
    if spec.by is not None:
        values = input_columns(context, refs, [spec.by], alive, len(context.stages))[spec.by]
        named = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
        keys[named] = _hashes(values.take(pa.array(named)))
    held[alive] = uniform_draws(keys, spec.seed, "holdout") < spec.fraction
    return held


def _hashes(values: pa.Array) -> np.ndarray:
    """uint64[n, 2] of values that are not null, as texts."""
    from dataselect.kernels.arrow import text_buffers
    from dataselect.kernels.hashing import hash128

    texts = (values.dictionary_decode() if pa.types.is_dictionary(values.type) else values).cast(
        pa.large_string()
    )
    out = np.empty((len(texts), 2), np.uint64)
    hash128(*text_buffers(texts), out)
    return out
