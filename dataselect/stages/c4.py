"""C4's heuristics (JMLR 20-074) as datatrove 0.10 has them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from dataselect.stages.preset import Preset, Rule, least, most
from dataselect.stages.quality_signals import DEFAULT_RULES
from dataselect.stages.quality_signals import Rules as LineRules


class C4Datatrove(Preset):
    """C4's document rules, on the lines that C4's line filter keeps; the text itself is not edited.

    The line filter drops lines with a word of more than max_word_chars, without one of . ? ! " ' at the end
    (or with "..." there), with fewer than min_line_words words, with "javascript", and with phrases of
    cookie and privacy notices. A document is dropped where a line that gets that far has "lorem ipsum" or
    "{", or where the kept lines have too few sentences. FineWeb sets terminal_punctuation to false.
    """

    use: ClassVar[str] = "c4@datatrove"
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

    def line_rules(self) -> LineRules:
        return (DEFAULT_RULES[0], self.min_line_words, self.max_word_chars, int(self.terminal_punctuation))
