"""FineWeb's own filters (arXiv 2406.17557, section 3.6) as datatrove 0.10 has them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from dataselect.stages.base import Columns, Rules
from dataselect.stages.preset import Preset, Rule, least, most
from dataselect.stages.quality_signals import DEFAULT_RULES
from dataselect.stages.quality_signals import Rules as LineRules


class FineWebDatatrove(Preset):
    """FineWeb's filters: lines without terminal punctuation, short lines, repeated lines, lists."""

    use: ClassVar[str] = "fineweb@datatrove"
    decide_fields: ClassVar[frozenset[str]] = frozenset({"allow_no_punct"})
    rules: ClassVar[tuple[Rule, ...]] = (
        least("min_lines", "fineweb.n_lines"),
        least("min_punct_lines", "fineweb.line_punct_fraction"),
        most("max_short_lines", "fineweb.short_line_fraction"),
        most("max_dup_line_chars", "fineweb.dup_line_char_fraction"),
        most("max_newline_ratio", "fineweb.newline_ratio"),
    )

    min_lines: int | None = Field(1, ge=0, description="fewest lines that are not blank")
    min_punct_lines: float | None = Field(
        0.12, ge=0, le=1, description="least share of lines that end with terminal punctuation"
    )
    allow_no_punct: bool = Field(False, description="keep documents without any such line")
    max_short_lines: float | None = Field(0.67, ge=0, le=1, description="largest share of short lines")
    short_line_chars: int = Field(30, ge=0, description="most code points of a short line")
    max_dup_line_chars: float | None = Field(
        0.01, ge=0, description="largest share of code points in duplicate lines"
    )
    max_newline_ratio: float | None = Field(0.3, ge=0, description="most newlines for each word")

    def line_rules(self) -> LineRules:
        return (self.short_line_chars, *DEFAULT_RULES[1:])

    def keep(self, columns: Columns) -> Rules:
        rules = super().keep(columns)
        if self.allow_no_punct:
            column = f"{self.as_ or self.use}.line_punct_fraction"
            for rule in rules:
                if rule.startswith("line_punct_fraction"):
                    rules[rule] = rules[rule] & (np.asarray(columns[column]) > 0)
        return rules
