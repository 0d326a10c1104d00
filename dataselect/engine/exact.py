"""Exact Jaccard similarities of the pairs that signatures leave open.

`list_shingles` reads the texts of these documents again, and of no others; shards without any are not
opened. What it leaves is 8 bytes for every different shingle of these documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from dataselect.core.clock import Clock
from dataselect.core.pieces import Piece
from dataselect.engine.docs import Docs, Exchange, unpacked
from dataselect.engine.edits import Editor
from dataselect.engine.job import Context, Figures, figures
from dataselect.io.bundle import Bundle, BundleWriter
from dataselect.io.rows import iter_rows
from dataselect.stages.base import NearDedupStage, Texts

_CHUNK_HASHES = 8 << 20
"""Shingle hashes that a comparing task holds at a time, about: 64 MB."""


@dataclass(frozen=True)
class ShinglesCall:
    """Arguments of `list_shingles`."""

    stage: int
    piece: Piece
    undecided: str
    """Artifact of `join_groups` with the rows."""
    segments: tuple[tuple[int, int], ...]
    """(index within the piece, number among all segments) of those that have such rows."""
    edits: tuple[tuple[str, ...], ...]
    """Of each of these segments: artifacts with the edits that stages before this one made."""
    artifact: str


def list_shingles(context: Context, call: ShinglesCall) -> Figures:
    """Shingle sets of some rows of a piece.

    Sections for each of its segments: rows/<index> int32[n], offsets/<index> int64[n + 1], hashes/<index>
    uint64, ascending within each row.
    """
    clock = Clock()
    stage = cast("NearDedupStage", context.stages[call.stage])
    undecided = context.bundle(call.undecided)
    wanted = {index: undecided.array(f"rows/{number}") for index, number in call.segments}
    sinks = {index: ShingleSink(stage) for index in wanted}
    edits = {index: names for (index, _), names in zip(call.segments, call.edits, strict=True)}
    editor, edited = Editor(context, ()), -1  # of one segment at a time
    for segment, rows, texts, n_bytes in iter_rows(call.piece, context.job.read, wanted):
        context.report(len(rows), n_bytes)
        clock.lap("read")
        if len(rows):
            if segment != edited:
                editor, edited = Editor(context, edits[segment]), segment
            sinks[segment].add(Texts(editor.edited(rows, texts)))
            clock.lap("shingles")

    def fill(writer: BundleWriter) -> dict[str, Any]:
        for index, rows in wanted.items():
            sinks[index].write(writer, index, rows)
        return {"n_docs": sum(map(len, wanted.values()))}

    return {"digest": context.commit(call.artifact, fill)} | figures(clock)


class ShingleSink:
    """Collects the shingle sets of some rows of a segment, in their order."""

    def __init__(self, stage: NearDedupStage) -> None:
        self._stage = stage
        self._sizes = [np.zeros(1, np.int64)]
        self._hashes = [np.empty(0, np.uint64)]

    def add(self, texts: Texts, usable: np.ndarray | None = None) -> None:
        """Texts of the next rows; those where usable (bool[n_rows]) is False have none, and an empty set."""
        offsets, hashes = self._stage.shingle_sets(texts)
        sizes = np.zeros(len(texts) if usable is None else len(usable), np.int64)
        sizes[slice(None) if usable is None else usable] = np.diff(offsets)
        self._sizes.append(sizes)
        self._hashes.append(hashes)

    def write(self, writer: BundleWriter, index: int, rows: np.ndarray) -> None:
        """Sections rows, offsets and hashes, each with /<index>."""
        writer.add_array(f"rows/{index}", rows)
        offsets = np.cumsum(np.concatenate(self._sizes))
        missing = len(rows) + 1 - len(offsets)  # rows that the file no longer has
        writer.add_array(f"offsets/{index}", np.pad(offsets, (0, missing), "edge"))
        writer.add_array(f"hashes/{index}", np.concatenate(self._hashes))


@dataclass(frozen=True)
class ExactCall:
    """Arguments of `exact_similarities`: pairs start .. stop - 1 of `undecided`."""

    exchange: Exchange
    undecided: str
    shingles: tuple[tuple[int, str, int], ...]
    """(number among all segments, artifact of `list_shingles`, index within its piece), of all reads."""
    start: int
    stop: int
    artifact: str


def exact_similarities(context: Context, call: ExactCall) -> Figures:
    """Jaccard similarity of shingle sets, |A and B| / |A or B|: sections pairs uint64, similarity float64.

    NaN where the text of one is gone, whose set is empty then.
    """
    from dataselect.kernels.jaccard import count_common

    clock = Clock()
    docs = Docs(context, call.exchange)
    pairs = context.bundle(call.undecided).array("pairs", call.start, call.stop)
    left, right = (docs.numbers(ranks) for ranks in unpacked(pairs))
    sets = _Sets(context, call, docs)
    similarity = np.empty(len(pairs))
    start = 0
    while start < len(pairs):
        stop = sets.fit(left, right, start)
        numbers, places = np.unique(np.stack([left[start:stop], right[start:stop]]), return_inverse=True)
        a, b = places.reshape(2, -1).astype(np.int64)
        offsets, hashes = sets.load(numbers)
        common = np.empty(stop - start, np.int64)
        count_common(offsets, hashes, a, b, common)
        size = np.diff(offsets)
        found = common / (size[a] + size[b] - common)
        similarity[start:stop] = np.where(np.minimum(size[a], size[b]) > 0, found, np.nan)
        start = stop

    def fill(writer: BundleWriter) -> dict[str, Any]:
        writer.add_array("pairs", pairs)
        writer.add_array("similarity", similarity)
        return {"n_pairs": len(pairs)}

    return {"digest": context.commit(call.artifact, fill)} | figures(clock)


class _Sets:
    """Shingle sets of documents by number, from the artifacts of `list_shingles`."""

    def __init__(self, context: Context, call: ExactCall, docs: Docs) -> None:
        self._docs = docs
        self._context = context
        artifacts = list(dict.fromkeys(artifact for _, artifact, _ in call.shingles))
        bundles = dict(zip(artifacts, context.ahead(context.bundle, artifacts), strict=True))
        self._of: dict[int, list[tuple[Bundle, int]]] = {}
        for number, artifact, index in call.shingles:
            self._of.setdefault(number, []).append((bundles[artifact], index))
        self._rows_of: dict[int, np.ndarray] = {}

    def fit(self, left: np.ndarray, right: np.ndarray, start: int) -> int:
        """Where a chunk of pairs from `start` ends, so that its sets fit the memory; one pair always does."""
        stop = min(len(left), start + 65_536)
        n_hashes = np.cumsum(self._sizes(left[start:stop]) + self._sizes(right[start:stop]))
        return start + max(1, int(np.searchsorted(n_hashes, _CHUNK_HASHES)))

    def _spans(self, segment: int) -> np.ndarray:
        """int64[n, 4] by row: row, number of the bundle, first and last + 1 of its hashes."""
        if segment not in self._rows_of:
            parts = []
            for k, (bundle, index) in enumerate(self._of[segment]):
                rows, offsets = bundle.array(f"rows/{index}"), bundle.array(f"offsets/{index}")
                parts.append(np.stack([rows, np.full(len(rows), k), offsets[:-1], offsets[1:]], axis=1))
            spans = np.concatenate(parts)
            self._rows_of[segment] = spans[np.argsort(spans[:, 0])]
        return self._rows_of[segment]

    def _sizes(self, numbers: np.ndarray) -> np.ndarray:
        def load(segment: int, rows: np.ndarray) -> np.ndarray:
            spans = self._spans(segment)
            found = spans[np.searchsorted(spans[:, 0], rows)]
            return found[:, 3] - found[:, 2]

        return self._docs.gather(numbers, (), np.int64, load)

    def load(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(offsets, hashes) of documents, numbers ascending."""
        bounds = np.searchsorted(numbers, self._docs.first_docs)

        def of(segment: int) -> list[np.ndarray]:
            rows = numbers[bounds[segment] : bounds[segment + 1]] - self._docs.first_docs[segment]
            spans = self._spans(segment)
            hashes = [
                bundle.array(f"hashes/{index}", 0, bundle.length(f"hashes/{index}"))
                for bundle, index in self._of[segment]
            ]
            found = spans[np.searchsorted(spans[:, 0], rows)].tolist()
            # Copies: a slice would keep all hashes of its segment until the last one is read.
            return [hashes[k][start:stop].copy() for _, k, start, stop in found]

        segments = np.flatnonzero(np.diff(bounds)).tolist()
        sets = [one for found in self._context.ahead(of, segments) for one in found]
        first = np.zeros(len(sets) + 1, np.int64)
        np.cumsum([len(one) for one in sets], out=first[1:])
        return first, np.concatenate(sets)
