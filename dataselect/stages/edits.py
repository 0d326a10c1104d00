"""What a stage takes out of texts and puts in its place: byte spans over the text as it reaches the stage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dataselect.core.errors import DataselectError


@dataclass(frozen=True)
class Edits:
    """Edits of a batch of documents: those of document i are first[i] .. first[i + 1] - 1."""

    first: np.ndarray
    """int64[n_docs + 1]"""
    starts: np.ndarray
    """int64[n]: first byte that goes, counted in the document's UTF-8; ascending within a document."""
    ends: np.ndarray
    """int64[n]: the byte after the last one that goes; not after the next edit's start."""
    texts: pa.LargeStringArray
    """n values, no nulls: what comes in its place, mostly nothing."""

    @classmethod
    def of(cls, documents: Iterable[Sequence[tuple[int, int, str]]]) -> Edits:
        """From (start, end, text) of every document's edits."""
        found = [list(edits) for edits in documents]
        flat = [edit for edits in found for edit in edits]
        return cls(
            np.cumsum([0, *map(len, found)]).astype(np.int64),
            np.array([start for start, _, _ in flat], np.int64),
            np.array([end for _, end, _ in flat], np.int64),
            pa.array([text for _, _, text in flat], pa.large_string()),
        )

    @classmethod
    def of_lines(cls, first: np.ndarray, starts: np.ndarray, ends: np.ndarray, newlines: np.ndarray) -> Edits:
        """With a newline in the place of what goes where uint8[n] `newlines` is 1, else with nothing."""
        return cls(first, starts, ends, pa.array(["", "\n"], pa.large_string()).take(pa.array(newlines)))

    @property
    def n_of_doc(self) -> np.ndarray:
        """int64[n_docs]: how many edits each document has."""
        return np.diff(self.first)

    def take(self, docs: np.ndarray) -> Edits:
        """Those of some documents, int64[] ascending."""
        n = self.n_of_doc[docs]
        first = np.concatenate([[0], np.cumsum(n)])
        rows = np.repeat(self.first[docs] - first[:-1], n) + np.arange(first[-1])
        return Edits(first, self.starts[rows], self.ends[rows], self.texts.take(pa.array(rows)))

    def check(self, stage: str, texts: pa.Array) -> None:
        """Raise DataselectError where they are no edits of these texts; `stage` is named."""
        from dataselect.kernels.arrow import text_buffers

        offsets, data = text_buffers(texts)
        n_docs, n = len(offsets) - 1, len(self.starts)
        if not (len(self.first) == n_docs + 1 and n == len(self.ends) == len(self.texts) == self.first[-1]):
            raise DataselectError(
                f"{stage}: edits() gave edits of {len(self.first) - 1} documents for {n_docs}, or lists that "
                "are not equally long"
            )
        doc = np.repeat(np.arange(n_docs), self.n_of_doc)
        before = np.where(doc[1:] == doc[:-1], self.ends[:-1], 0) if n else np.empty(0, np.int64)
        inside = (self.starts <= self.ends) & (self.ends <= np.diff(offsets)[doc])
        ordered = np.concatenate([np.zeros(min(n, 1), np.int64), before]) <= self.starts
        if not (inside & ordered).all():
            raise DataselectError(
                f"{stage}: edits() gave spans that overlap, are out of order or lie outside their text"
            )
        edges = np.concatenate([offsets[doc] + self.starts, offsets[doc] + self.ends])
        stops = np.tile(offsets[1:][doc], 2)
        if ((data[np.minimum(edges, len(data) - 1)] & 0xC0 == 0x80) & (edges < stops)).any():
            raise DataselectError(
                f"{stage}: edits() cut a character in two; spans are of whole UTF-8 characters"
            )

    def applied_to(self, texts: pa.Array) -> pa.LargeStringArray:
        """The edited texts; `texts` are those that the edits are of."""
        from dataselect.kernels.arrow import text_buffers
        from dataselect.kernels.rows import gather_rows

        offsets, data = text_buffers(texts)
        tail_offsets, tails = text_buffers(self.texts)
        n_docs, n = len(offsets) - 1, len(self.starts)
        doc = np.repeat(np.arange(n_docs), self.n_of_doc)
        # What stays: one piece before every edit, which is its tail, and one at the end of every document.
        before, last = np.arange(n) + doc, self.first[1:] + np.arange(n_docs)
        starts, stops = np.empty(n + n_docs, np.int64), np.empty(n + n_docs, np.int64)
        starts[self.first[:-1] + np.arange(n_docs)] = offsets[:-1]
        starts[before + 1] = offsets[doc] + self.ends
        stops[before], stops[last] = offsets[doc] + self.starts, offsets[1:]
        tail_of_piece = np.full(n + n_docs, n, np.int32)
        tail_of_piece[before] = np.arange(n)
        grown = np.concatenate([[0], np.cumsum(np.diff(tail_offsets) - (self.ends - self.starts))])
        new = np.concatenate(
            [[0], np.cumsum(np.diff(offsets) + grown[self.first[1:]] - grown[self.first[:-1]])]
        )
        out = np.empty(new[-1], np.uint8)
        gather_rows(data, starts, stops, tails, np.append(tail_offsets, tail_offsets[-1]), tail_of_piece, out)
        return pa.LargeStringArray.from_buffers(n_docs, pa.py_buffer(new), pa.py_buffer(out))
