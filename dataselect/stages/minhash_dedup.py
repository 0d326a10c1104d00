"""Drop near-duplicates found by MinHash LSH (Broder 1997; Leskovec et al. ch. 3), each one verified."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from dataselect.core.lsh import high_recall_bands, optimal_bands
from dataselect.stages.base import BAND_BITS, DedupKeys, NearDedupStage, Texts


class MinhashDedup(NearDedupStage):
    r"""Drop a document where a kept one has a Jaccard similarity of at least `threshold` to it.

    Shingles are `ngram` consecutive words (runs of \w, lower-cased, any script), or `char_ngram` consecutive
    characters without spaces and punctuation; a text with fewer is one shingle, so that it is a duplicate of
    the same words only, and a text with none is never a duplicate. Signatures are datasketch's `affine32`
    family (datasketch 2.0, seed 1), bit for bit given the same shingle hashes. Documents whose signatures
    agree in a band are candidates, P(candidate | Jaccard J) for b bands of r rows is 1 - (1 - J^r)^b; every
    candidate is verified before anything is dropped.
    """

    use: ClassVar[str] = "minhash_dedup"
    version: ClassVar[int] = 2

    ngram: int = Field(5, ge=1, le=64, description="words in a shingle")
    tokens: Literal["words", "chars", "auto"] = Field(
        "words",
        description="what shingles are made of: words; chars (no spaces or punctuation); auto: chars "
        "for texts mainly in Chinese, Japanese, Thai, Lao, Khmer or Burmese, words for all others",
    )
    char_ngram: int = Field(8, ge=1, le=256, description="characters in a shingle of characters")
    num_perm: int = Field(128, ge=2, le=1 << BAND_BITS, description="hash functions in a signature")
    bands: tuple[int, int] | Literal["auto", "datasketch"] = Field(
        "auto",
        description="auto: the fewest candidates with which 98.5 % of the pairs at `threshold` are found; "
        "datasketch: bands x rows that minimise its false positives plus false negatives; or [bands, rows]",
    )

    @model_validator(mode="after")
    def _bands_fit(self) -> MinhashDedup:
        if isinstance(self.bands, tuple):
            if min(self.bands) < 1 or self.bands[0] * self.bands[1] > self.num_perm:
                raise ValueError(f"bands: [bands, rows] must multiply to at most num_perm = {self.num_perm}")
        elif self.bands == "auto":
            high_recall_bands(self.threshold, self.num_perm)
        return self

    def bands_rows(self) -> tuple[int, int]:
        """Bands and rows in a band."""
        if isinstance(self.bands, tuple):
            return self.bands
        choose = optimal_bands if self.bands == "datasketch" else high_recall_bands
        return choose(self.threshold, self.num_perm)

    def compute_params(self) -> dict[str, Any]:
        """Of `threshold`, `bands` and `verify` what the keys depend on."""
        params = super().compute_params()
        for name in ("threshold", "bands", "verify"):
            del params[name]
        return params | {"bands": self.bands_rows(), "signatures": self.uses_signatures}

    def n_hashes(self) -> int:
        return self.num_perm

    def keys_per_doc(self) -> int:
        return self.bands_rows()[0]

    def bytes_per_doc(self) -> int:
        return super().bytes_per_doc() + (self.num_perm + 4 if self.uses_signatures else 0)

    def _kind(self) -> int:
        from dataselect.kernels import minhash

        return {"words": minhash.WORDS, "chars": minhash.CHARS, "auto": minhash.AUTO}[self.tokens]

    def dedup_keys(self, texts: Texts) -> DedupKeys:
        from dataselect.kernels.minhash import affine32_params, minhash_signatures

        a, b = affine32_params(self.num_perm)
        signatures = np.empty((len(texts), self.num_perm), np.uint32)
        n_tokens = np.empty(len(texts), np.int64)
        minhash_signatures(
            texts.offsets, texts.data, self.ngram, a, b, signatures, n_tokens, self._kind(), self.char_ngram
        )
        return self.keys_of(signatures, np.flatnonzero(n_tokens > 0))

    def keys_of(self, signatures: np.ndarray, docs: np.ndarray) -> DedupKeys:
        """Keys of a batch with signatures uint32[n_docs, num_perm], of which `docs` int64 have any token."""
        from dataselect.kernels.minhash import band_hashes, compact_signatures

        bands, rows = self.bands_rows()
        band_hash = np.empty((len(signatures), bands), np.uint64)
        band_hashes(signatures, bands, rows, band_hash)
        keys = band_hash >> np.uint64(BAND_BITS) << np.uint64(BAND_BITS) | np.arange(bands, dtype=np.uint64)
        compact = compact_signatures(signatures) if self.uses_signatures else None
        return DedupKeys(np.repeat(docs, bands), keys[docs].reshape(-1), signatures=compact)

    def shingle_sets(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        from dataselect.kernels.minhash import shingle_hashes

        first, hashes = shingle_hashes(texts.offsets, texts.data, self.ngram, self._kind(), self.char_ngram)
        new = np.ones(len(hashes), bool)
        for start, stop in pairwise(first.tolist()):
            hashes[start:stop].sort()
        new[1:] = hashes[1:] != hashes[:-1]
        new[first[:-1][first[:-1] < len(new)]] = True
        return np.concatenate([[0], np.cumsum(new)])[first], hashes[new]
