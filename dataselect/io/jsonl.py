"""JSONL shards to batches of texts.

Arrow's JSON parser is fast, but one bad line fails its whole block, and two objects on one line or one
over two lines shift its rows silently. So its answer for a run of rows is trusted only if
  (a) every row, white space trimmed, begins with "{" and ends with "}",
  (b) it found exactly as many objects as there are rows,
  (c) the bytes are valid UTF-8, without NUL.
No JSON object goes on with "{" after "}" and white space alone, so by (a) objects end at every line's
end; there are at least as many as rows, and by (b) exactly one in each. Any other run is halved, down to
single rows, with the same parser and the same checks: the verdict on a row never depends on the others.

A row is good if Arrow accepts it by itself and its text is a string. What strict readers refuse (lone
surrogates, exponents over 308, invalid UTF-8 anywhere in the line) is bad, so that written shards can be
read by anyone; NaN and Infinity, which Python writes, are good. Keys other than the text's and the id's
may repeat.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from dataselect.core.pieces import Codec
from dataselect.io.batch import (
    DETAIL_CHARS,
    INVALID_JSON,
    MISSING_TEXT,
    TOO_LONG,
    BadRow,
    Source,
    TextBatch,
    TextSpec,
    empty_texts,
    id_path,
    joined_texts,
    utf8_valid,
)
from dataselect.io.fields import FieldSpec
from dataselect.io.json_fields import FieldReader
from dataselect.io.json_line import TOO_DEEP, Refusal, id_text, load_object, lookup, parse_line
from dataselect.io.lines import WHITE_SPACE, LineBlock, iter_line_blocks

_MAX_ROW_BYTES = 1 << 30  # Arrow's block size is an int32
_OPEN, _CLOSE, _RETURN = ord("{"), ord("}"), ord("\r")
_STRING = pa.large_string()
_FEW_ROWS = 4  # not halved again: the calls would cost more than they save


def iter_jsonl(
    source: Source,
    *,
    text: TextSpec,
    id: str | None,  # noqa: A002
    codec: Codec,
    start: int = 0,
    stop: int | None = None,
    segment_bytes: int | None = None,
    max_row_bytes: int = 64 << 20,
    block_bytes: int = 4 << 20,
) -> Iterator[TextBatch]:
    """The texts (and ids) of a piece; arguments, row numbers and segments as in `iter_line_blocks`.

    An id that is a number is its JSON text (1 -> "1", 1.0 -> "1.0"); one that is neither string nor number
    is null. A batch has the rows of a block.
    Raises BadShard; bad rows are in the batches. max_row_bytes is at most 1 GiB (ValueError).
    """
    if max_row_bytes > _MAX_ROW_BYTES:
        raise ValueError(f"max_row_bytes: at most {_MAX_ROW_BYTES}, got {max_row_bytes}")
    blocks = iter_line_blocks(
        source,
        codec=codec,
        start=start,
        stop=stop,
        segment_bytes=segment_bytes,
        max_row_bytes=max_row_bytes,
        block_bytes=block_bytes,
    )
    yield from parse_blocks(blocks, text, id)


def parse_blocks(
    blocks: Iterable[LineBlock],
    text: TextSpec,
    id: str | None,  # noqa: A002
    fields: Sequence[FieldSpec] = (),
) -> Iterator[TextBatch]:
    """The texts (and ids, and fields) of blocks of lines, a batch for each block; see `iter_jsonl`."""
    parser = _BlockParser(text, id, fields)
    for block in blocks:
        yield parser.batch(block)


class _BlockParser:
    """Parses LineBlocks. Remembers the type of ids it saw last, which changes its speed and nothing else."""

    def __init__(self, text: TextSpec, id_name: str | None, fields: Sequence[FieldSpec] = ()) -> None:
        self._text, self._id_name = text, id_name
        self._id = id_path(id_name, text)
        self._fields = FieldReader(fields, read_leaves)
        self._texts_only = _options(text, None, _STRING)
        self._id_kinds = [_STRING] if self._id in text.paths else [_STRING, pa.int64()]
        self._with_ids = [_options(text, self._id, kind) for kind in self._id_kinds] if self._id else []

    def batch(self, block: LineBlock) -> TextBatch:
        rows = _Rows(block)
        if block.too_long_bytes is not None:
            rows.bad.append(BadRow(block.first_row, TOO_LONG, f"{block.too_long_bytes} bytes"))
        elif block.n_rows:
            self._judge_all(rows, _credible(block))
        fields, misfits = self._fields_of(rows)
        return TextBatch(
            segment=block.segment,
            first_row=block.first_row,
            n_rows=block.n_rows,
            rows=np.concatenate([np.empty(0, np.int64), *rows.good]) + block.first_row,
            texts=_joined(rows.texts),
            ids=None if self._id is None else _joined(rows.ids),
            bad=rows.bad,
            n_bytes_read=block.n_bytes,
            segment_end=block.segment_end,
            fields=fields,
            misfits=misfits,
        )

    def _fields_of(self, rows: _Rows) -> tuple[dict[str, pa.Array], dict[str, int]]:
        """Name -> column of the good rows, and the misfits among them since the last call."""
        names = [spec.name for spec in self._fields.specs]
        empty = [pa.array([], spec.arrow_type) for spec in self._fields.specs]
        parts = [empty, *rows.fields]
        columns = {name: pa.concat_arrays([part[i] for part in parts]) for i, name in enumerate(names)}
        misfits, self._fields.n_misfits = self._fields.n_misfits, dict.fromkeys(names, 0)
        return columns, misfits

    def _judge_all(self, rows: _Rows, credible: np.ndarray) -> None:
        edges = np.flatnonzero(credible[1:] != credible[:-1]) + 1
        edges = np.concatenate([[0], edges, [len(credible)]])
        for lo, hi in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            if credible[lo]:
                self._judge(rows, lo, hi)
            else:
                for i in range(lo, hi):
                    rows.refuse(i, self._why(rows.line(i)))

    def _judge(self, rows: _Rows, lo: int, hi: int) -> None:
        """Rows lo..hi are good or bad: told as a whole where Arrow can be trusted, else in halves."""
        table, has_fields = self._parse(rows.span(lo, hi), hi - lo)
        if table is not None:
            ids, refused = self._ids_of(table, rows, lo)
            fields = []
            if self._fields.specs:
                fields = self._fields.columns(table if has_fields else None, rows.span, lo, hi)
            rows.accept(lo, self._texts_of(table), ids, refused, fields)
        elif hi - lo == 1:
            rows.refuse(lo, self._why(rows.line(lo)))
        else:
            step = (hi - lo + 1) // 2 if hi - lo > _FEW_ROWS else 1
            for start in range(lo, hi, step):
                self._judge(rows, start, min(start + step, hi))

    def _parse(self, data: np.ndarray, n_rows: int) -> tuple[pa.Table | None, bool]:
        """Texts, ids and fields, and whether the fields are in it, as they are where all are of one type."""
        if self._fields.specs and n_rows > 1:
            leaves = [*_leaves(self._text, self._id, self._id_kinds[0]), *self._fields.leaves()]
            table = read_leaves(data, leaves, n_rows)
            if table is not None:
                return table, True
        return self._parse_texts(data, n_rows), False

    def _parse_texts(self, data: np.ndarray, n_rows: int) -> pa.Table | None:
        """Texts and ids; texts alone where the ids are not all of one type; None where not trusted."""
        if (
            not self._with_ids or n_rows == 1
        ):  # a call costs 50 us; the id of one row is found as fast by itself
            return _read(data, self._texts_only, n_rows)
        table = _read(data, self._with_ids[0], n_rows)
        if table is not None:
            return table
        texts = _read(data, self._texts_only, n_rows)
        if texts is None or len(self._with_ids) == 1:
            return texts
        table = _read(data, self._with_ids[1], n_rows)
        if table is None:
            return texts
        self._with_ids.reverse()
        self._id_kinds.reverse()
        return table

    def _texts_of(self, table: pa.Table) -> pa.LargeStringArray:
        """large_string[n_rows]; null where the text is missing."""
        return joined_texts([_column(table, path) for path in self._text.paths])

    def _ids_of(self, table: pa.Table, rows: _Rows, lo: int) -> tuple[pa.Array | None, dict[int, Refusal]]:
        """large_string[n_rows], and what is wrong with some of the rows."""
        if self._id is None:
            return None, {}
        column = _column(table, self._id)
        if column is not None:
            return column.cast(_STRING), {}
        ids: list[str | None] = []
        refused: dict[int, Refusal] = {}
        for i in range(len(table)):
            verdict = self._id_alone(rows.line(lo + i))
            ids.append(None if isinstance(verdict, Refusal) else verdict)
            if isinstance(verdict, Refusal):
                refused[i] = verdict
        return pa.array(ids, _STRING), refused

    def _id_alone(self, line: bytes) -> str | Refusal | None:
        """The id of a row that Arrow accepts without its id."""
        assert self._id is not None
        try:
            return id_text(lookup(load_object(line), self._id))
        except Refusal as refusal:
            return refusal
        except RecursionError:
            for options in self._with_ids:
                table = _read(np.frombuffer(line, np.uint8), options, 1)
                column = None if table is None else _column(table, self._id)
                if column is not None:
                    value: str | None = column.cast(_STRING)[0].as_py()
                    return value
            return TOO_DEEP

    def _why(self, line: bytes) -> Refusal:
        """What is wrong with a row that Arrow does not accept."""
        verdict = parse_line(line, self._text, self._id_name)
        return verdict if isinstance(verdict, Refusal) else Refusal(INVALID_JSON, "Arrow's parser refuses it")


class _Rows:
    """The rows of a block, and what has become of them so far."""

    def __init__(self, block: LineBlock) -> None:
        self._block = block
        self.good: list[np.ndarray] = []
        self.texts: list[pa.LargeStringArray] = []
        self.ids: list[pa.LargeStringArray] = []
        self.fields: list[list[pa.Array]] = []
        self.bad: list[BadRow] = []

    def span(self, lo: int, hi: int) -> np.ndarray:
        """uint8: the bytes of rows lo..hi and of the blank lines between them."""
        return self._block.data[self._block.starts[lo] : self._block.ends[hi - 1]]

    def line(self, i: int) -> bytes:
        return self.span(i, i + 1).tobytes()

    def refuse(self, i: int, refusal: Refusal) -> None:
        self.bad.append(BadRow(self._block.first_row + i, refusal.reason, refusal.detail[:DETAIL_CHARS]))

    def accept(
        self,
        lo: int,
        texts: pa.LargeStringArray,
        ids: pa.Array | None,
        refused: dict[int, Refusal],
        fields: list[pa.Array],
    ) -> None:
        """Rows from `lo` on, as Arrow read them; null texts and `refused` rows are bad after all."""
        good = np.arange(lo, lo + len(texts))
        if texts.null_count or refused:
            kept = texts.is_valid().to_numpy(zero_copy_only=False)
            refused = {**refused, **dict.fromkeys(np.flatnonzero(~kept).tolist(), Refusal(MISSING_TEXT))}
            kept[list(refused)] = False
            for i in sorted(refused):
                self.refuse(lo + i, refused[i])
            mask = pa.array(kept)
            good, texts = good[kept], texts.filter(mask)
            ids = None if ids is None else ids.filter(mask)
            fields = [column.filter(mask) for column in fields]
        self.good.append(good)
        self.texts.append(texts)
        self.fields.append(fields)
        if ids is not None:
            self.ids.append(ids)


def _credible(block: LineBlock) -> np.ndarray:
    """bool[n_rows]: rows that could be an object: braces around, valid UTF-8, no NUL (conditions a and c)."""
    data, starts, ends = block.data, block.starts, block.ends
    last = data[ends - 1]
    last = np.where(last == _RETURN, data[np.maximum(ends - 2, starts)], last)
    credible: np.ndarray = (data[starts] == _OPEN) & (last == _CLOSE)
    for i in np.flatnonzero(~credible).tolist():
        line = data[starts[i] : ends[i]].tobytes().strip(WHITE_SPACE)
        credible[i] = line.startswith(b"{") and line.endswith(b"}")
    if not _clean(data[starts[0] : ends[-1]]):
        for i in np.flatnonzero(credible).tolist():
            credible[i] = _clean(data[starts[i] : ends[i]])
    return credible


def _clean(data: np.ndarray) -> bool:
    return bool(data.min() > 0) and utf8_valid(data)


Leaves = list[tuple[tuple[str, ...], pa.DataType]]


def _leaves(text: TextSpec, id_keys: tuple[str, ...] | None, id_type: pa.DataType) -> Leaves:
    leaves = [(path, _STRING) for path in text.paths]
    if id_keys is not None and id_keys not in text.paths:
        leaves.append((id_keys, id_type))
    return leaves


def _options(text: TextSpec, id_keys: tuple[str, ...] | None, id_type: pa.DataType) -> pj.ParseOptions:
    return _options_of(_leaves(text, id_keys, id_type))


def _options_of(leaves: Leaves) -> pj.ParseOptions:
    """Parse these paths only; everything else is skipped over without being kept."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves:
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = leaf
    return pj.ParseOptions(explicit_schema=pa.schema(_fields(tree)), unexpected_field_behavior="ignore")


def read_leaves(data: np.ndarray, leaves: Leaves, n_rows: int) -> pa.Table | None:
    """These paths of `n_rows` rows by Arrow's parser; None where its answer can't be trusted."""
    return _read(data, _options_of(leaves), n_rows)


def _fields(tree: dict[str, Any]) -> list[pa.Field]:
    return [
        pa.field(key, node if isinstance(node, pa.DataType) else pa.struct(_fields(node)))
        for key, node in tree.items()
    ]


def _read(data: np.ndarray, options: pj.ParseOptions, n_rows: int) -> pa.Table | None:
    """Arrow's answer, where it found `n_rows` objects (condition b); else None."""
    read_options = pj.ReadOptions(use_threads=False, block_size=len(data) + 16)
    try:
        table = pj.read_json(pa.BufferReader(pa.py_buffer(data)), read_options, options)
    except pa.ArrowInvalid:
        return None
    return table if len(table) == n_rows else None


def _column(table: pa.Table, path: tuple[str, ...]) -> pa.Array | None:
    """The array at `path`, null where an object on the way is; None where the table has no such column."""
    if path[0] not in table.schema.names:
        return None
    column = table.column(path[0])
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    for key in path[1:]:
        if array.type.get_field_index(key) < 0:
            return None
        array = pc.struct_field(array, key)
    return array


def _joined(arrays: list[pa.LargeStringArray]) -> pa.LargeStringArray:
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays([empty_texts(), *arrays])
