"""RefinedWeb's line-wise corrections (arXiv 2306.01116, appendix G.2) as DCLM's recipe defines them."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from dataselect.stages.base import Columns, MapStage, Model, Rules, Texts
from dataselect.stages.edits import Edits
from dataselect.stages.quality_signals import ratio


class RefinedWebLines(MapStage):
    """Take out lines that are no prose, and drop documents that lose too much.

    Lines in upper case, of digits, of one word, and counters ("3 likes") go; from short lines go "items in
    cart", "Read more..." at the end and "Sign-in" at the start. Then the text's ends are stripped. Words are
    runs between white space.
    """

    use: ClassVar[str] = "refinedweb_lines"
    kernels: ClassVar[tuple[str, ...]] = ("dataselect.kernels.line_edits",)
    decide_fields: ClassVar[frozenset[str]] = frozenset({"max_removed_words"})

    max_removed_words: float | None = Field(
        0.05, ge=0, le=1, description="drop a document that loses a larger share of its words; null: none"
    )
    max_uppercase: float = Field(
        0.5, ge=0, le=1, description="take out lines with a larger share of upper-case code points"
    )
    min_line_words: int = Field(2, ge=0, description="take out lines with fewer words")
    short_line_words: int = Field(10, ge=0, description="most words of a line that loses the phrases")
    as_: str = Field(
        "removed_words", alias="as", description="name of the column with the share of words taken out"
    )

    def output_columns(self) -> dict[str, str]:
        return {self.as_: "float64"}

    def edits_text(self) -> bool:
        return True

    def _found(self, texts: Texts) -> Any:
        from dataselect.kernels.line_edits import refinedweb_edits

        rules = self.max_uppercase, self.min_line_words, self.short_line_words
        return refinedweb_edits(texts.offsets, texts.data, *rules)

    def columns(self, texts: Texts, model: Model) -> Columns:
        n_words = self._found(texts)[4]
        return {self.as_: ratio(n_words[:, 1], n_words[:, 0])}

    def edits(self, texts: Texts, model: Model) -> Edits:
        first, starts, ends, newlines, _ = self._found(texts)
        return Edits.of_lines(first, starts, ends, newlines)

    def keep(self, columns: Columns) -> Rules:
        if self.max_removed_words is None:
            return {}
        limit = f"{self.as_} > {self.max_removed_words:g}"
        return {limit: columns[self.as_] > self.max_removed_words}
