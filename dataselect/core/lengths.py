"""Distributions of lengths that can be added up: a histogram with bins of a sixteenth, at most.

Lengths under 32 have a bin each; above, every power of two is cut into 16 equal bins, so that a quantile is
known within 1/32 of itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_BITS = 4
QUANTILES = (0.1, 0.5, 0.9)


def histogram(lengths: np.ndarray) -> dict[str, int]:
    """First length of a bin, as a JSON key -> how many of `lengths` (int64, from 0 up) are in it."""
    lengths = lengths.astype(np.int64)
    shift = np.maximum(np.frexp(lengths.astype(np.float64))[1] - _BITS - 1, 0)
    firsts, counts = np.unique(lengths >> shift << shift, return_counts=True)
    return {str(first): n for first, n in zip(firsts.tolist(), counts.tolist(), strict=True)}


def quantiles(bins: Mapping[str, int]) -> dict[str, int]:
    """'p10', 'p50' and 'p90' of the lengths of a histogram, as the middle of their bins; {} without any."""
    if not bins:
        return {}
    firsts = np.array(sorted(map(int, bins)))
    below = np.cumsum([bins[str(first)] for first in firsts.tolist()])
    width = 1 << np.maximum(np.frexp(firsts.astype(np.float64))[1] - _BITS - 1, 0)
    found = firsts[np.searchsorted(below, [q * below[-1] for q in QUANTILES])]
    middles = found + width[np.searchsorted(firsts, found)] // 2
    return {f"p{round(100 * q)}": int(m) for q, m in zip(QUANTILES, middles, strict=True)}
