"""Slow, obvious twins of the kernels: same names, same arguments, same results bit for bit; no numba.

They make a Python string of every document. Bytes that are not well-formed UTF-8 become lone surrogates, one
each (`surrogateescape`), which are neither word characters nor white space and go back to the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from json.decoder import scanstring  # type: ignore[attr-defined]

import numpy as np
import xxhash

from dataselect.kernels.unicode_tables import (
    CASE_IGNORABLE,
    CASED,
    OTHER,
    SPACE,
    WORD,
    case_of,
    lookup,
)

M64 = (1 << 64) - 1
M32 = (1 << 32) - 1
GOLDEN = 0x9E3779B97F4A7C15
BASE = 0xD6E8FEB86659FD93
SEEDS = (0, GOLDEN)


def documents(offsets: np.ndarray, data: np.ndarray) -> list[bytes]:
    return [data[start:stop].tobytes() for start, stop in pairwise(offsets.tolist())]


def mix64(word: int) -> int:
    word = (word ^ word >> 33) * 0xFF51AFD7ED558CCD & M64
    word = (word ^ word >> 33) * 0xC4CEB9FE1A85EC53 & M64
    return word ^ word >> 33


def fmix32(word: int) -> int:
    word = (word ^ word >> 16) * 0x85EBCA6B & M32
    word = (word ^ word >> 13) * 0xC2B2AE35 & M32
    return word ^ word >> 16


# text.py


def count_chars(offsets: np.ndarray, data: np.ndarray, out: np.ndarray) -> None:
    for i, document in enumerate(documents(offsets, data)):
        out[i] = sum(byte & 0xC0 != 0x80 for byte in document)


def count_words(offsets: np.ndarray, data: np.ndarray, out: np.ndarray) -> None:
    for i, document in enumerate(documents(offsets, data)):
        out[i] = len(document.split())  # bytes.split() knows ASCII white space only


# rows.py


def gather_rows(
    data: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    tails: np.ndarray,
    tail_offsets: np.ndarray,
    tail_of_row: np.ndarray,
    out: np.ndarray,
) -> None:
    ends = documents(tail_offsets, tails)
    rows = [data[start:stop].tobytes() for start, stop in zip(starts, stops, strict=True)]
    joined = b"".join(row + ends[k] for row, k in zip(rows, tail_of_row, strict=True))
    out[:] = np.frombuffer(joined, np.uint8)


# hashing.py


def hash128(offsets: np.ndarray, data: np.ndarray, out: np.ndarray) -> None:
    for i, document in enumerate(documents(offsets, data)):
        out[i] = [xxhash.xxh64_intdigest(document, seed) for seed in SEEDS]


def draw_u64(keys: np.ndarray, seed: int, purpose: int, out: np.ndarray) -> None:
    for i, (first, second) in enumerate(keys.tolist()):
        state = mix64((seed + GOLDEN) & M64) ^ (purpose & M64)
        state = ((mix64(state) + GOLDEN) & M64) ^ first
        state = ((mix64(state) + GOLDEN) & M64) ^ second
        out[i] = mix64((mix64(state) + GOLDEN) & M64)


# tokens.py


def tokens(document: bytes, punctuation: bool) -> Iterator[str]:
    r"""Lower-cased `\w+` runs, with punctuation also `[^\w\s]+` runs."""
    run = ""
    run_class = SPACE
    for char in document.decode("utf-8", "surrogateescape") + " ":
        char_class, lower = lookup(ord(char))
        if char_class != run_class:
            if run_class == WORD or (punctuation and run_class == OTHER):
                yield run
            run = ""
            run_class = char_class
        run += chr(lower)


def token_hash(token: str) -> int:
    return bytes_hash(token.encode("utf-8", "surrogateescape"))


def bytes_hash(encoded: bytes) -> int:
    state = GOLDEN
    for start in range(0, len(encoded), 8):
        block = int.from_bytes(encoded[start : start + 8], "little")
        state = (state ^ block) * 0xFF51AFD7ED558CCD & M64
        state ^= state >> 32
    state = (state ^ len(encoded)) * 0xC4CEB9FE1A85EC53 & M64
    return state ^ state >> 32


def run_value(hashes: list[int]) -> int:
    """Order-sensitive 64-bit value of consecutive token hashes: a polynomial by Horner's rule."""
    value = 0
    for token in hashes:
        value = (value * BASE + token) & M64
    return value


# minhash.py


UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)


def mainly_unspaced(document: bytes) -> bool:
    text = document.decode("utf-8", "surrogateescape")
    unspaced = re.findall(f"[{UNSPACED}]", text)
    others = re.findall(f"(?![{UNSPACED}])[A-Za-z\u00c0-\u1fff\uac00-\ud7a3]", text)
    return len(unspaced) > len(others)


def doc_tokens(document: bytes, kind: int) -> tuple[bool, list[int]]:
    """Whether the tokens are characters, and their hashes."""
    if kind == 0 or (kind == 2 and not mainly_unspaced(document)):
        return False, [token_hash(token) for token in tokens(document, punctuation=False)]
    hashes = []
    for char in document.decode("utf-8", "surrogateescape"):
        char_class, lower = lookup(ord(char))
        if char_class == WORD or re.match(f"[{UNSPACED}]", char):
            hashes.append(mix64(lower ^ GOLDEN))
    return True, hashes


def shingle_hashes(
    offsets: np.ndarray, data: np.ndarray, ngram: int, kind: int = 0, char_ngram: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    shingle_offsets = [0]
    shingles: list[int] = []
    for document in documents(offsets, data):
        are_chars, words = doc_tokens(document, kind)
        length = min(char_ngram if are_chars else ngram, len(words))
        if words:
            runs = (words[i : i + length] for i in range(len(words) - length + 1))
            shingles += [mix64(run_value(run)) for run in runs]
        shingle_offsets.append(len(shingles))
    return np.array(shingle_offsets, np.int64), np.array(shingles, np.uint64)


def minhash_signatures(
    offsets: np.ndarray,
    data: np.ndarray,
    ngram: int,
    a: np.ndarray,
    b: np.ndarray,
    out: np.ndarray,
    n_tokens: np.ndarray,
    kind: int = 0,
    char_ngram: int = 1,
) -> None:
    first, shingles = shingle_hashes(offsets, data, ngram, kind, char_ngram)
    for i, document in enumerate(documents(offsets, data)):
        n_tokens[i] = len(doc_tokens(document, kind)[1])
        mixed = [fmix32(shingle >> 32) for shingle in shingles[first[i] : first[i + 1]].tolist()]
        for j, (a_j, b_j) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
            out[i, j] = min([(a_j * h + b_j) & M32 for h in mixed], default=M32)


def shingles_of_tokens(first: np.ndarray, tokens: np.ndarray, ngram: int) -> tuple[np.ndarray, np.ndarray]:
    shingle_offsets = [0]
    shingles: list[int] = []
    for start, stop in pairwise(first.tolist()):
        words = tokens[start:stop].tolist()
        length = min(ngram, len(words))
        runs = [words[i : i + length] for i in range(len(words) - length + 1)] if words else []
        shingles += [mix64(run_value(run)) for run in runs]
        shingle_offsets.append(len(shingles))
    return np.array(shingle_offsets, np.int64), np.array(shingles, np.uint64)


def signatures_of_shingles(
    first: np.ndarray, shingles: np.ndarray, a: np.ndarray, b: np.ndarray, out: np.ndarray
) -> None:
    for i, (start, stop) in enumerate(pairwise(first.tolist())):
        mixed = [fmix32(shingle >> 32) for shingle in shingles[start:stop].tolist()]
        for j, (a_j, b_j) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
            out[i, j] = min([(a_j * h + b_j) & M32 for h in mixed], default=M32)


def band_hashes(signatures: np.ndarray, bands: int, rows: int, out: np.ndarray) -> None:
    for i, signature in enumerate(signatures.tolist()):
        for band in range(bands):
            state = mix64(band + 1)
            for value in signature[band * rows : (band + 1) * rows]:
                state = (state ^ value) * 0xFF51AFD7ED558CCD & M64
                state ^= state >> 32
            out[i, band] = mix64(state)


# ngrams.py


def ngram_lists(
    offsets: np.ndarray, data: np.ndarray, order: int, n_buckets: int
) -> tuple[np.ndarray, np.ndarray]:
    bucket_offsets = [0]
    buckets: list[int] = []
    for document in documents(offsets, data):
        hashes = [token_hash(token) for token in tokens(document, punctuation=True)]
        for last in range(len(hashes)):
            for length in range(1, min(order, last + 1) + 1):
                value = run_value(hashes[last + 1 - length : last + 1])
                hash32 = ((value ^ value >> 33) * 0xC4CEB9FE1A85EC53 & M64) >> 32
                buckets.append(hash32 * n_buckets >> 32)
        bucket_offsets.append(len(buckets))
    dtype = np.uint16 if n_buckets <= 1 << 16 else np.uint32
    return np.array(bucket_offsets, np.int64), np.array(buckets, dtype)


def count_ngrams(offsets: np.ndarray, data: np.ndarray, order: int, n_buckets: int, out: np.ndarray) -> None:
    _, buckets = ngram_lists(offsets, data, order, n_buckets)
    np.add.at(out, buckets, 1)


def score_ngrams(
    offsets: np.ndarray,
    data: np.ndarray,
    order: int,
    table: np.ndarray,
    out: np.ndarray,
    n_tokens: np.ndarray,
) -> None:
    first, buckets = ngram_lists(offsets, data, order, len(table))
    score_lists(first, buckets, table, out)
    for i, document in enumerate(documents(offsets, data)):
        n_tokens[i] = len(list(tokens(document, punctuation=True)))


def score_lists(bucket_offsets: np.ndarray, buckets: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    for i, (first, stop) in enumerate(pairwise(bucket_offsets.tolist())):
        out[i] = sum(table[buckets[first:stop]].tolist()) / 2**44  # of Python integers: rounded once


# wordpunct.py


def lower(text: str) -> str:
    """str.lower() by the package's tables."""
    out = ""
    for i, char in enumerate(text):
        if char == "\u0130":
            out += "i\u0307"
        elif char == "\u03a3":
            before = next((c for c in map(case, reversed(text[:i])) if c != CASE_IGNORABLE), 0)
            after = next((c for c in map(case, text[i + 1 :]) if c != CASE_IGNORABLE), 0)
            out += "\u03c2" if before == CASED != after else "\u03c3"
        else:
            out += chr(lookup(ord(char))[1])
    return out


def case(char: str) -> int:
    return case_of(ord(char))


def lower_tokens(offsets: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found = [python_tokens(document) for document in documents(offsets, data)]
    texts = [" ".join(words).encode("utf-8", "surrogateescape") for words in found]
    return (
        np.cumsum([0, *map(len, texts)]).astype(np.int64),
        np.frombuffer(b"".join(texts), np.uint8),
        np.array([len(words) for words in found], np.int64),
    )


def python_tokens(document: bytes) -> list[str]:
    lowered = lower(document.decode("utf-8", "surrogateescape"))
    return list(tokens(lowered.encode("utf-8", "surrogateescape"), punctuation=True))


def sha256_ngram_lists(
    offsets: np.ndarray, data: np.ndarray, order: int, n_buckets: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lists = []
    n_tokens = []
    for document in documents(offsets, data):
        words = python_tokens(document)
        runs = [
            words[last + 1 - length : last + 1]
            for last in range(len(words))
            for length in range(1, min(order, last + 1) + 1)
        ]
        messages = [" ".join(run).encode("utf-8", "surrogateescape") for run in runs]
        lists.append([int(hashlib.sha256(m).hexdigest(), 16) % n_buckets for m in messages])
        n_tokens.append(len(words))
    bucket_offsets = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    return (
        bucket_offsets,
        np.array([bucket for buckets in lists for bucket in buckets], np.uint16),
        np.array(n_tokens, np.int64),
    )


# groups.py


def connect(left: np.ndarray, right: np.ndarray, parent: np.ndarray) -> None:
    """Relabels whole components, so parent is flat after it; the kernel's parent needs find_roots first."""
    find_roots(parent)
    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        low, high = sorted((parent[a], parent[b]))
        parent[parent == high] = low


def find_roots(parent: np.ndarray) -> None:
    for member in range(len(parent)):
        root = member
        while parent[root] != root:
            root = parent[root]
        parent[member] = root


def n_leaders(n_members: int) -> int:
    return min(n_members - 1, max(1, 256 // n_members))


def bucket_pairs(members: np.ndarray, starts: np.ndarray, kept: np.ndarray, out: np.ndarray) -> int:
    n_pairs = 0
    for start, stop in pairwise(starts.tolist()):
        alive = [m for m in members[start:stop].tolist() if not len(kept) or kept[m]]
        for i in range(n_leaders(len(alive)) if alive else 0):
            for member in alive[i + 1 :]:
                out[n_pairs] = max(alive[i], member) << 32 | min(alive[i], member)
                n_pairs += 1
    return n_pairs


def keep_greedy(
    pairs: np.ndarray,
    similarity: np.ndarray,
    is_copy: np.ndarray,
    keeper: np.ndarray,
    best: np.ndarray,
) -> None:
    for pair, value, copy in zip(pairs.tolist(), similarity, is_copy.tolist(), strict=True):
        worse, better = pair >> 32, pair & M32
        if keeper[worse] == worse and (copy or keeper[better] == better):
            keeper[worse] = keeper[better]
            best[worse] = value if keeper[better] == better else best[better]


# jaccard.py


def count_matches(left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
    for i, (a, b) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
        out[i] = sum(x == y for x, y in zip(a, b, strict=True))


def count_common(
    offsets: np.ndarray, hashes: np.ndarray, left: np.ndarray, right: np.ndarray, out: np.ndarray
) -> None:
    sets = [set(hashes[start:stop].tolist()) for start, stop in pairwise(offsets.tolist())]
    for i, (a, b) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
        out[i] = len(sets[a] & sets[b])


def find_strings(
    data: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    keys: np.ndarray,
    key_ends: np.ndarray,
    out: np.ndarray,
) -> None:
    path = [part.tobytes().decode() for part in np.split(keys, key_ends[:-1])]
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        line = data[start:end].tobytes().decode()
        span = _string_at(line, line.index("{"), path)
        out[row] = -1, -1
        if span is not None:
            out[row] = [start + len(line[:i].encode()) for i in span]


def _string_at(line: str, position: int, path: list[str]) -> tuple[int, int] | None:
    """Span of the string at the path in the JSON object that begins at `position`."""
    while True:
        position = line.find('"', position)  # of the next key
        if position < 0:
            return None
        key, colon = scanstring(line, position + 1)
        start = re.compile(r"\s*:\s*").match(line, colon).end()  # type: ignore[union-attr]
        _, end = json.JSONDecoder().raw_decode(line, start)
        if key == path[0] and len(path) == 1 and line[start] == '"':
            return start, end
        if key == path[0] and len(path) > 1 and line[start] == "{":
            return _string_at(line[:end], start, path[1:])
        position = end


def json_strings(offsets: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    strings = [
        json.dumps(document.decode("utf-8", "surrogateescape"), ensure_ascii=False).encode(
            "utf-8", "surrogateescape"
        )
        for document in documents(offsets, data)
    ]
    return np.cumsum([0, *map(len, strings)]).astype(np.int64), np.frombuffer(b"".join(strings), np.uint8)
