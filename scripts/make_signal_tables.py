"""Write dataselect/kernels/signal-tables.npz: what the quality signals know of characters and special words.

    python scripts/make_signal_tables.py        # needs spacy 3.8, datatrove 0.10 and uniseg 0.10 installed

The character classes of spaCy's English tokenizer, its special cases and units, datatrove's punctuation and
Unicode's word break property become flags of code points and hash tables, so that a run needs none of these
packages. The names of the bits are in dataselect/kernels/signal_tables.py.
A new file changes signals: raise the version of the stages that use them.
"""

from __future__ import annotations

import importlib
import re
import string
import sys
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

KERNELS = Path(__file__).parents[1] / "dataselect" / "kernels"
N_CODE_POINTS = 0x110000
N_SPECIAL_SLOTS = 4096
N_UNIT_SLOTS = 512
N_STOP_SLOTS = 64
RPJ_BULLETS = "\u2022\u2023\u25b6\u25c0\u25e6\u25a0\u25a1\u25aa\u25ab\u2013"
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
WORD_BREAKS = [
    "Other",
    "CR",
    "LF",
    "Newline",
    "Extend",
    "ZWJ",
    "Regional_Indicator",
    "Format",
    "Katakana",
    "Hebrew_Letter",
    "ALetter",
    "Single_Quote",
    "Double_Quote",
    "MidNumLet",
    "MidLetter",
    "MidNum",
    "Numeric",
    "ExtendNumLet",
    "WSegSpace",
]


def matcher(expression: str) -> Callable[[str], bool]:
    compiled = re.compile(expression)
    return lambda char: compiled.fullmatch(char) is not None


def one_char(pieces: Iterable[str]) -> str:
    """Expression for those of spaCy's pieces that match a single character."""
    single = [piece for piece in pieces if piece and (len(piece.replace("\\", "")) == 1 or piece[0] == "[")]
    return "|".join(single)


def tests() -> list[Callable[[str], bool]]:
    """What each bit from 0 up says of a character."""
    classes = importlib.import_module("spacy.lang.char_classes")
    sentencizer = importlib.import_module("spacy.pipeline").Sentencizer
    text = importlib.import_module("datatrove.utils.text")
    breaks = {c for c in map(chr, range(0x3000)) if len(f"a{c}b".splitlines()) == 2}
    sentence_ends = set(sentencizer.default_punct_chars)
    lists = [classes.LIST_PUNCT, ["…"], classes.LIST_QUOTES, classes.LIST_ICONS]
    shared = [piece for pieces in lists for piece in pieces]
    before_period = r"[0-9{al}{e}{p}(?:{q})]".format(
        al=classes.ALPHA_LOWER, e=r"%²\-\+", q=classes.CONCAT_QUOTES, p=classes.PUNCT
    )
    prefix = one_char([*shared, *classes.LIST_CURRENCY, "§", "%", "=", "—", "–"])
    return [
        str.isspace,
        str.isalpha,
        str.isalnum,
        str.isupper,
        lambda c: c.islower() or unicodedata.category(c) == "Lt",
        str.isnumeric,
        breaks.__contains__,
        text.PUNCTUATION_SET.__contains__,
        text.TERMINAL_PUNCTUATION.__contains__,
        sentence_ends.__contains__,
        lambda c: unicodedata.category(c).startswith("P"),
        matcher(prefix),
        matcher(one_char([*shared, "—", "–"])),
        matcher(f"[{classes.ALPHA}]"),
        matcher(f"[{classes.ALPHA_LOWER}]"),
        matcher(f"[{classes.ALPHA_UPPER}]"),
        matcher(f"[{classes.ICONS}]"),
        matcher(f"[{classes.CONCAT_QUOTES}]"),
        matcher(before_period),
        matcher(one_char(classes.LIST_CURRENCY)),
        matcher(r"\d"),
        RPJ_BULLETS.__contains__,
        string.punctuation.__contains__,
        matcher(r"\w"),
        matcher(rf"[{classes.ICONS}….+\-*^,–—~:<>=/]"),
        ".".__eq__,
    ]


def character_flags() -> np.ndarray:
    """uint32[N_CODE_POINTS]: bits of `tests`, word break property << 27."""
    word_break = importlib.import_module("uniseg.wordbreak").word_break
    predicates = tests()
    flags = np.zeros(N_CODE_POINTS, np.uint32)
    for code_point in range(N_CODE_POINTS):
        char = chr(code_point)
        value = sum(1 << bit for bit, test in enumerate(predicates) if test(char))
        flags[code_point] = value | WORD_BREAKS.index(word_break(char).value) << 27
    return flags


def hash_table(values: dict[bytes, int], n_slots: int) -> tuple[np.ndarray, np.ndarray]:
    """(hash uint64, value int32) by linear probing from hash mod n_slots; hash 0 is an empty slot."""
    token_hash = importlib.import_module("dataselect.kernels.reference").bytes_hash
    keys, out = np.zeros(n_slots, np.uint64), np.zeros(n_slots, np.int32)
    for word, value in sorted(values.items()):
        key = token_hash(word)
        slot = key % n_slots
        while keys[slot]:
            slot = (slot + 1) % n_slots
        keys[slot], out[slot] = key, value
    return keys, out


def special_cases() -> dict[bytes, int]:
    """Word -> number of its tokens, bytes of the first << 8, bytes of the first two << 16."""
    rules = importlib.import_module("spacy").blank("en").tokenizer.rules
    out = {}
    for word, tokens in rules.items():
        if not word.isspace():
            lengths = [len(next(iter(token.values())).encode()) for token in tokens]
            cuts = [*np.cumsum(lengths).tolist(), 0, 0]
            if len(lengths) > 3 or sum(lengths) != len(word.encode()):
                raise SystemExit(f"{word!r}: more tokens than the table has room for")
            out[word.encode()] = len(lengths) | cuts[0] << 8 | (cuts[1] << 16 if len(lengths) > 2 else 0)
    return out


def special_lengths(words: Iterable[bytes]) -> np.ndarray:
    """uint32[512]: bit n of [b] and of [256 + b] where a special case of n bytes starts, or ends, with
    byte b.
    """
    out = np.zeros(512, np.uint32)
    for word in words:
        out[word[0]] |= np.uint32(1 << len(word))
        out[256 + word[-1]] |= np.uint32(1 << len(word))
    return out


def main() -> None:
    sys.path.insert(0, str(KERNELS.parents[1]))
    classes = importlib.import_module("spacy.lang.char_classes")
    pages, page_of = np.unique(character_flags().reshape(-1, 256), axis=0, return_inverse=True)
    special_keys, special_values = hash_table(special_cases(), N_SPECIAL_SLOTS)
    units = {unit.encode(): 1 for unit in classes.LIST_UNITS if unit}
    unit_keys, _ = hash_table(units, N_UNIT_SLOTS)
    stop_words = {word.encode(): number for number, word in enumerate(STOP_WORDS, 1)}
    stop_keys, stop_numbers = hash_table(stop_words, N_STOP_SLOTS)
    if len(pages) > 256:
        raise SystemExit(f"{len(pages)} distinct pages: page_of needs a wider type than uint8")
    path = KERNELS / "signal-tables.npz"
    np.savez_compressed(
        path,
        page_of=page_of.reshape(-1).astype(np.uint8),
        pages=pages.reshape(-1).astype(np.uint32),
        special_keys=special_keys,
        special_values=special_values,
        unit_keys=unit_keys,
        special_lengths=special_lengths(special_cases()),
        stop_keys=stop_keys,
        stop_numbers=stop_numbers,
    )
    longest = max(map(len, special_cases()))
    print(f"{path.name}: {len(pages)} pages, longest special case {longest} bytes, longest unit "
          f"{max(map(len, units))} bytes, {path.stat().st_size} bytes")  # fmt: skip


if __name__ == "__main__":
    main()
