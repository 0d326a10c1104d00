"""GneissWeb's ensemble rule (arXiv 2502.14907): fastText qualities, readability, tokens per character."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from dataselect.stages.base import Columns, Rules
from dataselect.stages.preset import Preset, Rule


class GneissWeb(Preset):
    """Keep what a quality model likes and what reads well or is tokenised in an ordinary way.

    quality = P(hq of `dclm`) > min_dclm or P(hq of `quality`) > min_quality; kept where quality and
    (readability < its limit or tokens per character within its limits); the limits are wider for documents
    of one of the `categories` (P > 0.5). The probabilities are those of the positive label, named by
    columns of earlier stages; the authors' published toolkit compares a tuple with a label, so that its
    quality test is always true; this one is the rule of the paper. Without `tokens_per_char` readability
    decides alone.
    """

    use: ClassVar[str] = "gneissweb"
    rules: ClassVar[tuple[Rule, ...]] = ()
    decide_fields: ClassVar[frozenset[str]] = frozenset(
        {"dclm", "quality", "categories", "tokens_per_char", "min_dclm", "min_quality"}
        | {"max_readability", "max_readability_category", "token_range", "token_range_category"}
    )

    dclm: str = Field(description="column with P(hq) of DCLM's fastText model")
    quality: str = Field(description="column with P(hq) of GneissWeb's fastText model")
    categories: list[str] = Field(
        default_factory=list, description="columns with P(category): medical, education, technology, science"
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

    def signal_names(self) -> dict[str, str]:
        return {f"{self.as_ or self.use}.readability": "gneissweb.readability"}

    def input_columns(self) -> list[str]:
        columns = [self.dclm, self.quality, *self.categories]
        return [*columns, self.tokens_per_char] if self.tokens_per_char else columns

    def keep(self, columns: Columns) -> Rules:
        readability = np.asarray(columns[f"{self.as_ or self.use}.readability"])
        special = np.zeros(len(readability), bool)
        for name in self.categories:
            special |= np.asarray(columns[name]) > 0.5
        good = (np.asarray(columns[self.dclm]) > np.float32(self.min_dclm)) | (
            np.asarray(columns[self.quality]) > np.float32(self.min_quality)
        )
        readable = readability < np.where(special, self.max_readability_category, self.max_readability)
        if self.tokens_per_char:
            tokens = np.asarray(columns[self.tokens_per_char], np.float64)
            ranges = self.token_range, self.token_range_category
            low, high = (np.where(special, ranges[1][i], ranges[0][i]) for i in (0, 1))
            readable |= (tokens >= low) & (tokens <= high)
        tests = "readability" if self.tokens_per_char is None else "readability and tokens per character"
        return {
            f"{self.dclm} <= {self.min_dclm:g} and {self.quality} <= {self.min_quality:g}": ~good,
            f"{tests} out of range": ~readable,
        }
