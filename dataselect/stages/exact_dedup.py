"""Keep one of the documents with the same text."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from dataselect.stages.base import DedupKeys, DedupStage, Texts

Step = Literal["nfc", "whitespace", "case"]


class ExactDedup(DedupStage):
    """Keep one document of every distinct text, by a 128-bit hash.

    Two different texts collide with probability n_docs^2 / 2^129 (two XXH64 with different seeds).
    """

    use: ClassVar[str] = "exact_dedup"

    normalize: tuple[Step, ...] = Field(
        (),
        description="make texts equal that differ only in: nfc (Unicode composition), whitespace "
        "(runs of it, and at both ends), case; by default texts are compared byte by byte",
    )
    as_: str = Field(
        "n_copies",
        alias="as",
        description="name of the column with the number of documents of the same text, itself included",
    )

    def dedup_keys(self, texts: Texts) -> DedupKeys:
        from dataselect.kernels.arrow import text_buffers
        from dataselect.kernels.hashing import hash128

        offsets, data = text_buffers(self._normalized(texts.array))
        hashes = np.empty((len(texts), 2), np.uint64)
        hash128(offsets, data, hashes)
        return DedupKeys(np.arange(len(texts), dtype=np.int64), hashes[:, 0].copy(), hashes[:, 1].copy())

    def _normalized(self, array: pa.Array) -> pa.Array:
        if "nfc" in self.normalize:
            array = pc.utf8_normalize(array, form="NFC")
        if "case" in self.normalize:
            array = pc.utf8_lower(array)
        if "whitespace" in self.normalize:
            words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(array))
            array = pc.binary_join(words, pa.scalar(" ", array.type))
        return array
