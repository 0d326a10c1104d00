"""Three rules for who of a graph of duplicates survives; documents are numbered by rank, 0 the best.

For one graph the survivors by component are among those by index, and these among the greedy ones.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dataselect.engine.docs import unpacked
from dataselect.stages.base import DedupStage, NearDedupStage

_CHUNK = 1 << 20

Edges = tuple[np.ndarray, np.ndarray, np.ndarray]
"""pairs uint64[n], worse << 32 | better, ascending; similarity float32[n]; is a copy uint8[n]."""


class Rule:
    """Takes the edges by ascending ranges of the worse rank; then `keeper` says who stays."""

    def __init__(self, n_docs: int) -> None:
        self.keeper = np.arange(n_docs, dtype=np.uint32)
        """The document that a dropped one is a duplicate of; its own rank for one that stays."""
        self.best = np.full(n_docs, np.nan, np.float32)
        """Similarity to the keeper; NaN where the two were not compared."""

    def add(self, pairs: np.ndarray, similarity: np.ndarray, is_copy: np.ndarray) -> None:
        """The next edges."""
        raise NotImplementedError

    def kept(self) -> np.ndarray:
        """uint8[n_docs], once all edges are added."""
        return (self.keeper == np.arange(len(self.keeper), dtype=np.uint32)).view(np.uint8)

    def finish(self, edges: Iterable[Edges]) -> None:
        """Fill in `best`, where `add` could not."""

    def roots(self) -> np.ndarray:
        """uint32[n_docs]: the kept document whose cluster each one belongs to."""
        return self.keeper


class Greedy(Rule):
    """A document is dropped if a better one is its duplicate and stays: a maximal independent set."""

    def add(self, pairs: np.ndarray, similarity: np.ndarray, is_copy: np.ndarray) -> None:
        from dataselect.kernels.groups import keep_greedy

        keep_greedy(pairs, similarity, is_copy, self.keeper, self.best)


class Index(Rule):
    """A document is dropped if any better one is its duplicate, whether that one stays or not."""

    def add(self, pairs: np.ndarray, similarity: np.ndarray, is_copy: np.ndarray) -> None:
        worse, better = unpacked(pairs)
        worse, first = np.unique(worse, return_index=True)
        new = self.keeper[worse] == worse  # else an earlier call had better ones for it
        worse, first = worse[new], first[new]
        self.keeper[worse], self.best[worse] = better[first], similarity[first]

    def roots(self) -> np.ndarray:
        from dataselect.kernels.groups import find_roots

        parent = self.keeper.copy()
        find_roots(parent)
        return parent


class Component(Rule):
    """Of every connected component the best document stays."""

    def __init__(self, n_docs: int, split_over: int | None = None) -> None:
        """split_over: components of more documents are decided greedily instead, each as if it were alone."""
        super().__init__(n_docs)
        self._parent = self.keeper if split_over is None else self.keeper.copy()
        self._split_over = split_over
        self._greedy = None if split_over is None else Greedy(n_docs)

    def add(self, pairs: np.ndarray, similarity: np.ndarray, is_copy: np.ndarray) -> None:
        from dataselect.kernels.groups import connect

        worse, better = unpacked(pairs)
        connect(better, worse, self._parent)
        if self._greedy is not None:
            self._greedy.add(pairs, similarity, is_copy)

    def kept(self) -> np.ndarray:
        from dataselect.kernels.groups import find_roots

        find_roots(self._parent)
        if self._split_over is not None and self._greedy is not None:
            large = cluster_sizes(self._parent)[self._parent] > self._split_over
            self.keeper = np.where(large, self._greedy.keeper, self._parent)
        return super().kept()

    def finish(self, edges: Iterable[Edges]) -> None:
        for pairs, similarity, is_copy in edges:
            worse, better = unpacked(pairs)
            direct = self.keeper[worse] == better
            self.best[worse[direct]] = similarity[direct]
            copies = (is_copy > 0) & ~direct
            self.best[worse[copies]] = self.best[better[copies]]  # the better ones come before
        if self._greedy is not None:  # also copies of what a split component drops
            apart = self.keeper != self._parent
            self.best[apart] = self._greedy.best[apart]


def cluster_sizes(roots: np.ndarray) -> np.ndarray:
    """int32[n_docs]: documents of the cluster that each one is the root of, 0 for the others."""
    sizes = np.zeros(len(roots), np.int32)
    for start in range(0, len(roots), _CHUNK):  # of all at once numpy would make 64-bit indices
        np.add.at(sizes, roots[start : start + _CHUNK].astype(np.intp), np.int32(1))
    return sizes


def rule_of(stage: DedupStage, n_docs: int) -> Rule:
    """The stage's rule in its first state; for equal keys, where all three are the same, the cheapest."""
    if not isinstance(stage, NearDedupStage) or stage.survivors == "greedy":
        return Greedy(n_docs)
    if stage.survivors == "index":
        return Index(n_docs)
    return Component(n_docs, stage.max_cluster if stage.larger_clusters == "split" else None)
