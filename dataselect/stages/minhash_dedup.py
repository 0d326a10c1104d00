"""Drop near-duplicates found by MinHash LSH (Broder 1997; Leskovec et al. ch. 3), each one verified."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from dataselect.core.lsh import high_recall_bands, optimal_bands
from dataselect.stages.base import BAND_BITS, DedupKeys, NearDedupStage, Texts
from dataselect.stages.peer_shingles import least_tokens, peer_tokens


class MinhashDedup(NearDedupStage):
    r"""Drop a document where a kept one has a Jaccard similarity of at least `threshold` to it.

    Shingles are `ngram` consecutive words (runs of \w, lower-cased, any script), or `char_ngram` consecutive
    characters without spaces and punctuation; a text with fewer is one shingle, so that it is a duplicate of
    the same words only, and a text with none is never a duplicate. With `shingles` they are those of another
    tool, shingle for shingle; see stages/peer_shingles.py. Signatures are datasketch's `affine32`
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
    char_ngram: int | None = Field(
        None, ge=1, le=256, description="characters in a shingle of characters; 8, and NeMo's 24"
    )
    shingles: Literal["own", "datatrove", "text-dedup", "nemo"] = Field(
        "own",
        description="own: as `tokens` says; datatrove: `ngram` of spaCy's English words of the text without "
        "case, punctuation, accents and digits; text-dedup: `ngram` of what stands between non-word "
        "characters; nemo: `char_ngram` characters of the text as it is",
    )
    num_perm: int = Field(128, ge=2, le=1 << BAND_BITS, description="hash functions in a signature")
    bands: tuple[int, int] | Literal["auto", "datasketch"] = Field(
        "auto",
        description="auto: the fewest candidates with which 98.5 % of the pairs at `threshold` are found; "
        "datasketch: bands x rows that minimise its false positives plus false negatives; or [bands, rows]",
    )

    @model_validator(mode="after")
    def _one_kind_of_shingles(self) -> MinhashDedup:
        if self.shingles != "own" and self.tokens != "words":
            raise ValueError(
                f"tokens: shingles: {self.shingles} says what shingles are made of; leave it out"
            )
        return self

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
        lengths = {"char_ngram": self._char_ngram()}
        return params | lengths | {"bands": self.bands_rows(), "signatures": self.uses_signatures}

    def n_hashes(self) -> int:
        return self.num_perm

    def keys_per_doc(self) -> int:
        return self.bands_rows()[0]

    def bytes_per_doc(self) -> int:
        return super().bytes_per_doc() + (self.num_perm + 4 if self.uses_signatures else 0)

    def _char_ngram(self) -> int:
        return self.char_ngram or (24 if self.shingles == "nemo" else 8)

    def _kind(self) -> int:
        from dataselect.kernels import minhash

        return {"words": minhash.WORDS, "chars": minhash.CHARS, "auto": minhash.AUTO}[self.tokens]

    def dedup_keys(self, texts: Texts) -> DedupKeys:
        signatures, docs = self._signatures(texts)
        return self.band_keys(signatures, docs)

    def band_keys(self, signatures: np.ndarray, docs: np.ndarray) -> DedupKeys:
        """Keys of a batch with signatures uint32[n_docs, num_perm], of which `docs` int64 have any token."""
        from dataselect.kernels.minhash import band_hashes, compact_signatures

        bands, rows = self.bands_rows()
        band_hash = np.empty((len(signatures), bands), np.uint64)
        band_hashes(signatures, bands, rows, band_hash)
        keys = band_hash >> np.uint64(BAND_BITS) << np.uint64(BAND_BITS) | np.arange(bands, dtype=np.uint64)
        compact = compact_signatures(signatures) if self.uses_signatures else None
        return DedupKeys(np.repeat(docs, bands), keys[docs].reshape(-1), signatures=compact)

    def _signatures(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        """(uint32[n_docs, num_perm], numbers of the documents that have shingles)."""
        from dataselect.kernels.minhash import affine32_params, minhash_signatures, signatures_of_shingles

        a, b = affine32_params(self.num_perm)
        signatures = np.empty((len(texts), self.num_perm), np.uint32)
        if self.shingles != "own":
            first, shingles = self._shingle_lists(texts)
            signatures_of_shingles(first, shingles, a, b, signatures)
            return signatures, np.flatnonzero(np.diff(first))
        n_tokens = np.empty(len(texts), np.int64)
        ngrams = self.ngram, self._char_ngram()
        minhash_signatures(
            texts.offsets, texts.data, ngrams[0], a, b, signatures, n_tokens, self._kind(), ngrams[1]
        )
        return signatures, np.flatnonzero(n_tokens)

    def _shingle_lists(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        """(offsets int64[n_docs + 1], hashes uint64) of the shingles in text order."""
        from dataselect.kernels.minhash import shingle_hashes, shingles_of_tokens

        if self.shingles == "own":
            ngrams = self.ngram, self._char_ngram()
            return shingle_hashes(texts.offsets, texts.data, ngrams[0], self._kind(), ngrams[1])
        ngram = self._char_ngram() if self.shingles == "nemo" else self.ngram
        first, tokens = peer_tokens(self.shingles, texts.array)
        n_tokens = np.diff(first)
        too_short = n_tokens < least_tokens(self.shingles, ngram)
        if too_short.any():
            tokens = tokens[~np.repeat(too_short, n_tokens)]
            first = np.concatenate([[0], np.cumsum(np.where(too_short, 0, n_tokens))])
        return shingles_of_tokens(first, tokens, ngram)

    def shingle_sets(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        first, hashes = self._shingle_lists(texts)
        new = np.ones(len(hashes), bool)
        for start, stop in pairwise(first.tolist()):
            hashes[start:stop].sort()
        new[1:] = hashes[1:] != hashes[:-1]
        new[first[:-1][first[:-1] < len(new)]] = True
        return np.concatenate([[0], np.cumsum(new)])[first], hashes[new]
