"""Random draws that depend on (seed, purpose, document key) alone: no generator, no order, no luck."""

from __future__ import annotations

import numpy as np


def uniform_draws(keys: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """float64[n] strictly inside (0, 1) for draw keys uint64[n, 2]; another `purpose` is independent."""
    from dataselect.kernels.hashing import uniform, unit_draws

    return uniform(unit_draws(np.ascontiguousarray(keys), seed, purpose))
