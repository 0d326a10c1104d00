"""The row structure of a JSONL shard: which bytes are which row.

Shared by the parsing reader and by the writer that passes lines through, so that both always agree on
row numbers. A row is a line that is not blank (blank: only space, tab and carriage return). Lines end at
a newline; a carriage return before it belongs to the line. A byte-order mark at the start of the file
belongs to nothing. A last line without newline is a line.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import xxhash

from dataselect.core.pieces import Codec
from dataselect.io.batch import SegmentEnd, Source
from dataselect.io.streams import ByteStream, piece_stream

WHITE_SPACE = b" \t\r"
_NEWLINE = 10
_BOM = b"\xef\xbb\xbf"
_SCAN_BYTES = 1 << 20  # newline search in steps that stay in the L2 cache
_NO_BYTES = np.empty(0, np.uint8)
_NO_OFFSETS = np.empty(0, np.int64)


@dataclass(slots=True)
class LineBlock:
    """Consecutive lines of one segment. Row `first_row + i` is data[starts[i]:ends[i]].

    A row longer than max_row_bytes is a block of its own: n_rows is 1, too_long_bytes is set, and there
    are no bytes, starts or ends. The last block of a segment has segment_end set and no lines.
    """

    segment: int
    first_row: int
    """Number within the segment of the first row."""
    data: np.ndarray
    """uint8[n]: whole lines, blank ones included; between two rows there is only white space."""
    starts: np.ndarray
    """int64[n_rows]: offset in `data` of each row's first byte."""
    ends: np.ndarray
    """int64[n_rows]: offset in `data` of each row's newline, or len(data) for a last line without one."""
    n_rows: int
    n_blank: int
    n_bytes: int
    """Bytes of these lines in the (decompressed) shard."""
    too_long_bytes: int | None = None
    """Length of the row, without its newline."""
    segment_end: SegmentEnd | None = None


def iter_line_blocks(
    source: Source,
    *,
    codec: Codec,
    start: int = 0,
    stop: int | None = None,
    segment_bytes: int | None = None,
    max_row_bytes: int = 64 << 20,
    block_bytes: int = 4 << 20,
) -> Iterator[LineBlock]:
    """The lines of a piece, in order, in blocks of about `block_bytes` (more where one line is longer).

    start, stop    the piece: a byte range (none) or a range of compressed bytes that is cut at frames
                   (zstd); others are read whole. A piece owns the lines that start in (start, stop] of its
                   decompressed stream, and the line at 0: whatever the cuts, each line has one owner.
    segment_bytes  a line belongs to segment (bytes of the piece's lines before it) // segment_bytes;
                   None: all to segment 0. Segments follow each other without gaps; each ends with a block
                   that has segment_end set. A piece without lines has one empty segment 0.
    max_row_bytes  rows longer than this (without newline) keep their number, but never their bytes.

    Row numbers and digests don't depend on block_bytes or on the compression. A segment's digest covers
    all bytes of its lines: newlines, blank lines and rows that are too long included.
    Memory: about 3 * max(block_bytes, longest row up to max_row_bytes).

    Raises BadShard where the shard is truncated, corrupt, or changed while it was read.
    """
    with piece_stream(source, codec, start, stop) as stream:
        cutter = _Cutter(stream, segment_bytes, max_row_bytes, max(block_bytes, 16))
        yield from cutter.blocks(at_top=start == 0)


class _Cutter:
    """Cuts the stream of a piece's lines into blocks, and keeps count of rows, bytes and segments."""

    def __init__(
        self, stream: ByteStream, segment_bytes: int | None, max_row_bytes: int, block_bytes: int
    ) -> None:
        self._stream = stream
        self._segment_bytes = segment_bytes
        self._max_row_bytes = max_row_bytes
        self._block_bytes = block_bytes
        self._offset = 0  # bytes of the lines that were given out
        self._segment = 0
        self._open_segment()

    def _open_segment(self) -> None:
        self._next_row = 0
        self._segment_offset = self._offset
        self._digest = xxhash.xxh3_128()

    def blocks(self, *, at_top: bool) -> Iterator[LineBlock]:
        rest = self._head() if at_top else _NO_BYTES
        at_end = False
        while not at_end:
            buffer, n_held, at_end = self._fill(rest)
            newlines = _newlines(buffer[:n_held])
            n_whole = n_held if at_end else int(newlines[-1]) + 1 if len(newlines) else 0
            if n_whole:
                yield from self._cut(buffer[:n_whole], newlines)
            rest = buffer[n_whole:n_held]
            if len(rest) > self._max_row_bytes:
                rest = yield from self._pass_over(rest)
        yield self._close_segment()

    def _head(self) -> np.ndarray:
        """The first three bytes, or nothing where they are a byte-order mark."""
        head = np.empty(len(_BOM), np.uint8)
        n_held = 0
        while n_held < len(head) and (n := self._stream.readinto(head.data[n_held:])):
            n_held += n
        return _NO_BYTES if head.tobytes() == _BOM and n_held == len(_BOM) else head[:n_held]

    def _fill(self, rest: np.ndarray) -> tuple[np.ndarray, int, bool]:
        """A new buffer that begins with `rest` (no newline, at most max_row_bytes), read until full."""
        n_held = len(rest)
        n_bytes = max(self._block_bytes, min(2 * n_held, self._max_row_bytes + 1), n_held + 1)
        buffer = np.empty(n_bytes, np.uint8)
        buffer[:n_held] = rest
        view = buffer.data
        while n_held < n_bytes:
            n = self._stream.readinto(view[n_held:])
            if n == 0:
                return buffer, n_held, True
            n_held += n
        return buffer, n_held, False

    def _cut(self, data: np.ndarray, newlines: np.ndarray) -> Iterator[LineBlock]:
        """Blocks of whole lines: split where a segment begins, and around rows that are too long."""
        ends = newlines
        if not len(ends) or ends[-1] != len(data) - 1:
            ends = np.append(ends, len(data))
        starts = np.empty_like(ends)
        starts[0] = 0
        starts[1:] = ends[:-1] + 1
        blank = _blank_lines(data, starts, ends)
        long = np.flatnonzero((ends - starts > self._max_row_bytes) & ~blank)
        first, last = self._segment_of(self._offset), self._segment_of(self._offset + int(starts[-1]))
        begins = np.arange(first + 1, last + 1) * (self._segment_bytes or 0) - self._offset
        cuts = np.unique(np.concatenate([long, long + 1, np.searchsorted(starts, begins), [0, len(starts)]]))
        for lo, hi in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            begin, stop = int(starts[lo]), min(int(ends[hi - 1]) + 1, len(data))
            yield from self._enter(self._segment_of(self._offset))
            self._digest.update(data[begin:stop].data)
            if hi - lo == 1 and ends[lo] - starts[lo] > self._max_row_bytes and not blank[lo]:
                yield self._too_long(int(ends[lo] - starts[lo]), stop - begin)
            else:
                rows = ~blank[lo:hi]
                yield self._block(
                    data[begin:stop],
                    starts[lo:hi][rows] - begin,
                    ends[lo:hi][rows] - begin,
                    n_blank=int(blank[lo:hi].sum()),
                    n_bytes=stop - begin,
                )

    def _pass_over(self, head: np.ndarray) -> Generator[LineBlock, None, np.ndarray]:
        """Read to the end of a line that starts with `head` without keeping it; give back what follows."""
        yield from self._enter(self._segment_of(self._offset))
        self._digest.update(head.data)
        n_row_bytes, n_ending, blank = len(head), 0, _is_blank(head)
        rest = _NO_BYTES
        buffer = np.empty(self._block_bytes, np.uint8)
        while n := self._stream.readinto(buffer.data):
            newlines = _newlines(buffer[:n])
            n_part, n_ending = (int(newlines[0]), 1) if len(newlines) else (n, 0)
            self._digest.update(buffer.data[: n_part + n_ending])
            n_row_bytes += n_part
            blank = blank and _is_blank(buffer[:n_part])
            if n_ending:
                rest = buffer[n_part + 1 : n]
                break
        if blank:
            yield self._block(_NO_BYTES, _NO_OFFSETS, _NO_OFFSETS, n_blank=1, n_bytes=n_row_bytes + n_ending)
        else:
            yield self._too_long(n_row_bytes, n_row_bytes + n_ending)
        return rest

    def _segment_of(self, offset: int) -> int:
        return offset // self._segment_bytes if self._segment_bytes else 0

    def _enter(self, segment: int) -> Iterator[LineBlock]:
        while self._segment < segment:
            yield self._close_segment()

    def _close_segment(self) -> LineBlock:
        end = SegmentEnd(self._digest.hexdigest(), self._offset - self._segment_offset, self._next_row)
        block = LineBlock(
            self._segment, self._next_row, _NO_BYTES, _NO_OFFSETS, _NO_OFFSETS, 0, 0, 0, segment_end=end
        )
        self._segment += 1
        self._open_segment()
        return block

    def _block(
        self, data: np.ndarray, starts: np.ndarray, ends: np.ndarray, *, n_blank: int, n_bytes: int
    ) -> LineBlock:
        block = LineBlock(self._segment, self._next_row, data, starts, ends, len(starts), n_blank, n_bytes)
        self._next_row += len(starts)
        self._offset += n_bytes
        return block

    def _too_long(self, n_row_bytes: int, n_bytes: int) -> LineBlock:
        block = self._block(_NO_BYTES, _NO_OFFSETS, _NO_OFFSETS, n_blank=0, n_bytes=n_bytes)
        block.n_rows, block.too_long_bytes = 1, n_row_bytes
        self._next_row += 1
        return block


def _newlines(data: np.ndarray) -> np.ndarray:
    """int64: offsets of all newlines in uint8[n]."""
    steps = range(0, len(data), _SCAN_BYTES)
    found = [np.flatnonzero(data[at : at + _SCAN_BYTES] == _NEWLINE) + at for at in steps]
    return np.concatenate(found) if found else _NO_OFFSETS


def _is_blank(line: np.ndarray) -> bool:
    return not line.tobytes().strip(WHITE_SPACE)


def _blank_lines(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """bool[n_lines]: lines of white space only. Only lines with white space at both ends are looked into."""
    blank: np.ndarray = starts == ends
    space = np.zeros(256, bool)
    space[list(WHITE_SPACE)] = True
    last = len(data) - 1
    outer = space[data[np.minimum(starts, last)]] & space[data[np.maximum(ends - 1, 0)]]
    blank |= outer & (ends - starts == 1)
    for i in np.flatnonzero(outer & ~blank).tolist():
        blank[i] = _is_blank(data[starts[i] : ends[i]])
    return blank
