"""Gopher's document quality rules (arXiv 2112.11446, appendix A.1.1) in the three versions in use."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from dataselect.stages.preset import Preset, Rule, least, most


class GopherQualityDatatrove(Preset):
    """Gopher's quality rules as datatrove 0.10 has them (FineWeb): words are spaCy's English tokens."""

    use: ClassVar[str] = "gopher_quality@datatrove"
    rules: ClassVar[tuple[Rule, ...]] = (
        least("min_words", "datatrove.n_words"),
        most("max_words", "datatrove.n_words"),
        least("min_mean_word_length", "datatrove.mean_word_length"),
        most("max_mean_word_length", "datatrove.mean_word_length"),
        most("max_hash_ratio", "datatrove.hash_ratio"),
        most("max_ellipsis_ratio", "datatrove.ellipsis_ratio"),
        most("max_bullet_lines", "datatrove.bullet_line_fraction"),
        most("max_ellipsis_lines", "datatrove.ellipsis_line_fraction"),
        least("min_alpha_words", "datatrove.alpha_word_fraction"),
        least("min_stop_words", "datatrove.n_stop_words"),
    )

    min_words: int | None = Field(50, ge=0, description="fewest words (tokens that are not all punctuation)")
    max_words: int | None = Field(100_000, ge=0, description="most words")
    min_mean_word_length: float | None = Field(3, ge=0, description="shortest mean word, in code points")
    max_mean_word_length: float | None = Field(10, ge=0, description="longest mean word, in code points")
    max_hash_ratio: float | None = Field(0.1, ge=0, description="most # for each token")
    max_ellipsis_ratio: float | None = Field(0.1, ge=0, description="most ellipses for each token")
    max_bullet_lines: float | None = Field(
        0.9, ge=0, le=1, description="largest share of lines with a bullet"
    )
    max_ellipsis_lines: float | None = Field(
        0.3, ge=0, le=1, description="largest share of lines that end with an ellipsis"
    )
    min_alpha_words: float | None = Field(0.8, ge=0, le=1, description="least share of tokens with a letter")
    min_stop_words: int | None = Field(2, ge=0, le=8, description="fewest different stop words of eight")


class GopherQualityDolma(Preset):
    """Gopher's quality rules as Dolma v1.5 has them: words are str.split(), and their length is the
    median.
    """

    use: ClassVar[str] = "gopher_quality@dolma"
    rules: ClassVar[tuple[Rule, ...]] = (
        least("min_words", "dolma.n_words"),
        most("max_words", "dolma.n_words"),
        least("min_median_word_length", "dolma.median_word_length"),
        most("max_median_word_length", "dolma.median_word_length"),
        most("max_symbol_words", "dolma.symbol_word_fraction"),
        least("min_alpha_words", "dolma.alpha_word_fraction"),
        least("min_stop_words", "dolma.n_stop_words"),
        most("max_bullet_lines", "dolma.bullet_line_fraction"),
        most("max_ellipsis_lines", "dolma.ellipsis_line_fraction"),
    )

    min_words: int | None = Field(50, ge=0, description="fewest words")
    max_words: int | None = Field(100_000, ge=0, description="most words")
    min_median_word_length: float | None = Field(3, ge=0, description="shortest median word, in code points")
    max_median_word_length: float | None = Field(
        10, ge=0, le=254, description="longest median word, in code points"
    )
    max_symbol_words: float | None = Field(
        0.1, ge=0, le=1, description="largest share of words with # or U+2026"
    )
    min_alpha_words: float | None = Field(0.8, ge=0, le=1, description="least share of words with a letter")
    min_stop_words: int | None = Field(2, ge=0, description="fewest occurrences of eight stop words")
    max_bullet_lines: float | None = Field(
        0.9, ge=0, le=1, description="largest share of lines with a bullet"
    )
    max_ellipsis_lines: float | None = Field(
        0.3, ge=0, le=1, description="largest share of lines that end with U+2026"
    )


class GopherQualityDclm(Preset):
    """Gopher's quality rules as DCLM's RefinedWeb heuristics have them; mean length of str.split() words."""

    use: ClassVar[str] = "gopher_quality@dclm"
    rules: ClassVar[tuple[Rule, ...]] = (
        least("min_words", "dclm.n_words"),
        most("max_words", "dclm.n_words"),
        least("min_mean_word_length", "dclm.mean_word_length"),
        most("max_mean_word_length", "dclm.mean_word_length"),
        most("max_symbol_ratio", "dclm.symbol_ratio"),
        most("max_bullet_lines", "dclm.bullet_line_fraction"),
        most("max_ellipsis_lines", "dclm.ellipsis_line_fraction"),
        most("max_non_alpha_words", "dclm.non_alpha_word_fraction"),
        least("min_stop_words", "dclm.n_stop_words"),
    )

    min_words: int | None = Field(50, ge=0, description="fewest words that start with a letter or digit")
    max_words: int | None = Field(100_000, ge=0, description="most words")
    min_mean_word_length: float | None = Field(3, ge=0, description="shortest mean word, in code points")
    max_mean_word_length: float | None = Field(10, ge=0, description="longest mean word, in code points")
    max_symbol_ratio: float | None = Field(0.1, ge=0, description="most # and ellipses for each word")
    max_bullet_lines: float | None = Field(
        0.9, ge=0, le=1, description="largest share of lines with a bullet"
    )
    max_ellipsis_lines: float | None = Field(
        0.3, ge=0, le=1, description="largest share of lines that end with an ellipsis"
    )
    max_non_alpha_words: float | None = Field(
        0.2, ge=0, le=1, description="largest share of words without a letter"
    )
    min_stop_words: int | None = Field(
        2, ge=0, description="fewest occurrences of eight stop words, in any case"
    )
