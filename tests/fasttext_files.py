"""Made-up fastText files of any sizes, losses and quantisation, written byte by byte."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

LOSS_NUMBERS = {"hs": 1, "ns": 2, "softmax": 3, "ova": 4}


@dataclass
class MadeModel:
    """What a file says; matrices are random with `scale`, entries a list of (word, count)."""

    words: list[bytes]
    labels: list[bytes]
    dim: int = 8
    loss: str = "softmax"
    bucket: int = 50
    minn: int = 0
    maxn: int = 0
    word_ngrams: int = 1
    kept: list[int] | None = None
    """Buckets of a pruned model in the order of their rows."""
    quantised: bool = False
    quantised_output: bool = False
    norms: bool = False
    dsub: int = 2
    scale: float = 3.0
    seed: int = 1
    version: int = 12
    model: int = 3
    label_counts: list[int] | None = None
    sections: dict[str, int] = field(default_factory=dict)
    """Where each section of the written file begins."""

    def write(self, path) -> None:
        rng = np.random.default_rng(self.seed)
        parts: list[tuple[str, bytes]] = [("signature", struct.pack("<ii", 793712314, self.version))]
        arguments = [self.dim, 5, 5, 1, 5, self.word_ngrams, LOSS_NUMBERS[self.loss], self.model]
        arguments += [self.bucket, self.minn, self.maxn, 100]
        parts.append(("arguments", struct.pack("<12id", *arguments, 1e-4)))
        n_pruned = -1 if self.kept is None else len(self.kept)
        sizes = [len(self.words) + len(self.labels), len(self.words), len(self.labels), 1000, n_pruned]
        parts.append(("sizes", struct.pack("<3i2q", *sizes)))
        counts = self.label_counts or sorted(rng.integers(1, 1000, len(self.labels)).tolist(), reverse=True)
        entries = [(word, 5, 0) for word in self.words]
        entries += [(label, n, 1) for label, n in zip(self.labels, counts, strict=True)]
        raw = b"".join(name + b"\0" + struct.pack("<qb", n, kind) for name, n, kind in entries)
        parts.append(("entries", raw))
        if self.kept is not None:
            pairs = [(bucket, row) for row, bucket in enumerate(self.kept)]
            rng.shuffle(pairs)
            parts.append(("kept", b"".join(struct.pack("<ii", *map(int, pair)) for pair in pairs)))
        n_rows = len(self.words) + (self.bucket if self.kept is None else len(self.kept))
        parts.append(("input flag", struct.pack("<B", self.quantised)))
        parts += self.matrix(rng, "input", n_rows, self.quantised)
        parts.append(("output flag", struct.pack("<B", self.quantised_output)))
        parts += self.matrix(rng, "output", len(self.labels), self.quantised and self.quantised_output)
        at = 0
        for name, content in parts:
            self.sections[name] = at
            at += len(content)
        path.write_bytes(b"".join(content for _, content in parts))

    def matrix(self, rng, name, n_rows, quantised) -> list[tuple[str, bytes]]:
        scale = self.scale / np.sqrt(self.dim)
        if not quantised:
            values = rng.normal(0, scale, (n_rows, self.dim)).astype("<f4")
            return [(name, struct.pack("<qq", n_rows, self.dim)), (f"{name} values", values.tobytes())]
        n_sub = -(-self.dim // self.dsub)
        codes = rng.integers(0, 256, n_rows * n_sub, dtype=np.uint8)
        head = struct.pack("<B", self.norms) + struct.pack("<qqi", n_rows, self.dim, codes.size)
        parts = [(name, head), (f"{name} codes", codes.tobytes())]
        parts += self.quantiser(rng, name, self.dim, self.dsub, scale)
        if self.norms:
            parts.append((f"{name} norms", rng.integers(0, 256, n_rows, dtype=np.uint8).tobytes()))
            parts += self.quantiser(rng, f"{name} norms", 1, 1, 1.0)
        return parts

    @staticmethod
    def quantiser(rng, name, dim, dsub, scale) -> list[tuple[str, bytes]]:
        n_sub = -(-dim // dsub)
        head = struct.pack("<4i", dim, n_sub, dsub, dim - (n_sub - 1) * dsub)
        centroids = rng.normal(0, scale, dim * 256).astype("<f4").tobytes()
        return [(f"{name} quantiser", head), (f"{name} centroids", centroids)]


@dataclass
class KeywordModel(MadeModel):
    """A model that knows what it is told: of `votes`, word -> (label, strength), the mean for each label.

    The probability is the softmax of these means; a text without any of the words has no prediction.
    """

    votes: dict[str, tuple[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, labels: list[str], votes: dict[str, tuple[str, float]]) -> KeywordModel:
        names = [b"__label__" + label.encode() for label in labels]
        return cls([word.encode() for word in votes], names, dim=len(labels), bucket=0, votes=votes)

    def matrix(self, rng, name, n_rows, quantised) -> list[tuple[str, bytes]]:
        values = np.eye(self.dim, dtype="<f4")
        if name == "input":
            rows = [self.labels.index(b"__label__" + label.encode()) for label, _ in self.votes.values()]
            strengths = np.array([strength for _, strength in self.votes.values()], "<f4")
            values = values[rows] * strengths[:, None]
        return [(name, struct.pack("<qq", n_rows, self.dim)), (f"{name} values", values.tobytes())]
