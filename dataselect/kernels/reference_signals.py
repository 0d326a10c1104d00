"""Slow twin of signals.py, written from the definitions: strings, regular expressions, Counters."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from statistics import median

import numpy as np

from dataselect.kernels import layout as k
from dataselect.kernels import signal_tables as t
from dataselect.kernels.reference import bytes_hash, documents
from dataselect.kernels.signal_tables import flags_of
from dataselect.kernels.unicode_tables import lookup

CHUNK_BYTES = 16_384


def document_counts(
    offsets: np.ndarray,
    data: np.ndarray,
    wanted: int,
    out: np.ndarray,
    short_chars: int = 30,
    min_line_words: int = 3,
    max_word_chars: int = 1000,
    terminal: bool = True,
) -> None:
    for row, text in zip(out, readable(offsets, data), strict=True):
        fill(row, k.GENERAL_AT, general(text))
        if wanted & k.CHARACTERS:
            fill(row, k.CHARACTERS_AT, characters(text))
        if wanted & k.LINES:
            fill(row, k.LINES_AT, segments(text.split("\n")) + line_ends(text.split("\n"), short_chars))
            fill(row, k.PARAGRAPHS_AT, segments(re.split(r"\n{2,}", text.strip())))
        if wanted & (k.LINES | k.C4):
            fill(row, k.BREAK_LINES_AT, break_lines(text.splitlines()))
        if wanted & k.C4:
            fill(row, k.C4_AT, c4(text, min_line_words, max_word_chars, terminal))
        if wanted & k.UNISEG_REPETITION:
            fields = re.split("[\t-\r \0]+", text)
            row[k.N_ALNUM_FIELDS_AT] = sum(bool(f) and has(f[0], t.ALNUM) for f in fields)
        for kind, (group, repeated, at) in enumerate(GROUPS):
            if wanted & (group | repeated):
                words = [w for chunk in text.split() for part in cut(chunk) for w in SPLITTERS[kind](part)]
                fill(row, at, word_counts(words, kind))
                if wanted & repeated:
                    fill(row, at + k.REPETITION, repetition(words, entropy_too=kind == k.NORMAL))


def readable(offsets: np.ndarray, data: np.ndarray) -> Iterator[str]:
    for document in documents(offsets, data):
        chars = document.decode("utf-8", "surrogateescape")
        yield "".join("\x1a" if "\ud800" <= c <= "\udfff" else c for c in chars)


GROUPS = (
    (k.SPACY_WORDS | k.C4, k.SPACY_REPETITION, k.SPACY_AT),
    (0, k.UNISEG_REPETITION, k.UNISEG_AT),
    (k.SPLIT_WORDS, k.SPLIT_REPETITION, k.SPLIT_AT),
    (0, k.NORMAL_WORDS, k.NORMAL_AT),
    (k.RAW_WORDS, 0, k.RAW_AT),
)


def fill(row: np.ndarray, at: int, values: list[int]) -> None:
    row[at : at + len(values)] = values


def has(char: str, flag: int) -> bool:
    return flags_of(ord(char)) & flag != 0


def cut(chunk: str) -> Iterator[str]:
    """Pieces of at most CHUNK_BYTES bytes."""
    encoded = chunk.encode()
    while len(encoded) > CHUNK_BYTES:
        stop = CHUNK_BYTES
        while encoded[stop] & 0xC0 == 0x80:
            stop -= 1
        yield encoded[:stop].decode()
        encoded = encoded[stop:]
    yield encoded.decode()


# Words --------------------------------------------------------------------------------------------------


@cache
def char_class(flag: int) -> str:
    """A regular expression's class of the characters with this flag, without its brackets."""
    flags = t.PAGES.reshape(-1, 256)[t.PAGE_OF].reshape(-1)
    flags = np.where((np.arange(len(flags)) & ~0x7FF) == 0xD800, 0, flags & flag) != 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    starts, ends = edges[::2].tolist(), (edges[1::2] - 1).tolist()
    return "".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in zip(starts, ends, strict=True))


@cache
def expressions() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """SpaCy's prefix, suffix (without units), infix and URL expressions."""
    alpha, lower, upper = char_class(t.ALPHA), char_class(t.ALPHA_LOWER), char_class(t.ALPHA_UPPER)
    quote, icon = char_class(t.QUOTE), char_class(t.ICON)
    prefix = rf"(?:[{char_class(t.PREFIX)}]|\+(?![0-9])|\.\.+|US\$|C\$|A\$)"
    suffix = (
        rf"(?:……|[{char_class(t.SUFFIX)}]|\.\.+|['’][sS]|(?<=[0-9])\+|(?<=°[FfCcKk])\."
        rf"|(?<=[0-9])(?:[{char_class(t.CURRENCY)}]|US\$|C\$|A\$)"
        rf"|(?<=[{char_class(t.BEFORE_PERIOD)}])\.|(?<=[{upper}][{upper}])\.)\Z"
    )
    infix = (
        rf"\.\.+|…|[{icon}]|(?<=[0-9])[+\-*^](?=[0-9-])|(?<=[{lower}{quote}])\.(?=[{upper}{quote}])"
        rf"|(?<=[{alpha}]),(?=[{alpha}])|(?<=[{alpha}0-9])(?:-|–|—|--|---|——|~)(?=[{alpha}])"
        rf"|(?<=[{alpha}0-9])[:<>=/](?=[{alpha}])"
    )
    letter = r"A-Za-z0-9\u00a1-\uffff"
    url = (
        r"(?:[\w+\-.]{2,}://)?(?:\S+@)?"
        rf"(?:(?:[{letter}][{letter}_-]{{0,62}})?[{letter}]\.)+[{lower}]{{2,63}}(?::\d{{2,5}})?(?:[/?#]\S*)?"
    )
    return re.compile(prefix), re.compile(suffix), re.compile(infix), re.compile(url)


@cache
def special_values() -> dict[int, int]:
    pairs = zip(t.SPECIAL_KEYS.tolist(), t.SPECIAL_VALUES.tolist(), strict=True)
    return {key: value for key, value in pairs if key}


def special(word: str) -> list[str]:
    """Tokens of a special case; nothing where it is none."""
    encoded = word.encode()
    value = special_values().get(bytes_hash(encoded), 0) if 0 < len(encoded) <= t.LONGEST_SPECIAL else 0
    if not value:
        return []
    cuts = sorted({0, value >> 8 & 255, value >> 16 if value & 255 == 3 else 0, len(encoded)})
    return [encoded[a:b].decode() for a, b in pairwise(cuts)]


@cache
def units() -> set[int]:
    return set(t.UNIT_KEYS.tolist()) - {0}


def suffix_length(text: str) -> int:
    match = expressions()[1].search(text)
    length = len(match[0]) if match else 0
    for n in range(min(t.LONGEST_UNIT, len(text) - 1), 0, -1):
        if "0" <= text[-n - 1] <= "9" and bytes_hash(text[-n:].encode()) in units():
            return max(n, length)
    return length


def spacy_tokens(chunk: str) -> list[str]:
    prefix_of, _, infix, url = expressions()
    prefixes: list[str] = []
    suffixes: list[str] = []
    text, n_before = chunk, -1
    while text and len(text) != n_before and not special(text):
        n_before = len(text)
        match = prefix_of.match(text)
        n = len(match[0]) if match else 0
        if n and special(text[n:]):
            prefixes.append(text[:n])
            text = text[n:]
            break
        m = suffix_length(text[n:])
        if m and special(text[:-m]):
            suffixes.append(text[-m:])
            text = text[:-m]
            break
        if n:
            prefixes.append(text[:n])
        if m:
            suffixes.append(text[-m:])
        text = text[n : len(text) - m]
    middle: list[str] = []
    if special(text):
        middle = special(text)
    elif text and url.fullmatch(text):
        middle = [text]
    else:
        start = 0
        for found in infix.finditer(text):
            if found.start() > 0:
                middle += [text[start : found.start()], found[0]]
                start = found.end()
        middle.append(text[start:])
    return joined([token for token in [*prefixes, *middle, *reversed(suffixes)] if token])


def joined(tokens: list[str]) -> list[str]:
    """Neighbours that are a special case together, longest first."""
    out: list[str] = []
    i = 0
    while i < len(tokens):
        for j in range(min(i + 6, len(tokens)), i + 1, -1):
            if special("".join(tokens[i:j])):
                out += special("".join(tokens[i:j]))
                i = j
                break
        else:
            out.append(tokens[i])
            i += 1
    return out


LETTER = (t.WB_ALETTER, t.WB_HEBREW)
MID_LETTER = (t.WB_MIDLETTER, t.WB_MIDNUMLET, t.WB_SINGLE_QUOTE)
MID_NUMBER = (t.WB_MIDNUM, t.WB_MIDNUMLET, t.WB_SINGLE_QUOTE)


def uniseg_words(chunk: str) -> list[str]:
    """UAX #29, rules WB4 to WB13b, inside a run without white space; words that start with a letter or
    digit.
    """
    kinds = [flags_of(ord(c)) >> t.WORD_BREAK_SHIFT for c in chunk]
    kept = [i for i, kind in enumerate(kinds) if i == 0 or kind not in (t.WB_EXTEND, t.WB_FORMAT, t.WB_ZWJ)]
    breaks = [0]
    for n in range(1, len(kept)):
        window = [kinds[kept[n + d]] if 0 <= n + d < len(kept) else t.WB_OTHER for d in (-2, -1, 0, 1)]
        if not stay_together(*window):
            breaks.append(kept[n])
    pieces = [chunk[a:b] for a, b in pairwise([*breaks, len(chunk)])]
    return [piece for piece in pieces if has(piece[0], t.ALNUM)]


def stay_together(before: int, previous: int, current: int, following: int) -> bool:
    number, joiner, katakana = t.WB_NUMERIC, t.WB_EXTENDNUMLET, t.WB_KATAKANA
    return (
        (previous in LETTER and current in LETTER)  # WB5
        or (previous in LETTER and current in MID_LETTER and following in LETTER)  # WB6
        or (before in LETTER and previous in MID_LETTER and current in LETTER)  # WB7
        or (previous == t.WB_HEBREW and current == t.WB_SINGLE_QUOTE)  # WB7a
        or (previous == t.WB_HEBREW and current == t.WB_DOUBLE_QUOTE and following == t.WB_HEBREW)  # WB7b
        or (before == t.WB_HEBREW and previous == t.WB_DOUBLE_QUOTE and current == t.WB_HEBREW)  # WB7c
        or (previous == number and current == number)  # WB8
        or (previous in LETTER and current == number)  # WB9
        or (previous == number and current in LETTER)  # WB10
        or (before == number and previous in MID_NUMBER and current == number)  # WB11
        or (previous == number and current in MID_NUMBER and following == number)  # WB12
        or (previous == katakana and current == katakana)  # WB13
        or (previous in (*LETTER, number, katakana, joiner) and current == joiner)  # WB13a
        or (previous == joiner and current in (*LETTER, number, katakana))  # WB13b
    )


def lower(text: str) -> str:
    return "".join(chr(lookup(ord(c))[1]) for c in text)


def normal_words(chunk: str) -> list[str]:
    left = lower("".join(c for c in chunk if not has(c, t.ASCII_PUNCT)))
    return [left] if left else []


def wordpunct(chunk: str) -> list[str]:
    out: list[str] = []
    for char in chunk:
        if out and has(out[-1][-1], t.WORD) == has(char, t.WORD):
            out[-1] += char
        else:
            out.append(char)
    return out


SPLITTERS: tuple[Callable[[str], list[str]], ...] = (
    spacy_tokens,
    uniseg_words,
    lambda chunk: [chunk],
    normal_words,
    wordpunct,
)


def word_counts(words: list[str], kind: int) -> list[int]:
    """N_WORD_COUNTS counts, then twice the median length."""
    n_chars = sum(map(len, words))
    if kind == k.NORMAL:  # knows of its words nothing but their lengths
        return [len(words), n_chars, *[0] * 10]

    def count(test: Callable[[str], bool]) -> int:
        return sum(map(test, words))

    stops = [w for w in words if w in t.STOP_WORDS]
    not_symbol = [w for w in words if w.strip()]
    ends = punct = 0
    if kind == k.SPACY:
        not_symbol = [w for w in words if not all(has(c, t.SYMBOL) for c in w)]
        ends = count(lambda w: len(w) == 1 and has(w, t.SENTENCE_END))
        punct = count(lambda w: all(has(c, t.PUNCT) for c in w))
    elif kind == k.SPLIT:
        not_symbol = [w for w in words if not {"#", "…"} & set(w)]
        ends = count(lambda w: lower(w) in t.STOP_WORDS)
        punct = count(lambda w: 1 <= sum(has(c, t.WORD) for c in w) <= 3)
    else:
        not_symbol = []
    if kind == k.WORDPUNCT:
        punct = count(lambda w: any(has(c, t.UPPER) for c in w) and not any(has(c, t.LOWER) for c in w))
    return [
        len(words),
        n_chars,
        count(lambda w: any(has(c, t.ALPHABETIC) for c in w)),
        len(not_symbol),
        sum(map(len, not_symbol)),
        sum(1 << t.STOP_WORDS.index(w) for w in set(stops)),
        len(stops),
        ends,
        punct,
        count(lambda w: any(has(c, t.WORD) for c in w)),
        count(lambda w: re.search("[a-zA-Z]", w) is not None),
        median_twice(words) if kind == k.SPLIT else 0,
    ]


def median_twice(words: list[str]) -> int:
    return round(2 * median([min(len(w), 255) for w in words])) if words else 0


def repetition(words: list[str], *, entropy_too: bool) -> list[int]:
    words = words[: k.MOST_WORDS]
    counts = Counter(words)
    shares = [count / len(words) for count in counts.values()]
    entropy = -sum(share * math.log(share) for share in shares) if entropy_too else 0.0
    out = [len(counts), round(entropy * k.ENTROPY_SCALE)]
    for n in range(2, 11):
        ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        if n < 5:
            out += top_ngram(ngrams)
        else:
            out += dup_ngrams(ngrams, words, n)
    return out


def n_letters(ngram: tuple[str, ...]) -> int:
    return sum(map(len, ngram))


def top_ngram(ngrams: list[tuple[str, ...]]) -> list[int]:
    if not ngrams:
        return [0, 0, 0]
    counts = Counter(ngrams)
    ngram, most = counts.most_common(1)[0]
    if most == 1:
        return [1, n_letters(ngram), n_letters(ngram)]
    return [most, n_letters(ngram), max(n_letters(g) for g, count in counts.items() if count == most)]


def dup_ngrams(ngrams: list[tuple[str, ...]], words: list[str], n: int) -> list[int]:
    counts = Counter(ngrams)
    seen: set[tuple[str, ...]] = set()
    greedy = i = 0
    while i < len(ngrams):
        if ngrams[i] in seen:
            greedy += n_letters(ngrams[i])
            i += n
        else:
            seen.add(ngrams[i])
            i += 1
    covered = {j for i, ngram in enumerate(ngrams) if counts[ngram] > 1 for j in range(i, i + n)}
    total = sum(n_letters(ngram) for ngram in ngrams if counts[ngram] > 1)
    return [greedy, total, sum(len(words[j]) for j in covered), sum(map(n_letters, ngrams))]


# Text and lines -----------------------------------------------------------------------------------------


def general(text: str) -> list[int]:
    last = text.endswith("\n")
    return [
        len(text),
        text.count("#"),
        text.count("..."),
        text.count("…"),
        text.count(". . ."),
        text.count("\n"),
        last + text.startswith("\n"),
        last,
    ]


def characters(text: str) -> list[int]:
    stretches = re.split("[.!?]", text)
    n_words = [sum(any(has(c, t.WORD) for c in w) for w in stretch.split()) for stretch in stretches]
    flags = [sum(has(c, flag) for c in text) for flag in (t.UPPER, t.NUMERIC, t.ALPHABETIC)]
    return [
        *flags,
        sum(n > 0 for n in n_words),
        sum(n > 2 for n in n_words),
        text.count("{") + text.count("}"),
    ]


def segments(items: list[str]) -> list[int]:
    full = [s for s in items if s]
    stripped = [s.strip() for s in full if s.strip()]
    first = full[: k.MOST_LINES]
    repeated = repeats(full, set(first))
    repeated_stripped = repeats(stripped, {s.strip() for s in first})
    seen: set[str] = set()
    later = [s for s in repeated if s in seen or seen.add(s)]  # type: ignore[func-returns-value]
    return [
        len(items),
        len(items) - len(full),
        len(later),
        chars(later),
        len(repeated),
        chars(repeated),
        len(stripped),
        chars(stripped),
        chars([s for s in later if s.strip()]),
        len(repeated_stripped),
        chars(repeated_stripped),
    ]


def repeats(items: list[str], known: set[str]) -> list[str]:
    """Those of the known ones that occur twice or more."""
    copies = Counter(items)
    return [s for s in items if s in known and copies[s] > 1]


def chars(items: list[str]) -> int:
    return sum(map(len, items))


def line_ends(lines: list[str], short_chars: int) -> list[int]:
    full = [line for line in lines if line.strip()]
    stripped = [line.strip() for line in full]
    return [
        sum(has(line[-1], t.TERMINAL) for line in full),
        sum(len(line) <= short_chars for line in full),
        sum(line.startswith(("*", "-")) for line in lines),
        sum(line.endswith("…") for line in lines),
        sum(line.startswith(("●", "•", "*", "-")) for line in stripped),
        sum(line.endswith(("...", ". . .", "…")) for line in stripped),
        sum(has(line[0], t.BULLET) for line in stripped),
        sum(line.endswith(("...", "…")) for line in stripped),
        sum(line.endswith((".", "!", "?", "”")) for line in stripped),
    ]


def break_lines(lines: list[str]) -> list[int]:
    return [
        len(lines),
        sum(line.lstrip().startswith(("•", "-")) for line in lines),
        sum(line.rstrip().endswith(("...", "…")) for line in lines),
    ]


POLICIES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)


CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")


def c4_line(line: str, min_line_words: int, max_word_chars: int, terminal: bool) -> tuple[str, str, str]:
    """(what becomes of a stripped line, the line without citations, the same in lower case)."""
    words = line.split()
    line = CITATION.sub("", line)
    # ASCII letters only: U+212A, which str.lower() makes a "k", is no letter of "cookies".
    lowered = "".join(c.lower() if c.isascii() else c for c in line)
    verdict = "kept"
    if any(len(word) > max_word_chars for word in words):
        verdict = "long"
    elif terminal and (not line.endswith((".", "?", "!", '"', "'")) or line.endswith("...")):
        verdict = "no end"
    elif len(words) < min_line_words:
        verdict = "few"
    elif "javascript" in lowered:
        verdict = "javascript"
    elif any(policy in lowered for policy in POLICIES):
        verdict = "policy"
    return verdict, line, lowered


def c4(text: str, min_line_words: int, max_word_chars: int, terminal: bool) -> list[int]:
    names = ["kept", "sentences", "lorem", "curly", "long", "no end", "few", "javascript", "policy"]
    out = dict.fromkeys(names, 0)
    for raw in text.splitlines():
        verdict, line, lowered = c4_line(raw.strip(), min_line_words, max_word_chars, terminal)
        out[verdict] += 1
        # A document with either is dropped; where that rule is off, the line is like any other.
        out["lorem"] += verdict in ("kept", "javascript", "policy") and "lorem ipsum" in lowered
        out["curly"] += verdict in ("kept", "policy") and "{" in line
        out["sentences"] += n_sentences(line) if verdict == "kept" else 0
    return [out[name] for name in names]


def c4_edits(
    offsets: np.ndarray,
    data: np.ndarray,
    min_line_words: int = 3,
    max_word_chars: int = 1000,
    terminal: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    edits = []
    for text in readable(offsets, data):
        pieces: list[tuple[int, int, bool]] = []  # what stays, and whether a newline comes before it
        start = 0
        for raw in text.splitlines(keepends=True):
            line = raw.strip()
            if c4_line(line, min_line_words, max_word_chars, terminal)[0] == "kept":
                at = start + len(raw) - len(raw.lstrip())
                add_line(pieces, at, line, [match.span() for match in CITATION.finditer(line)])
            start += len(raw)
        edits.append(gaps(text, pieces))
    return edit_arrays(edits)


def refinedweb_edits(
    offsets: np.ndarray, data: np.ndarray, max_upper: float = 0.5, min_words: int = 2, short_words: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    edits, counts = [], []
    for text in readable(offsets, data):
        pieces: list[tuple[int, int, bool]] = []
        start = n_left = 0
        for line in text.split("\n"):
            n_words = len(line.split())
            drops = sum(c.isupper() for c in line) > max_upper * len(line) or n_words < min_words
            drops |= all(re.match(r"\d", c) for c in line) or COUNTER.fullmatch(line) is not None
            cuts = [m.span() for m in CUTS.finditer(line)] if n_words <= short_words else []
            bounds = [0, *(bound for cut in cuts for bound in cut), len(line)]
            left = [line[a:b] for a, b in zip(bounds[::2], bounds[1::2], strict=True)]
            if not line or not (drops or (n_words and not "".join(left).strip())):
                add_line(pieces, start, line, cuts)
                n_left += sum(len(part.split()) for part in left)
            start += len(line) + 1
        edits.append(gaps(text, pieces))
        counts.append((len(text.split()), len(text.split()) - n_left))
    return *edit_arrays(edits), np.array(counts, np.int64).reshape(-1, 2)


COUNTER = re.compile(
    r"\W*\d[\d,.]*[kmb]?\s+(likes|shares|comments|retweets|reposts|quotes|bookmarks|upvotes|downvotes|downloads|"
    r"views|followers)\W*",
    re.IGNORECASE,
)
CUTS = re.compile(r"^(?i:sign-in)[ \t-\r]?|[ \t-\r]?(?i:read more\.\.\.)\Z|[ \t-\r]?(?i:items in cart)")


def add_line(pieces: list[tuple[int, int, bool]], at: int, line: str, cuts: list[tuple[int, int]]) -> None:
    """What the cuts leave of a line that begins at `at`: at least a piece, which holds the newline before."""
    bounds = [at, *(at + bound for cut in cuts for bound in cut), at + len(line)]
    parts = list(zip(bounds[::2], bounds[1::2], strict=True))
    newline = bool(pieces)
    for i, (a, b) in enumerate(parts):
        if a < b or i == 0:
            pieces.append((a, b, newline and i == 0))


def gaps(text: str, pieces: list[tuple[int, int, bool]]) -> list[tuple[int, int, bool]]:
    """Edits that leave the pieces, stripped at both ends of the text; in bytes."""
    while pieces and not text[pieces[0][0] : pieces[0][1]].strip():
        del pieces[0]
    while pieces and not text[pieces[-1][0] : pieces[-1][1]].strip():
        del pieces[-1]
    if pieces:
        a, b, _ = pieces[0]
        pieces[0] = a + len(text[a:b]) - len(text[a:b].lstrip()), b, False
        pieces[-1] = pieces[-1][0], len(text[: pieces[-1][1]].rstrip()), pieces[-1][2]
    edits, at = [], 0
    for a, b, newline in [*pieces, (len(text), len(text), False)]:
        if text[at:a] != "\n" * newline:
            edits.append((len(text[:at].encode()), len(text[:a].encode()), newline))
        at = b
    return edits


def edit_arrays(
    edits: list[list[tuple[int, int, bool]]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    first = np.cumsum([0, *map(len, edits)]).astype(np.int64)
    starts, ends, newlines = (np.array([e[k] for of in edits for e in of], np.int64) for k in range(3))
    return first, starts, ends, newlines.astype(np.uint8)


def n_sentences(line: str) -> int:
    """SpaCy's sentencizer: tokens, and white space but for a single space after a word."""
    n, seen_end = 1, False
    for i, piece in enumerate(re.findall(r"\s+|\S+", line)):
        if piece.isspace():
            tokens = [] if i and piece == " " else [piece]
        else:
            tokens = [token for part in cut(piece) for token in spacy_tokens(part)]
        for token in tokens:
            if len(token) == 1 and has(token, t.SENTENCE_END):
                seen_end = True
            elif seen_end and not all(has(c, t.PUNCT) for c in token):
                n, seen_end = n + 1, False
    return n
