"""Every quality signal: its name, unit, definition and source, and how it follows from the kernel's counts.

A name says whose definition it is (`datatrove.`, `dolma.`, `dclm.`, `rpv2.`, ...), since the same words mean
different numbers: see kernels/words.py for the five ways to find words. Where there is nothing to divide
by, a signal is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dataselect.stages.base import Texts

KERNELS = ("dataselect.kernels.signals",)
"""What the fork server loads for stages with signals."""

Rules = tuple[int, int, int, int]
DEFAULT_RULES: Rules = (30, 3, 1000, 1)
"""(most code points of a short line, least words of a C4 line, longest word of one, terminal punctuation)."""

_ONES = np.array([i.bit_count() for i in range(256)], np.int64)


@dataclass(frozen=True)
class Signal:
    """One column."""

    name: str
    unit: str
    """'words', 'fraction' (0 to 1), 'ratio' (may exceed 1), ..."""
    definition: str
    source: str
    groups: int
    """Of kernels.signals: which counts it needs."""
    compute: Callable[[np.ndarray], np.ndarray]
    """int64[n_docs, N_COUNTS] -> float64 or int64[n_docs]"""
    dtype: str = "float64"


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """float64: above / below, 0 where below is 0."""
    out: np.ndarray = np.divide(above, below, out=np.zeros(len(above)), where=np.asarray(below) > 0)
    return out


def _signals_of(family: str, source: str) -> Callable[..., Signal]:
    """Makes signals of one tool's definitions: (name, unit, definition, groups, compute, dtype)."""

    def signal(
        name: str,
        unit: str,
        definition: str,
        groups: int,
        compute: Callable[[np.ndarray], np.ndarray],
        dtype: str = "float64",
    ) -> Signal:
        return Signal(f"{family}.{name}", unit, definition, source, groups, compute, dtype)

    return signal


def _per(
    index: int,
) -> Callable[[Callable[[np.ndarray], np.ndarray]], Callable[[np.ndarray], np.ndarray]]:
    """Turns a count into its ratio to column `index` of the counts."""
    return lambda count: lambda c: ratio(count(c), c[:, index])


@cache
def signals() -> dict[str, Signal]:
    """Name -> signal, in the order of the table in the documentation."""
    found = [*_general(), *_datatrove(), *_fineweb(), *_c4(), *_dolma(), *_dclm(), *_rpv2(), *_gneissweb()]
    return {signal.name: signal for signal in found}


_GOPHER = "Gopher (arXiv 2112.11446) as in datatrove 0.10"
_FINEWEB = "FineWeb (arXiv 2406.17557) as in datatrove 0.10"
_C4_SOURCE = "C4 (JMLR 20-074) as in datatrove 0.10"
_DOLMA_SOURCE = "Dolma 1.2 gopher_v1 (arXiv 2402.00159)"
_DCLM_SOURCE = "DCLM's RefinedWeb heuristics (arXiv 2406.11794)"
_RPV2_SOURCE = "RedPajama-V2 (arXiv 2411.12372)"


def _general() -> list[Signal]:
    from dataselect.kernels import layout as k

    def char_fraction(index: int) -> Callable[[np.ndarray], np.ndarray]:
        return lambda c: ratio(c[:, k.CHARACTERS_AT + index], c[:, k.N_CHARS])

    return [
        Signal(
            "n_chars", "code points", "length of the text", "Unicode", 0, lambda c: c[:, k.N_CHARS], "int64"
        ),
        Signal(
            "n_lines",
            "lines",
            "str.splitlines()",
            "Python",
            k.LINES,
            lambda c: c[:, k.BREAK_LINES_AT + k.N_BREAK_LINES],
            "int64",
        ),
        Signal(
            "alphabetic_char_fraction",
            "fraction",
            "code points that are letters (str.isalpha)",
            "Unicode",
            k.CHARACTERS,
            char_fraction(k.N_ALPHABETIC),
        ),
        Signal(
            "uppercase_char_fraction",
            "fraction",
            "code points in upper case (str.isupper)",
            _RPV2_SOURCE,
            k.CHARACTERS,
            char_fraction(k.N_UPPER),
        ),
        Signal(
            "numeric_char_fraction",
            "fraction",
            "code points that are numeric (str.isnumeric)",
            _RPV2_SOURCE,
            k.CHARACTERS,
            char_fraction(k.N_NUMERIC),
        ),
        Signal(
            "curly_bracket_ratio",
            "fraction",
            "code points { and }",
            _RPV2_SOURCE,
            k.CHARACTERS,
            char_fraction(k.N_CURLY),
        ),
    ]


def _datatrove() -> list[Signal]:
    from dataselect.kernels import layout as k

    at, rep = k.SPACY_AT, k.SPACY_AT + k.REPETITION

    per_word = _per(at + k.N_WORDS)

    signal = _signals_of("datatrove", _GOPHER)

    def top(n: int) -> Signal:
        i = rep + k.TOP + 3 * (n - 2)
        return signal(
            f"top_{n}gram_char_fraction",
            "ratio",
            f"most common {n}-gram of tokens (the first of "
            f"equals), joined by spaces: its length x its count / n_chars",
            k.SPACY_REPETITION,
            lambda c: ratio(c[:, i] * (c[:, i + 1] + n - 1) * (c[:, i] > 0), c[:, k.N_CHARS]),
        )

    def dup(n: int) -> Signal:
        i = rep + k.DUP + 4 * (n - 5)
        return signal(
            f"dup_{n}gram_char_fraction",
            "fraction",
            f"code points of tokens in {n}-grams seen before, "
            f"found from left to right without overlap / n_chars",
            k.SPACY_REPETITION,
            lambda c: ratio(c[:, i], c[:, k.N_CHARS]),
        )

    return [
        signal(
            "n_words",
            "tokens",
            "spaCy tokens with a character that is no punctuation",
            k.SPACY_WORDS,
            lambda c: c[:, at + k.N_NOT_SYMBOL],
            "int64",
        ),
        signal(
            "mean_word_length",
            "code points",
            "mean length of these tokens",
            k.SPACY_WORDS,
            lambda c: ratio(c[:, at + k.NOT_SYMBOL_CHARS], c[:, at + k.N_NOT_SYMBOL]),
        ),
        signal(
            "hash_ratio",
            "ratio",
            "number of # / all tokens",
            k.SPACY_WORDS,
            per_word(lambda c: c[:, k.N_HASH_SIGNS]),
        ),
        signal(
            "ellipsis_ratio",
            "ratio",
            "number of ... and U+2026 / all tokens",
            k.SPACY_WORDS,
            per_word(lambda c: c[:, k.N_THREE_DOTS] + c[:, k.N_ELLIPSIS_SIGNS]),
        ),
        signal(
            "bullet_line_fraction",
            "fraction",
            "lines (str.splitlines) that start with U+2022 or -, stripped",
            k.LINES,
            lambda c: ratio(
                c[:, k.BREAK_LINES_AT + k.N_BREAK_BULLETS], c[:, k.BREAK_LINES_AT + k.N_BREAK_LINES]
            ),
        ),
        signal(
            "ellipsis_line_fraction",
            "fraction",
            "lines (str.splitlines) that end with ... or U+2026, stripped",
            k.LINES,
            lambda c: ratio(
                c[:, k.BREAK_LINES_AT + k.N_BREAK_ELLIPSIS], c[:, k.BREAK_LINES_AT + k.N_BREAK_LINES]
            ),
        ),
        signal(
            "alpha_word_fraction",
            "fraction",
            "tokens with a letter / all tokens",
            k.SPACY_WORDS,
            per_word(lambda c: c[:, at + k.N_ALPHA]),
        ),
        signal(
            "n_stop_words",
            "words",
            "how many of the, be, to, of, and, that, have, with are there (as written)",
            k.SPACY_WORDS,
            lambda c: _ONES[c[:, at + k.STOP_MASK]],
            "int64",
        ),
        signal(
            "dup_paragraph_fraction",
            "fraction",
            "paragraphs (between blank lines) seen before / paragraphs",
            k.LINES,
            lambda c: ratio(c[:, k.PARAGRAPHS_AT + k.DUP_LATER], c[:, k.PARAGRAPHS_AT + k.N_SEGMENTS]),
        ),
        signal(
            "dup_paragraph_char_fraction",
            "fraction",
            "their code points / n_chars",
            k.LINES,
            lambda c: ratio(c[:, k.PARAGRAPHS_AT + k.DUP_LATER_CHARS], c[:, k.N_CHARS]),
        ),
        signal(
            "dup_line_fraction",
            "fraction",
            "lines (between runs of newlines) seen before / lines",
            k.LINES,
            lambda c: ratio(
                c[:, k.LINES_AT + k.DUP_LATER] + (_end_pieces(c) == 2),
                c[:, k.LINES_AT + k.N_SEGMENTS] - c[:, k.LINES_AT + k.N_EMPTY] + _end_pieces(c),
            ),
        ),
        signal(
            "dup_line_char_fraction",
            "fraction",
            "their code points / n_chars",
            k.LINES,
            lambda c: ratio(c[:, k.LINES_AT + k.DUP_LATER_CHARS], c[:, k.N_CHARS]),
        ),
        *[top(n) for n in (2, 3, 4)],
        *[dup(n) for n in range(5, 11)],
    ]


def _end_pieces(counts: np.ndarray) -> np.ndarray:
    r"""Empty pieces of a split on \n+: one for a newline at either end of the text, or for an empty text."""
    from dataselect.kernels import layout as k

    return counts[:, k.N_END_NEWLINES] + (counts[:, k.N_CHARS] == 0)


def _fineweb() -> list[Signal]:
    from dataselect.kernels import layout as k

    at, more = k.LINES_AT, k.LINES_AT + k.N_SEGMENT_COUNTS

    def of_lines(index: int) -> Callable[[np.ndarray], np.ndarray]:
        return lambda c: ratio(c[:, more + index], c[:, at + k.N_NONBLANK])

    return [
        Signal(
            "fineweb.n_lines",
            "lines",
            "lines that are not blank",
            _FINEWEB,
            k.LINES,
            lambda c: c[:, at + k.N_NONBLANK],
            "int64",
        ),
        Signal(
            "fineweb.line_punct_fraction",
            "fraction",
            "of them: last character is a sentence terminator of any script",
            _FINEWEB,
            k.LINES,
            of_lines(k.N_TERMINAL),
        ),
        Signal(
            "fineweb.short_line_fraction",
            "fraction",
            "of them: at most short_line_chars (30) code points",
            _FINEWEB,
            k.LINES,
            of_lines(k.N_SHORT),
        ),
        Signal(
            "fineweb.dup_line_char_fraction",
            "fraction",
            "code points of lines seen before / code points without newlines",
            _FINEWEB,
            k.LINES,
            lambda c: ratio(c[:, at + k.NONBLANK_LATER_CHARS], c[:, k.N_CHARS] - c[:, k.N_NEWLINES]),
        ),
        Signal(
            "fineweb.newline_ratio",
            "ratio",
            "newlines / spaCy tokens",
            _FINEWEB,
            k.SPACY_WORDS,
            lambda c: ratio(c[:, k.N_NEWLINES], c[:, k.SPACY_AT + k.N_WORDS]),
        ),
    ]


def _c4() -> list[Signal]:
    from dataselect.kernels import layout as k

    def signal(name: str, definition: str, index: int) -> Signal:
        return Signal(
            f"c4.{name}",
            name.rsplit("_", maxsplit=1)[-1],
            definition,
            _C4_SOURCE,
            k.C4,
            lambda c: c[:, k.C4_AT + index],
            "int64",
        )

    return [
        signal("n_kept_lines", "lines that C4's line filter keeps", k.N_KEPT_LINES),
        signal(
            "n_sentences", "spaCy sentences of these lines, without citations such as [1]", k.N_C4_SENTENCES
        ),
        signal(
            "n_lorem_ipsum_lines",
            "lines with 'lorem ipsum' among those long enough and with terminal punctuation",
            k.N_LOREM_LINES,
        ),
        signal("n_curly_bracket_lines", "lines with { among those, without javascript", k.N_CURLY_LINES),
    ]


def _dolma() -> list[Signal]:
    from dataselect.kernels import layout as k

    at, rep, more = k.SPLIT_AT, k.SPLIT_AT + k.REPETITION, k.LINES_AT + k.N_SEGMENT_COUNTS

    signal = _signals_of("dolma", _DOLMA_SOURCE)

    per_word = _per(at + k.N_WORDS)

    def per_line(index: int) -> Callable[[np.ndarray], np.ndarray]:
        return lambda c: ratio(c[:, more + index], c[:, k.LINES_AT + k.N_SEGMENTS])

    def empties(c: np.ndarray) -> np.ndarray:
        n_empty = c[:, k.LINES_AT + k.N_EMPTY]
        return np.where(n_empty > 1, n_empty, 0)

    def top(n: int) -> Signal:
        i = rep + k.TOP + 3 * (n - 2)
        return signal(
            f"top_{n}gram_char_fraction",
            "ratio",
            f"most common {n}-gram (the first of equals): "
            "letters of its words x its count / code points of all words",
            k.SPLIT_REPETITION,
            lambda c: ratio(c[:, i] * c[:, i + 1], c[:, at + k.WORD_CHARS]),
        )

    def dup(n: int) -> Signal:
        i = rep + k.DUP + 4 * (n - 5)
        return signal(
            f"dup_{n}gram_char_fraction",
            "fraction",
            f"code points of all copies of {n}-grams that occur twice or more / code points of all {n}-grams",
            k.SPLIT_REPETITION,
            lambda c: ratio(c[:, i + 1], c[:, i + 3]),
        )

    return [
        signal("n_words", "words", "str.split()", k.SPLIT_WORDS, lambda c: c[:, at + k.N_WORDS], "int64"),
        signal(
            "median_word_length",
            "code points",
            "median length of the words; 255 stands for more",
            k.SPLIT_WORDS,
            lambda c: c[:, at + k.MEDIAN_TWICE] / 2,
        ),
        signal(
            "symbol_word_fraction",
            "fraction",
            "words that contain # or U+2026",
            k.SPLIT_WORDS,
            per_word(lambda c: c[:, at + k.N_WORDS] - c[:, at + k.N_NOT_SYMBOL]),
        ),
        signal(
            "alpha_word_fraction",
            "fraction",
            "words with a letter",
            k.SPLIT_WORDS,
            per_word(lambda c: c[:, at + k.N_ALPHA]),
        ),
        signal(
            "n_stop_words",
            "words",
            "occurrences of the, be, to, of, and, that, have, with (as written)",
            k.SPLIT_WORDS,
            lambda c: c[:, at + k.N_STOP],
            "int64",
        ),
        signal(
            "bullet_line_fraction",
            "fraction",
            "lines (between newlines) that start with * or -",
            k.LINES,
            per_line(k.N_STAR_BULLETS),
        ),
        signal(
            "ellipsis_line_fraction",
            "fraction",
            "lines (between newlines) that end with U+2026",
            k.LINES,
            per_line(k.N_RAW_ELLIPSIS),
        ),
        signal(
            "dup_line_fraction",
            "fraction",
            "copies of repeated lines, first ones and empty lines included / lines",
            k.LINES,
            lambda c: ratio(c[:, k.LINES_AT + k.DUP_ALL] + empties(c), c[:, k.LINES_AT + k.N_SEGMENTS]),
        ),
        signal(
            "dup_line_char_fraction",
            "ratio",
            "their code points / code points of all words",
            k.LINES | k.SPLIT_WORDS,
            lambda c: ratio(c[:, k.LINES_AT + k.DUP_ALL_CHARS], np.maximum(c[:, at + k.WORD_CHARS], 1)),
        ),
        *[top(n) for n in (2, 3, 4)],
        *[dup(n) for n in range(5, 11)],
    ]


def _dclm() -> list[Signal]:
    from dataselect.kernels import layout as k

    at, rep, more = k.SPLIT_AT, k.UNISEG_AT + k.REPETITION, k.LINES_AT + k.N_SEGMENT_COUNTS

    signal = _signals_of("dclm", _DCLM_SOURCE)

    per_word = _per(at + k.N_WORDS)

    def repeated(kind: str, base: int) -> list[Signal]:
        what = "lines" if kind == "line" else "paragraphs (between two newlines)"
        return [
            signal(
                f"dup_{kind}_fraction",
                "fraction",
                f"copies of repeated {what}, stripped, first ones included, of those not blank",
                k.LINES,
                lambda c: ratio(c[:, base + k.STRIPPED_ALL], c[:, base + k.N_NONBLANK]),
            ),
            signal(
                f"dup_{kind}_char_fraction",
                "fraction",
                "their code points / code points of those not blank",
                k.LINES,
                lambda c: ratio(c[:, base + k.STRIPPED_ALL_CHARS], c[:, base + k.NONBLANK_CHARS]),
            ),
        ]

    def top(n: int) -> Signal:
        i = rep + k.TOP + 3 * (n - 2)
        return signal(
            f"top_{n}gram_char_fraction",
            "ratio",
            f"most common {n}-gram of UAX #29 words (the longest of "
            "equals): code points x count / those of all words; 0 where none repeats",
            k.UNISEG_REPETITION,
            lambda c: ratio(c[:, i] * c[:, i + 2] * (c[:, i] > 1), c[:, k.UNISEG_AT + k.WORD_CHARS]),
        )

    def dup(n: int) -> Signal:
        i = rep + k.DUP + 4 * (n - 5)
        return signal(
            f"dup_{n}gram_char_fraction",
            "fraction",
            f"code points of UAX #29 words that a repeated {n}-gram covers / those of all words",
            k.UNISEG_REPETITION,
            lambda c: ratio(c[:, i + 2], c[:, k.UNISEG_AT + k.WORD_CHARS]),
        )

    return [
        signal(
            "n_words",
            "words",
            "fields between ASCII white space that start with a letter or digit",
            k.UNISEG_REPETITION,
            lambda c: c[:, k.N_ALNUM_FIELDS_AT],
            "int64",
        ),
        signal(
            "mean_word_length",
            "code points",
            "mean length of str.split() words",
            k.SPLIT_WORDS,
            per_word(lambda c: c[:, at + k.WORD_CHARS]),
        ),
        signal(
            "symbol_ratio",
            "ratio",
            "number of #, ..., '. . .' and U+2026 / str.split() words",
            k.SPLIT_WORDS,
            per_word(
                lambda c: (
                    c[:, k.N_HASH_SIGNS]
                    + c[:, k.N_THREE_DOTS]
                    + c[:, k.N_SPACED_DOTS]
                    + c[:, k.N_ELLIPSIS_SIGNS]
                )
            ),
        ),
        signal(
            "n_lines",
            "lines",
            "lines that are not blank",
            k.LINES,
            lambda c: c[:, k.LINES_AT + k.N_NONBLANK],
            "int64",
        ),
        signal(
            "bullet_line_fraction",
            "fraction",
            "of them: start with U+25CF, U+2022, * or -, stripped",
            k.LINES,
            lambda c: ratio(c[:, more + k.N_STRIPPED_BULLETS], c[:, k.LINES_AT + k.N_NONBLANK]),
        ),
        signal(
            "ellipsis_line_fraction",
            "fraction",
            "of them: end with ..., '. . .' or U+2026, stripped",
            k.LINES,
            lambda c: ratio(c[:, more + k.N_STRIPPED_ELLIPSIS], c[:, k.LINES_AT + k.N_NONBLANK]),
        ),
        signal(
            "non_alpha_word_fraction",
            "fraction",
            "str.split() words without a letter",
            k.SPLIT_WORDS,
            per_word(lambda c: c[:, at + k.N_WORDS] - c[:, at + k.N_ALPHA]),
        ),
        signal(
            "n_stop_words",
            "words",
            "occurrences of the, be, to, of, and, that, have, with in any case",
            k.SPLIT_WORDS,
            lambda c: c[:, at + k.N_ENDS],
            "int64",
        ),
        *repeated("line", k.LINES_AT),
        *repeated("paragraph", k.PARAGRAPHS_AT),
        *[top(n) for n in (2, 3, 4)],
        *[dup(n) for n in range(5, 11)],
    ]


def _rpv2() -> list[Signal]:
    from dataselect.kernels import layout as k

    at, rep, more = k.NORMAL_AT, k.NORMAL_AT + k.REPETITION, k.LINES_AT + k.N_SEGMENT_COUNTS

    signal = _signals_of("rpv2", _RPV2_SOURCE)

    per_raw = _per(k.RAW_AT + k.N_WORDS)

    def per_line(index: int) -> Callable[[np.ndarray], np.ndarray]:
        def n_lines(c: np.ndarray) -> np.ndarray:
            """No line after a last newline, none in an empty text."""
            return c[:, k.LINES_AT + k.N_SEGMENTS] - c[:, k.N_LAST_NEWLINE] - (c[:, k.N_CHARS] == 0)

        return lambda c: ratio(c[:, more + index], n_lines(c))

    def top(n: int) -> Signal:
        i = rep + k.TOP + 3 * (n - 2)
        return signal(
            f"top_{n}gram_char_fraction",
            "ratio",
            f"most common {n}-gram of normalized words (the first of "
            "equals): code points x count / those of all words; 0 where none repeats",
            k.NORMAL_WORDS,
            lambda c: ratio(c[:, i] * c[:, i + 1] * (c[:, i] > 1), c[:, at + k.WORD_CHARS]),
        )

    def dup(n: int) -> Signal:
        i = rep + k.DUP + 4 * (n - 5)
        return signal(
            f"dup_{n}gram_char_fraction",
            "fraction",
            f"code points of normalized words that a repeated {n}-gram covers / those of all words",
            k.NORMAL_WORDS,
            lambda c: ratio(c[:, i + 2], c[:, at + k.WORD_CHARS]),
        )

    return [
        signal(
            "n_words",
            "words",
            "str.split() of lower-cased text without ASCII punctuation (normalized words)",
            k.NORMAL_WORDS,
            lambda c: c[:, at + k.N_WORDS],
            "int64",
        ),
        signal(
            "mean_word_length",
            "code points",
            "mean length of normalized words, not decomposed (NFD)",
            k.NORMAL_WORDS,
            lambda c: ratio(c[:, at + k.WORD_CHARS], c[:, at + k.N_WORDS]),
        ),
        signal(
            "unique_word_fraction",
            "fraction",
            "distinct normalized words / normalized words",
            k.NORMAL_WORDS,
            lambda c: ratio(c[:, rep + k.N_UNIQUE], np.minimum(c[:, at + k.N_WORDS], k.MOST_WORDS)),
        ),
        signal(
            "unigram_entropy",
            "nats",
            "entropy of the normalized words, rounded to 2^-20",
            k.NORMAL_WORDS,
            lambda c: c[:, rep + k.ENTROPY] / k.ENTROPY_SCALE,
        ),
        signal(
            "n_sentences",
            "sentences",
            r"matches of \b[^.!?]+[.!?]*",
            k.CHARACTERS,
            lambda c: c[:, k.CHARACTERS_AT + k.N_SENTENCES],
            "int64",
        ),
        signal(
            "symbol_ratio",
            "ratio",
            "number of #, ... and U+2026 / raw words (runs of word characters, runs of others)",
            k.RAW_WORDS,
            per_raw(lambda c: c[:, k.N_HASH_SIGNS] + c[:, k.N_THREE_DOTS] + c[:, k.N_ELLIPSIS_SIGNS]),
        ),
        signal(
            "no_alpha_word_fraction",
            "fraction",
            "raw words without a letter a-z or A-Z",
            k.RAW_WORDS,
            per_raw(lambda c: c[:, k.RAW_AT + k.N_WORDS] - c[:, k.RAW_AT + k.N_ASCII_LETTER]),
        ),
        signal(
            "all_caps_word_fraction",
            "fraction",
            "raw words in upper case (str.isupper)",
            k.RAW_WORDS,
            per_raw(lambda c: c[:, k.RAW_AT + k.N_PUNCT]),
        ),
        signal(
            "ellipsis_line_fraction",
            "fraction",
            "lines that end with ... or U+2026, stripped",
            k.LINES,
            per_line(k.N_RPJ_ELLIPSIS),
        ),
        signal(
            "bullet_line_fraction",
            "fraction",
            "lines that start with one of ten bullets, stripped",
            k.LINES,
            per_line(k.N_RPJ_BULLETS),
        ),
        signal(
            "terminal_line_fraction",
            "fraction",
            "lines that end with . ! ? or U+201D, stripped",
            k.LINES,
            per_line(k.N_RPJ_TERMINAL),
        ),
        *[top(n) for n in (2, 3, 4)],
        *[dup(n) for n in range(5, 11)],
    ]


def _gneissweb() -> list[Signal]:
    from dataselect.kernels import layout as k

    return [
        Signal(
            "gneissweb.readability",
            "words per sentence",
            "McAlpine EFLAW: (words + words of at most 3 letters) / "
            "sentences of more than 2 words; a word is a str.split() one with a word character",
            "GneissWeb (arXiv 2502.14907), textstat",
            k.SPLIT_WORDS | k.CHARACTERS,
            lambda c: (
                (c[:, k.SPLIT_AT + k.N_WORD] + c[:, k.SPLIT_AT + k.N_PUNCT])
                / np.maximum(c[:, k.CHARACTERS_AT + k.N_LONG_SENTENCES], 1)
            ),
        ),
    ]


def groups_of(names: Iterable[str]) -> int:
    """Groups of counts that these signals need."""
    groups = 0
    for name in names:
        groups |= signals()[name].groups
    return groups


def compute(texts: Texts, names: Iterable[str], rules: Rules = DEFAULT_RULES) -> dict[str, np.ndarray]:
    """Name -> values of these signals; the pass over the text is shared by the stages of a read."""
    from dataselect.kernels.layout import N_COUNTS
    from dataselect.kernels.signals import document_counts

    names = list(names)

    def count(groups: int) -> np.ndarray:
        counts = np.zeros((len(texts), N_COUNTS), np.int64)
        document_counts(texts.offsets, texts.data, groups, counts, *rules[:3], terminal=bool(rules[3]))
        return counts

    counts = texts.shared(rules, groups_of(names), count)
    return {name: np.ascontiguousarray(signals()[name].compute(counts)) for name in names}
