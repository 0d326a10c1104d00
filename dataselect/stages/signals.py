"""Columns with quality signals, to look at, to select by, or to set one's own limits on."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dataselect.core.names import nearest
from dataselect.stages.base import Columns, MapStage, Model, Rules, Texts
from dataselect.stages.quality_signals import DEFAULT_RULES, KERNELS, compute, groups_of, signals

COMPRESSION = "compression_ratio"


class Limits(BaseModel):
    """What of a signal is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    min: float | None = Field(None, description="drop documents with less")
    max: float | None = Field(None, description="drop documents with more")

    @model_validator(mode="after")
    def _agree(self) -> Limits:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min: {self.min:g} is more than max, {self.max:g}: no document would stay")
        return self


class Signals(MapStage):
    """Add columns with quality signals (all, or those named), and drop documents outside `keep`'s limits."""

    use: ClassVar[str] = "signals"
    kernels: ClassVar[tuple[str, ...]] = KERNELS
    decide_fields: ClassVar[frozenset[str]] = frozenset({"keep_"})

    columns_: list[str] | None = Field(
        None,
        alias="columns",
        min_length=1,
        description="names of signals, or prefixes such as rpv2.; all by default",
    )
    keep_: dict[str, Limits] = Field(
        default_factory=dict, alias="keep", description="limits by name of signal, such as n_lines: {min: 3}"
    )
    as_: str = Field("", alias="as", description="prefix of the column names")

    @model_validator(mode="after")
    def _names_exist(self) -> Signals:
        known = [*_dtypes()]
        for name in self.columns_ or ():
            if not any(n == name or (name.endswith(".") and n.startswith(name)) for n in known):
                raise ValueError(f"columns: no signal is called '{name}'{nearest(name, known)}")
        for name in self.keep_:
            if name not in self.names():
                raise ValueError(f"keep: '{name}' is not among the columns{nearest(name, self.names())}")
        return self

    def names(self) -> list[str]:
        """The chosen signals, in the order of the table."""
        chosen = self.columns_
        return [
            name
            for name in _dtypes()
            if chosen is None or any(name == c or (c.endswith(".") and name.startswith(c)) for c in chosen)
        ]

    def output_columns(self) -> dict[str, str]:
        return {self.as_ + name: _dtypes()[name] for name in self.names()}

    def wants(self) -> tuple[Hashable, int]:
        return DEFAULT_RULES, groups_of(name for name in self.names() if name != COMPRESSION)

    def columns(self, texts: Texts, model: Model) -> Columns:
        values = compute(texts, [name for name in self.names() if name != COMPRESSION])
        if COMPRESSION in self.names():
            values[COMPRESSION] = compression_ratio(texts.offsets, texts.data)
        return {self.as_ + name: values[name] for name in self.names()}

    def keep(self, columns: Columns) -> Rules:
        rules: Rules = {}
        for name, limits in self.keep_.items():
            values = np.asarray(columns[self.as_ + name])
            if limits.min is not None:
                rules[f"{name} < {limits.min:g}"] = values < limits.min
            if limits.max is not None:
                rules[f"{name} > {limits.max:g}"] = values > limits.max
        return rules


def _dtypes() -> dict[str, str]:
    """Signal -> Arrow type, in the order of the table."""
    return {name: signal.dtype for name, signal in signals().items()} | {COMPRESSION: "float64"}


def compression_ratio(offsets: np.ndarray, data: np.ndarray) -> np.ndarray:
    """float64[n_docs]: bytes / bytes of zlib at level 6 (RFC 1950), 0 where there are none."""
    import zlib

    out = np.zeros(len(offsets) - 1)
    for i in np.flatnonzero(np.diff(offsets)).tolist():
        start, end = int(offsets[i]), int(offsets[i + 1])
        out[i] = (end - start) / len(zlib.compress(data[start:end].tobytes(), 6))
    return out
