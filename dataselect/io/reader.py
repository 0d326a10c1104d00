"""Pieces and files to batches of texts, whatever their format."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataselect.core.clock import Clock
from dataselect.core.errors import BadModel, BadShard
from dataselect.core.fingerprint import fingerprint
from dataselect.core.pieces import SUFFIXES, Piece, Shard, suffix_of, usual_text_bytes
from dataselect.io import arrow_stream, parquet
from dataselect.io.batch import SegmentEnd, TextBatch, TextSpec, empty_texts
from dataselect.io.fields import FieldSpec
from dataselect.io.jsonl import parse_blocks
from dataselect.io.lines import LineBlock, iter_line_blocks

BATCH_BYTES = 4 << 20
"""Text in a batch, about: fits the caches of two cores with its columns, and amortises a call."""


@dataclass(frozen=True, slots=True)
class ReadSpec:
    """How rows become documents; what a reading task needs of the recipe's `input`."""

    text: str | tuple[str, ...]
    id: str | None
    max_row_bytes: int
    segment_bytes: int
    batch_rows: int

    def cut(self, piece: Piece) -> list[Any]:
        """What the piece's segments depend on besides its content."""
        if len(piece.shards) > 1:
            return []
        return [self.segment_bytes, *([] if piece.format == "jsonl" else [self.text, self.max_row_bytes])]


class ShardSource:
    """A shard as the readers want it; refuses to read a shard that changed since it was listed."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self.name, self.size = shard.name, shard.size

    def open(self) -> BinaryIO:
        """A seekable reader; BadShard where the shard vanished or changed."""
        from dataselect.io.store import Entry, store_of

        try:
            store, name = store_of(self._shard.url)
            entry, file = store.opened(name)
        except (FileNotFoundError, NotADirectoryError):
            raise BadShard(f"{self.name}: the shard vanished during the run ({self._shard.url})") from None
        except OSError as error:
            raise BadShard(f"{self.name}: cannot open the shard: {error.strerror}") from error
        if not entry.is_like(Entry(name, self._shard.size, self._shard.version)):
            file.close()
            raise BadShard(f"{self.name}: the shard changed during the run; run the same command again")
        return file


def iter_piece(
    piece: Piece,
    spec: ReadSpec,
    skip_segments: int = 0,
    *,
    parse: bool = True,
    clock: Clock | None = None,
    fields: Sequence[FieldSpec] = (),
) -> Iterator[TextBatch]:
    """All batches of a piece in row order; rows of a group run on through its shards.

    The last batch of a segment carries its digest. skip_segments: leading segments that are decompressed
    and left out; parse=False: batches without texts, for digests and row counts alone; fields: input fields
    to read with the texts. `clock` gets "read" (what comes from the store, decompressed, digested and cut
    into lines; tables: decoded) and "parse".
    BadShard where a shard can't be read to its end.
    """
    text = TextSpec.of(spec.text)
    clock = clock or Clock()
    if piece.format != "jsonl":
        yield from clock.laps("read", _iter_table_segments(piece, text, spec, skip_segments, parse, fields))
        return
    blocks = clock.laps("read", piece_lines(piece, spec))
    if not parse:
        for block in blocks:
            yield _unparsed(block.segment, block.first_row, block.n_rows, block.n_bytes, block.segment_end)
        return
    wanted = (block for block in blocks if block.segment >= skip_segments)
    for batch in clock.laps("parse", parse_blocks(wanted, text, spec.id, fields)):
        yield from _sliced(batch, spec.batch_rows)


def piece_lines(piece: Piece, spec: ReadSpec) -> Iterator[LineBlock]:
    """The lines of a JSONL piece. Blocks of a group run on through its small shards."""
    if len(piece.shards) > 1:
        yield from _group_lines(piece, spec)
        return
    yield from iter_line_blocks(
        ShardSource(piece.shards[0]),
        codec=piece.codec,
        start=piece.start,
        stop=piece.stop,
        segment_bytes=spec.segment_bytes,
        max_row_bytes=spec.max_row_bytes,
    )


def _group_lines(piece: Piece, spec: ReadSpec) -> Iterator[LineBlock]:
    """Lines of many small shards in blocks of usual size: parser calls would cost more than parsing."""
    ends: list[SegmentEnd] = []
    pending: list[LineBlock] = []
    first_row = n_bytes = 0
    for block in _shard_blocks(piece, spec):
        if block.segment_end is not None:
            ends.append(block.segment_end)
        too_long = block.too_long_bytes is not None
        if not too_long:
            pending.append(block)
            n_bytes += len(block.data)
        if pending and (too_long or n_bytes >= BATCH_BYTES):
            yield (whole := _joined(pending, first_row))
            first_row, pending, n_bytes = first_row + whole.n_rows, [], 0
        if too_long:
            yield dataclasses.replace(block, first_row=first_row)
            first_row += 1
    yield dataclasses.replace(_joined(pending, first_row), segment_end=_group_end(ends))


def _shard_blocks(piece: Piece, spec: ReadSpec) -> Iterator[LineBlock]:
    for shard in piece.shards:
        # The buffer of a block lives as long as the block: no larger than the shard needs.
        usual_bytes = 2 * usual_text_bytes(shard.size, piece.format, piece.codec) + 4096
        yield from iter_line_blocks(
            ShardSource(shard),
            codec=piece.codec,
            max_row_bytes=spec.max_row_bytes,
            block_bytes=min(BATCH_BYTES, usual_bytes),
        )


def _joined(blocks: list[LineBlock], first_row: int) -> LineBlock:
    """One block of several; a last line without newline gets one, for the next shard's to follow."""
    newline = np.array([10], np.uint8)
    parts, starts, ends, offset = [newline[:0]], [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for block in blocks:
        parts.append(block.data)
        starts.append(block.starts + offset)
        ends.append(block.ends + offset)
        offset += len(block.data)
        if len(block.data) and block.data[-1] != newline[0]:
            parts.append(newline)
            offset += 1
    return LineBlock(
        segment=0,
        first_row=first_row,
        data=np.concatenate(parts),
        starts=np.concatenate(starts),
        ends=np.concatenate(ends),
        n_rows=sum(block.n_rows for block in blocks),
        n_blank=sum(block.n_blank for block in blocks),
        n_bytes=sum(block.n_bytes for block in blocks),
    )


def _group_end(ends: list[SegmentEnd]) -> SegmentEnd:
    shard_rows = tuple(end.n_rows for end in ends)
    digest = fingerprint([end.digest for end in ends])
    return SegmentEnd(digest, sum(end.n_bytes for end in ends), sum(shard_rows), shard_rows)


def piece_tables(piece: Piece) -> Iterator[tuple[int, pa.Table]]:
    """(first row, table) of a Parquet or Arrow piece, all columns; rows count from the piece's first one."""
    source = ShardSource(piece.shards[0])
    if piece.format == "arrow":
        return arrow_stream.iter_arrow_tables(source, (piece.start, piece.stop))
    return parquet.iter_parquet_tables(source, piece.row_groups)


def _iter_table_segments(
    piece: Piece,
    text: TextSpec,
    spec: ReadSpec,
    skip_segments: int,
    parse: bool,
    fields: Sequence[FieldSpec],
) -> Iterator[TextBatch]:
    """Rows of a table: a row is of segment (text bytes of the piece before it) // segment_bytes.

    Segments of one piece share a content digest, because column chunks can't be told apart by rows.
    """
    source = ShardSource(piece.shards[0])
    if piece.format == "arrow":
        span = (piece.start, piece.stop)
        whole, read = arrow_stream.content_digest(source, span), partial(arrow_stream.iter_arrow, span=span)
    else:
        groups = piece.row_groups
        whole = parquet.content_digest(source, groups)
        read = partial(parquet.iter_parquet, row_groups=groups, digest=False)
    segment = first_row = n_text_bytes = 0
    batches = read(
        source,
        text=text,
        id=spec.id,
        batch_rows=spec.batch_rows,
        batch_bytes=BATCH_BYTES,
        max_row_bytes=spec.max_row_bytes,
        fields=fields,
    )
    n_rows = 0
    for batch in batches:
        sizes = np.zeros(batch.n_rows, np.int64)
        sizes[batch.rows - batch.first_row] = pc.binary_length(batch.texts).to_numpy(zero_copy_only=False)
        of_row = (n_text_bytes + np.cumsum(sizes) - sizes) // spec.segment_bytes
        n_text_bytes += int(sizes.sum())
        for number in range(segment, int(of_row[-1]) + 1 if len(of_row) else segment + 1):
            lo, hi = np.searchsorted(of_row, [number, number + 1])
            if number > segment:
                yield from _end_of(segment, first_row, n_rows, whole, skip_segments)
                segment, first_row, n_rows = number, batch.first_row + int(lo), 0
            part = _rows_of(batch, batch.first_row + int(lo), batch.first_row + int(hi))
            n_rows += part.n_rows
            if number >= skip_segments:
                part = _shifted(part, -first_row)
                yield dataclasses.replace(part, segment=number) if parse else _unparsed_like(part, number)
    yield from _end_of(segment, first_row, n_rows, whole, skip_segments)


def _end_of(
    segment: int, first_row: int, n_rows: int, whole: SegmentEnd, skip_segments: int
) -> Iterator[TextBatch]:
    end = SegmentEnd(fingerprint(whole.digest, first_row, n_rows), whole.n_bytes, n_rows)
    if segment >= skip_segments:
        yield _unparsed(segment, n_rows, 0, 0, end)


def _unparsed_like(batch: TextBatch, segment: int) -> TextBatch:
    return _unparsed(segment, batch.first_row, batch.n_rows, batch.n_bytes_read, None)


def _unparsed(segment: int, first_row: int, n_rows: int, n_bytes: int, end: SegmentEnd | None) -> TextBatch:
    none = np.empty(0, np.int64)
    return TextBatch(segment, first_row, n_rows, none, empty_texts(), None, [], n_bytes, end)


def _sliced(batch: TextBatch, batch_rows: int) -> Iterator[TextBatch]:
    """The batch in runs of at most batch_rows rows."""
    after = batch.first_row + batch.n_rows
    for first in range(batch.first_row, max(after, batch.first_row + 1), batch_rows):
        yield _rows_of(batch, first, min(first + batch_rows, after))


def _rows_of(batch: TextBatch, first: int, after: int) -> TextBatch:
    """Rows first .. after - 1 of a batch; the first part has its bytes, the last its segment's end."""
    lo, hi = np.searchsorted(batch.rows, [first, after])
    return dataclasses.replace(
        batch,
        first_row=first,
        n_rows=after - first,
        rows=batch.rows[lo:hi],
        texts=batch.texts.slice(lo, hi - lo),
        ids=None if batch.ids is None else batch.ids.slice(lo, hi - lo),
        bad=[row for row in batch.bad if first <= row.row < after],
        n_bytes_read=batch.n_bytes_read if first == batch.first_row else 0,
        segment_end=batch.segment_end if after == batch.first_row + batch.n_rows else None,
        fields={name: column.slice(lo, hi - lo) for name, column in batch.fields.items()},
        misfits=batch.misfits if first == batch.first_row else {},
    )


def _shifted(batch: TextBatch, n_rows: int) -> TextBatch:
    bad = [dataclasses.replace(row, row=row.row + n_rows) for row in batch.bad]
    first_row, rows = batch.first_row + n_rows, batch.rows + n_rows
    return dataclasses.replace(batch, first_row=first_row, rows=rows, bad=bad, segment_end=None)


def file_shard(path: str) -> Shard:
    """One JSONL, Parquet or Arrow file that is no input shard; BadModel where its ending is not known."""
    if suffix_of(path) is None:
        raise BadModel(f"{path}: unknown ending; known are {', '.join(SUFFIXES)}")
    from dataselect.io.store import store_of

    store, name = store_of(path)
    entry = store.stat(name)
    if entry is None:
        raise BadModel(f"{path}: file not found")
    return Shard(path, path, entry.size, entry.version)


def iter_file_texts(path: str, text: str) -> Iterator[pa.Array]:
    """Texts of one JSONL, Parquet or Arrow file (a target set); BadModel where a row has none."""
    shard = file_shard(path)
    form, codec = SUFFIXES[suffix_of(path) or ""]
    spec = ReadSpec(text, None, 64 << 20, 1 << 62, 16_384)
    for batch in iter_piece(Piece((shard,), form, codec), spec):
        if batch.bad:
            row = batch.bad[0]
            raise BadModel(f"{path}: row {row.row}: {row.reason}; every row must have a string '{text}'")
        yield cast("pa.Array", batch.texts)
