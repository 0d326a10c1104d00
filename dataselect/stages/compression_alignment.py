"""How well a document and target documents compress together: ZIP-FIT (arXiv 2410.18194).

With C the compressed length in bytes, NCD(x, t) = (C(xt) - min(C(x), C(t))) / max(C(x), C(t)), and the score
is 1 - the mean of NCD over the target documents (Obbad et al. 2024). There all are
compared, whole; here n_targets of them, drawn by a hash of their text, and the first `window` bytes of every
text: a document costs n_targets compressions of two windows whatever its length, and no target lies outside
the 32 KiB that gzip looks back. `lz4` gives the lengths of the package `zip-fit`'s default, `gzip` is the
paper's. Level 0 of gzip stores without compressing, which ranks by length alone; it is refused.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from dataselect.stages.base import Columns, MapStage, Model, Rules, Texts
from dataselect.stages.draws import uniform_draws
from dataselect.stages.targets import TargetStage, text_hashes

_MAX_LEVEL = {"gzip": 9, "zstd": 22}
_LZ4_SIZE_FIELD = 8  # the frames of the package lz4 say how long the content is, Arrow's don't


class CompressionAlignment(TargetStage, MapStage):
    """Score documents by how well they compress together with target documents."""

    use: ClassVar[str] = "compression_alignment"
    figures: ClassVar[tuple[str, ...]] = ("target_counts",)
    decide_fields: ClassVar[frozenset[str]] = frozenset({"min"})

    n_targets: int = Field(32, ge=1, description="target documents to compare with, drawn by their hash")
    window: int = Field(
        1024, ge=64, le=16_384, description="bytes at the start of a text that are compressed"
    )
    compressor: Literal["lz4", "gzip", "zstd"] = Field("lz4", description="gzip takes 8 times as long as lz4")
    level: int = Field(1, ge=1, le=22, description="of gzip (to 9) and zstd")
    min: float | None = Field(None, description="drop documents that score less, or are empty")
    as_: str = Field(
        "alignment", alias="as", description="score column: HIGHER is more like the target; NaN without text"
    )

    @model_validator(mode="after")
    def _level_fits(self) -> CompressionAlignment:
        if self.level > _MAX_LEVEL.get(self.compressor, 1):
            most = _MAX_LEVEL.get(self.compressor)
            raise ValueError(
                f"level: {self.compressor} has levels 1 to {most}, got {self.level}"
                if most
                else f"level: {self.compressor} has none"
            )
        return self

    def output_columns(self) -> dict[str, str]:
        return {self.as_: "float64"}

    def compute_params(self) -> dict[str, Any]:
        """With the library, since another version may compress otherwise."""
        return super().compute_params() | {"library": self._library()}

    def _library(self) -> str:
        if self.compressor == "lz4":
            return pa.__version__
        if self.compressor == "gzip":
            return zlib.ZLIB_RUNTIME_VERSION
        import zstandard

        return ".".join(map(str, zstandard.ZSTD_VERSION))

    def _compressed_length(self) -> Callable[[bytes], int]:
        """Bytes to their compressed length."""
        if self.compressor == "lz4":
            codec = pa.Codec("lz4")
            return lambda data: len(codec.compress(data, asbytes=True)) + _LZ4_SIZE_FIELD
        if self.compressor == "gzip":
            return self._gzip_length
        import zstandard

        compressor = zstandard.ZstdCompressor(level=self.level)
        return lambda data: len(compressor.compress(data))

    def _gzip_length(self, data: bytes) -> int:
        compressor = zlib.compressobj(self.level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        return len(compressor.compress(data)) + len(compressor.flush())

    def _windows(self, texts: Texts) -> list[bytes]:
        stops = np.minimum(texts.offsets[1:], texts.offsets[:-1] + self.window)
        places = zip(texts.offsets.tolist(), stops.tolist(), strict=False)
        return [texts.data[start:stop].tobytes() for start, stop in places]

    def prepare(self) -> dict[str, np.ndarray]:
        """Windows of the drawn target documents: data uint8, offsets int64, and compressed lengths int64."""
        texts, counts = self.read_target()
        texts = texts.take(np.diff(texts.offsets) > 0)
        if not len(texts):
            raise self.no_words()
        drawn = np.argsort(uniform_draws(text_hashes(texts), seed=0, purpose=self.use), kind="stable")[
            : self.n_targets
        ]
        mask = np.zeros(len(texts), bool)
        mask[drawn] = True
        windows = self._windows(texts.take(mask))
        length = self._compressed_length()
        return {
            "data": np.frombuffer(b"".join(windows), np.uint8),
            "offsets": np.cumsum([0, *map(len, windows)]),
            "lengths": np.array([length(window) for window in windows], np.int64),
            "target_counts": counts,
        }

    def columns(self, texts: Texts, model: Model) -> Columns:
        length = self._compressed_length()
        data, offsets = model["data"].tobytes(), model["offsets"].tolist()
        targets = [
            (data[start:stop], n)
            for start, stop, n in zip(offsets, offsets[1:], model["lengths"].tolist(), strict=False)
        ]
        out = np.full(len(texts), np.nan)
        for doc, text in enumerate(self._windows(texts)):
            if text:
                own = length(text)
                ncd = 0.0
                for target, n in targets:
                    both = length(text + target)
                    ncd += (both - own) / n if own < n else (both - n) / own
                out[doc] = 1.0 - ncd / len(targets)
        return {self.as_: out}

    def keep(self, columns: Columns) -> Rules:
        if self.min is None:
            return {}
        return {f"{self.as_} < {self.min}": ~(columns[self.as_] >= self.min)}
