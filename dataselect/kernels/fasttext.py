"""fastText supervised scoring over Arrow buffers, by a folded table instead of matrices.

Tokens, hashes and the list of rows are those of fastText 0.9 (`Dictionary::readWord`, `hash`, `getLine`,
`computeSubwords`, `addWordNgrams`; Joulin et al. 2017, arXiv 1607.01759), except that a newline in a document
counts as a space: a document is one line. The table of `io.fasttext_model.fold` then turns inference into a
sum of one float a row for two labels.

settings int64[7]: number of vocabulary words (labels follow them), bucket, minn, maxn, wordNgrams, number of
labels, entry of "</s>" or -1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import njit, types

from dataselect.kernels.primitives import I64, U8, U64_2D, load_u64, pointer_to

_F32_2D = types.Array(types.float32, 2, "C", readonly=True)
_F64_2D = types.Array(types.float64, 2, "C", readonly=True)

# A slot of the vocabulary's open-addressing table: (32-bit hash in the high half, entry + 1 in the low; first
# 8 bytes of the word, padded with zeros). An entry of 0 is a free slot. No token holds a zero byte, so a
# token of less than 8 bytes is compared whole by its slot alone: one cache miss instead of three.
_ALL_64 = np.uint64(2**64 - 1)
_LOW_32 = np.uint64(0xFFFFFFFF)
_HASH_BASIS = np.uint32(2166136261)
_HASH_PRIME = np.uint32(16777619)
_NGRAM_PRIME = np.uint64(116049371)
_SEPARATOR_BITS = np.uint64(1 << 0 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 32)
_EOS = np.frombuffer(b"</s>", dtype=np.uint8)
_LABEL_PREFIX = np.frombuffer(b"__label__", dtype=np.uint8)
_EOS_HASH = np.uint32(3617362777)
# Rows and tokens are collected, then looked up in loops of independent loads, so that cache misses overlap.
_N_TOKENS_BUFFER = 256
_N_ROWS_BUFFER = 1024
# A float64 quotient of a 64-bit hash is off by less than one only below 2**51, so for buckets from 2**13 on.
_MIN_FLOAT_BUCKET = 1 << 13


def n_slots(n_entries: int) -> int:
    """Size of the slot table: a power of two, at most half full."""
    return 1 << max(2 * n_entries - 1, 1).bit_length()


@njit(cache=True, nogil=True)
def _hash_byte(h: Any, byte: Any) -> Any:
    # The library xors a *signed* char: bytes from 0x80 on flip the 24 high bits too.
    return np.uint32(np.uint32(h ^ np.uint32(np.int32(np.int8(byte)))) * _HASH_PRIME)


@njit(cache=True, nogil=True)
def _is_separator(byte: Any) -> Any:
    # A bit for each of \0 \t \n \v \f \r and space; nothing of Unicode.
    return byte <= 32 and (_SEPARATOR_BITS >> np.uint64(byte)) & np.uint64(1) != 0


@njit(types.uint64(types.uint64, types.uint64, types.float64), cache=True, nogil=True)
def _modulo(h: Any, bucket: Any, inverse: Any) -> Any:
    """`h` mod `bucket` by a multiplication and one correction; a 64-bit division costs up to 90 cycles."""
    if inverse == 0.0:
        return h % bucket
    quotient = np.uint64(np.int64(np.float64(h) * inverse))
    remainder = np.int64(h - quotient * bucket)
    if remainder < 0:
        remainder += np.int64(bucket)
    elif remainder >= np.int64(bucket):
        remainder -= np.int64(bucket)
    return np.uint64(remainder)


@njit(cache=True, nogil=True)
def _first_8_bytes(text: Any, start: int, end: int, text_end: int) -> Any:
    """text[start:end], cut or padded with zeros to 8 bytes, as a little-endian number."""
    if start + 8 <= text_end:
        return load_u64(text, start) & (_ALL_64 >> np.uint64(64 - 8 * min(end - start, 8)))
    prefix = np.uint64(0)
    for i in range(min(end - start, 8)):
        prefix |= np.uint64(text[start + i]) << np.uint64(8 * i)
    return prefix


@njit(types.void(I64, U8, types.uint64[:, ::1]), cache=True, nogil=True)
def fill_slots(word_starts: np.ndarray, word_bytes: np.ndarray, slots: np.ndarray) -> None:
    """Write the vocabulary's look-up table.

    word_starts  int64[n_entries + 1]           entry i is word_bytes[word_starts[i]:word_starts[i + 1]],
    uint8
    slots        uint64[n_slots(n_entries), 2]  zeros; an entry is at its hash mod n_slots, or the next free
    slot
    """
    words = pointer_to(word_bytes)
    mask = np.uint64(len(slots) - 1)
    for entry in range(word_starts.size - 1):
        start, end = word_starts[entry], word_starts[entry + 1]
        h = _HASH_BASIS
        for i in range(start, end):
            h = _hash_byte(h, words[i])
        slot = np.uint64(h) & mask
        while slots[slot, 0] != 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot, 0] = (np.uint64(h) << np.uint64(32)) | np.uint64(entry + 1)
        slots[slot, 1] = _first_8_bytes(words, start, end, word_bytes.size)


@njit(types.void(_F32_2D, _F64_2D, types.Array(types.float32, 2, "C")), cache=True, nogil=True)
def fold_rows(block: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """out[r, j] = block[r] . weights[j], summed in float64 in the order of the dimensions, rounded once.

    block float32[n_rows, dim], weights float64[n_columns, dim], out float32[n_rows, n_columns] overwritten.
    """
    for row in range(block.shape[0]):
        for column in range(weights.shape[0]):
            total = 0.0
            for k in range(block.shape[1]):
                total += np.float64(block[row, k]) * weights[column, k]
            out[row, column] = np.float32(total)


@njit(cache=True, nogil=True)
def _add_rows(table: Any, n_columns: int, rows: np.ndarray, n_rows: int, sums: np.ndarray) -> None:
    """sums[j] += table[rows[i], j] for i < n_rows, one after the other."""
    if n_columns == 1:
        total = sums[0]
        for i in range(n_rows):
            total += np.float64(table[rows[i]])
        sums[0] = total
    else:
        for i in range(n_rows):
            row = np.int64(rows[i]) * n_columns
            for column in range(n_columns):
                sums[column] += np.float64(table[row + column])


@njit(cache=True, nogil=True)
def _find(
    h: Any,
    text: Any,
    start: int,
    end: int,
    text_end: int,
    slots: Any,
    mask: Any,
    word_starts: Any,
    word_bytes: Any,
) -> Any:
    """Entry of the token text[start:end] with hash `h` in the vocabulary, or -1."""
    n_bytes = end - start
    prefix = _first_8_bytes(text, start, end, text_end)
    slot = np.uint64(h) & mask
    while slots[np.uint64(2) * slot] != 0:
        found = slots[np.uint64(2) * slot]
        if np.uint32(found >> np.uint64(32)) == h and slots[np.uint64(2) * slot + np.uint64(1)] == prefix:
            entry = np.int64(found & _LOW_32) - 1
            if n_bytes < 8:
                return entry
            word = word_starts[entry]
            if word_starts[entry + 1] - word == n_bytes and _equal(text, start, word_bytes, word, n_bytes):
                return entry
        slot = (slot + np.uint64(1)) & mask
    return np.int64(-1)


@njit(cache=True, nogil=True)
def _equal(text: Any, start: int, other: Any, other_start: int, n_bytes: int) -> Any:
    for i in range(n_bytes):  # noqa: SIM110  (a generator in a kernel is slow)
        if text[start + i] != other[other_start + i]:
            return False
    return True


@njit(cache=True, nogil=True)
def _bracketed(text: Any, start: int, end: int, i: int) -> Any:
    """Byte `i` of "<" + text[start:end] + ">"."""
    if i == 0:
        return np.uint8(60)
    if i == end - start + 1:
        return np.uint8(62)
    return text[start + i - 1]


@njit(cache=True, nogil=True)
def _push_char_ngrams(
    text: Any,
    start: int,
    end: int,
    settings: np.ndarray,
    table: Any,
    n_columns: int,
    rows: np.ndarray,
    n_rows: int,
    sums: np.ndarray,
) -> tuple[int, int]:
    """Append the rows of the character n-grams of the word text[start:end]; a full buffer is added to `sums`.

    Returns (rows in the buffer, rows appended).
    """
    n_words, bucket = np.uint64(settings[0]), np.uint64(settings[1])
    minn, maxn = settings[2], settings[3]
    n_bytes = end - start + 2
    n_appended = 0
    for i in range(n_bytes):
        if _bracketed(text, start, end, i) & 0xC0 == 0x80:
            continue
        h = _HASH_BASIS
        j = i
        n = 1
        while j < n_bytes and n <= maxn:
            h = _hash_byte(h, _bracketed(text, start, end, j))
            j += 1
            while j < n_bytes and _bracketed(text, start, end, j) & 0xC0 == 0x80:
                h = _hash_byte(h, _bracketed(text, start, end, j))
                j += 1
            if n >= minn and not (n == 1 and (i == 0 or j == n_bytes)):
                if n_rows == _N_ROWS_BUFFER:
                    _add_rows(table, n_columns, rows, n_rows, sums)
                    n_rows = 0
                rows[n_rows] = n_words + np.uint64(h) % bucket
                n_rows += 1
                n_appended += 1
            n += 1
    return n_rows, n_appended


@njit(cache=True, nogil=True)
def _probability(sums: np.ndarray, n_rows: int) -> Any:
    """The library's softmax of the label's logit 0 against the others' sums / n_rows, plus its 1e-5."""
    if n_rows == 0:
        return np.float32(np.nan)
    total = 1.0
    for column in range(sums.size):
        total += math.exp(min(sums[column] / n_rows, 700.0))
    return np.float32(1.0 / total + 1e-5)


@njit(types.void(I64, U8, I64, U64_2D, I64, U8, _F32_2D, types.float32[::1]), cache=True, nogil=True)
def score(
    offsets: np.ndarray,
    data: np.ndarray,
    settings: np.ndarray,
    slots: np.ndarray,
    word_starts: np.ndarray,
    word_bytes: np.ndarray,
    table: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write each document's probability of the label that `table` was folded for.

    offsets     int64[n_docs + 1]  document i is data[offsets[i]:offsets[i + 1]], uint8
    settings, slots, word_starts, word_bytes, table   see `io.fasttext_model.prepare`
    out         float32[n_docs]    overwritten with softmax probability + 1e-5, as the library reports it (so
    up to
                                   1.00001); NaN where the library predicts nothing because no token has a row
    Rows are summed in float64 in the order of the text, each word n-gram where its last token is.
    """
    n_words, bucket = np.uint64(settings[0]), np.uint64(settings[1])
    maxn, max_open = settings[3], settings[4] - 1
    inverse = 1.0 / settings[1] if settings[1] >= _MIN_FLOAT_BUCKET else 0.0
    text, n_columns = pointer_to(data), table.shape[1]
    mask = np.uint64(len(slots) - 1)
    vocabulary = pointer_to(slots), mask, pointer_to(word_starts), pointer_to(word_bytes)
    folded = pointer_to(table)
    token_start = np.empty(_N_TOKENS_BUFFER, np.int64)
    token_end = np.empty(_N_TOKENS_BUFFER, np.int64)
    token_hash = np.empty(_N_TOKENS_BUFFER, np.uint32)
    rows = np.empty(_N_ROWS_BUFFER, np.uint64)
    sums = np.zeros(table.shape[1], np.float64)
    # open_ngrams[k]: library's hash of the last k + 1 words; one more word makes it an n-gram of k + 2 words.
    open_ngrams = np.zeros(max(max_open, 1), np.uint64)
    for document in range(offsets.size - 1):
        i, end = offsets[document], offsets[document + 1]
        sums[:] = 0.0
        n_rows, n_rows_before, n_open = 0, 0, 0
        at_end = False
        while not at_end:
            n_tokens = 0
            while n_tokens < _N_TOKENS_BUFFER and not at_end:
                while i < end and _is_separator(text[i]):
                    i += 1
                start = i
                h = _HASH_BASIS
                while i < end and not _is_separator(text[i]):
                    h = _hash_byte(h, text[i])
                    i += 1
                # A literal "</s>" ends the line as the library's own does: what follows is not read.
                at_end = start == end or (
                    h == _EOS_HASH and i - start == 4 and _equal(text, start, _EOS, 0, 4)
                )
                token_start[n_tokens] = start
                token_end[n_tokens] = i
                token_hash[n_tokens] = _EOS_HASH if at_end else h
                n_tokens += 1
            for token in range(n_tokens):
                if n_rows + max_open + 1 >= _N_ROWS_BUFFER:
                    _add_rows(folded, n_columns, rows, n_rows, sums)
                    n_rows_before += n_rows
                    n_rows = 0
                h, start, end_of_token = token_hash[token], token_start[token], token_end[token]
                is_eos = at_end and token == n_tokens - 1
                if is_eos:
                    entry = settings[6]
                else:
                    entry = _find(h, text, start, end_of_token, data.size, *vocabulary)
                    is_label = entry >= settings[0] or (
                        entry < 0
                        and end_of_token - start >= _LABEL_PREFIX.size
                        and _equal(text, start, _LABEL_PREFIX, 0, _LABEL_PREFIX.size)
                    )
                    if is_label:
                        continue
                if entry >= 0:
                    rows[n_rows] = np.uint64(entry)
                    n_rows += 1
                if maxn > 0 and not is_eos:
                    n_before = n_rows
                    n_rows, n_appended = _push_char_ngrams(
                        text, start, end_of_token, settings, folded, n_columns, rows, n_rows, sums
                    )
                    n_rows_before += n_before + n_appended - n_rows
                    if n_rows + max_open >= _N_ROWS_BUFFER:
                        _add_rows(folded, n_columns, rows, n_rows, sums)
                        n_rows_before += n_rows
                        n_rows = 0
                word = np.uint64(np.int64(np.int32(h)))
                for k in range(n_open - 1, -1, -1):
                    ngram = open_ngrams[k] * _NGRAM_PRIME + word
                    rows[n_rows] = n_words + _modulo(ngram, bucket, inverse)
                    n_rows += 1
                    if k + 1 < max_open:
                        open_ngrams[k + 1] = ngram
                open_ngrams[0] = word
                n_open = min(n_open + 1, max_open)
        _add_rows(folded, n_columns, rows, n_rows, sums)
        out[document] = _probability(sums, n_rows_before + n_rows)


def score_texts(offsets: np.ndarray, data: np.ndarray, model: Mapping[str, np.ndarray]) -> np.ndarray:
    """Probability of the label for each document: float32[n_docs]; `model` is of
    `io.fasttext_model.prepare`.
    """
    out = np.empty(offsets.size - 1, dtype=np.float32)
    score(
        offsets,
        data,
        model["settings"],
        model["slots"],
        model["word_starts"],
        model["word_bytes"],
        model["table"],
        out,
    )
    return out
