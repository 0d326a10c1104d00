"""GneissWeb's ensemble rule (arXiv 2502.14907): fastText qualities, readability, tokens per character."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from dataselect.stages.base import Columns, ColumnStage, Rules


class GneissWeb(ColumnStage):
    """Keep what a quality model likes and what reads well or is tokenised in an ordinary way.

    quality = P(hq of `dclm`) > min_dclm or P(hq of `quality`) > min_quality; kept where quality and
    (readability < its limit or tokens per character within its limits); limits are wider for documents of
    one of the `categories` (P > 0.5). Probabilities are those of the positive label, in columns of earlier
    stages. The authors' published toolkit compares a tuple with a label, so that its quality test is always
    true; this is the rule of the paper. Without `tokens_per_char` readability decides alone.
    """

    use: ClassVar[str] = "gneissweb"

    dclm: str = Field(description="column with P(hq) of DCLM's fastText model")
    quality: str = Field(description="column with P(hq) of GneissWeb's fastText model")
    categories: list[str] = Field(
        default_factory=list, description="columns with P(category): medical, education, technology, science"
    )
    readability: str = Field(
        "gneissweb.readability", description="column with McAlpine's EFLAW, as the stage `signals` adds it"
    )
    tokens_per_char: str | None = Field(
        None, description="column with tokens / characters (StarCoder's tokenizer)"
    )
    min_dclm: float = Field(0.002, ge=0, le=1, description="P(hq) of `dclm` above which the quality is good")
    min_quality: float = Field(0.03, ge=0, le=1, description="P(hq) of `quality` above which it is")
    max_readability: float = Field(30, ge=0, description="McAlpine EFLAW below which a document reads well")
    max_readability_category: float = Field(70, ge=0, description="the same in a category")
    token_range: tuple[float, float] = Field((0.22, 0.28), description="least and most tokens per character")
    token_range_category: tuple[float, float] = Field((0.10, 0.50), description="the same in a category")

    @field_validator("token_range", "token_range_category")
    @classmethod
    def _range_is_one(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"{value[0]:g} is more than {value[1]:g}: no document would fit")
        return value

    def input_columns(self) -> list[str]:
        columns = [self.dclm, self.quality, self.readability, *self.categories]
        return [*columns, self.tokens_per_char] if self.tokens_per_char else columns

    def keep(self, columns: Columns) -> Rules:
        readability = _values(columns[self.readability])
        special = np.zeros(len(readability), bool)
        for name in self.categories:
            special |= _values(columns[name]) > 0.5
        good = (_values(columns[self.dclm]) > np.float32(self.min_dclm)) | (
            _values(columns[self.quality]) > np.float32(self.min_quality)
        )
        readable = readability < np.where(special, self.max_readability_category, self.max_readability)
        if self.tokens_per_char:
            tokens = _values(columns[self.tokens_per_char])
            ranges = self.token_range, self.token_range_category
            low, high = (np.where(special, ranges[1][i], ranges[0][i]) for i in (0, 1))
            readable |= (tokens >= low) & (tokens <= high)
        tests = "readability" if self.tokens_per_char is None else "readability and tokens per character"
        return {
            f"{self.dclm} <= {self.min_dclm:g} and {self.quality} <= {self.min_quality:g}": ~good,
            f"{tests} out of range": ~readable,
        }


def _values(column: Any) -> np.ndarray:
    """float64, NaN where there is no value: which is neither good nor readable."""
    return np.asarray(pa.array(column).to_numpy(zero_copy_only=False), np.float64)
