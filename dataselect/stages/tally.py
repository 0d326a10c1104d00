"""What a selection did, by group, for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dataselect.stages.base import Model, PoolBatch, Tally
from dataselect.stages.groups import Groups
from dataselect.stages.quotas import effective

if TYPE_CHECKING:
    from dataselect.stages.select import Select


class SelectTally(Tally):
    """Documents, copies and sizes by group."""

    def __init__(self, stage: Select, model: Model) -> None:
        self._stage, self._model = stage, model
        self._groups = Groups.unpack(stage.per, model["groups"])
        n_groups = len(self._groups.names) + 1  # the last: not known to a frozen selection
        self._sums = {name: np.zeros(n_groups, np.int64) for name in ("docs", "unusable", "kept", "copies")}
        self._sizes = np.zeros((stage.cap + 1, n_groups), np.int64)
        """Size of the documents that were chosen so many times."""

    def add(self, batch: PoolBatch, copies: np.ndarray) -> None:
        stage = self._stage
        group = self._groups.codes(batch)
        usable = np.zeros(len(batch), bool)
        for turn in range(max(len(stage.score_columns), 1)):
            usable[stage.usable_rows(self._groups, batch, turn).at] = True
        counts = {"docs": np.ones_like(copies), "unusable": ~usable, "kept": copies > 0, "copies": copies}
        for name, values in counts.items():
            np.add.at(self._sums[name], group, values.astype(np.int64))
        np.add.at(self._sizes, (copies, group), stage.sizes(batch)[0])

    def report(self) -> dict[str, Any]:
        """For every group what there was, what was asked for, what was kept, and what repeats are worth."""
        unit = self._stage.keep_.unit if self._stage.keep_ else "docs"
        names = [*self._groups.names, None]
        groups = [self._group(i, name) for i, name in enumerate(names) if name is not None or self._unknown]
        total = int(self._model["budget"][0]) if "budget" in self._model else None
        lacking = None if total is None else total - int(self._model["quota"].sum())
        names_and_sums = {
            "as": self._stage.as_,
            "method": self._stage.method,
            "per": self._stage.per,
            "unit": unit,
        }
        return names_and_sums | {"budget": total, "lacking": lacking, "groups": groups}

    @property
    def _unknown(self) -> bool:
        return bool(self._sums["docs"][-1])

    def _group(self, i: int, name: str | None) -> dict[str, Any]:
        sizes = self._sizes[:, i].tolist()
        taken = sum(n * size for n, size in enumerate(sizes))
        supply, asked, quota = (
            int(self._model[key][i]) if key in self._model and name is not None else None
            for key in ("supply", "asked", "quota")
        )
        return {
            "name": name,
            **{key: int(sums[i]) for key, sums in self._sums.items()},
            "supply": supply,
            "asked": asked,
            "quota": quota,
            "size": taken,
            "unique": sum(sizes[1:]),
            "epochs": taken / supply if supply else 0.0,
            "effective": round(sum(effective(size, n) for n, size in enumerate(sizes))),
        }
