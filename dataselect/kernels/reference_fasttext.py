"""Slow, obvious twin of `kernels.fasttext`: same names and arguments, plain Python, equal results bit for
bit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np

_SEPARATORS = re.compile(rb"[ \t\n\v\f\r\0]+")
_EOS = b"</s>"
HIERARCHICAL_SOFTMAX, SOFTMAX = 1, 3


def hash_token(token: bytes) -> int:
    """The library's 32-bit hash: FNV-1a over *signed* bytes, so that it differs from FNV-1a above 0x7F."""
    h = 2166136261
    for byte in token:
        signed = byte - 256 if byte >= 128 else byte
        h = ((h ^ (signed & 0xFFFFFFFF)) * 16777619) & 0xFFFFFFFF
    return h


def tokens_of(text: bytes) -> list[bytes]:
    """Tokens of one line: newline is a space, and `</s>` ends the line wherever it stands."""
    tokens = [token for token in _SEPARATORS.split(text) if token]
    if _EOS in tokens:
        tokens = tokens[: tokens.index(_EOS)]
    return [*tokens, _EOS]


def char_ngrams(word: bytes, minn: int, maxn: int) -> Iterator[bytes]:
    """Character n-grams of "<word>", by UTF-8 lead bytes (`Dictionary::computeSubwords`)."""
    bracketed = b"<" + word + b">"
    leads = [i for i, byte in enumerate(bracketed) if byte & 0xC0 != 0x80]
    bounds = [*leads, len(bracketed)]
    for first in range(len(leads)):
        for n in range(1, maxn + 1):
            if first + n >= len(bounds):
                break
            begin, end = bounds[first], bounds[first + n]
            if n >= minn and not (n == 1 and (begin == 0 or end == len(bracketed))):
                yield bracketed[begin:end]


def word_ngram_hashes(hashes: list[int], last: int, word_ngrams: int) -> Iterator[int]:
    """Library's hashes of the n-grams of 2 to `word_ngrams` words that end at word `last`, shortest first."""
    for first in range(last - 1, max(-1, last - word_ngrams), -1):
        ngram = _sign_extend(hashes[first])
        for h in hashes[first + 1 : last + 1]:
            ngram = (ngram * 116049371 + _sign_extend(h)) % 2**64
        yield ngram


def _sign_extend(h: int) -> int:
    return h - 2**32 if h >= 2**31 else h


def bucket_row(bucket: int, n_words: int, kept: np.ndarray) -> list[int]:
    """Row of a bucket's n-grams; of a pruned model it is the rank among the kept ones, or there is none."""
    if not len(kept):
        return [n_words + bucket]
    bits, n_before = (int(value) for value in kept[bucket // 64])
    if not bits >> (bucket % 64) & 1:
        return []
    return [n_words + n_before + (bits & ((1 << bucket % 64) - 1)).bit_count()]


def rows_of(text: bytes, entries: Mapping[bytes, int], settings: np.ndarray, kept: np.ndarray) -> list[int]:
    """Rows that make up a document, each word n-gram where its last word is.

    A row of a vocabulary word stands for those of its character n-grams too.
    """
    n_words, bucket, minn, maxn, word_ngrams = (int(value) for value in settings[:5])
    rows: list[int] = []
    hashes: list[int] = []
    for token in tokens_of(text):
        entry = entries.get(token, -1)
        if entry >= n_words or (entry < 0 and token.startswith(b"__label__")):
            continue
        if entry >= 0:
            rows.append(entry)
        elif token != _EOS:
            for ngram in char_ngrams(token, minn, maxn):
                rows += bucket_row(hash_token(ngram) % bucket, n_words, kept)
        hashes.append(hash_token(token))
        for ngram_hash in word_ngram_hashes(hashes, len(hashes) - 1, word_ngrams):
            rows += bucket_row(ngram_hash % bucket, n_words, kept)
    return rows


def dequantise(
    codes: np.ndarray, centroids: np.ndarray, dsub: int, norms: np.ndarray, out: np.ndarray
) -> None:
    """See `kernels.fasttext.dequantise`."""
    for row, norm in enumerate(norms):
        values: list[np.float32] = []
        for m, code in enumerate(codes[row].tolist()):
            length = min(dsub, out.shape[1] - len(values))
            first = m * 256 * dsub + code * length
            values += [norm * value for value in centroids[first : first + length]]
        out[row] = values


def fold_rows(block: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """See `kernels.fasttext.fold_rows`."""
    for row in range(len(block)):
        for column in range(weights.shape[1]):
            total = 0.0
            for k in range(block.shape[1]):
                total += float(block[row, k]) * float(weights[k, column])
            out[row, column] = total


def add_subwords(
    word_starts: np.ndarray,
    word_bytes: np.ndarray,
    settings: np.ndarray,
    kept: np.ndarray,
    table: np.ndarray,
    word_n_rows: np.ndarray,
) -> None:
    """See `kernels.fasttext.add_subwords`."""
    n_words, bucket, minn, maxn = (int(value) for value in settings[:4])
    for entry in range(len(word_n_rows)):
        word = word_bytes[word_starts[entry] : word_starts[entry + 1]].tobytes()
        rows = [entry]
        for ngram in char_ngrams(word, minn, maxn) if entry != settings[6] else ():
            rows += bucket_row(hash_token(ngram) % bucket, n_words, kept)
        word_n_rows[entry] = len(rows)
        table[entry] = _sums(rows, table)


def score_texts(offsets: np.ndarray, data: np.ndarray, model: Mapping[str, np.ndarray]) -> np.ndarray:
    """See `kernels.fasttext.score_texts`."""
    starts, word_bytes = model["word_starts"], model["word_bytes"].tobytes()
    entries = {word_bytes[starts[i] : starts[i + 1]]: i for i in range(len(starts) - 1)}
    label_starts = model["label_starts"]
    out = np.full((len(offsets) - 1, len(label_starts) - 1), np.nan, np.float32)
    for document in range(len(out)):
        text = data[offsets[document] : offsets[document + 1]].tobytes()
        rows = rows_of(text, entries, model["settings"], model["kept"])
        n_rows = sum(int(model["word_n_rows"][row]) if row < len(model["word_n_rows"]) else 1 for row in rows)
        if n_rows:
            mean = [total / n_rows for total in _sums(rows, model["table"])]
            paths = [model["label_nodes"][a:b].tolist() for a, b in pairwise(label_starts)]
            out[document] = _probabilities(int(model["settings"][5]), _logits(mean, model), paths)
    return out


def _sums(rows: list[int], table: np.ndarray) -> list[float]:
    sums = [0.0] * table.shape[1]
    for row in rows:
        sums = [total + float(value) for total, value in zip(sums, table[row], strict=True)]
    return sums


def _logits(mean: list[float], model: Mapping[str, np.ndarray]) -> list[float]:
    output = model["output"]
    if not len(output):
        return mean[: int(model["settings"][7])]
    logits = [0.0] * output.shape[1]
    for k in range(len(output)):
        logits = [logit + mean[k] * float(weight) for logit, weight in zip(logits, output[k], strict=True)]
    return logits


def _probabilities(loss: int, logits: list[float], paths: list[list[int]]) -> list[float]:
    """See `kernels.fasttext._probabilities`."""
    if loss == SOFTMAX:
        logits = [0.0, *logits]
        shares = [math.exp(logit - max(logits)) for logit in logits]
        total = 0.0
        for share in shares:
            total += share
        return [shares[row] / total + 1e-5 for (row,) in paths]
    if loss == HIERARCHICAL_SOFTMAX:
        right = [1.0 / (1.0 + math.exp(min(-logit, 700.0))) for logit in logits]
        products = [1.0] * len(paths)
        for label, path in enumerate(paths):
            for node in path:
                products[label] *= (right[node // 2] if node % 2 else 1.0 - right[node // 2]) + 1e-5
        return products
    return [_stepped_sigmoid(logits[node]) + 1e-5 for (node,) in paths]


def _stepped_sigmoid(logit: float) -> float:
    """The library's table: 512 steps of 1/32 from -8 to 8, 0 below and 1 above."""
    if not -8.0 <= logit <= 8.0:
        return float(logit > 0)
    return 1.0 / (1.0 + math.exp(8.0 - math.floor((logit + 8.0) * 32.0) / 32.0))
