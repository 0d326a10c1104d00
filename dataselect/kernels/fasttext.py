"""fastText supervised scoring over Arrow buffers, by a folded table instead of matrices.

Tokens, hashes and the list of rows are those of fastText 0.9 (`Dictionary::readWord`, `hash`, `getLine`,
`computeSubwords`, `addWordNgrams`, `pushHash`; Joulin et al. 2017, arXiv 1607.01759), except that a newline
in a document counts as a space: a document is one line. Probabilities are those of its `Loss` classes. What
the arrays of a model hold is described at `io.fasttext_tables.prepare`.

settings int64[8]: number of vocabulary words (labels follow them), bucket, minn, maxn, wordNgrams, loss,
entry of "</s>" or -1, number of logits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import njit, types

from dataselect.kernels.primitives import (
    I64,
    U8,
    U64_2D,
    load_u64,
    low_bits,
    pointer_to,
    popcount,
    row_adder,
)

_F32_2D = types.Array(types.float32, 2, "C", readonly=True)
_F64_2D = types.Array(types.float64, 2, "C", readonly=True)
_F64 = types.Array(types.float64, 1, "C", readonly=True)
_I32 = types.Array(types.int32, 1, "C", readonly=True)
_U8_2D = types.Array(types.uint8, 2, "C", readonly=True)
_F32 = types.Array(types.float32, 1, "C", readonly=True)

HIERARCHICAL_SOFTMAX, NEGATIVE_SAMPLING, SOFTMAX, ONE_VS_ALL = 1, 2, 3, 4
"""Losses by fastText's own numbers."""

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
_PROBABILITIES_AT_ONCE = 1 << 20
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


@njit(types.uint64(types.uint64, types.uint64, types.uint64), cache=True, nogil=True)
def _modulo32(h: Any, bucket: Any, magic: Any) -> Any:
    """`h` mod `bucket` of two 32-bit numbers, magic = (2**64 - 1) // bucket + 1 (Lemire et al. 2019)."""
    fraction = magic * h
    low = ((fraction & _LOW_32) * bucket) >> np.uint64(32)
    return ((fraction >> np.uint64(32)) * bucket + low) >> np.uint64(32)


@njit(types.void(_U8_2D, _F32, types.int64, _F32, types.Array(types.float32, 2, "C")), cache=True, nogil=True)
def dequantise(
    codes: np.ndarray, centroids: np.ndarray, dsub: int, norms: np.ndarray, out: np.ndarray
) -> None:
    """out[r] = norms[r] * the centroids that row r's codes name, rounded to float32 as the library does.

    codes      uint8[n_rows, n_sub]   centroid of each run of `dsub` dimensions, the last run may be shorter
    centroids  float32[dim * 256]     run m: 256 centroids of its length, from m * 256 * dsub
    norms      float32[n_rows]
    out        float32[n_rows, dim]   overwritten
    """
    for row in range(codes.shape[0]):
        for m in range(codes.shape[1]):
            length = min(dsub, out.shape[1] - m * dsub)
            first = m * 256 * dsub + np.int64(codes[row, m]) * length
            for k in range(length):
                out[row, m * dsub + k] = norms[row] * centroids[first + k]


@njit(types.void(_F32_2D, _F64_2D, types.Array(types.float32, 2, "C")), cache=True, nogil=True)
def fold_rows(block: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """out[r, j] = sum over k of block[r, k] * weights[k, j], in float64 in the order of k, rounded once.

    block float32[n_rows, dim], weights float64[dim, n_columns], out float32[n_rows, >= n_columns]: columns
    beyond are left alone.
    """
    n_columns = weights.shape[1]
    sums = np.empty(n_columns, np.float64)
    for row in range(block.shape[0]):
        if n_columns == 1:
            total = 0.0
            for k in range(block.shape[1]):
                total += np.float64(block[row, k]) * weights[k, 0]
            out[row, 0] = np.float32(total)
        else:
            sums[:] = 0.0
            for k in range(block.shape[1]):
                value = np.float64(block[row, k])
                for column in range(n_columns):
                    sums[column] += value * weights[k, column]
            for column in range(n_columns):
                out[row, column] = np.float32(sums[column])


def n_padded_columns(n_columns: int) -> int:
    """Columns a table is padded to: a power of two up to 16, then multiples of 16."""
    return 1 << (n_columns - 1).bit_length() if n_columns <= 16 else -(-n_columns // 16) * 16


_add_1, _add_2, _add_4, _add_8, _add_16 = (row_adder(width) for width in (1, 2, 4, 8, 16))


@njit(cache=True, nogil=True)
def _add_rows(table: Any, n_columns: int, rows: Any, n_rows: int, sums: Any) -> None:
    """sums[j] += table[rows[i], j] for i < n_rows, one after the other; all by pointers."""
    if n_columns == 1:
        _add_1(table, n_columns, 0, rows, n_rows, sums)
    elif n_columns == 2:
        _add_2(table, n_columns, 0, rows, n_rows, sums)
    elif n_columns == 4:
        _add_4(table, n_columns, 0, rows, n_rows, sums)
    elif n_columns == 8:
        _add_8(table, n_columns, 0, rows, n_rows, sums)
    else:
        for first in range(0, n_columns, 16):
            _add_16(table, n_columns, first, rows, n_rows, sums)


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
def _longest(offsets: np.ndarray) -> int:
    # Not np.max(np.diff()), which takes 3 seconds to compile.
    longest = np.int64(0)
    for i in range(offsets.size - 1):
        longest = max(longest, offsets[i + 1] - offsets[i])
    return longest


@njit(cache=True, nogil=True)
def _push_bucket(hashed: Any, n_words: Any, kept: Any, is_pruned: Any, rows: Any, n_rows: int) -> int:
    """Append the row of a bucket, unless the quantiser dropped it; returns the new number of rows."""
    if not is_pruned:
        rows[n_rows] = n_words + hashed
        return n_rows + 1
    block = np.uint64(2) * (hashed >> np.uint64(6))
    bits, bit = kept[block], hashed & np.uint64(63)
    # Written either way: whether a bucket was kept can't be foreseen, and a wrong guess costs 20 cycles.
    before = np.uint64(popcount(bits & low_bits(np.int64(bit))))
    rows[n_rows] = n_words + kept[block + np.uint64(1)] + before
    return n_rows + np.int64((bits >> bit) & np.uint64(1))


@njit(cache=True, nogil=True)
def _push_char_ngrams(
    text: Any,
    start: int,
    end: int,
    settings: np.ndarray,
    kept: Any,
    is_pruned: Any,
    table: Any,
    n_columns: int,
    word: Any,
    leads: Any,
    rows: Any,
    n_rows: int,
    sums: Any,
) -> tuple[int, int]:
    """Append the rows of the character n-grams of the word text[start:end]; a full buffer is added to `sums`.

    `word` and `leads` have room for the word in angle brackets and for its characters.
    Returns (rows in the buffer, rows added to `sums`).
    """
    n_words, bucket = np.uint64(settings[0]), np.uint64(settings[1])
    magic = _ALL_64 // bucket + np.uint64(1)
    minn, maxn = max(settings[2], 1), settings[3]
    n_bytes = end - start + 2
    word[0] = np.uint8(60)
    leads[0] = 0
    n_chars = 1
    for i in range(end - start):
        byte = text[start + i]
        word[i + 1] = byte
        leads[n_chars] = i + 1
        n_chars += np.int64(byte & 0xC0 != 0x80)
    word[n_bytes - 1] = np.uint8(62)
    leads[n_chars] = n_bytes - 1
    n_chars += 1
    leads[n_chars] = n_bytes
    n_added = 0
    for first in range(n_chars):
        if n_rows + maxn > _N_ROWS_BUFFER:
            _add_rows(table, n_columns, rows, n_rows, sums)
            n_added += n_rows
            n_rows = 0
        # A bracket alone is no n-gram.
        shortest = max(minn, 2) if first == 0 or first == n_chars - 1 else minn
        h = _HASH_BASIS
        i = np.int64(leads[first])
        for last in range(first, min(first + maxn, n_chars)):
            stop = np.int64(leads[last + 1])
            while i < stop:
                h = _hash_byte(h, word[i])
                i += 1
            if last - first + 1 >= shortest:
                hashed = _modulo32(np.uint64(h), bucket, magic)
                n_rows = _push_bucket(hashed, n_words, kept, is_pruned, rows, n_rows)
    return n_rows, n_added


@njit(cache=True, nogil=True)
def _add_subwords(
    word_starts: np.ndarray,
    word_bytes: np.ndarray,
    settings: np.ndarray,
    kept: np.ndarray,
    table: np.ndarray,
    word_n_rows: np.ndarray,
    word: np.ndarray,
    leads: np.ndarray,
    rows: np.ndarray,
    sums: np.ndarray,
) -> None:
    n_columns = table.shape[1]
    for entry in range(word_n_rows.size):
        word_n_rows[entry] = 1
        if entry != settings[6]:
            for column in range(n_columns):
                sums[column] = np.float64(table[entry, column])
            n_rows, n_added = _push_char_ngrams(
                pointer_to(word_bytes),
                word_starts[entry],
                word_starts[entry + 1],
                settings,
                pointer_to(kept),
                len(kept) > 0,
                pointer_to(table),
                n_columns,
                pointer_to(word),
                pointer_to(leads),
                pointer_to(rows),
                0,
                pointer_to(sums),
            )
            _add_rows(pointer_to(table), n_columns, pointer_to(rows), n_rows, pointer_to(sums))
            word_n_rows[entry] += n_added + n_rows
            for column in range(n_columns):
                table[entry, column] = np.float32(sums[column])


@njit(
    types.void(I64, U8, I64, U64_2D, types.Array(types.float32, 2, "C"), types.int32[::1]),
    cache=True,
    nogil=True,
)
def add_subwords(
    word_starts: np.ndarray,
    word_bytes: np.ndarray,
    settings: np.ndarray,
    kept: np.ndarray,
    table: np.ndarray,
    word_n_rows: np.ndarray,
) -> None:
    """Add to each vocabulary word's row those of its character n-grams, so that it is one look-up.

    table        float32[n_rows, n_columns]   rows of words are overwritten by sums (in float64, rounded once)
    word_n_rows  int32[n_words]               overwritten by the number of rows in each sum
    The other arrays are those of `score`.
    """
    longest = _longest(word_starts)
    _add_subwords(
        word_starts,
        word_bytes,
        settings,
        kept,
        table,
        word_n_rows,
        np.empty(longest + 2, np.uint8),
        np.empty(longest + 3, np.int32),
        np.empty(_N_ROWS_BUFFER, np.uint64),
        np.empty(table.shape[1], np.float64),
    )


@njit(cache=True, nogil=True)
def _probabilities(
    loss: int, logits: np.ndarray, label_starts: np.ndarray, label_nodes: np.ndarray, out: np.ndarray
) -> None:
    """out[k] = what the library reports for label k: probability + 1e-5 (hs: 1e-5 added at each node).

    softmax   label_nodes[k] is the label's row; logits are differences to row 0
    ova, ns   label_nodes[k] is the logit; the library's sigmoid has 512 steps, of 1/32
    hs        label_nodes[label_starts[k]:label_starts[k + 1]] is the path from the root: 2 * logit + (1 where
              it goes right)
    """
    if loss == SOFTMAX:
        largest = 0.0
        for j in range(logits.size):
            largest = max(largest, logits[j])
        total = math.exp(-largest)
        for j in range(logits.size):
            total += math.exp(logits[j] - largest)
        for k in range(out.size):
            row = label_nodes[k]
            logit = logits[row - 1] if row > 0 else 0.0
            out[k] = np.float32(math.exp(logit - largest) / total + 1e-5)
    elif loss == HIERARCHICAL_SOFTMAX:
        for j in range(logits.size):
            logits[j] = 1.0 / (1.0 + math.exp(min(-logits[j], 700.0)))
        for k in range(out.size):
            product = 1.0
            for node in label_nodes[label_starts[k] : label_starts[k + 1]]:
                right = logits[node >> 1]
                product *= (right if node & 1 else 1.0 - right) + 1e-5
            out[k] = np.float32(product)
    else:
        for k in range(out.size):
            step = math.floor((min(max(logits[label_nodes[k]], -9.0), 8.0) + 8.0) * 32.0)
            share = 1.0 / (1.0 + math.exp(8.0 - step / 32.0)) if step >= 0 else 0.0
            out[k] = np.float32((1.0 if logits[label_nodes[k]] > 8.0 else share) + 1e-5)


@njit(cache=True, nogil=True)
def _logits(sums: np.ndarray, n_rows: int, output: np.ndarray, logits: np.ndarray) -> None:
    """The mean row itself where the table is folded (`output` is empty), else times `output`."""
    if len(output) == 0:
        for j in range(logits.size):
            logits[j] = sums[j] / n_rows
        return
    logits[:] = 0.0
    for k in range(output.shape[0]):
        hidden = sums[k] / n_rows
        for j in range(logits.size):
            logits[j] += hidden * output[k, j]


@njit(cache=True, nogil=True)
def _score_documents(
    offsets: np.ndarray,
    data: np.ndarray,
    settings: np.ndarray,
    slots: np.ndarray,
    word_starts: np.ndarray,
    word_bytes: np.ndarray,
    word_n_rows: np.ndarray,
    kept: np.ndarray,
    table: np.ndarray,
    output: np.ndarray,
    label_starts: np.ndarray,
    label_nodes: np.ndarray,
    out: np.ndarray,
    word: np.ndarray,
    leads: np.ndarray,
    rows: np.ndarray,
    sums: np.ndarray,
    logits: np.ndarray,
    open_ngrams: np.ndarray,
) -> None:
    """`score` with its scratch arrays."""
    n_words, bucket = np.uint64(settings[0]), np.uint64(settings[1])
    maxn, max_open = settings[3], settings[4] - 1
    inverse = 1.0 / settings[1] if settings[1] >= _MIN_FLOAT_BUCKET else 0.0
    text, n_columns = pointer_to(data), table.shape[1]
    mask = np.uint64(len(slots) - 1)
    vocabulary = pointer_to(slots), mask, pointer_to(word_starts), pointer_to(word_bytes)
    n_rows_of_word = pointer_to(word_n_rows)
    folded, row_list = pointer_to(table), pointer_to(rows)
    kept_buckets, is_pruned = pointer_to(kept), len(kept) > 0
    sums_list = pointer_to(sums)
    token_start = np.empty(_N_TOKENS_BUFFER, np.int64)
    token_end = np.empty(_N_TOKENS_BUFFER, np.int64)
    token_hash = np.empty(_N_TOKENS_BUFFER, np.uint32)
    for document in range(offsets.size - 1):
        i, end = offsets[document], offsets[document + 1]
        sums[:] = 0.0
        # The rows of the document: those in the buffer, those already added, and those that a word's own row
        # stands for beside itself.
        n_rows, n_added, n_open = 0, 0, 0
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
                    _add_rows(folded, n_columns, row_list, n_rows, sums_list)
                    n_added += n_rows
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
                    if maxn > 0:
                        n_added += np.int64(n_rows_of_word[entry]) - 1
                elif maxn > 0 and not is_eos:
                    n_rows, n_added_now = _push_char_ngrams(
                        text,
                        start,
                        end_of_token,
                        settings,
                        kept_buckets,
                        is_pruned,
                        folded,
                        n_columns,
                        pointer_to(word),
                        pointer_to(leads),
                        row_list,
                        n_rows,
                        sums_list,
                    )
                    n_added += n_added_now
                    if n_rows + max_open >= _N_ROWS_BUFFER:
                        _add_rows(folded, n_columns, row_list, n_rows, sums_list)
                        n_added += n_rows
                        n_rows = 0
                this = np.uint64(np.int64(np.int32(h)))
                for k in range(n_open - 1, -1, -1):
                    ngram = open_ngrams[k] * _NGRAM_PRIME + this
                    hashed = _modulo(ngram, bucket, inverse)
                    n_rows = _push_bucket(hashed, n_words, kept_buckets, is_pruned, row_list, n_rows)
                    if k + 1 < max_open:
                        open_ngrams[k + 1] = ngram
                open_ngrams[0] = this
                n_open = min(n_open + 1, max_open)
        _add_rows(folded, n_columns, row_list, n_rows, sums_list)
        n_rows += n_added
        if n_rows == 0:
            out[document, :] = np.nan
            continue
        _logits(sums, n_rows, output, logits)
        _probabilities(settings[5], logits, label_starts, label_nodes, out[document])


@njit(
    types.void(
        I64, U8, I64, U64_2D, I64, U8, _I32, U64_2D, _F32_2D, _F64_2D, I64, _I32, types.float32[:, ::1]
    ),
    cache=True,
    nogil=True,
)
def score(
    offsets: np.ndarray,
    data: np.ndarray,
    settings: np.ndarray,
    slots: np.ndarray,
    word_starts: np.ndarray,
    word_bytes: np.ndarray,
    word_n_rows: np.ndarray,
    kept: np.ndarray,
    table: np.ndarray,
    output: np.ndarray,
    label_starts: np.ndarray,
    label_nodes: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write each document's probabilities of the labels that the model was prepared for.

    offsets  int64[n_docs + 1]           document i is data[offsets[i]:offsets[i + 1]], uint8
    out      float32[n_docs, n_labels]   overwritten with probabilities as the library reports them (so up to
                                         1.00001); NaN where it predicts nothing because no token has a row
    The other arrays are those of `io.fasttext_tables.prepare`.

    Rows are summed in float64 in the order of the text, each word n-gram where its last word is.
    """
    # Untouched pages of these cost nothing: a word is rarely as long as a document.
    longest = _longest(offsets) if settings[3] > 0 else 0
    _score_documents(
        offsets,
        data,
        settings,
        slots,
        word_starts,
        word_bytes,
        word_n_rows,
        kept,
        table,
        output,
        label_starts,
        label_nodes,
        out,
        np.empty(longest + 2, np.uint8),
        np.empty(longest + 3, np.int32),
        np.empty(_N_ROWS_BUFFER, np.uint64),
        np.zeros(table.shape[1], np.float64),
        np.zeros(settings[7], np.float64),
        np.zeros(max(settings[4] - 1, 1), np.uint64),
    )


def score_texts(offsets: np.ndarray, data: np.ndarray, model: Mapping[str, np.ndarray]) -> np.ndarray:
    """Probabilities float32[n_docs, n_labels] of the labels that `model` was prepared for.

    See `io.fasttext_tables.prepare` for `model`, `score` for the rest.
    """
    out = np.empty((offsets.size - 1, model["label_starts"].size - 1), dtype=np.float32)
    names = ("settings", "slots", "word_starts", "word_bytes", "word_n_rows", "kept", "table", "output")
    arrays = [model[name] for name in (*names, "label_starts", "label_nodes")]
    score(offsets, data, *arrays, out)
    return out


def best_labels(
    offsets: np.ndarray, data: np.ndarray, model: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """(index of the most probable of the model's labels int32[n_docs], its probability float32[n_docs]).

    -1 and NaN where the library predicts nothing. Of equal probabilities the later label wins, as in the
    library's `findKBest`.
    """
    n_docs, n_labels = offsets.size - 1, model["label_starts"].size - 1
    best = np.empty(n_docs, dtype=np.int32)
    score = np.empty(n_docs, dtype=np.float32)
    # All probabilities of a few documents at a time: a batch may have 10^5 documents, a model 10^3 labels.
    n_at_once = max(1, _PROBABILITIES_AT_ONCE // n_labels)
    for begin in range(0, n_docs, n_at_once):
        part = slice(begin, min(begin + n_at_once, n_docs))
        found = score_texts(offsets[part.start : part.stop + 1], data, model)
        best[part] = n_labels - 1 - np.argmax(found[:, ::-1], axis=1)
        score[part] = found[np.arange(len(found)), best[part]]
    best[np.isnan(score)] = -1
    return best, score
