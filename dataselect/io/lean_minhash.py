"""datasketch's MinHash signatures (2.0; `legacy` is all before it), bit for bit, and their LeanMinHash bytes.

So that documents signed here can be looked up in an index made with datasketch, and the other way round.
"""

from __future__ import annotations

import hashlib
import re
import struct

import numpy as np

_MERSENNE = np.uint64((1 << 61) - 1)
_SHIFTS_AND_FACTORS = ((16, 0x85EBCA6B), (13, 0xC2B2AE35))


def legacy_params(num_perm: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(a, b), uint64[num_perm] each, of h -> (a * h + b mod 2^64) mod (2^61 - 1) mod 2^32.

    a and b are drawn in turns; the wrap-around before the modulo is a part of datasketch's definition.
    """
    generator = np.random.RandomState(seed)
    limit = (1 << 61) - 1
    pairs = [[generator.randint(low, limit, dtype=np.uint64) for low in (1, 0)] for _ in range(num_perm)]
    a, b = np.array(pairs, np.uint64).reshape(-1, 2).T
    return a.copy(), b.copy()


def legacy_signature(hashes: np.ndarray, num_perm: int, seed: int = 1) -> np.ndarray:
    """uint64[num_perm] of the set of 32-bit hashes uint32[n]; 2^32 - 1 everywhere for an empty set."""
    a, b = legacy_params(num_perm, seed)
    out = np.full(num_perm, 0xFFFFFFFF, np.uint64)
    for start in range(0, len(hashes), 4096):
        h = hashes[start : start + 4096].astype(np.uint64)[:, None]
        out = np.minimum(out, ((h * a + b) % _MERSENNE & np.uint64(0xFFFFFFFF)).min(axis=0))
    return out


def affine32_signature(hashes: np.ndarray, num_perm: int, seed: int = 1) -> np.ndarray:
    """uint32[num_perm] of the set of 32-bit hashes uint32[n], as `kernels.minhash` computes it."""
    generator = np.random.RandomState(seed)
    a = generator.randint(0, 1 << 31, num_perm, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    b = generator.randint(0, 1 << 32, num_perm, dtype=np.uint32)
    h = np.asarray(hashes, np.uint32)
    for shift, factor in _SHIFTS_AND_FACTORS:  # MurmurHash3's finaliser
        h = (h ^ h >> np.uint32(shift)) * np.uint32(factor)
    h = h ^ h >> np.uint32(16)
    out = np.full(num_perm, 0xFFFFFFFF, np.uint32)
    for start in range(0, len(h), 4096):
        out = np.minimum(out, (h[start : start + 4096, None] * a + b).min(axis=0))
    return out


def sha1_hashes(text: str, ngram: int) -> np.ndarray:
    r"""uint32[n]: datasketch's `sha1_hash32` of every shingle of `ngram` words, as UTF-8 joined by spaces.

    Words are the \w runs of the lower-cased text; a text with fewer is one shingle.
    """
    words = re.findall(r"\w+", text.lower())
    length = min(ngram, len(words))
    shingles = {" ".join(words[i : i + length]) for i in range(len(words) - length + 1)} if words else set()
    digests = (hashlib.sha1(shingle.encode()).digest()[:4] for shingle in sorted(shingles))
    return np.frombuffer(b"".join(digests), "<u4").astype(np.uint32)


def lean_bytes(signature: np.ndarray, scheme: str, seed: int = 1) -> bytes:
    """What `datasketch.LeanMinHash.serialize(byteorder="<")` writes, of either scheme."""
    values = signature.astype("<u4").tobytes()
    if scheme == "legacy":
        return struct.pack("<qi", seed, len(signature)) + values
    return struct.pack("<qiB", seed, -len(signature), 1) + values  # a negative length, and the scheme's code
