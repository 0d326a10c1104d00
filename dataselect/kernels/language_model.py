r"""An n-gram language model of tokens: interpolated modified Kneser-Ney (Chen and Goodman 1999, section 3).

Tokens are those of tokens.py (lower-cased `\w+` and `[^\w\s]+` runs) by their 64-bit hashes. Every document
starts after order - 1 start marks, which are never predicted; its length is not modelled. With a the count of
an n-gram at the highest order, and the number of different tokens seen before it at lower ones:

    p(w | h) = (a(hw) - D(a(hw))) / a(h.) + backoff(h) p(w | h')      h' = h without its first token
    backoff(h) = (D1 N1(h.) + D2 N2(h.) + D3 N3(h.)) / a(h.)          N3: of count 3 or more

and p(w | h') of no token is 1 / n_vocabulary, the same for every word and every model. So models that are
given one n_vocabulary, no less than the number of different tokens in all texts concerned, are distributions
over one closed vocabulary: their cross-entropies can be compared whatever each of them has seen.

A model is a table of 64-bit n-gram keys; two n-grams of 10^8 share a key with probability 0.0003.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, types

from dataselect.core.fixed_log import FIXED_BITS, fixed_log
from dataselect.kernels.primitives import (
    I32,
    I64,
    MULTIPLIER_1,
    MULTIPLIER_2,
    SHIFT_32,
    SHIFT_33,
    U8,
    U64,
    U64_2D,
    Word,
    mix64,
    pointer_to,
)
from dataselect.kernels.tokens import read_tokens, text_source
from dataselect.kernels.unicode_tables import PAGE_OF, PAGES

LOG_BITS = 24
"""Log probabilities are integers in units of 2^-LOG_BITS."""
MAX_ORDER = 6
START = np.uint64(0xA0761D6478BD642F)
"""Stands for a start mark among token hashes."""

_BASE = np.uint64(0xD6E8FEB86659FD93)
_ONE = np.uint64(1)
_LOW = np.uint64(0xFFFFFFFF)
_NOT_PREDICTED = -(1 << 31)
_MISSING = np.uint64(1 << 63)  # log_p = _NOT_PREDICTED, log_backoff = 0
_ENTRIES_AT_ONCE = 1 << 20
_FALLBACK = (0.5, 1.0, 1.5)  # as KenLM's --discount_fallback

Model = dict[str, np.ndarray]
"""table         uint64[n_slots, 2]  (key, log_p << 32 | log_backoff, both int32), ascending by key, 0 = empty
n_home_slots  int64[1]            slots that an n-gram's search may begin at
unseen        int64[1]            log p of a token that the model has not seen, after no context
order         int64[1]
n_ngrams      int64[order]        different n-grams of 1, 2, ... tokens, start marks included"""


@njit(types.void(I64, U8, U8, I32, types.int64[::1], types.uint64[::1]), cache=True, nogil=True)
def _list_tokens(
    offsets: np.ndarray,
    data: np.ndarray,
    page_of: np.ndarray,
    pages: np.ndarray,
    token_offsets: np.ndarray,
    out: np.ndarray,
) -> None:
    text = text_source(data, page_of, pages)
    n_tokens = np.int64(0)
    for doc in range(offsets.size - 1):
        n_tokens, _ = read_tokens(text, offsets[doc], offsets[doc + 1], True, out, n_tokens)
        token_offsets[doc + 1] = n_tokens


def token_lists(offsets: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Token hashes of every document: (token_offsets int64[n_docs + 1], tokens uint64).

    offsets  int64[n_docs + 1]   document i is data[offsets[i]:offsets[i + 1]]
    data     uint8[:]            UTF-8
    Document i owns tokens[token_offsets[i]:token_offsets[i + 1]].
    """
    token_offsets = np.zeros(len(offsets), np.int64)
    # A token is a byte at least, and read_tokens wants 64 places more; untouched pages cost nothing.
    out = np.empty(int(offsets[-1]) - int(offsets[0]) + 64, np.uint64)
    _list_tokens(offsets, data, PAGE_OF, PAGES, token_offsets, out)
    return token_offsets, out[: token_offsets[-1]].copy()


def take_lists(
    token_offsets: np.ndarray, tokens: np.ndarray, docs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The lists of some documents (int64, any order, repeats allowed), as `token_lists` gives them."""
    counts = np.diff(token_offsets)[docs]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    places = np.arange(offsets[-1]) + np.repeat(token_offsets[docs] - offsets[:-1], counts)
    return offsets, tokens[places]


@njit(inline="always")
def _find(table: Any, n_slots: Word, key: Word) -> Word:
    """The packed logs of an n-gram, _MISSING where it is not in the table."""
    slot = (key >> SHIFT_32) * n_slots >> SHIFT_32
    while table[2 * slot] < key and table[2 * slot] != 0:
        slot += _ONE
    return table[2 * slot + _ONE] if table[2 * slot] == key else _MISSING


@njit(inline="always")
def _key(value: Word, n: int) -> Word:
    """Key of the n tokens whose polynomial is `value`; never 0."""
    return mix64(value + np.uint64(n)) | _ONE


@njit(types.void(I64, U64, types.int64, U64_2D, types.uint64, types.int64, types.int64[::1]),
      cache=True, nogil=True)  # fmt: skip
def _score_tokens(
    token_offsets: np.ndarray,
    tokens: np.ndarray,
    order: int,
    entries: np.ndarray,
    n_slots: Word,
    unseen: int,
    out: np.ndarray,
) -> None:
    table = pointer_to(entries)
    before = np.empty(order, np.uint64)  # n-grams of 1, 2, ... tokens that end before this one
    for doc in range(token_offsets.size - 1):
        value, power = np.uint64(0), _ONE
        for k in range(order - 1):
            value += START * power
            power *= _BASE
            before[k] = _find(table, n_slots, _key(value, k + 1))
        total = np.int64(0)
        for at in range(token_offsets[doc], token_offsets[doc + 1]):
            value, power = np.uint64(0), _ONE
            log_p = unseen
            backoff = np.uint64(0)  # of the context of k tokens, kept while before[k - 1] is overwritten
            for k in range(order):
                value += (tokens[at - k] if at - k >= token_offsets[doc] else START) * power
                power *= _BASE
                found = _find(table, n_slots, _key(value, k + 1))
                found_log_p = np.int32(np.uint32(found >> SHIFT_32))
                if found_log_p != _NOT_PREDICTED:
                    log_p = np.int64(found_log_p)
                else:
                    log_p += np.int64(np.int32(np.uint32(backoff & _LOW)))
                backoff = before[k]
                before[k] = found
            total += log_p
        out[doc] = total


def score_tokens(token_offsets: np.ndarray, tokens: np.ndarray, model: Model, out: np.ndarray) -> None:
    """Write each document's log probability (natural) in units of 2^-LOG_BITS, its length taken as given.

    token_offsets, tokens   as from `token_lists`
    out   int64[n_docs]     overwritten; 0 for a document without tokens
    """
    if len(out) != len(token_offsets) - 1:
        raise ValueError(f"out must have n_docs = {len(token_offsets) - 1} elements, not {len(out)}")
    table, home_slots = model["table"], int(model["n_home_slots"][0])
    _score_tokens(
        token_offsets, tokens, int(model["order"][0]), table, home_slots, int(model["unseen"][0]), out
    )


class _Level(NamedTuple):
    """The different n-grams of one length."""

    keys: np.ndarray
    """uint64[n], ascending."""
    counts: np.ndarray
    """int64[n]: occurrences, or below the highest order different tokens before."""
    contexts: np.ndarray
    """uint64[n]: key of all tokens but the last."""
    suffix_of_longer: np.ndarray
    """int64: for every n-gram of the next level its suffix' index here; for the highest, of occurrences."""


def train_model(token_offsets: np.ndarray, tokens: np.ndarray, order: int, n_vocabulary: int) -> Model:
    """The model of some documents; neither their order nor how they were batched matters.

    token_offsets, tokens   as from `token_lists`
    order                   longest n-gram, 1 to MAX_ORDER
    n_vocabulary            words that a word unknown to the model could be; >= 1
    Takes about 120 bytes a token while it works, and leaves 24 bytes for every different n-gram.
    """
    if not 1 <= order <= MAX_ORDER:
        raise ValueError(f"order must be 1 to {MAX_ORDER} tokens, got {order}")
    if n_vocabulary < 1:
        raise ValueError(f"n_vocabulary must be >= 1, got {n_vocabulary}")
    levels = _levels(token_offsets, tokens, order)
    lower, suffix = np.array([1.0 / n_vocabulary]), np.zeros(len(levels[0].keys), np.int64)
    unseen = _fixed(lower)[0]
    log_p = []
    log_backoff = [np.zeros(len(level.keys), np.int32) for level in levels]
    start_keys, start_backoff = [], []  # contexts of start marks alone: no n-grams of the level below
    for n, level in enumerate(levels if len(tokens) else []):
        contexts, backoff, p = _interpolated(level, lower, suffix)
        log_p.append(_fixed(p))
        if n == 0:
            unseen = _fixed(backoff * lower)[0]
        else:
            below = levels[n - 1].keys
            at = np.minimum(np.searchsorted(below, contexts), len(below) - 1)
            known = below[at] == contexts
            log_backoff[n - 1][at[known]] = _fixed(backoff[known])
            start_keys.append(contexts[~known])
            start_backoff.append(_fixed(backoff[~known]))
        lower, suffix = p, level.suffix_of_longer
    log_p += [np.full(len(keys), _NOT_PREDICTED, np.int32) for keys in start_keys]
    keys = np.concatenate([*(level.keys for level in levels), *start_keys])
    table, n_home_slots = _table(
        keys, np.concatenate([np.empty(0, np.int32), *log_p]), np.concatenate(log_backoff + start_backoff)
    )
    return {
        "table": table,
        "n_home_slots": np.array([n_home_slots]),
        "unseen": np.array([unseen], np.int64),
        "order": np.array([order]),
        "n_ngrams": np.array([len(level.keys) for level in levels]),
    }


def _levels(token_offsets: np.ndarray, tokens: np.ndarray, order: int) -> list[_Level]:
    """The different n-grams of 1 to `order` tokens that end at a token."""
    n_docs, n_tokens = len(token_offsets) - 1, len(tokens)
    doc_of_token = np.repeat(np.arange(1, n_docs + 1), np.diff(token_offsets))
    places = np.arange(n_tokens) + doc_of_token * (order - 1)
    padded = np.full(n_tokens + n_docs * (order - 1), START)
    padded[places] = tokens
    del doc_of_token
    levels = []
    for n in range(order, 0, -1):
        keys = ngram_keys(padded, places, n)
        by_key = np.argsort(keys)
        keys = keys[by_key]
        is_first = _starts(keys)
        index = np.empty(len(places), np.int64)
        index[by_key] = np.cumsum(is_first) - 1
        places = places[by_key[is_first]]  # any occurrence will do: the key says all
        counts = np.diff(np.append(np.flatnonzero(is_first), len(keys)))
        levels.append(_Level(keys[is_first], counts, ngram_keys(padded, places - 1, n - 1), index))
    return levels[::-1]


def ngram_keys(padded: np.ndarray, places: np.ndarray, n: int) -> np.ndarray:
    """uint64 keys of the n tokens that end at `places` (int64) of `padded` (uint64): as the kernel's."""
    word = np.full(len(places), n, np.uint64)
    power = _ONE
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64
        for k in range(n):
            word += padded[places - k] * power
            power *= _BASE
        for multiplier in (MULTIPLIER_1, MULTIPLIER_2):
            word ^= word >> SHIFT_33
            word *= multiplier
    word ^= word >> SHIFT_33
    word |= _ONE
    return word


def _starts(values: np.ndarray) -> np.ndarray:
    """bool[n]: where a run of equal values begins."""
    starts = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=starts[1:])
    return starts


def _interpolated(
    level: _Level, lower: np.ndarray, suffix: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(contexts ascending, their backoff, p of every n-gram) from p of the level below."""
    by_context = np.argsort(level.contexts)
    contexts = level.contexts[by_context]
    is_first = _starts(contexts)
    first = np.flatnonzero(is_first)
    group = np.empty(len(contexts), np.int64)
    group[by_context] = np.cumsum(is_first) - 1
    kind = np.minimum(level.counts, 3)
    discount = np.array([0.0, *discounts(level.counts)])
    total = np.add.reduceat(level.counts[by_context], first)
    mass = sum(
        discount[i] * np.add.reduceat((kind == i)[by_context].astype(np.int64), first) for i in (1, 2, 3)
    )
    backoff = mass / total
    p = (level.counts - discount[kind]) / total[group] + backoff[group] * lower[suffix]
    return contexts[first], backoff, p


def discounts(counts: np.ndarray) -> tuple[float, float, float]:
    """D1, D2, D3 of one order, from how many n-grams have count 1, 2, 3 and 4 (Chen and Goodman, eq. 26).

    Where these are too few for a discount inside (0, i): 0.5, 1, 1.5.
    """
    t1, t2, t3, t4 = (int(np.count_nonzero(counts == i)) for i in (1, 2, 3, 4))
    if not (t1 and t2 and t3):
        return _FALLBACK
    y = t1 / (t1 + 2 * t2)
    found = (1 - 2 * y * t2 / t1, 2 - 3 * y * t3 / t2, 3 - 4 * y * t4 / t3)
    return found if all(0 < d < i for i, d in enumerate(found, 1)) else _FALLBACK


def _fixed(p: np.ndarray) -> np.ndarray:
    """int32: natural logarithms in units of 2^-LOG_BITS."""
    out = np.empty(len(p), np.int32)
    shift = FIXED_BITS - LOG_BITS
    for start in range(0, len(p), _ENTRIES_AT_ONCE):
        log = fixed_log(p[start : start + _ENTRIES_AT_ONCE])
        out[start : start + len(log)] = (log + (1 << (shift - 1))) >> shift
    return out


def _table(keys: np.ndarray, log_p: np.ndarray, log_backoff: np.ndarray) -> tuple[np.ndarray, int]:
    """Open addressing with the keys in ascending order, which needs no loop: (table, slots of home).

    An n-gram's home is the key's place among 2^64 scaled to 1.5 slots an n-gram; its slot is the first free
    one from there on after the key before it.
    """
    by_key = np.argsort(keys)
    n_home_slots = max(1, len(keys) + len(keys) // 2)
    homes = ((keys[by_key] >> SHIFT_32) * np.uint64(n_home_slots) >> SHIFT_32).astype(np.int64)
    rank = np.arange(len(keys))
    slots = np.maximum.accumulate(homes - rank) + rank
    # One empty slot after the last key ends every search.
    table = np.zeros((max(n_home_slots, int(slots[-1]) + 1 if len(slots) else 0) + 1, 2), np.uint64)
    table[slots, 0] = keys[by_key]
    low = log_backoff.view(np.uint32).astype(np.uint64)
    table[slots, 1] = (log_p.view(np.uint32).astype(np.uint64) << SHIFT_32 | low)[by_key]
    return table, n_home_slots
