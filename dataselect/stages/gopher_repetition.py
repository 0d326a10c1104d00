"""Gopher's repetition rules (arXiv 2112.11446, table A1) in the three versions in use."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from dataselect.stages.preset import Preset, Rule, least, most


def _ngrams(source: str) -> tuple[Rule, ...]:
    top = [most(f"max_top_{n}gram", f"{source}.top_{n}gram_char_fraction") for n in (2, 3, 4)]
    return (*top, *(most(f"max_dup_{n}gram", f"{source}.dup_{n}gram_char_fraction") for n in range(5, 11)))


class _Repetition(Preset):
    max_dup_lines: float | None = Field(0.3, ge=0, le=1, description="largest share of duplicate lines")
    max_dup_line_chars: float | None = Field(0.2, ge=0, description="largest share of code points in them")
    max_top_2gram: float | None = Field(0.20, ge=0, description="largest share of the most common 2-gram")
    max_top_3gram: float | None = Field(0.18, ge=0, description="largest share of the most common 3-gram")
    max_top_4gram: float | None = Field(0.16, ge=0, description="largest share of the most common 4-gram")
    max_dup_5gram: float | None = Field(0.15, ge=0, description="largest share of duplicate 5-grams")
    max_dup_6gram: float | None = Field(0.14, ge=0, description="largest share of duplicate 6-grams")
    max_dup_7gram: float | None = Field(0.13, ge=0, description="largest share of duplicate 7-grams")
    max_dup_8gram: float | None = Field(0.12, ge=0, description="largest share of duplicate 8-grams")
    max_dup_9gram: float | None = Field(0.11, ge=0, description="largest share of duplicate 9-grams")
    max_dup_10gram: float | None = Field(0.10, ge=0, description="largest share of duplicate 10-grams")


class _WithParagraphs(_Repetition):
    max_dup_paragraphs: float | None = Field(
        0.3, ge=0, le=1, description="largest share of duplicate paragraphs"
    )
    max_dup_paragraph_chars: float | None = Field(
        0.2, ge=0, description="largest share of code points in them"
    )


class GopherRepetitionDatatrove(_WithParagraphs):
    """Gopher's repetition rules as datatrove 0.10 has them: second and later copies, shares of all code
    points.
    """

    use: ClassVar[str] = "gopher_repetition@datatrove"
    rules: ClassVar[tuple[Rule, ...]] = (
        least("min_chars", "n_chars"),
        most("max_dup_paragraphs", "datatrove.dup_paragraph_fraction"),
        most("max_dup_paragraph_chars", "datatrove.dup_paragraph_char_fraction"),
        most("max_dup_lines", "datatrove.dup_line_fraction"),
        most("max_dup_line_chars", "datatrove.dup_line_char_fraction"),
        *_ngrams("datatrove"),
    )

    min_chars: int | None = Field(1, ge=0, description="fewest code points: an empty text is dropped")


class GopherRepetitionDolma(_Repetition):
    """Gopher's repetition rules as Dolma v1.5 has them: all copies count, empty lines too; no paragraphs."""

    use: ClassVar[str] = "gopher_repetition@dolma"
    rules: ClassVar[tuple[Rule, ...]] = (
        most("max_dup_lines", "dolma.dup_line_fraction"),
        most("max_dup_line_chars", "dolma.dup_line_char_fraction"),
        *_ngrams("dolma"),
    )

    max_dup_line_chars: float | None = Field(0.3, ge=0, description="largest share of code points in them")


class GopherRepetitionDclm(_WithParagraphs):
    """Gopher's repetition rules as DCLM has them: all copies count, n-grams of UAX #29 words."""

    use: ClassVar[str] = "gopher_repetition@dclm"
    rules: ClassVar[tuple[Rule, ...]] = (
        least("min_lines", "dclm.n_lines"),
        most("max_dup_lines", "dclm.dup_line_fraction"),
        most("max_dup_paragraphs", "dclm.dup_paragraph_fraction"),
        most("max_dup_line_chars", "dclm.dup_line_char_fraction"),
        most("max_dup_paragraph_chars", "dclm.dup_paragraph_char_fraction"),
        *_ngrams("dclm"),
    )

    min_lines: int | None = Field(1, ge=0, description="fewest lines that are not blank")
