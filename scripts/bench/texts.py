"""The texts that cases read: which there are, and how much is in each size."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SIZES = ("1x", "2x")
WHOLE_FORMATS = ("jsonl.zst", "parquet")
PEER_FORMATS = ("jsonl.zst", "jsonl")


@dataclass(frozen=True)
class TextSpec:
    """A text to make."""

    kind: str
    """suffixed: copies of the base share no n-gram; bare: words as they are, copies are duplicates."""
    mb: float
    """10^6 bytes of UTF-8 in 1x; 2x has as much again."""
    formats: tuple[str, ...]
    n_shards: int
    """Of each format in 1x."""

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.kind}-{self.mb:g}mb-{self.formats[-1]}"


@dataclass(frozen=True)
class Text:
    """A text that is there: `folder`/1x and `folder`/2x, which holds 1x."""

    kind: str
    folder: Path
    sizes: dict[str, dict[str, int]]
    """Size -> n_docs, n_bytes."""

    def shards(self, size: str, suffix: str = ".jsonl.zst") -> list[str]:
        """Paths of a size."""
        return [str(path) for path in sorted((self.folder / size).glob(f"*{suffix}"))]

    def mb(self, size: str) -> float:
        """10^6 bytes of text."""
        return self.sizes[size]["n_bytes"] / 1e6

    @property
    def more_mb(self) -> float:
        """By how much 2x is larger."""
        return self.mb("2x") - self.mb("1x")


@dataclass(frozen=True)
class Texts:
    """All texts of a benchmark."""

    base: dict[str, Any]
    """What they are made from: folder, n_docs, n_bytes, bytes_per_word."""
    suffix_bytes: int
    by_spec: dict[TextSpec, Text]


def whole_spec(kind: str, mb: float, shard_mb: float = 64.0) -> TextSpec:
    """For dataselect: shards of about 64 MB, at least four, so that two workers have something to share."""
    return TextSpec(kind, mb, WHOLE_FORMATS, max(4, round(mb / shard_mb)))


def peer_spec(kind: str, mb: float) -> TextSpec:
    """For a peer: the head of the same text, in one shard a half."""
    return TextSpec(kind, mb, PEER_FORMATS, 1)


def make_texts(base: Path, field: str, out: Path, specs: Sequence[TextSpec]) -> Texts:
    """Have them made in a process of its own, which may grow: a child's peak memory counts its parent's."""
    request = {"base": str(base), "field": field, "out": str(out), "specs": [asdict(spec) for spec in specs]}
    made = subprocess.run(
        [sys.executable, "-m", "bench.corpus"],
        input=json.dumps(request),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    record = json.loads(made.stdout)
    by_spec = {
        spec: Text(spec.kind, out / spec.name, sizes)
        for spec, sizes in zip(specs, record["sizes"], strict=True)
    }
    return Texts(record["base"], record["suffix_bytes"], by_spec)
