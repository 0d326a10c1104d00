"""Slow, obvious twins of peer_tokens.py, with the same signatures."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from dataselect.kernels.reference import GOLDEN, M64, bytes_hash, documents, mix64
from dataselect.kernels.reference_signals import cut
from dataselect.kernels.reference_signals import spacy_tokens as cut_spacy
from dataselect.kernels.unicode_tables import WORD, lookup


def lists(
    offsets: np.ndarray, data: np.ndarray, hashes_of: Callable[[bytes], Iterable[int]]
) -> tuple[np.ndarray, np.ndarray]:
    first: list[int] = [0]
    hashes: list[int] = []
    for document in documents(offsets, data):
        hashes += hashes_of(document)
        first.append(len(hashes))
    return np.array(first, np.int64), np.array(hashes, np.uint64)


def spacy_tokens(offsets: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    def words(document: bytes) -> Iterable[int]:
        text = "".join(
            "\x1a" if "\udc80" <= c <= "\udcff" else c for c in document.decode(errors="surrogateescape")
        )
        for chunk in text.split():
            for part in cut(chunk):
                yield from (bytes_hash(token.encode()) for token in cut_spacy(part))

    return lists(offsets, data, words)


def split_tokens(offsets: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    def tokens(document: bytes) -> Iterable[int]:
        token: list[str] = []
        for char in document.decode(errors="surrogateescape"):
            char_class, lower = lookup(ord(char))
            if char_class == WORD:
                token.append(chr(lower))
            if char_class != WORD or char == "\u0130":
                yield folded(token)
                token = []
        yield folded(token)

    return lists(offsets, data, tokens)


def folded(token: list[str]) -> int:
    """Hash of a word's characters: as bytes_hash, but a block a character."""
    state, n_bytes = GOLDEN, 0
    for char in token:
        encoded = char.encode()
        state = (state ^ int.from_bytes(encoded, "little")) * 0xFF51AFD7ED558CCD & M64
        state ^= state >> 32
        n_bytes += len(encoded)
    state = (state ^ n_bytes) * 0xC4CEB9FE1A85EC53 & M64
    return state ^ state >> 32


def code_points(offsets: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    def chars(document: bytes) -> Iterable[int]:
        for char in document.decode(errors="surrogateescape"):
            is_byte = "\udc80" <= char <= "\udcff"
            yield mix64((M64 ^ (ord(char) - 0xDC00) if is_byte else ord(char)) ^ GOLDEN)

    return lists(offsets, data, chars)
