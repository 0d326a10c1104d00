"""Keep documents for which an expression over columns and input fields is true."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar

from pydantic import Field, field_validator

from dataselect.core.expression import Node, check_patterns, columns_of, infer_types, is_true, parse
from dataselect.stages.base import Columns, ColumnStage, Rules

_REASON_CHARS = 200


class Filter(ColumnStage):
    """Keep documents for which `where` is true; where it is false or null, they are dropped.

    `n_words >= 50 and quality > 0.02 and lang == 'en'`: columns of earlier stages, n_bytes, n_words, id,
    shard, and input fields (`meta.lang` for nested ones). Null as in SQL: see `core.expression`.
    """

    use: ClassVar[str] = "filter"
    decide_fields: ClassVar[frozenset[str]] = frozenset({"where", "name"})

    where: str = Field(
        description="what is true of the documents kept, such as n_words >= 50 and lang == 'en'"
    )
    name: str | None = Field(
        None, min_length=1, description="the reason given for a dropped document; by default the expression"
    )

    @field_validator("where")
    @classmethod
    def _is_an_expression(cls, where: str) -> str:
        check_patterns(parse(where))
        return where

    @cached_property
    def expression(self) -> Node:
        """The parsed `where`."""
        return parse(self.where)

    def input_columns(self) -> list[str]:
        return sorted(set(columns_of(self.expression)))

    def field_types(self, known: Mapping[str, str]) -> dict[str, str]:
        return infer_types(self.expression, known)

    def keep(self, columns: Columns) -> Rules:
        where = self.where if len(self.where) <= _REASON_CHARS else self.where[:_REASON_CHARS] + "..."
        return {self.name or f"not ({where})": ~is_true(self.expression, columns)}
