"""Slow, obvious twin of `kernels.fasttext`: same names and arguments, plain Python, equal results bit for
bit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

import numpy as np

_SEPARATORS = re.compile(rb"[ \t\n\v\f\r\0]+")
_EOS = b"</s>"


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


def rows_of(text: bytes, entries: Mapping[bytes, int], settings: np.ndarray) -> list[int]:
    """Rows of the input matrix that make up a document, each word n-gram where its last word is."""
    n_words, bucket, minn, maxn, word_ngrams = (int(value) for value in settings[:5])
    rows: list[int] = []
    hashes: list[int] = []
    for token in tokens_of(text):
        entry = entries.get(token, -1)
        if entry >= n_words or (entry < 0 and token.startswith(b"__label__")):
            continue
        if entry >= 0:
            rows.append(entry)
        if maxn > 0 and token != _EOS:
            rows += [n_words + hash_token(ngram) % bucket for ngram in char_ngrams(token, minn, maxn)]
        hashes.append(hash_token(token))
        rows += [
            n_words + ngram % bucket for ngram in word_ngram_hashes(hashes, len(hashes) - 1, word_ngrams)
        ]
    return rows


def score_texts(offsets: np.ndarray, data: np.ndarray, model: Mapping[str, np.ndarray]) -> np.ndarray:
    """See `kernels.fasttext.score_texts`."""
    starts, word_bytes = model["word_starts"], model["word_bytes"].tobytes()
    entries = {word_bytes[starts[i] : starts[i + 1]]: i for i in range(len(starts) - 1)}
    out = np.empty(len(offsets) - 1, np.float32)
    for document in range(len(out)):
        rows = rows_of(data[offsets[document] : offsets[document + 1]].tobytes(), entries, model["settings"])
        out[document] = _probability(rows, model["table"])
    return out


def _probability(rows: list[int], table: np.ndarray) -> float:
    if not rows:
        return math.nan
    total = 1.0
    for column in range(table.shape[1]):
        logit = 0.0
        for row in rows:
            logit += float(table[row, column])
        total += math.exp(min(logit / len(rows), 700.0))
    return 1.0 / total + 1e-5
