"""Expected copies in proportion to a weight, and integer copies that have them.

lambda_i = min(R, c w_i) with sum(lambda_i size_i) = budget in every group. For R = 1 these are inclusion
probabilities (sampling with probability proportional to size). c is found exactly: weights are rounded to
31 bits, sums are integers of any length, so that no cut of the pool changes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from dataselect.stages.radix import Ranked, digits, inside, running_sums

UNIT_BITS = 32
"""Expected copies are whole numbers of 2^-32."""
_MANTISSA = 30  # bits after the leading one
_EXPONENTS = 8  # bits: weights below 2^-255 (e^-177) of their group's largest count as 0
_KEY_BITS = _EXPONENTS + _MANTISSA
_LOWEST = 254  # exponent e of a weight m x 2^e, 1/2 <= m < 1, is stored as e + 254
_SCALE = _LOWEST + _MANTISSA + 1  # weight = (leading one and mantissa) << stored exponent, in 2^-285


def weight_keys(relative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys uint64[n] in the order of weights in (0, 1], and whether a weight is large enough to count."""
    counts = relative >= 2.0**-255
    mantissa, exponent = np.frexp(np.where(counts, relative, 1.0))
    rounded = np.rint(mantissa * 2.0 ** (_MANTISSA + 1)).astype(np.uint64)
    carry = rounded >> np.uint64(_MANTISSA + 1)  # 0.111.. rounded up
    rounded >>= carry
    stored = (exponent + _LOWEST).astype(np.uint64) + carry
    return stored << np.uint64(_MANTISSA) | (rounded - np.uint64(1 << _MANTISSA)), counts


def key_weights(keys: np.ndarray) -> np.ndarray:
    """float64[n]: the weights that `weight_keys` rounded to."""
    exponent = (keys >> np.uint64(_MANTISSA)).astype(np.int32) - _SCALE
    return np.ldexp(_significand(keys).astype(np.float64), exponent)


def _significand(keys: np.ndarray) -> np.ndarray:
    return (keys & np.uint64((1 << _MANTISSA) - 1)).astype(np.int64) + (1 << _MANTISSA)


class _Bins(NamedTuple):
    """Sums over rows by (group, digit), int64[n_groups, n_digits]."""

    size: np.ndarray
    high: np.ndarray
    low: np.ndarray

    def mass(self, group: int, digit: int) -> int:
        """Sum of significand x size."""
        return (int(self.high[group, digit]) << 31) + int(self.low[group, digit])


def _count(
    passes: Callable[[], Iterator[Ranked]], prefix: np.ndarray, shift: int, width: int, n_groups: int
) -> _Bins:
    size, high, low = (np.zeros(n_groups << width, np.int64) for _ in range(3))
    for rows in passes():
        taken, bins = inside(rows, prefix, shift, width, _KEY_BITS)
        mass = _significand(taken.key) * taken.size  # below 2^31 x 2^31
        np.add.at(size, bins, taken.size)
        np.add.at(high, bins, mass >> 31)
        np.add.at(low, bins, mass & ((1 << 31) - 1))
    return _Bins(*(sums.reshape(n_groups, 1 << width) for sums in (size, high, low)))


class CappedSolver:
    """Finds c of every group; the first pass, over exponents, also tells how much there is to choose from."""

    def __init__(self, passes: Callable[[], Iterator[Ranked]], n_groups: int, cap: int) -> None:
        """passes: keys of `weight_keys`, sizes below 2^31; cap: R."""
        self._passes, self._n_groups, self._cap = passes, n_groups, cap
        none = np.zeros(n_groups, np.uint64)
        self._exponents = _count(passes, none, _MANTISSA, _EXPONENTS, n_groups)

    @property
    def supply(self) -> np.ndarray:
        """int64[n_groups]: sizes of all rows of a weight above 0."""
        return self._exponents.size.sum(axis=1)

    def solve(self, budgets: np.ndarray) -> np.ndarray:
        """Factors c float64[n_groups], for budgets (int64[n_groups]) of at most cap x supply."""
        groups = [
            _Level(
                int(budget), self._cap, sum(self._exponents.mass(g, e) << e for e in range(1 << _EXPONENTS))
            )
            for g, budget in enumerate(budgets)
        ]
        prefix = np.zeros(self._n_groups, np.uint64)
        self._descend(groups, prefix, self._exponents, _MANTISSA, _EXPONENTS)
        for shift, width in digits(self._n_groups, _MANTISSA):
            bins = _count(self._passes, prefix, shift, width, self._n_groups)
            self._descend(groups, prefix, bins, shift, width)
        return np.array([group.scale() for group in groups])

    def _descend(self, groups: list[_Level], prefix: np.ndarray, bins: _Bins, shift: int, width: int) -> None:
        for g, group in enumerate(groups):
            start = int(prefix[g]) << width
            for digit in np.flatnonzero(bins.size[g])[::-1].tolist():
                key = (start | digit) << shift  # smallest key of the bin
                exponent = key >> _MANTISSA
                mass = bins.mass(g, digit) << exponent
                edge = ((key & (1 << _MANTISSA) - 1) + (1 << _MANTISSA)) << exponent
                if group.crosses(edge, int(bins.size[g, digit]), mass):
                    prefix[g] = start | digit
                    break
                group.cap_bin(int(bins.size[g, digit]), mass)


class _Level:
    """Search for the weight above which rows of one group are capped, from the largest weight down."""

    def __init__(self, budget: int, cap: int, mass: int) -> None:
        self.budget, self.cap = budget, cap
        self.capped_size, self.mass = 0, mass
        """Size of the rows that are surely capped, and sum of weight x size of the others."""

    def crosses(self, edge: int, size: int, mass: int) -> bool:
        """Whether capping at R what weighs `edge` or more, so at c = R / edge, takes the budget or more."""
        taken = (self.capped_size + size) * edge + self.mass - mass
        return self.cap * taken >= self.budget * edge

    def cap_bin(self, size: int, mass: int) -> None:
        self.capped_size += size
        self.mass -= mass

    def scale(self) -> float:
        rest = self.budget - self.cap * self.capped_size
        return float(Fraction(rest << _SCALE, self.mass)) if rest > 0 and self.mass else 0.0


def in_units(expected: np.ndarray) -> np.ndarray:
    """int64[n]: expected copies float64[n] in units of 2^-32."""
    return np.rint(expected * 2.0**UNIT_BITS).astype(np.int64)


def systematic(units: np.ndarray, group: np.ndarray, start: np.ndarray, carried: np.ndarray) -> np.ndarray:
    """int64[n] copies floor(S_i + u) - floor(S_(i-1) + u), S the sums of expected copies in DocId order.

    units int64[n]; start float64[n_groups]: u of every group, in [0, 1); carried int64[n_groups]: sums of
    the batches before, brought up to date. A group's copies sum to its expected sum, rounded up or down.
    """
    offset = (start * 2.0**UNIT_BITS).astype(np.int64)[group]
    after = running_sums(group, units, carried) + offset
    copies: np.ndarray = (after >> UNIT_BITS) - ((after - units) >> UNIT_BITS)
    return copies


def independent(units: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """int64[n] copies floor(lambda) + [u < fraction of lambda], for draws u float64[n] in (0, 1)."""
    copies: np.ndarray = (
        units + (1 << UNIT_BITS) - 1 - (draws * 2.0**UNIT_BITS).astype(np.int64)
    ) >> UNIT_BITS
    return copies
