"""What a language model gains on each document by being tuned to a target: losses of your own, subtracted.

CoLoR-Filter (Brandfonbrener et al. 2024): score = loss under a prior model - loss under the same model after
training on the target; keep the highest. Both losses are columns: of the shards, of `join_scores`, or of any
earlier stage. Models with fewer parameters than those to be trained will do (150M for 1.2B in the paper).
`cross_entropy_difference` needs no losses: it trains n-gram models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from dataselect.stages.base import NUMBER, Columns, ColumnStage, Model, Rules


class LossDifference(ColumnStage):
    """Score documents by one loss minus another, both given as columns."""

    use: ClassVar[str] = "loss_difference"
    decide_fields: ClassVar[frozenset[str]] = frozenset({"min", "max"})

    prior: str = Field(description="column with the loss before training on the target, a token")
    conditional: str = Field(description="column with the loss after it, in the same unit")
    min: float | None = Field(None, description="drop documents whose difference is less, or has no value")
    max: float | None = Field(None, description="drop documents whose difference is more, or has no value")
    as_: str = Field(
        "loss_reduction",
        alias="as",
        description="score column: prior - conditional, HIGHER is more like the target; NaN without both",
    )

    def output_columns(self) -> dict[str, str]:
        return {self.as_: "float64"}

    def input_columns(self) -> list[str]:
        return [self.prior, self.conditional]

    def field_types(self, known: Mapping[str, str]) -> dict[str, str]:
        for name in self.input_columns():
            if known.get(name, NUMBER) != NUMBER:
                raise ValueError(f"'{name}' is no number")
        return {name: NUMBER for name in self.input_columns() if name not in known}

    def look_up(self, columns: Columns, model: Model) -> tuple[Columns, dict[str, int]]:
        return {self.as_: _numbers(columns[self.prior]) - _numbers(columns[self.conditional])}, {}

    def keep(self, columns: Columns) -> Rules:
        rules = {}
        if self.min is not None or self.max is not None:
            score = _numbers(columns[self.as_])
            if self.min is not None:
                rules[f"{self.as_} < {self.min}"] = ~(score >= self.min)
            if self.max is not None:
                rules[f"{self.as_} > {self.max}"] = ~(score <= self.max)
        return rules


def _numbers(column: Any) -> np.ndarray:
    """float64[n] of an Arrow or numpy column, NaN where there is no value."""
    return np.asarray(column, np.float64)
