"""Keep one of the documents that are near-duplicates by MinHash LSH (Broder 1997; Leskovec et al. ch. 3)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from dataselect.core.lsh import optimal_bands
from dataselect.stages.base import DedupStage, Texts


class MinhashDedup(DedupStage):
    r"""Join documents whose signatures agree in at least one band, keep the first of every component.

    Shingles are `ngram` consecutive words (runs of \w, lower-cased, any script); a text with fewer words
    is one shingle, a text with none is never a duplicate. Signatures are datasketch's `affine32` family
    (datasketch 2.0, seed 1), bit for bit given the same shingle hashes. P(joined | Jaccard J) for b bands
    of r rows is 1 - (1 - J^r)^b; candidates are not yet verified against the threshold.
    """

    use: ClassVar[str] = "minhash_dedup"

    threshold: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity from which documents are duplicates"
    )
    ngram: int = Field(5, ge=1, le=64, description="words in a shingle")
    num_perm: int = Field(128, ge=2, le=1024, description="hash functions in a signature")
    bands: tuple[int, int] | Literal["datasketch"] = Field(
        "datasketch",
        description="datasketch: bands x rows that minimise its false positives plus false negatives at "
        "`threshold`; or [bands, rows]",
    )
    keep_: Literal["first"] = Field(
        "first", alias="keep", description="which copy stays: the first in shard order"
    )

    @model_validator(mode="after")
    def _bands_fit(self) -> MinhashDedup:
        if self.bands != "datasketch" and (
            min(self.bands) < 1 or self.bands[0] * self.bands[1] > self.num_perm
        ):
            raise ValueError(f"bands: [bands, rows] must multiply to at most num_perm = {self.num_perm}")
        return self

    def bands_rows(self) -> tuple[int, int]:
        """Bands and rows in a band."""
        return optimal_bands(self.threshold, self.num_perm) if self.bands == "datasketch" else self.bands

    def keys_per_doc(self) -> int:
        return self.bands_rows()[0]

    def dedup_keys(self, texts: Texts) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        from dataselect.kernels.minhash import affine32_params, band_hashes, minhash_signatures

        a, b = affine32_params(self.num_perm)
        bands, rows = self.bands_rows()
        signatures = np.empty((len(texts), self.num_perm), np.uint32)
        n_words = np.empty(len(texts), np.int64)
        minhash_signatures(texts.offsets, texts.data, self.ngram, a, b, signatures, n_words)
        band_hash = np.empty((len(texts), bands), np.uint64)
        band_hashes(signatures, bands, rows, band_hash)
        docs = np.flatnonzero(n_words > 0)
        return np.repeat(docs, bands), band_hash[docs].reshape(-1), None
