"""Where `signals.document_counts` puts each count: constants only, so that no numba is loaded to name a
column.
"""

from __future__ import annotations

# Definitions of a word: see words.py.
SPACY, UNISEG, SPLIT, NORMAL, WORDPUNCT = range(5)


(
    N_WORDS, WORD_CHARS, N_ALPHA, N_NOT_SYMBOL, NOT_SYMBOL_CHARS, STOP_MASK, N_STOP, N_ENDS, N_PUNCT, N_WORD,
    N_ASCII_LETTER,
) = range(11)  # fmt: skip
"""Of words: how many, their code points, how many have each flag of words.py (and of NOT_SYMBOL the code
points),
bits of the stop words seen, occurrences of stop words."""
N_WORD_COUNTS = 11

# repetition.py
ENTROPY_SCALE = 2.0**20

N_UNIQUE, ENTROPY, TOP, DUP = 0, 1, 2, 11
"""Places in the results. At TOP + 3 (n - 2): occurrences of the most common n-gram, its code points (of the
first seen of equals), and those of the longest of equals. At DUP + 4 (n - 5), code points in repeated
n-grams: greedy (second and later ones, none overlapping), summed over all occurrences, in words that any
covers; and summed over all n-grams, repeated or not."""
N_REPETITION_COUNTS = DUP + 24

# lines.py
(
    N_SEGMENTS, N_EMPTY, DUP_LATER, DUP_LATER_CHARS, DUP_ALL, DUP_ALL_CHARS, N_NONBLANK, NONBLANK_CHARS,
    NONBLANK_LATER_CHARS, STRIPPED_ALL, STRIPPED_ALL_CHARS,
) = range(11)  # fmt: skip
"""Of lines or paragraphs: how many; empty ones; second and later copies of non-empty ones, their code points;
all copies of repeated non-empty ones, their code points; those not blank, their code points stripped; code
points of second and later copies of those not blank; all copies of repeated stripped ones, their code
points."""
N_SEGMENT_COUNTS = 11

(
    N_TERMINAL, N_SHORT, N_STAR_BULLETS, N_RAW_ELLIPSIS, N_STRIPPED_BULLETS, N_STRIPPED_ELLIPSIS,
    N_RPJ_BULLETS, N_RPJ_ELLIPSIS, N_RPJ_TERMINAL,
) = range(9)  # fmt: skip
N_LINE_COUNTS = 9

N_BREAK_LINES, N_BREAK_BULLETS, N_BREAK_ELLIPSIS = range(3)
"""Lines by str.splitlines(), those that start with U+2022 or "-", those that end in an ellipsis; stripped."""

(
    N_KEPT_LINES, N_C4_SENTENCES, N_LOREM_LINES, N_CURLY_LINES, N_LONG_WORD, N_NO_TERMINAL, N_FEW_WORDS,
    N_JAVASCRIPT, N_POLICY,
) = range(9)  # fmt: skip
N_C4_COUNTS = 9

# signals.py
SPACY_WORDS, SPACY_REPETITION, LINES, C4, SPLIT_WORDS, SPLIT_REPETITION = (1 << i for i in range(6))
UNISEG_REPETITION, NORMAL_WORDS, RAW_WORDS, CHARACTERS = (1 << i for i in range(6, 10))
"""Groups of counts; their sum is `wanted`."""

MOST_LINES = 1 << 20
"""Copies are counted of that many first lines (or paragraphs) that are not empty, to bound memory."""
MOST_WORDS = 1 << 22
"""Repetition and unique words are measured on that many words of a document, to bound memory."""

(
    N_CHARS, N_HASH_SIGNS, N_THREE_DOTS, N_ELLIPSIS_SIGNS, N_SPACED_DOTS, N_NEWLINES, N_END_NEWLINES,
    N_LAST_NEWLINE,
) = range(8)  # fmt: skip
"""Of every document: code points; "#"; "..." and U+2026, not overlapping; ". . ."; newlines; how many of
its ends
are one; whether the last byte is one."""
N_UPPER, N_NUMERIC, N_ALPHABETIC, N_SENTENCES, N_LONG_SENTENCES, N_CURLY = range(6)
"""CHARACTERS: upper-case, numeric, alphabetic code points; sentences by the expression of RedPajama-V2
(stretches
between .!? with a word character); those of them with more than two words; curly brackets "{" and "}"."""
MEDIAN_TWICE = N_WORD_COUNTS
"""Of SPLIT words: twice the median of their code points, of which 255 stands for more."""
_WORDS = N_WORD_COUNTS + 1

GENERAL_AT = 0
CHARACTERS_AT = GENERAL_AT + 8
LINES_AT = CHARACTERS_AT + 6
PARAGRAPHS_AT = LINES_AT + N_SEGMENT_COUNTS + N_LINE_COUNTS
BREAK_LINES_AT = PARAGRAPHS_AT + N_SEGMENT_COUNTS
C4_AT = BREAK_LINES_AT + 3
SPACY_AT = C4_AT + N_C4_COUNTS
SPLIT_AT = SPACY_AT + _WORDS + N_REPETITION_COUNTS
UNISEG_AT = SPLIT_AT + _WORDS + N_REPETITION_COUNTS
NORMAL_AT = UNISEG_AT + _WORDS + N_REPETITION_COUNTS
RAW_AT = NORMAL_AT + _WORDS + N_REPETITION_COUNTS
N_ALNUM_FIELDS_AT = RAW_AT + _WORDS
"""DCLM's page length: fields between ASCII white space and NUL that start with a letter or digit."""
N_COUNTS = N_ALNUM_FIELDS_AT + 1
REPETITION = _WORDS
"""Place of the counts of repetition after those of the words."""
