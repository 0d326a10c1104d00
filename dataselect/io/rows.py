"""Texts of a few rows of a piece: the shard is decompressed, but only these rows are parsed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from dataselect.core.pieces import Piece
from dataselect.io.batch import TextSpec
from dataselect.io.jsonl import parse_blocks
from dataselect.io.lines import LineBlock
from dataselect.io.reader import ReadSpec, iter_piece, piece_lines


def iter_rows(
    piece: Piece, spec: ReadSpec, wanted: Mapping[int, np.ndarray]
) -> Iterator[tuple[int, np.ndarray, pa.Array, int]]:
    """(segment, rows, their texts, bytes read since the last yield), in row order.

    wanted  segment -> int[n] good rows of it, ascending; reading stops after the last one
    Raises BadShard where the shard can't be read that far.
    """
    last = max((segment, int(rows[-1])) for segment, rows in wanted.items() if len(rows))
    chosen = _jsonl_rows if piece.format == "jsonl" else _table_rows
    for segment, after, rows, texts, n_bytes in chosen(piece, spec, wanted):
        yield segment, rows, texts, n_bytes
        if (segment, after - 1) >= last:
            return


_Rows = Iterator[tuple[int, int, np.ndarray, pa.Array, int]]


def _jsonl_rows(piece: Piece, spec: ReadSpec, wanted: Mapping[int, np.ndarray]) -> _Rows:
    text = TextSpec.of(spec.text)
    for block in piece_lines(piece, spec):
        after = block.first_row + block.n_rows
        rows = _between(wanted.get(block.segment), block.first_row, after)
        texts = pa.array([], pa.large_string())
        if len(rows):
            texts = texts_of(block, rows - block.first_row, text)
        yield block.segment, after, rows, texts, block.n_bytes


def texts_of(block: LineBlock, index: np.ndarray, text: TextSpec) -> pa.LargeStringArray:
    """Texts of some good rows of a block, int64[n] ascending; only these are parsed."""
    return next(parse_blocks([_only(block, index)], text, None)).texts


def _table_rows(piece: Piece, spec: ReadSpec, wanted: Mapping[int, np.ndarray]) -> _Rows:
    for batch in iter_piece(piece, dataclasses.replace(spec, id=None)):
        after = batch.first_row + batch.n_rows
        rows = _between(wanted.get(batch.segment), batch.first_row, after)
        texts = batch.texts.take(pa.array(np.searchsorted(batch.rows, rows)))
        yield batch.segment, after, rows, texts, batch.n_bytes_read


def _between(rows: np.ndarray | None, first: int, after: int) -> np.ndarray:
    if rows is None:
        return np.empty(0, np.int64)
    lo, hi = np.searchsorted(rows, [first, after])
    return rows[lo:hi].astype(np.int64)


def _only(block: LineBlock, index: np.ndarray) -> LineBlock:
    """A block of some of the lines."""
    lines = [block.data[start:end] for start, end in zip(block.starts[index], block.ends[index], strict=True)]
    lengths = np.array([len(line) + 1 for line in lines], np.int64)
    ends = np.cumsum(lengths) - 1
    newline = np.array([10], np.uint8)
    data = np.concatenate([part for line in lines for part in (line, newline)])
    return LineBlock(
        segment=block.segment,
        first_row=0,
        data=data,
        starts=ends - lengths + 1,
        ends=ends,
        n_rows=len(lines),
        n_blank=0,
        n_bytes=len(data),
    )
