"""Which old documents new ones match, where that drops none: the new are marked, or supersede the old."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataselect.engine.docs import DocNames, Docs, Exchange, unpacked
from dataselect.engine.survivors import Edges, Rule
from dataselect.io.dedup_index import joined_ranges

SIMILARITY = "similarity"


class OldMatches:
    """Pairs of a new document (of those that stay, unless `best`) and an old duplicate of it.

    best: one old document for each new one, the most similar (of equally similar the first).
    """

    def __init__(
        self,
        exchange: Exchange,
        docs: Docs,
        names: DocNames,
        edges: Callable[[], Iterable[Edges]],
        rule: Rule,
        best: bool,
    ) -> None:
        self._docs, self._names, self._best = docs, names, best
        parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
        for pairs, similarity, _ in edges():
            old, new = unpacked(pairs)  # old documents are the worse ones here
            chosen = exchange.is_old(old)
            chosen &= best | (rule.keeper[new] == new)
            parts.append((new[chosen], old[chosen], similarity[chosen]))
        new, old, similarity = (np.concatenate(values) for values in zip(*parts, strict=True))
        order = np.lexsort((old, -similarity, new))
        if best:
            order = order[np.flatnonzero(np.diff(new[order], prepend=-1))]
        self._new, self._old, self._similarity = new[order], old[order], similarity[order]

    def of(self, ranks: np.ndarray) -> tuple[int, dict[str, Any]]:
        """How many of these new documents match, and the matches.

        best: matched (large_string) and matched_similarity of each document, null where there is none; else
        row (of the match's new document), and source, shard, part, shard_row, id, similarity of the old one.
        """
        first = np.searchsorted(self._new, ranks)
        sizes = np.searchsorted(self._new, ranks, side="right") - first
        at = joined_ranges(first, sizes)
        table = self._names.table(self._docs.numbers(self._old[at]))
        similarity = pa.array(np.round(self._similarity[at].astype(np.float64), 6))
        n_matched = int((sizes > 0).sum())
        if not self._best:
            rows = {"row": pa.array(np.repeat(np.arange(len(ranks)), sizes))}
            return n_matched, rows | dict(zip(table.column_names, table.columns, strict=True)) | {
                SIMILARITY: similarity
            }
        place = pa.array(np.cumsum(sizes) - 1, mask=sizes == 0)
        return n_matched, {"matched": _label(table).take(place), "matched_similarity": similarity.take(place)}


def _label(table: pa.Table) -> pa.ChunkedArray:
    """The id, or where there is none the place: shard:row."""
    places = pc.binary_join_element_wise(table["shard"], table["shard_row"].cast(pa.string()), ":")
    return pc.coalesce(table["id"], places.cast(pa.large_string()))
