r"""DSIR's own features: n-grams of lower-cased `\w+|[^\w\s]+` tokens, in buckets by SHA-256.

As `data-selection` 1.0.3 has them (hashed_ngram_dsir.py): str.lower() of the document, tokens, n-grams joined
by one space, bucket = SHA-256 of the UTF-8 bytes as a big-endian integer mod n_buckets. Two steps: the
document is written anew as its tokens with a space between any two, whose slices then are all n-grams.

nltk before 3.10.3 splits by Python's `re`, as here; later ones by the package `regex`, whose `\w` also holds
marks.

Lower case is exactly str.lower() of Unicode UNICODE_VERSION, with the two rules that the other kernels leave
out: U+0130 becomes "i" and U+0307, and a capital sigma that ends a word becomes U+03C2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from dataselect.kernels.primitives import (
    BLOCK,
    I32,
    I64,
    U8,
    U32,
    U64,
    Word,
    low_bits,
    pointer_to,
    range_mask,
    trailing_zeros,
)
from dataselect.kernels.sha256 import (
    INITIAL,
    LANES,
    N_STATE,
    N_WORDS,
    ONE_BLOCK,
    ROUND_CONSTANTS,
    digest_mod,
    digest_powers,
    hash_lanes,
    set_block,
)
from dataselect.kernels.tokens import decode, encode
from dataselect.kernels.unicode_tables import (
    CASE_IGNORABLE,
    CASE_PAGE_OF,
    CASE_PAGES,
    CASED,
    OTHER,
    PAGE_OF,
    PAGES,
    SPACE,
)

_SLACK = 2 * BLOCK
"""Bytes after the last token, for loads of whole blocks."""
_CAPITAL_SIGMA, _SIGMA, _FINAL_SIGMA = 0x3A3, 0x3C3, 0x3C2
_I_WITH_DOT, _DOT_ABOVE = 0x130, 0x307


@njit(inline="always")
def _case_of(code_point: int, case_page_of: Any, case_pages: Any) -> int:
    if code_point < 0:
        return 0
    return np.int64(case_pages[np.int64(case_page_of[code_point >> 8]) << 8 | code_point & 255])


@njit
def _is_final_sigma(
    data: Any, first: int, position: int, end: int, case_page_of: Any, case_pages: Any
) -> bool:
    """Unicode 3.13's Final_Sigma for the sigma at `position` of the document [first, end).

    A cased letter before it and none after it, whatever case-ignorable characters stand between.
    """
    case = CASE_IGNORABLE
    before = position
    while case == CASE_IGNORABLE and before > first:
        start = before - 1
        while start > first and before - start < 4 and data[start] & 0xC0 == 0x80:
            start -= 1
        code_point, n_read = decode(data, start, end)
        if start + n_read != before:  # the byte before is not the end of a well-formed character
            code_point, start = np.int64(-1), before - 1
        case = _case_of(code_point, case_page_of, case_pages)
        before = start
    if case != CASED:
        return False
    case = CASE_IGNORABLE
    after = position + 2
    while case == CASE_IGNORABLE and after < end:
        code_point, n_read = decode(data, after, end)
        case = _case_of(code_point, case_page_of, case_pages)
        after += n_read
    return case != CASED


@njit(
    types.int64(I64, U8, U8, I32, U8, U8, types.int64, types.int64[::1], types.int64[::1], types.uint8[::1]),
    cache=True,
    nogil=True,
)
def _write_tokens(
    offsets: np.ndarray,
    data: np.ndarray,
    page_of: np.ndarray,
    pages: np.ndarray,
    case_page_of: np.ndarray,
    case_pages: np.ndarray,
    first_doc: int,
    n_tokens: np.ndarray,
    out_offsets: np.ndarray,
    out: np.ndarray,
) -> int:
    """Returns the first document that may not fit into `out`, or the number of documents."""
    source, target = pointer_to(data), pointer_to(out)
    classes, cases, case_pages_of = pointer_to(pages), pointer_to(case_pages), pointer_to(case_page_of)
    page_numbers = pointer_to(page_of)
    n_out = out_offsets[first_doc]
    for doc in range(first_doc, offsets.size - 1):
        first, end = offsets[doc], offsets[doc + 1]
        # At most three bytes for one: U+0130, two bytes, becomes a letter, a space, a mark and a space.
        if n_out + 3 * (end - first) + _SLACK > out.size:
            return doc
        token_class = SPACE
        n_found = 0
        position = first
        while position < end:
            code_point = np.int64(source[position])
            n_read = 1
            if code_point >= 0x80:
                code_point, n_read = decode(source, position, end)
            if code_point < 0:
                char_class, encoded, n_encoded = OTHER, np.int64(source[position]), 1
            else:
                entry = np.int64(classes[np.int64(page_numbers[code_point >> 8]) << 8 | code_point & 255])
                char_class = entry & 3
                lower = code_point + (entry >> 2)
                if code_point == _CAPITAL_SIGMA and _is_final_sigma(
                    source, first, position, end, case_pages_of, cases
                ):
                    lower = np.int64(_FINAL_SIGMA)
                encoded, n_encoded = encode(lower)
            position += n_read
            if char_class != token_class:
                token_class = char_class
                if char_class != SPACE:
                    if n_found:
                        target[n_out] = 0x20
                        n_out += 1
                    n_found += 1
            if char_class != SPACE:
                for _ in range(n_encoded):
                    target[n_out] = encoded & 0xFF
                    encoded >>= 8
                    n_out += 1
            if code_point == _I_WITH_DOT:  # the mark is no word character: a token of its own, or the
                target[n_out] = 0x20  # first of a run
                target[n_out + 1] = 0xC0 | _DOT_ABOVE >> 6
                target[n_out + 2] = 0x80 | _DOT_ABOVE & 0x3F
                n_out += 3
                n_found += 1
                token_class = OTHER
        n_tokens[doc] = n_found
        out_offsets[doc + 1] = n_out
    return offsets.size - 1


def lower_tokens(offsets: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every document as its lower-cased tokens with one space between any two.

    offsets  int64[n_docs + 1]   document i is data[offsets[i]:offsets[i + 1]]
    data     uint8[:]            UTF-8; a byte that is not part of a well-formed character is copied, as a
                                 character that is neither word character nor white space
    Returns (offsets int64[n_docs + 1] from 0, UTF-8 uint8[offsets[-1]], n_tokens int64[n_docs]).
    """
    new_offsets, padded, n_tokens = _padded_tokens(offsets, data)
    return new_offsets, padded[: new_offsets[-1]], n_tokens


def _padded_tokens(offsets: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`lower_tokens` with _SLACK or more bytes behind the last token."""
    n_docs = len(offsets) - 1
    lengths = np.diff(offsets)
    n_bytes, longest = int(lengths.sum()), int(lengths.max(initial=0))
    new_offsets, n_tokens = np.zeros(n_docs + 1, np.int64), np.zeros(n_docs, np.int64)
    # Prose grows by a tenth; the longest document always fits behind it, so that growing twice is rare.
    out = np.empty(n_bytes + n_bytes // 4 + 3 * longest + _SLACK, np.uint8)
    tables = PAGE_OF, PAGES, CASE_PAGE_OF, CASE_PAGES
    doc = 0
    while (doc := _write_tokens(offsets, data, *tables, doc, n_tokens, new_offsets, out)) < n_docs:
        grown = np.empty(2 * len(out), np.uint8)
        grown[: new_offsets[doc]] = out[: new_offsets[doc]]
        out = grown
    return new_offsets, out, n_tokens


@njit
def _write_buckets(
    message: Any, lanes: Any, places: Any, n_lanes: int, powers: Any, n_buckets: Word, out: Any
) -> None:
    """Hash the lanes' blocks, or one long message, and put their buckets where they belong."""
    text, start, n_bytes = message
    initial, round_constants, words, state = lanes
    hash_lanes(text, start, n_bytes, initial, round_constants, words, state)
    for lane in range(n_lanes):
        out[places[lane]] = digest_mod(state, lane, powers, n_buckets)


@njit(
    types.void(
        I64,
        U8,
        types.int64,
        types.uint64,
        U32,
        U32,
        U64,
        types.uint32[::1],
        types.uint32[::1],
        types.int64[::1],
        types.int64[::1],
        types.uint16[::1],
    ),
    cache=True,
    nogil=True,
)
def _hash_ngrams(
    offsets: np.ndarray,
    data: np.ndarray,
    order: int,
    n_buckets: Word,
    initial: np.ndarray,
    round_constants: np.ndarray,
    powers: np.ndarray,
    words: np.ndarray,
    state: np.ndarray,
    places: np.ndarray,
    starts: np.ndarray,
    out: np.ndarray,
) -> None:
    """Buckets of all n-grams of documents as `_padded_tokens` writes them, into `out`, in order.

    words, state, places  scratch: uint32[16, LANES], uint32[8, LANES], int64[LANES] (index into `out`)
    starts                scratch: int64[order], where the last tokens start, the newest first
    """
    text, starts_p, places_p = pointer_to(data), pointer_to(starts), pointer_to(places)
    words_p, powers_p, out_p = pointer_to(words), pointer_to(powers), pointer_to(out)
    lanes = pointer_to(initial), pointer_to(round_constants), words_p, pointer_to(state)
    # Typed, because a literal compiles what it is passed to once more.
    none = n_out = n_lanes = np.int64(0)
    for doc in range(offsets.size - 1):
        start = position = offsets[doc]
        end = offsets[doc + 1]
        n_held = 0
        while position < end:
            n_known = min(end - position, BLOCK)
            ends = range_mask(text, position, 0, 0x20, 0) & low_bits(n_known)
            position += n_known
            while ends or (position == end and start < end):
                stop = end
                if ends:
                    stop = position - n_known + trailing_zeros(ends)
                    ends &= ends - np.uint64(1)
                for k in range(order - 1, 0, -1):
                    starts_p[k] = starts_p[k - 1]
                starts_p[0] = start
                n_held = min(n_held + 1, order)
                for k in range(n_held):
                    n_bytes = stop - starts_p[k]
                    if n_bytes > ONE_BLOCK and n_lanes:  # its blocks take the place of theirs
                        _write_buckets(
                            (text, none, none), lanes, places_p, n_lanes, powers_p, n_buckets, out_p
                        )
                        n_lanes = none
                    if n_bytes <= ONE_BLOCK:
                        set_block(text, starts_p[k], n_bytes, none, words_p, n_lanes)
                    places_p[n_lanes] = n_out
                    n_out += 1
                    n_lanes += 1
                    if n_lanes == LANES or n_bytes > ONE_BLOCK:
                        message = text, starts_p[k], n_bytes
                        _write_buckets(message, lanes, places_p, n_lanes, powers_p, n_buckets, out_p)
                        n_lanes = none
                start = stop + 1
    _write_buckets((text, none, none), lanes, places_p, n_lanes, powers_p, n_buckets, out_p)


def sha256_ngram_lists(
    offsets: np.ndarray, data: np.ndarray, order: int, n_buckets: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """DSIR's buckets of every document's n-grams: (bucket_offsets int64[n_docs + 1], buckets, n_tokens).

    offsets, data  as `lower_tokens`
    order          longest n-gram in tokens, 1 or more
    n_buckets      1 to 65,536
    Document i owns buckets[bucket_offsets[i]:bucket_offsets[i + 1]] (uint16): for every token the n-grams of
    1 to `order` tokens that end at it, the shortest first. n_tokens int64[n_docs].
    """
    if order < 1:
        raise ValueError(f"order must be >= 1 token, got {order}")
    if not 1 <= n_buckets <= 1 << 16:
        raise ValueError(f"n_buckets must be 1 to 65536, got {n_buckets}")
    new_offsets, tokens, n_tokens = _padded_tokens(offsets, data)
    n_grams = sum(np.maximum(n_tokens - shorter, 0) for shorter in range(order))
    bucket_offsets = np.concatenate([[0], np.cumsum(n_grams)]).astype(np.int64)
    buckets = np.empty(bucket_offsets[-1], np.uint16)
    scratch = (
        np.zeros(N_WORDS, np.uint32),
        np.empty(N_STATE, np.uint32),
        np.empty(LANES, np.int64),
        np.empty(order, np.int64),
    )
    constants = INITIAL, ROUND_CONSTANTS, digest_powers(n_buckets)
    _hash_ngrams(new_offsets, tokens, order, n_buckets, *constants, *scratch, buckets)
    return bucket_offsets, buckets, n_tokens
