"""Groups of a selection: the values of a column, numbered in the order of their names."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from dataselect.core.errors import DataselectError
from dataselect.stages.base import PoolBatch

MOST_GROUPS = 10_000
"""Memory is groups x digits: about 100 MB at most."""
NO_NAME = ""
"""The group of documents without a value, and the only one where no column is named."""


def _encoded(batch: PoolBatch, column: str | None) -> tuple[np.ndarray, list[str]]:
    """Number int64[n] of each row's name, and the names of this batch."""
    if column is None:
        return np.zeros(len(batch), np.int64), [NO_NAME]
    values = batch.columns[column]
    if not isinstance(values, pa.Array):
        names, codes = np.unique(values, return_inverse=True)  # NaN last, once
        if not np.isnan(names).all() and (np.nan_to_num(names) % 1 != 0).any():
            raise DataselectError(
                f"select: per: the column '{column}' has fractions; its values are no groups"
            )
        texts = [NO_NAME if np.isnan(v) else f"{v:.0f}" for v in names.tolist()]
        return codes.astype(np.int64), texts
    if not pa.types.is_dictionary(values.type):
        values = values.cast(pa.large_string()).fill_null(NO_NAME).dictionary_encode()
    codes = values.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    texts = [NO_NAME if name is None else name for name in values.dictionary.to_pylist()]
    if (codes < 0).any():
        texts.append(NO_NAME)
        codes[codes < 0] = len(texts) - 1
    return codes, texts


@dataclass
class Groups:
    """The names of all groups, sorted."""

    column: str | None
    names: list[str]

    def codes(self, batch: PoolBatch) -> np.ndarray:
        """int64[n]: group of each row; -1 where a frozen selection does not know it."""
        local, names = _encoded(batch, self.column)
        number = {name: i for i, name in enumerate(self.names)}
        return np.array([number.get(name, -1) for name in names], np.int64)[local]

    def pack(self) -> np.ndarray:
        """uint8: for a model."""
        return np.frombuffer(json.dumps(self.names).encode(), np.uint8)

    @classmethod
    def unpack(cls, column: str | None, packed: np.ndarray) -> Groups:
        """What `pack` packed."""
        return cls(column, json.loads(packed.tobytes()))


@dataclass
class Survey:
    """Sums over the rows of a pool, by group."""

    column: str | None
    _sums: dict[str, list[int]] = field(default_factory=dict)
    _largest: dict[str, float] = field(default_factory=dict)

    def add(self, batch: PoolBatch, sums: Iterable[np.ndarray], values: np.ndarray | None = None) -> None:
        """sums: int64[n] each, to be summed; values: float64[n], of which the largest is found."""
        local, names = _encoded(batch, self.column)
        totals = []
        for numbers in sums:
            total = np.zeros(len(names), np.int64)
            np.add.at(total, local, numbers)
            totals.append(total.tolist())
        largest = np.full(len(names), -np.inf)
        if values is not None:
            np.maximum.at(largest, local, values)
        for name, top, *new in zip(names, largest.tolist(), *totals, strict=True):
            old = self._sums.get(name, [0] * len(new))
            self._sums[name] = [a + b for a, b in zip(old, new, strict=True)]
            self._largest[name] = max(top, self._largest.get(name, -np.inf))
        if len(self._sums) > MOST_GROUPS:
            raise DataselectError(
                f"select: per: the column '{self.column}' has more than {MOST_GROUPS:,} different values"
            )

    def finish(self, also: Iterable[str], n_sums: int) -> tuple[Groups, np.ndarray, np.ndarray]:
        """Groups (those named by `also` too), sums int64[n_sums, n_groups], largest float64[n_groups]."""
        names = sorted({*self._sums, *also})
        sums = np.array([self._sums.get(name, [0] * n_sums) for name in names], np.int64)
        largest = np.array([self._largest.get(name, -np.inf) for name in names], np.float64)
        return Groups(self.column, names), sums.reshape(-1, n_sums).T, largest
