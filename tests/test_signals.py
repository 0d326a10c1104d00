"""Signals and presets: kernels against slow twins, and two documents for every threshold."""

from __future__ import annotations

import contextlib
import json
import random
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import test_kernels
from pydantic import ValidationError

from dataselect.core.errors import RecipeError
from dataselect.kernels import layout, line_edits, reference_signals
from dataselect.kernels import signals as kernel
from dataselect.kernels.arrow import text_buffers
from dataselect.planning.recipe import load_recipe
from dataselect.stages import registry
from dataselect.stages.base import Texts
from dataselect.stages.preset import Preset
from dataselect.stages.quality_signals import compute, signals

EVERYTHING = (1 << 10) - 1

# spaCy's cases: affixes, infixes, special cases, units, URLs; lines, citations and phrases of C4.
HARD = [
    "(can't) don't!! 'Tis o'clock, e.g. U.S. 3.14% 10km. 5'10\" $5.00 US$20 5US$ end.\" It's \"quoted.\"",
    "well-known a--b x---y 1-2 3*4 a/b and/or foo.Bar foo.bar Foo,bar a:b 1:2 a=b <tag> C++ +5 5+ 20°C. 7°F",
    "http://a.bc/d?e=f www.example.org x@y.com, (see https://u:p@host.org:80/path). n://ok .com a..b 1.2.3.4",
    ":) :-( (8) ok:) <3 ^_^ ''' ''x'' ``y'' -- … …… wait... . . . ... #tag ##",
    "日本語。テスト「あ」 Привет, мир! שלום עולם café naïve e\u0301 5€ 10 км. ª²³ İstanbul ı",
    "Lorem ipsum dolor sit amet. Use of cookies here. Enable JavaScript now. A {brace} line here.",
    "Cited text [1][23] here [edit] is. Another [citation needed] one [x]. [٣] Three words here [4].  [5]",
    'One. Two!  Three? "Four." Mr. Five e.g. six a.m. Seven…  Eight.)” Nine\u3000ten.',
    "- a\n• b\n* c\n● d\n– e\n\n\n- a\n  \n- a\r\nf…\rg...\u2028h. . .\x85i\x0bj\x1ck\n",
    "\n\npara one\nline\n\npara two\n\n\npara one\nline\n \n\nlast",
    "\n",
    "\n\n",
    " \n ",
    "a\n",
    "\na",
    "the cat sat on the mat " * 9 + "and then " * 7 + "the cat sat on the mat",
    "word " * 300,
    "a" * 40_000,
    "日" * 9_000 + " b",
    "!" * 500,
    "x@" * 3000,
    "((((" * 2000 + "a" + "))))" * 2000,
    "\u0301" * 50,
    "\u202e\u0645\u0631\u062d\u0628\u0627",
    "\x00 a\x00b \x00",
    "😀 👨\u200d👩\u200d👧 🇩🇪🇫🇷",
]
BATCHES = dict(test_kernels.BATCHES) | {"hard": text_buffers(pa.array(HARD, pa.large_string()))}


def counts_of(module, offsets, data, wanted, *rules):
    out = np.full((len(offsets) - 1, layout.N_COUNTS), 77, np.int64)
    module.document_counts(offsets, data, wanted, out, *rules)
    return out


@pytest.mark.parametrize("batch", BATCHES)
def test_kernel_equals_its_twin_bit_for_bit(batch):
    ours = counts_of(kernel, *BATCHES[batch], EVERYTHING)
    np.testing.assert_array_equal(ours, counts_of(reference_signals, *BATCHES[batch], EVERYTHING))


def test_kernel_equals_its_twin_with_other_line_rules():
    buffers = BATCHES["hard"]
    ours = counts_of(kernel, *buffers, layout.C4 | layout.LINES, 5, 2, 6, False)
    np.testing.assert_array_equal(
        ours, counts_of(reference_signals, *buffers, layout.C4 | layout.LINES, 5, 2, 6, False)
    )


C4_PARTS = [
    "A b c.",
    "x",
    "[1]",
    "[edit]",
    " ",
    "\n",
    "\r\n",
    "\u2028",
    "\x1c",
    "use cookies ok.",
    "[2",
    "ü!",
]
REFINEDWEB_PARTS = [
    *["Sign-in ", "Read more...", " items in cart", "3 likes", "1,0.5K  views!", "5m shares x", "AB", "99"],
    *["\n", "\n", "a b c ", "é ", "12 34", "日本 ", "\u3000", "one two three four five six seven eight "],
]
EDITS = [
    ("c4_edits", (), C4_PARTS),
    ("c4_edits", (0, 6, False), C4_PARTS),
    ("refinedweb_edits", (), REFINEDWEB_PARTS),
    ("refinedweb_edits", (0.2, 0, 3), REFINEDWEB_PARTS),
]


@pytest.mark.parametrize("kernel, rules, parts", EDITS)
def test_edits_equal_their_twin_bit_for_bit(kernel, rules, parts):
    draw = random.Random(1)
    lines = ["".join(draw.choices(parts, k=draw.randint(0, 30))) for _ in range(400)]
    for buffers in (text_buffers(pa.array(lines, pa.large_string())), *BATCHES.values()):
        found = getattr(line_edits, kernel)(*buffers, *rules)
        expected = getattr(reference_signals, kernel)(*buffers, *rules)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


REFINEDWEB = """SIGN IN NOW PLEASE
Sign-in  A first line of prose that is kept whole.
12345
  3.4k likes

word
You have 3 items in cart today Read more...
items in cart
A last line that has more than ten words keeps its items in cart.
SHARE THIS
"""


def test_refinedweb_takes_lines_out_and_drops_what_loses_too_much():
    cls = registry()["refinedweb_lines"]
    texts = Texts(pa.array([REFINEDWEB, "", "All of it stays.\nEvery word."], pa.large_string()))
    stage = cls()
    edited = stage.edits(texts, {}).applied_to(texts.array).to_pylist()
    assert edited[0].split("\n") == [
        "A first line of prose that is kept whole.",
        "",
        "You have 3 today",
        "A last line that has more than ten words keeps its items in cart.",
    ]
    assert edited[1:] == texts.array.to_pylist()[1:]
    columns = stage.columns(texts, {})
    assert columns["removed_words"].tolist() == [19 / 46, 0, 0]
    assert stage.keep(columns)["removed_words > 0.05"].tolist() == [True, False, False]
    assert cls(max_removed_words=None).keep(columns) == {}


def test_counts_of_a_document_do_not_depend_on_its_batch_nor_on_what_else_is_counted():
    together = counts_of(kernel, *BATCHES["hard"], EVERYTHING)
    for text, row in zip(HARD, together, strict=True):
        buffers = text_buffers(pa.array([text], pa.large_string()))
        np.testing.assert_array_equal(counts_of(kernel, *buffers, EVERYTHING)[0], row)
        only = counts_of(kernel, *buffers, layout.SPACY_REPETITION)[0, layout.SPACY_AT : layout.SPLIT_AT]
        np.testing.assert_array_equal(only, row[layout.SPACY_AT : layout.SPLIT_AT])


def spacy_tokens(text):
    return [token for chunk in text.split() for token in reference_signals.spacy_tokens(chunk)]


# What spacy.blank("en") 3.8.18 gives.
SPACY = [
    ("(8) ok:) I can't e.g. foo.Bar a-b 2-3", "( 8) ok :) I ca n't e.g. foo . Bar a - b 2 - 3"),
    (
        "$5.00 10km. U.S. (it's) well-known—dash. end.\"",
        "$ 5.00 10 km . U.S. ( it 's ) well - known — dash . end . \"",
    ),
    (
        "cannot... don't!! foo/bar x@y.com, 3.14% #tag",
        "can not ... do n't ! ! foo / bar x@y.com , 3.14 % # tag",
    ),
    ("''Hello'' ``x'' A. B.C. NASA. it). ok].", "'' Hello '' ` ` x '' A. B.C. NASA . it ) . ok ] ."),
    ("İstanbul 日本語。テスト「あ」 мир. Привет!", "İstanbul 日本語。テスト「あ 」 мир . Привет !"),
    (
        "Course](https://www.youtube.com/watch?v=HUBNt18RFbo)",
        "Course](https://www.youtube.com / watch?v = HUBNt18RFbo )",
    ),
]


@pytest.mark.parametrize("text, expected", SPACY)
def test_words_are_those_of_spacy(text, expected):
    assert spacy_tokens(text) == expected.split()


def test_words_of_uax_29():
    words = [
        w
        for c in ["can't", "3.5", "e-mail", "U.S.A.", "a_b", "١٢", "日本", "カタカナ", "don’t."]
        for w in reference_signals.uniseg_words(c)
    ]
    assert words == ["can't", "3.5", "e", "mail", "U.S.A", "a_b", "١٢", "日", "本", "カタカナ", "don’t"]


# A document on either side of every threshold -----------------------------------------------------------


def stage(use, **params):
    """The preset with every rule off but those given."""
    cls = registry()[use]
    return cls.model_validate(dict.fromkeys(rule.parameter for rule in cls.rules) | params)


def dropped(chosen, texts):
    batch = Texts(pa.array(texts, pa.large_string()))
    rules = chosen.keep(chosen.columns(batch, {}))
    return np.logical_or.reduce([*rules.values(), np.zeros(len(texts), bool)]).tolist()


def numbered(n, word="w"):
    """n different words of 5 letters and digits."""
    return " ".join(f"{word}{i:04}" for i in range(n))


def share_of_lines(n_of_100, line, other):
    return "\n".join([line] * n_of_100 + [other] * (100 - n_of_100))


# use, parameter: a document that is kept and one that is dropped, by the rule alone with its default.
EDGES = {
    ("gopher_quality@datatrove", "min_words"): (numbered(50) + " ...", numbered(49) + " . ! ?"),
    ("gopher_quality@datatrove", "max_words"): (numbered(100_000), numbered(100_001)),
    ("gopher_quality@datatrove", "min_mean_word_length"): ("abc abc", "abc abc abc ab"),
    ("gopher_quality@datatrove", "max_mean_word_length"): ("abcdefghij", "abcdefghij abcdefghijk"),
    ("gopher_quality@datatrove", "max_hash_ratio"): ("# " + numbered(9), "# " + numbered(8)),
    ("gopher_quality@datatrove", "max_ellipsis_ratio"): ("… " + numbered(9), "... " + numbered(8)),
    ("gopher_quality@datatrove", "max_bullet_lines"): (
        share_of_lines(90, " - x", "* x"),
        share_of_lines(91, " • x", "* x"),
    ),
    ("gopher_quality@datatrove", "max_ellipsis_lines"): (
        share_of_lines(30, "x... ", "x."),
        share_of_lines(31, "x… ", "x."),
    ),
    ("gopher_quality@datatrove", "min_alpha_words"): ("a a a a 1", "a a a a 1 a a a 1 1"),
    ("gopher_quality@datatrove", "min_stop_words"): ("the with", "The the the"),
    ("gopher_quality@dolma", "min_words"): (numbered(49) + " .", numbered(49)),
    ("gopher_quality@dolma", "max_words"): (numbered(100_000), numbered(100_001)),
    ("gopher_quality@dolma", "min_median_word_length"): ("ab abc abc", "ab ab abc abc"),
    ("gopher_quality@dolma", "max_median_word_length"): (
        "a abcdefghij abcdefghijklmn",
        "abcdefghij abcdefghijk",
    ),
    ("gopher_quality@dolma", "max_symbol_words"): ("a#b#c " + numbered(9), "a… " + numbered(8)),
    ("gopher_quality@dolma", "min_alpha_words"): ("a a a a 1.", "a a a a 1. a a a 1 1"),
    ("gopher_quality@dolma", "min_stop_words"): ("the the", "the The with,"),
    ("gopher_quality@dolma", "max_bullet_lines"): (
        share_of_lines(90, "* x", " * x"),
        share_of_lines(91, "- x", " - x"),
    ),
    ("gopher_quality@dolma", "max_ellipsis_lines"): (
        share_of_lines(30, "x…", "x..."),
        share_of_lines(31, "x…", "x…  "),
    ),
    ("gopher_quality@dclm", "min_words"): (numbered(50), numbered(49) + " . (a)"),
    ("gopher_quality@dclm", "max_words"): (numbered(100_000) + " -", numbered(100_001)),
    ("gopher_quality@dclm", "min_mean_word_length"): ("ab, ab.", "abc ab"),
    ("gopher_quality@dclm", "max_mean_word_length"): ("abcdefghi,", "abcdefghij abcdefghijk"),
    ("gopher_quality@dclm", "max_symbol_ratio"): ("# " + numbered(9), ". . . " + numbered(6)),
    ("gopher_quality@dclm", "max_bullet_lines"): (
        share_of_lines(90, " ● x", "x"),
        share_of_lines(91, " * x", "x"),
    ),
    ("gopher_quality@dclm", "max_ellipsis_lines"): (
        share_of_lines(30, "x. . . ", "x."),
        share_of_lines(31, "x. . . ", "x."),
    ),
    ("gopher_quality@dclm", "max_non_alpha_words"): ("1 a a a a", "1 a a a"),
    ("gopher_quality@dclm", "min_stop_words"): ("THE the", "the with,"),
    ("gopher_repetition@datatrove", "min_chars"): (" ", ""),
    ("gopher_repetition@datatrove", "max_dup_paragraphs"): (
        "\n\n".join([*numbered(7).split(), *["w0000"] * 3]),
        "\n\n".join([*numbered(6).split(), *["w0000"] * 3]),
    ),
    ("gopher_repetition@datatrove", "max_dup_paragraph_chars"): (
        "aaaa\n\naaaa\n\n" + "b" * 8,
        "aaaa\n\naaaa\n\n" + "b" * 7,
    ),
    ("gopher_repetition@datatrove", "max_dup_lines"): (
        "\n\n".join([*numbered(7).split(), *["w0000"] * 3]),
        "\n".join([*numbered(6).split(), *["w0000"] * 3]),
    ),
    ("gopher_repetition@datatrove", "max_dup_line_chars"): (
        "aaaa\naaaa\n" + "b" * 10,
        "aaaa\naaaa\n" + "b" * 9,
    ),
    ("gopher_repetition@datatrove", "max_top_2gram"): ("a b c a b d " + "e" * 18, "a b c a b d " + "e" * 17),
    ("gopher_repetition@datatrove", "max_top_3gram"): (
        "aa b ccc d aa b ccc " + "e" * 69,
        "aa b ccc d aa b ccc " + "e" * 68,
    ),
    ("gopher_repetition@datatrove", "max_top_4gram"): (
        "a b c dd x a b c dd " + "e" * 80,
        "a b c dd x a b c dd " + "e" * 79,
    ),
    ("gopher_repetition@dolma", "max_dup_lines"): (
        "\n".join([*numbered(7).split(), "x", "x", "x"]),
        "\n".join([*numbered(7).split(), "x", "x", "", ""]),
    ),
    ("gopher_repetition@dolma", "max_dup_line_chars"): ("aaa\naaa\n" + "b" * 14, "aaa\naaa\n" + "b" * 13),
    ("gopher_repetition@dolma", "max_top_2gram"): ("a b c a b d " + "e" * 14, "a b c a b d " + "e" * 13),
    ("gopher_repetition@dolma", "max_top_3gram"): (
        "aaa bbb ccc d aaa bbb ccc " + "e" * 81,
        "aaa bbb ccc d aaa bbb ccc " + "e" * 80,
    ),
    ("gopher_repetition@dolma", "max_top_4gram"): (
        "a b c d x a b c d " + "e" * 41,
        "a b c d x a b c d " + "e" * 40,
    ),
    ("gopher_repetition@dclm", "min_lines"): ("x", " \n "),
    ("gopher_repetition@dclm", "max_dup_lines"): (
        "\n".join([*numbered(7).split(), "x", " x", "x"]),
        "\n".join([*numbered(6).split(), "x", " x", "x"]),
    ),
    ("gopher_repetition@dclm", "max_dup_paragraphs"): (
        "\n\n".join([*numbered(7).split(), "x", "x", "x"]),
        "\n\n".join([*numbered(6).split(), "x", "x", "x"]),
    ),
    ("gopher_repetition@dclm", "max_dup_line_chars"): ("aa\n aa\n" + "b" * 16, "aa\n aa\n" + "b" * 15),
    ("gopher_repetition@dclm", "max_dup_paragraph_chars"): (
        "aa\n\naa\n\n" + "b" * 16,
        "aa\n\naa\n\n" + "b" * 15,
    ),
    ("gopher_repetition@dclm", "max_top_2gram"): ("a, b c a b d " + "e" * 14, "a b c a b d " + "e" * 13),
    ("gopher_repetition@dclm", "max_top_3gram"): (
        "aaa bbb ccc d aaa bbb ccc " + "e" * 81,
        "aaa bbb ccc d aaa bbb ccc " + "e" * 80,
    ),
    ("gopher_repetition@dclm", "max_top_4gram"): (
        "a b c d x a b c d " + "e" * 41,
        "a b c d x a b c d " + "e" * 40,
    ),
    ("c4@datatrove", "min_sentences"): (
        "Here are three. " * 5,
        "Here are three. " * 4 + "\nToo few.\nNo end here",
    ),
    ("c4@datatrove", "max_lorem_ipsum_lines"): ("lorem ipsum dolor", "Lorem Ipsum dolor."),
    ("c4@datatrove", "max_curly_bracket_lines"): ("javascript a { b.", "it is a { b."),
    ("fineweb@datatrove", "min_lines"): ("x", " \n\t\n"),
    ("fineweb@datatrove", "min_punct_lines"): (share_of_lines(12, "x.", "x"), share_of_lines(11, "x。", "x")),
    ("fineweb@datatrove", "max_short_lines"): (
        share_of_lines(67, "x" * 30, "x" * 31),
        share_of_lines(68, "é" * 30, "x" * 31),
    ),
    ("fineweb@datatrove", "max_dup_line_chars"): ("a\na\n" + "b" * 98, "a\na\n" + "b" * 97),
    ("fineweb@datatrove", "max_newline_ratio"): ("a\nb\nc\nd e f g h i j", "a\nb\nc\nd e f g h i"),
}


def ngram_edges(n, share, source):
    """A phrase of n words twice, with just enough other text, and with one piece less of it."""
    phrase = " ".join(f"p{i}" for i in range(n))
    letters = len(phrase.replace(" ", ""))
    if source == "datatrove":  # second copy, of all code points
        size = int(letters / share)
        base = f"{phrase} x {phrase} "
        return base + "z" * (size - len(base) + (letters / share > size)), base + "z" * (size - len(base) - 1)
    if source == "dclm":  # both copies, of the words' code points
        size = int(2 * letters / share)
        return f"{phrase} x {phrase} " + "z" * (size - 2 * letters), f"{phrase} x {phrase} " + "z" * (
            size - 2 * letters - 2
        )
    # dolma: both copies, of all n-grams' code points: add words until the share is just below
    kept = f"{phrase} x {phrase}"
    extra = iter(numbered(10_000).split())
    before = kept
    while dolma_share(kept, n) > share:
        before, kept = kept, f"{kept} {next(extra)}"
    return kept, before


def dolma_share(text, n):
    """From the definition: code points of all copies of repeated n-grams over those of all n-grams."""
    words = text.split()
    ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    of = lambda grams: sum(len("".join(gram)) for gram in grams)  # noqa: E731
    return of([g for g in ngrams if ngrams.count(g) > 1]) / of(ngrams)


for _source in ("datatrove", "dolma", "dclm"):
    for _n, _share in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)):
        EDGES["gopher_repetition@" + _source, f"max_dup_{_n}gram"] = ngram_edges(_n, _share, _source)


@pytest.mark.parametrize("use, parameter", EDGES)
def test_a_document_just_inside_is_kept_and_one_just_outside_dropped(use, parameter):
    default = registry()[use].model_fields[parameter].default
    assert default is not None
    assert dropped(stage(use, **{parameter: default}), EDGES[use, parameter]) == [False, True]


def test_every_threshold_of_every_preset_has_its_two_documents():
    presets = [cls for cls in registry().values() if issubclass(cls, Preset)]
    assert {(cls.use, rule.parameter) for cls in presets for rule in cls.rules} == set(EDGES)


GNEISSWEB = [  # D, Q, category, tokens per character, sentences of n words -> kept
    (0.0021, 0.0, 0.0, 0.0, 29, True), (0.002, 0.03, 0.0, 0.25, 5, False), (0.0, 0.031, 0.0, 0.0, 29, True),
    (0.9, 0.9, 0.0, 0.0, 30, False), (0.9, 0.9, 0.0, 0.22, 30, True), (0.9, 0.9, 0.0, 0.28, 30, True),
    (0.9, 0.9, 0.0, 0.219, 30, False), (0.9, 0.9, 0.0, 0.281, 30, False), (0.9, 0.9, 0.6, 0.0, 69, True),
    (0.9, 0.9, 0.6, 0.0, 70, False), (0.9, 0.9, 0.6, 0.10, 70, True), (0.9, 0.9, 0.6, 0.5, 70, True),
    (0.9, 0.9, 0.6, 0.501, 70, False), (0.9, 0.9, 0.5, 0.0, 69, False),
]  # fmt: skip


def test_gneissweb_is_the_rule_of_the_paper():
    chosen = registry()["gneissweb"](dclm="d", quality="q", categories=["med", "tech"], tokens_per_char="e")
    batch = Texts(pa.array([" ".join(["word"] * row[4]) + "." for row in GNEISSWEB], pa.large_string()))
    columns = dict(compute(batch, ["gneissweb.readability"]))
    d, q, cat, e = (np.array([row[i] for row in GNEISSWEB]) for i in range(4))
    columns |= {
        "d": d.astype(np.float32),
        "q": q.astype(np.float32),
        "med": np.zeros(len(d)),
        "tech": cat,
        "e": e,
    }
    kept = ~np.logical_or.reduce([*chosen.keep(columns).values()])
    assert kept.tolist() == [row[5] for row in GNEISSWEB]
    assert chosen.input_columns() == ["d", "q", "gneissweb.readability", "med", "tech", "e"]
    nothing = {name: pa.nulls(1, pa.float32()) for name in chosen.input_columns()}
    assert [rule[0] for rule in chosen.keep(nothing).values()] == [True, True]


def test_readability_counts_short_words_twice_and_leaves_out_short_sentences():
    texts = ["The cat sat on a big mat today. No way! Is it so?", "", "One."]
    values = compute(Texts(pa.array(texts, pa.large_string())), ["gneissweb.readability"])
    # 13 words, of which "today" alone is longer than 3 letters; two sentences have more than 2 words.
    assert values["gneissweb.readability"].tolist() == [(13 + 12) / 2, 0.0, 2.0]


# Signals ------------------------------------------------------------------------------------------------


def test_signals_are_what_they_say():
    text = "The the DOG, the 2 dogs!\nEnd…\n• Item\n"
    got = {
        name: values[0]
        for name, values in compute(Texts(pa.array([text], pa.large_string())), signals()).items()
    }
    normal = ["the", "the", "dog", "the", "2", "dogs", "end…", "•", "item"]
    assert got["n_chars"] == len(text)
    assert got["n_lines"] == 3
    assert got["rpv2.n_words"] == len(normal)
    assert got["rpv2.unique_word_fraction"] == pytest.approx(7 / 9)
    shares = np.array([3, 1, 1, 1, 1, 1, 1]) / 9
    assert got["rpv2.unigram_entropy"] == pytest.approx(-(shares * np.log(shares)).sum(), abs=2**-20)
    assert got["rpv2.mean_word_length"] == pytest.approx(sum(map(len, normal)) / 9)
    assert got["rpv2.ellipsis_line_fraction"] == pytest.approx(1 / 3)
    assert got["rpv2.bullet_line_fraction"] == pytest.approx(1 / 3)
    assert got["rpv2.terminal_line_fraction"] == pytest.approx(1 / 3)
    assert got["rpv2.all_caps_word_fraction"] == pytest.approx(1 / 12)  # the raw words are 12, DOG is one
    assert got["uppercase_char_fraction"] == pytest.approx(6 / len(text))
    assert got["numeric_char_fraction"] == pytest.approx(1 / len(text))


def test_signals_of_nothing_are_numbers():
    for name, values in compute(Texts(pa.array(["", " ", "\n"], pa.large_string())), signals()).items():
        assert np.isfinite(values.astype(float)).all(), name


def test_stages_of_one_read_share_one_pass(monkeypatch):
    calls = []
    original = kernel.document_counts

    def spy(offsets, data, wanted, out, *rules, **more):
        calls.append(wanted)
        original(offsets, data, wanted, out, *rules, **more)

    monkeypatch.setattr(kernel, "document_counts", spy)
    stages = [
        registry()[f"{name}@datatrove"]() for name in ("gopher_repetition", "gopher_quality", "fineweb", "c4")
    ]
    wanted = {}
    for name, bits in (chosen.wants() for chosen in stages):
        wanted[name] = wanted.get(name, 0) | bits
    texts = [" ".join(HARD[:4]), "x", HARD[-5], numbered(60)]
    batch = Texts(pa.array(texts, pa.large_string()), wanted=wanted)
    for chosen in stages:
        alone = chosen.columns(Texts(batch.array), {})
        for name, values in chosen.columns(batch, {}).items():
            np.testing.assert_array_equal(values, alone[name])
        batch = batch.take(np.arange(len(batch)) != 1)
    assert len([bits for bits in calls if bits == wanted[stages[0].wants()[0]]]) == 1
    assert len(calls) == 1 + len(stages)


def test_an_override_moves_the_threshold_and_null_turns_the_rule_off():
    use = "gopher_quality@datatrove"
    text = [numbered(20)]
    assert dropped(stage(use, min_words=50), text) == [True]
    assert dropped(stage(use, min_words=20), text) == [False]
    assert dropped(stage(use, min_words=None), text) == [False]


PRESETS = [use for use, cls in registry().items() if issubclass(cls, Preset) and cls.rules]


@pytest.mark.parametrize("use", PRESETS)
def test_thresholds_recompute_nothing(use):
    cls = registry()[use]
    changed = cls.model_validate({rule.parameter: None for rule in cls.rules})
    assert changed.compute_fingerprint({}) == cls().compute_fingerprint({})
    assert changed.decide_fingerprint() != cls().decide_fingerprint()
    assert changed.output_columns() == cls().output_columns()


@pytest.mark.parametrize(
    "use, params, message",
    [
        ("gopher_quality@dolma", {"min_words": 9, "max_words": 8}, "min_words: 9 is more than max_words, 8"),
        ("ngram_importance", {"target": "t", "min": 1, "max": 0}, "min: 1 is more than max, 0"),
        ("gneissweb", {"dclm": "d", "quality": "q", "token_range": [0.3, 0.2]}, "0.3 is more than 0.2"),
        ("gopher_quality@dclm", {"max_bullet_lines": 2}, "less than or equal to 1"),
        ("gopher_quality@datatrove", {"min_wordz": 2}, "min_wordz"),
        ("signals", {"columns": ["rpv2.n_word"]}, "did you mean 'rpv2.n_words'"),
        (
            "signals",
            {"columns": ["rpv2."], "keep": {"n_lines": {"min": 1}}},
            "'n_lines' is not among the columns",
        ),
        ("signals", {"keep": {"n_lines": {"min": 3, "max": 2}}}, "min: 3 is more than max, 2"),
    ],
)
def test_contradictions_and_typos_are_errors(use, params, message):
    with pytest.raises(ValidationError, match=message):
        registry()[use].model_validate(params)


def write_recipe(folder, stages):
    recipe = {"input": {"shards": ["in.jsonl"]}, "stages": stages, "output": {"folder": "out"}}
    (folder / "r.yaml").write_text(json.dumps(recipe))
    return folder / "r.yaml"


def test_a_contradiction_is_named_with_its_place_in_the_recipe(tmp_path):
    path = write_recipe(tmp_path, [{"use": "gopher_quality@datatrove", "min_mean_word_length": 11}])
    with pytest.raises(
        RecipeError, match=r"stages\[0\]\.min_mean_word_length: 11 is more than max_mean_word_length"
    ):
        load_recipe(path)
    with pytest.raises(RecipeError, match="did you mean 'gopher_quality@datatrove'"):
        load_recipe(write_recipe(tmp_path, [{"use": "gopher_quality@datatrov"}]))
    with pytest.raises(RecipeError, match="no earlier stage adds the column 'd'"):
        load_recipe(write_recipe(tmp_path, [{"use": "gneissweb", "dclm": "d", "quality": "q"}]))


# Bad input ----------------------------------------------------------------------------------------------

MEGABYTE = 1 << 20


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "a ",
        "!",
        "! ",
        "(",
        "'",
        "\n",
        "a\n",
        "日",
        "😀",
        "\u0301",
        "\u202e",
        "\x00",
        ".",
        "x@",
        "[1]",
        "a-",
        "{ ",
    ],
)
def test_a_long_document_of_one_thing_takes_linear_time(unit):
    """One line of a megabyte: what is quadratic takes minutes."""
    texts = pa.array([unit * (MEGABYTE // len(unit.encode()))], pa.large_string())
    start = time.process_time()
    counts_of(kernel, *text_buffers(texts), EVERYTHING)
    assert time.process_time() - start < 5


def test_memory_for_lines_is_bounded():
    """More lines than copies are counted of: the first of them still are."""
    n = layout.MOST_LINES
    many = "\n".join([*(f"{i:x}" for i in range(n + 5)), "0", f"{n + 4:x}"])
    at = layout.LINES_AT
    row = counts_of(kernel, *text_buffers(pa.array([many, "\n" * 5 * n], pa.large_string())), layout.LINES)
    assert row[0, [at + layout.N_SEGMENTS, at + layout.DUP_LATER, at + layout.DUP_ALL]].tolist() == [
        n + 7,
        1,
        2,
    ]
    assert row[1, [at + layout.N_SEGMENTS, at + layout.N_EMPTY]].tolist() == [5 * n + 1, 5 * n + 1]


ODD = {
    "empty": "", "space": " \u3000\n\n", "punctuation": "!!! ... --- ((( ???",
    "emoji": "😀 👨\u200d👩\u200d👧 🇩🇪😀", "marks": "\u0301\u0308 e\u0301\u0308\u0301 \u0301",
    "right to left": "\u202eمرحبا بالعالم. שלום עולם!\u202c", "NUL": "\x00 a\x00b \x00\x00",
    "one line": "word été, " * 20_000, "one word": "x" * 300_000,
}  # fmt: skip


def test_odd_texts_have_values_everywhere_and_are_dropped_with_a_reason(tmp_path, cli, serial):
    """Rows with half a surrogate pair are quarantined; nothing else stops a run or is lost."""
    lines = [json.dumps({"id": name, "text": text}) for name, text in ODD.items()]
    lines += ['{"id": "half", "text": "a \\ud800 b"}', '{"id": "other half", "text": "\\udc00"}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))

    def run(stages):
        path = write_recipe(tmp_path, stages)
        done = cli("run", path, "--json", "--set", "input.id=id", "--set", "input.max_bad_rows=2")
        assert done.code == 0, done.err
        assert json.loads(done.out)["rows"]["quarantined"] == 2
        rows = pq.read_table(tmp_path / "out/current/decisions").to_pylist()
        return {row["id"]: row for row in rows if row["id"] in ODD}

    off = [{"use": use, **{rule.parameter: None for rule in registry()[use].rules}} for use in PRESETS]
    for name, row in run([{"use": "signals"}, *off]).items():
        values = {column: row[column] for column in row if "." in column}
        assert len(values) > 150
        assert all(value is not None and np.isfinite(value) and value >= 0 for value in values.values()), name
    for use in PRESETS:
        reasons = {name: row["reason"] for name, row in run([{"use": use}]).items()}
        assert reasons.keys() == ODD.keys()
        if not use.startswith("gopher_repetition"):
            assert reasons["empty"], use
            assert reasons["punctuation"], use


def test_a_run_drops_with_reasons_and_a_changed_threshold_reads_nothing(tmp_path, cli):
    texts = ["The cat and the dog have been with us. " * 20 + str(i) for i in range(4)] + [
        "short",
        "",
        "# # # #",
    ]
    texts += [numbered(90, "word") + " the with"]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (tmp_path / "in.jsonl").write_text(lines)
    stages = [{"use": "gopher_quality@datatrove"}, {"use": "gopher_repetition@datatrove"}, {"use": "signals",
              "columns": ["n_lines"]}, {"use": "exact_dedup"}]  # fmt: skip
    path = write_recipe(tmp_path, stages)
    assert cli("run", path, "--quiet", "--workers", "1").code == 0
    decisions = pq.read_table(tmp_path / "out/current/decisions").to_pylist()
    reasons = [row["reason"] for row in decisions]
    assert reasons[4:7] == ["n_words < 50"] * 3
    assert reasons[0] == "top_3gram_char_fraction > 0.18"
    assert reasons[-1] is None
    assert decisions[-1]["gopher_quality@datatrove.n_words"] == 92
    before = {
        path.stat().st_mtime_ns for path in (tmp_path / ".dataselect/columns").rglob("*") if path.is_file()
    }
    assert (
        cli("run", path, "--quiet", "--workers", "1", "--set", "stages.2.keep={n_lines: {min: 2}}").code == 0
    )
    after = {
        path.stat().st_mtime_ns for path in (tmp_path / ".dataselect/columns").rglob("*") if path.is_file()
    }
    assert len(after - before) == 1, "only the dedup behind the changed limit is computed again"


with contextlib.suppress(ImportError):
    from hypothesis import given, settings
    from hypothesis import strategies as st

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.text(alphabet=st.sampled_from("aB1 .,'()-/:@#…\n\"’日€é!s+$km"), max_size=60), max_size=4)
    )
    def test_any_text_equals_the_twin(texts):
        buffers = text_buffers(pa.array(texts, pa.large_string()))
        np.testing.assert_array_equal(
            counts_of(kernel, *buffers, EVERYTHING), counts_of(reference_signals, *buffers, EVERYTHING)
        )


def test_the_table_of_signals_is_up_to_date():
    import make_signals_doc

    assert make_signals_doc.PATH.read_text("utf-8") == make_signals_doc.document(), (
        "run scripts/make_signals_doc.py"
    )
