"""Count the tokens of every document by the tokenizer of the model that will be trained."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from dataselect.core.errors import BadModel, RecipeError
from dataselect.stages.base import Columns, MapStage, Model, ModelPath, Texts

if TYPE_CHECKING:
    from collections.abc import Iterator

_BYTES_AT_ONCE = 1 << 20
"""Text given to the tokenizer at a time: of every token it makes some 100 bytes."""


class TokenCount(MapStage):
    """The number of tokens by a `tokenizer.json` of Hugging Face's `tokenizers`, for `select: {tokens: ...}`.

    No special tokens are added, and nothing is truncated or padded, whatever the file says.
    """

    use: ClassVar[str] = "token_count"

    tokenizer: ModelPath = Field(description="a tokenizer.json (needs the package: dataselect[tokenizers])")
    as_: str = Field("n_tokens", alias="as", description="name of the column with the number of tokens")

    def check_files(self) -> None:
        """Raise BadModel where the file is no tokenizer, RecipeError where the package is missing."""
        try:
            _load(Path(self.tokenizer).read_bytes())
        except ImportError:
            raise RecipeError(
                f"{self.use}: the package tokenizers is missing; pip install 'dataselect[tokenizers]'"
            ) from None
        except Exception as error:  # noqa: BLE001 - that is what the package raises
            raise BadModel(f"{self.tokenizer}: no tokenizer.json: {error}") from None

    def output_columns(self) -> dict[str, str]:
        return {self.as_: "int64"}

    def prepare(self) -> dict[str, np.ndarray]:
        """The file as `tokenizer` uint8[n], so that all workers have the one that was fingerprinted."""
        return {"tokenizer": np.frombuffer(Path(self.tokenizer).read_bytes(), np.uint8)}

    def columns(self, texts: Texts, model: Model) -> Columns:
        tokenizer = _load(model["tokenizer"].tobytes())
        counts = np.zeros(len(texts), np.int64)
        for start, stop in _spans(texts.offsets):
            found = tokenizer.encode_batch_fast(
                texts.array.slice(start, stop - start).to_pylist(), add_special_tokens=False
            )
            counts[start:stop] = [len(tokens) for tokens in found]
        return {self.as_: counts}


def _spans(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """(start, stop) of runs of documents of about _BYTES_AT_ONCE, one document at least."""
    start, n_docs = 0, len(offsets) - 1
    while start < n_docs:
        full = int(np.searchsorted(offsets, offsets[start] + _BYTES_AT_ONCE, side="right")) - 1
        stop = max(full, start + 1)
        yield start, stop
        start = stop


@lru_cache(maxsize=4)
def _load(content: bytes) -> Any:
    """The tokenizer, on one thread: the engine's workers are the parallelism."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(content)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
