"""C4's heuristics (JMLR 20-074) as datatrove 0.10 has them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from dataselect.stages.base import Model, Texts
from dataselect.stages.edits import Edits
from dataselect.stages.preset import Preset, Rule, least, most
from dataselect.stages.quality_signals import DEFAULT_RULES, KERNELS
from dataselect.stages.quality_signals import Rules as LineRules


class C4Datatrove(Preset):
    """C4's line filter, and its document rules on the lines that are left.

    The line filter drops lines with a word of more than max_word_chars, without one of . ? ! " ' at the end
    (or with "..." there), with fewer than min_line_words words, with "javascript", and with phrases of
    cookie and privacy notices; it strips the others, takes citations such as [1] and [edit] out of them, and
    joins them by newlines. A document is dropped where a line that gets that far has "lorem ipsum" or
    "{", or where the kept lines have too few sentences. FineWeb sets terminal_punctuation to false.
    """

    use: ClassVar[str] = "c4@datatrove"
    kernels: ClassVar[tuple[str, ...]] = (*KERNELS, "dataselect.kernels.line_edits")
    rules: ClassVar[tuple[Rule, ...]] = (
        most("max_lorem_ipsum_lines", "c4.n_lorem_ipsum_lines"),
        most("max_curly_bracket_lines", "c4.n_curly_bracket_lines"),
        least("min_sentences", "c4.n_sentences"),
    )

    min_sentences: int | None = Field(5, ge=0, description="fewest sentences in the kept lines")
    max_lorem_ipsum_lines: int | None = Field(0, ge=0, description="most lines with 'lorem ipsum'")
    max_curly_bracket_lines: int | None = Field(0, ge=0, description="most lines with a {")
    terminal_punctuation: bool = Field(True, description="leave out lines without terminal punctuation")
    min_line_words: int = Field(3, ge=0, description="leave out lines with fewer words")
    max_word_chars: int = Field(1000, ge=1, description="leave out lines with a longer word")
    edit: bool = Field(True, description="write the text without these lines; false: only drop documents")

    def line_rules(self) -> LineRules:
        return (DEFAULT_RULES[0], self.min_line_words, self.max_word_chars, int(self.terminal_punctuation))

    def edits_text(self) -> bool:
        return self.edit

    def edits(self, texts: Texts, model: Model) -> Edits:
        from dataselect.kernels.line_edits import c4_edits

        rules = self.min_line_words, self.max_word_chars, self.terminal_punctuation
        return Edits.of_lines(*c4_edits(texts.offsets, texts.data, *rules))
