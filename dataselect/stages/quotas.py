"""How a budget is shared among groups: integer quotas, exact for any supply, ties by the groups' order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

HALF_LIFE = 15.387756
"""R_D* of Muennighoff et al. 2023 (arXiv 2305.16264): how many repetitions until their value has decayed."""


def largest_remainder(shares: Sequence[Fraction], total: int) -> list[int]:
    """Integers that sum to `total`, each share x total rounded down or up: up where the fraction is largest.

    shares: from 0 up, not all 0; scaled to sum to 1. Equal fractions go to the first (Hamilton's method).
    """
    whole = sum(shares, Fraction(0))
    exact = [share * total / whole for share in shares]
    quotas = [math.floor(value) for value in exact]
    by_fraction = sorted(range(len(exact)), key=lambda i: (quotas[i] - exact[i], i))
    for i in by_fraction[: total - sum(quotas)]:
        quotas[i] += 1
    return quotas


def water_fill(supply: Sequence[int], total: int) -> list[int]:
    """The same for every group, small ones all they have.

    In ascending order of supply each takes min(supply, rest // groups left).

    With supply = epochs x size this is UniMax (Chung et al. 2023, arXiv 2304.09151).
    """
    quotas = [0] * len(supply)
    rest = total
    for n_before, i in enumerate(sorted(range(len(supply)), key=lambda i: (supply[i], i))):
        quotas[i] = min(supply[i], rest // (len(supply) - n_before))
        rest -= quotas[i]
    return quotas


def tempered(sizes: Sequence[int], temperature: float) -> list[Fraction]:
    """Shares in proportion to size^(1 / temperature), of the largest: 1 keeps proportions, large is even."""
    largest = max(sizes, default=0)
    return [Fraction((size / largest) ** (1 / temperature)) if size else Fraction(0) for size in sizes]


def redistribute(shares: Sequence[Fraction], supply: Sequence[int], total: int) -> list[int]:
    """As `largest_remainder`, but none above its supply: what it lacks goes to the others by their shares.

    Where the groups with a share have less than `total` together, all they have.
    """
    quotas = [0] * len(shares)
    rest, unfilled = total, [i for i, share in enumerate(shares) if share > 0]
    while unfilled:
        whole = sum((shares[i] for i in unfilled), Fraction(0))
        full = [i for i in unfilled if shares[i] * rest >= supply[i] * whole]
        if not full:
            parts = largest_remainder([shares[i] for i in unfilled], rest)
            for i, part in zip(unfilled, parts, strict=True):
                quotas[i] = part
            break
        for i in full:
            quotas[i] = supply[i]
        rest -= sum(supply[i] for i in full)
        unfilled = [i for i in unfilled if i not in set(full)]
    return quotas


def effective(unique: float, epochs: float) -> float:
    """What `epochs` passes over `unique` tokens are worth in fresh tokens.

    unique x (1 + R (1 - exp(-(epochs - 1) / R))) with R = HALF_LIFE (Muennighoff et al. 2023, equation 5):
    4 epochs are worth 3.73. Up to one epoch, every token is fresh.
    """
    if epochs <= 1:
        return unique * epochs
    return unique * (1 + HALF_LIFE * -math.expm1(-(epochs - 1) / HALF_LIFE))
