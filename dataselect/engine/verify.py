"""Tasks of a dedup: candidate pairs of a range of ranks, compared by their signatures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from dataselect.core.clock import Clock
from dataselect.engine.columns import distinct
from dataselect.engine.docs import Docs, Exchange, unpacked
from dataselect.engine.group import NO_PAIRS, concatenated, rank_bounds
from dataselect.engine.job import Context, Figures, figures
from dataselect.io.bundle import BundleWriter
from dataselect.stages.base import NearDedupStage

CHUNK = 1 << 19
"""Pairs that are judged at a time, with their signatures: 2 x 64 MB. Each chunk opens all segments."""


@dataclass(frozen=True)
class VerifyCall:
    """Arguments of `verify_pairs`: ranges start .. stop - 1 of the rank index."""

    exchange: Exchange
    groups: tuple[str, ...]
    start: int
    stop: int
    artifact: str


def verify_pairs(context: Context, call: VerifyCall) -> Figures:
    """Compare the signatures of all pairs whose worse document is in a range of ranks.

    Sections pairs (uint64, ascending) and matches (uint16; absent where signatures are not used) without
    those that are surely no duplicates, copies, and end (uint64[1]: what all pairs are below).
    """
    clock = Clock()
    found: dict[str, np.ndarray] = {}
    for name in ("pairs", "copies"):
        found[name] = NO_PAIRS
        parts: list[np.ndarray] = []
        for i, group in enumerate(call.groups):
            bundle = context.bundle(group)
            index = bundle.array(f"{name}_index")
            parts.append(bundle.array(name, int(index[call.start]), int(index[call.stop])))
            # A pair is in as many partitions as it has bands in common, so few of all are different.
            if i == len(call.groups) - 1 or sum(map(len, parts)) > max(CHUNK, len(found[name])):
                found[name] = distinct(concatenated([found[name], *parts]))
                parts = []
    n_candidates = len(found["pairs"])
    clock.lap("read")
    comparer = Comparer(context, call.exchange)
    found["pairs"], matches = comparer.likely(found["pairs"])
    clock.lap("verify")

    def fill(writer: BundleWriter) -> dict[str, Any]:
        for name, values in found.items():
            writer.add_array(name, values)
        if matches is not None:
            writer.add_array("matches", matches)
        writer.add_array(
            "end", rank_bounds(comparer.docs.n_docs)[[call.stop]].astype(np.uint64) << np.uint64(32)
        )
        return {"n_candidates": n_candidates}

    return {"digest": context.commit(call.artifact, fill)} | figures(clock)


class Comparer:
    """Compares pairs by signatures, and knows the exact similarities that were computed so far."""

    def __init__(self, context: Context, exchange: Exchange, exact: tuple[str, ...] = ()) -> None:
        self._stage = cast("NearDedupStage", context.stages[exchange.stage])
        self.docs = Docs(context, exchange)
        bundles = [context.bundle(name) for name in exact]
        pairs = np.concatenate([NO_PAIRS, *(bundle.array("pairs") for bundle in bundles)])
        values = np.concatenate([np.empty(0), *(bundle.array("similarity") for bundle in bundles)])
        order = np.argsort(pairs, kind="stable")
        self._exact_pairs, self._exact = pairs[order], values[order]

    def likely(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The pairs that may be duplicates, and how many signature bytes match (None: not compared)."""
        if not self._stage.uses_signatures:
            return pairs, None
        kept, matches = [NO_PAIRS], [np.empty(0, np.uint16)]
        for start in range(0, len(pairs), CHUNK):
            chunk = pairs[start : start + CHUNK]
            equal = self._matches(chunk)
            may = self._stage.verdicts(self._stage.estimates(equal)) != 0
            kept.append(chunk[may])
            matches.append(equal[may])
        return np.concatenate(kept), np.concatenate(matches)

    def _matches(self, pairs: np.ndarray) -> np.ndarray:
        from dataselect.kernels.jaccard import count_matches

        n_hashes = self._stage.n_hashes()
        left, right = (self.docs.signatures(self.docs.numbers(r), n_hashes) for r in unpacked(pairs))
        out = np.empty(len(pairs), np.uint16)
        count_matches(left, right, out)
        return out

    def _have_texts(self, pairs: np.ndarray) -> np.ndarray:
        """bool[n]: whether the exact similarity can be found; of an index there are signatures alone."""
        worse, better = unpacked(pairs)
        return self.docs.has_text(worse) & self.docs.has_text(better)

    def judge(
        self, pairs: np.ndarray, matches: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(is a duplicate bool, similarity float32, not known yet bool) of each pair.

        A pair whose exact similarity is not known yet is taken for what its signatures say.
        """
        unknown = np.full(len(pairs), np.nan)
        estimates = unknown if matches is None else self._stage.estimates(matches)
        verdicts = self._stage.verdicts(estimates)
        if matches is not None and (verdicts < 0).any():
            without = np.flatnonzero(verdicts < 0)
            without = without[~self._have_texts(pairs[without])]
            verdicts[without] = estimates[without] >= self._stage.threshold
        similarity, duplicate = estimates.copy(), verdicts == 1
        open_pairs = np.flatnonzero(verdicts < 0)
        at, known = found_in(self._exact_pairs, pairs[open_pairs])
        exact = self._exact[at[known]]
        gone = np.isnan(exact)  # old documents whose texts have changed
        similarity[open_pairs[known]] = np.where(gone, estimates[open_pairs[known]], exact)
        duplicate[open_pairs] = similarity[open_pairs] >= self._stage.threshold
        missing = np.zeros(len(pairs), bool)
        missing[open_pairs[~known]] = True
        return duplicate, similarity.astype(np.float32), missing


def found_in(ascending: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(place int64[n], is there bool[n]) of values among ascending ones."""
    at = np.searchsorted(ascending, values)
    there = at < len(ascending)
    there[there] = ascending[at[there]] == values[there]
    return at, there
