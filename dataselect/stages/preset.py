"""What the presets of the field share: rules on signals, each with a threshold that is a parameter."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from dataselect.stages.base import Columns, MapStage, Model, Rules, Texts
from dataselect.stages.quality_signals import DEFAULT_RULES, KERNELS, compute, groups_of, signals
from dataselect.stages.quality_signals import Rules as LineRules


@dataclass(frozen=True)
class Rule:
    """Drops documents where the signal is on the wrong side of a parameter's value."""

    parameter: str
    signal: str
    """Name in the table of signals."""
    below: bool
    """Whether values below (else: above) are dropped; the threshold itself is kept."""


def least(parameter: str, signal: str) -> Rule:
    """Drop what has less."""
    return Rule(parameter, signal, below=True)


def most(parameter: str, signal: str) -> Rule:
    """Drop what has more."""
    return Rule(parameter, signal, below=False)


class Preset(MapStage):
    """Columns with the signals that the rules need, and the rules, in the order of their source.

    A parameter set to null turns its rule off. Thresholds are compared with stored columns, so that
    another one recomputes nothing.
    """

    kernels: ClassVar[tuple[str, ...]] = KERNELS
    rules: ClassVar[tuple[Rule, ...]]

    as_: str | None = Field(
        None, alias="as", description="prefix of the column names; by default the name of the stage"
    )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Thresholds are what only `keep` reads."""
        super().__init_subclass__(**kwargs)
        if "rules" in vars(cls):
            cls.decide_fields = frozenset(rule.parameter for rule in cls.rules) | cls.decide_fields

    def line_rules(self) -> LineRules:
        """Parameters of the kernel's line filters."""
        return DEFAULT_RULES

    def signal_names(self) -> dict[str, str]:
        """Column name -> signal."""
        prefix = self.as_ or self.use
        names = dict.fromkeys(rule.signal for rule in self.rules)
        return {f"{prefix}.{name.split('.')[-1]}": name for name in names}

    def output_columns(self) -> dict[str, str]:
        return {column: signals()[name].dtype for column, name in self.signal_names().items()}

    def wants(self) -> tuple[Hashable, int]:
        return self.line_rules(), groups_of(self.signal_names().values())

    def columns(self, texts: Texts, model: Model) -> Columns:
        values = compute(texts, self.signal_names().values(), self.line_rules())
        return {column: values[name] for column, name in self.signal_names().items()}

    def keep(self, columns: Columns) -> Rules:
        found = {name: columns[column] for column, name in self.signal_names().items()}
        rules: Rules = {}
        for rule in self.rules:
            limit = getattr(self, rule.parameter)
            if limit is not None:
                values = np.asarray(found[rule.signal])
                broken = values < limit if rule.below else values > limit
                rules[f"{rule.signal.split('.')[-1]} {'<' if rule.below else '>'} {limit:g}"] = broken
        return rules
