"""Boundaries of a ranking over a pool of any size, for many groups at once: radix selection on integer keys.

Every pass over the pool counts one digit of the keys in every group; memory is groups x digits. Fewer bits
a pass for many groups: more passes, the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

ALL = np.iinfo(np.int64).max
_BINS = 1 << 22  # of int64: 32 MB a histogram
_MOST_BITS = 16
_SIGN = np.uint64(1) << np.uint64(63)


class Ranked(NamedTuple):
    """Rows of one batch, in DocId order."""

    group: np.ndarray
    """int64[n]: group number."""
    key: np.ndarray
    """uint64[n]"""
    size: np.ndarray
    """int64[n]: what the row uses up of its group's budget."""


Passes = Callable[[], Iterator[Ranked]]
"""One pass over the pool; each gives the same."""


def digits(n_groups: int, n_bits: int) -> Iterator[tuple[int, int]]:
    """(shift, bits) of every digit of keys of `n_bits`, highest first."""
    most = max(1, min(_MOST_BITS, (_BINS // max(n_groups, 1)).bit_length() - 1))
    while n_bits > 0:
        width = min(most, n_bits)
        n_bits -= width
        yield n_bits, width


def inside(
    rows: Ranked, prefix: np.ndarray, shift: int, width: int, n_bits: int
) -> tuple[Ranked, np.ndarray]:
    """Rows whose higher digits are their group's `prefix`, and bins (group, digit) of these."""
    if shift + width < n_bits:
        chosen = rows.key >> np.uint64(shift + width) == prefix[rows.group]
        rows = Ranked(rows.group[chosen], rows.key[chosen], rows.size[chosen])
    digit = (rows.key >> np.uint64(shift) & np.uint64((1 << width) - 1)).astype(np.int64)
    return rows, rows.group << width | digit


def boundaries(passes: Passes, budgets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each group the key of the first row that exceeds its budget, and what is left for rows of that key.

    budgets int64[n_groups]. Rows are taken by key, largest first. Returns uint64 and int64[n_groups]; key 0
    and `ALL` where everything fits.
    """
    n_groups = len(budgets)
    prefix, left = np.zeros(n_groups, np.uint64), budgets.astype(np.int64)
    fits = np.zeros(n_groups, bool)
    for shift, width in digits(n_groups, 64):
        used = np.zeros(n_groups << width, np.int64)
        for rows in passes():
            taken, bins = inside(rows, prefix, shift, width, 64)
            np.add.at(used, bins, taken.size)
        above = np.cumsum(used.reshape(n_groups, 1 << width)[:, ::-1], axis=1)  # best bins first
        n_full = (above <= left[:, None]).sum(axis=1)
        fits |= n_full == 1 << width  # at the first digit only: later the row that exceeds is inside
        before = np.where(n_full > 0, above[np.arange(n_groups), np.maximum(n_full, 1) - 1], 0)
        left = left - before
        last = np.maximum((1 << width) - 1 - n_full, 0).astype(np.uint64)
        prefix = prefix << np.uint64(width) | last
    return np.where(fits, np.uint64(0), prefix), np.where(fits, ALL, left)


def running_sums(group: np.ndarray, values: np.ndarray, carried: np.ndarray) -> np.ndarray:
    """int64[n]: sum of `values` up to and with each row within its group, from `carried` on.

    carried int64[n_groups] is brought up to date in place, for the next batch.
    """
    order = np.argsort(group, kind="stable")
    sorted_group = group[order]
    sums = np.cumsum(values[order])
    first = np.flatnonzero(np.diff(sorted_group, prepend=-1))
    before = (sums - values[order])[first]
    within = sums - np.repeat(before, np.diff(np.append(first, len(order))))
    out = np.empty(len(group), np.int64)
    out[order] = within + carried[sorted_group]
    np.add.at(carried, group, values)
    return out


def ordered(values: np.ndarray) -> np.ndarray:
    """uint64 keys in the order of the floats; -0.0 as 0.0, and NaN below everything."""
    values = np.where(np.isnan(values), -np.inf, values) + 0.0
    bits = values.astype(np.float64).view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)
