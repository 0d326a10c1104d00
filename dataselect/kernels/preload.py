"""Imports every kernel module: kernels are compiled, or loaded from the cache, before workers fork."""

from __future__ import annotations

from dataselect.kernels import (
    fasttext,
    groups,
    hashing,
    jaccard,
    json_strings,
    language_model,
    minhash,
    ngrams,
    rows,
    text,
    wordpunct,
)

__all__ = [
    "fasttext",
    "groups",
    "hashing",
    "jaccard",
    "json_strings",
    "language_model",
    "minhash",
    "ngrams",
    "rows",
    "text",
    "wordpunct",
]
