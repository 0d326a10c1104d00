"""Which kept rows are held out: whole groups of them, by a hash of the group's name."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dataselect.engine.inputs import SegmentRefs, input_columns
from dataselect.engine.job import Context
from dataselect.io.hash_index import text_hashes
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
        given = values.take(pa.array(named))
        given = given.dictionary_decode() if pa.types.is_dictionary(given.type) else given
        keys[named] = text_hashes(given.cast(pa.large_string()))
    held[alive] = uniform_draws(keys, spec.seed, "holdout") < spec.fraction
    return held
