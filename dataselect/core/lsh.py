"""How many bands of how many rows a MinHash index should have for a similarity threshold."""

from __future__ import annotations

from functools import cache

import numpy as np


@cache
def optimal_bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """(bands, rows), bands * rows <= num_perm, with the least false-positive plus false-negative probability.

    Documents of Jaccard similarity s meet in a band with probability p(s) = 1 - (1 - s^rows)^bands. Minimises
    0.5 * integral of p over [0, threshold] + 0.5 * integral of 1 - p over [threshold, 1], the choice of
    datasketch's MinHashLSH (`_optimal_param`), equal weights; of equal errors the first by (bands, rows).
    Raises ValueError for a threshold outside 0 .. 1 or num_perm < 1.
    """
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold must be 0 to 1, got {threshold}")
    if num_perm < 1:
        raise ValueError(f"num_perm must be >= 1, got {num_perm}")
    # p is a polynomial of degree <= num_perm, for which Gauss's rule with so many nodes is exact.
    nodes, weights = np.polynomial.legendre.leggauss(num_perm // 2 + 1)
    nodes, weights = (nodes + 1) / 2, weights / 2
    below, above = threshold * nodes, threshold + (1 - threshold) * nodes
    best = (np.inf, 0, 0)
    for bands in range(1, num_perm + 1):
        rows = np.arange(1, num_perm // bands + 1)
        false_positive = threshold * ((1 - (1 - below ** rows[:, None]) ** bands) @ weights)
        false_negative = (1 - threshold) * (((1 - above ** rows[:, None]) ** bands) @ weights)
        errors = 0.5 * false_positive + 0.5 * false_negative
        first = int(np.argmin(errors))
        if errors[first] < best[0]:
            best = (float(errors[first]), bands, first + 1)
    return best[1], best[2]


RECALL = 0.985
"""Least P(candidate) of two documents exactly at the threshold, for `high_recall_bands`."""


def candidate_probability(similarity: float, bands: int, rows: int) -> float:
    """P(two documents of this Jaccard similarity agree in a band) = 1 - (1 - similarity^rows)^bands.

    Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4: the S-curve.
    """
    return 1.0 - float((1.0 - similarity**rows) ** bands)


@cache
def high_recall_bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """(bands, rows), bands * rows <= num_perm, with the fewest candidates of all that have P >= RECALL.

    P is `candidate_probability(threshold)`. More rows mean fewer candidates below the threshold, and fewer
    bands do too: the most rows for which there are bands enough, and then the fewest bands.
    Raises ValueError where num_perm is too small for the threshold, with the least number that is enough.
    """
    for rows in range(num_perm, 0, -1):
        for bands in range(1, num_perm // rows + 1):
            if candidate_probability(threshold, bands, rows) >= RECALL:
                return bands, rows
    enough = next(n for n in range(num_perm, 1 << 20) if candidate_probability(threshold, n, 1) >= RECALL)
    raise ValueError(
        f"num_perm: {num_perm} is too few to find {RECALL:.1%} of the pairs at threshold {threshold:g}; "
        f"set it to {enough} or more"
    )
