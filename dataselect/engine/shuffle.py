"""A global order of the output by hash, through files: pieces are scattered, output shards gathered.

A row's place is hash(seed, "shuffle", draw key, number of the copy): a function of the document and of
nothing else; rows of equal hashes stand in DocId order. Every piece commits one exchange file with runs of
rows, each sorted by hash and cut into blocks; an output shard is a range of hashes, read from all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dataselect.core.clock import Clock
from dataselect.core.errors import DataselectError
from dataselect.core.keys import artifact_name
from dataselect.core.pieces import SUFFIXES
from dataselect.engine.job import Context, figures
from dataselect.io.bundle import Bundle, BundleWriter
from dataselect.io.writers import HashingFile, LineWriter, TableWriter

_RUN_BYTES = 64 << 20
"""Rows that a scattering task holds, in text bytes (it needs about twice as much)."""
_BLOCK_BYTES = 256 << 10
"""Least that is read of a run: two such blocks more than needed."""
RANGE_BYTES = 64 << 20
"""Rows that a gathering task holds, on average, in text bytes (it needs about three times as much)."""
SHARD_BYTES = 256 << 20
"""Text of an output shard where the recipe names no number of shards."""
_DRAW, _N_BYTES, _LINE = "_draw", "_n_bytes", "_line"


def scattered_name(key: str) -> str:
    """Work-store name of a piece's exchange file; key: of its write record."""
    return artifact_name("scattered", key)


def shuffle_draws(keys: np.ndarray, copies: np.ndarray, seed: int) -> np.ndarray:
    """uint64[sum(copies)]: where each copy of documents goes; keys uint64[n, 2], copies int64[n]."""
    from dataselect.kernels.hashing import unit_draws

    of_copies = np.repeat(keys, copies, axis=0)
    number = np.arange(len(of_copies)) - np.repeat(np.cumsum(copies) - copies, copies)
    of_copies[:, 1] += number.astype(np.uint64)
    return unit_draws(of_copies, seed, "shuffle")


class ScatterFile:
    """Takes a piece's output rows in DocId order, as its shard would, and commits its exchange file.

    Sections <number> (uint8: an Arrow stream with the rows of a block) in order, and first and last
    (uint64[n_blocks]: the hashes between which each block's rows lie); meta: rows, n_bytes, piece.
    """

    def __init__(
        self, context: Context, stack: ExitStack, key: str, draws: np.ndarray, suffix: str, piece: str
    ) -> None:
        """`draws` uint64[n_rows]: `shuffle_draws` of all rows that will come."""
        self.suffix, self._piece = suffix, piece
        self.compression = ""
        self.n_rows = self._n_bytes = self._n_held = 0
        self._draws = draws
        self._held: list[pa.Table] = []
        self._bounds: list[tuple[int, int]] = []
        self._writer = BundleWriter(stack.enter_context(context.work.commit(scattered_name(key))))

    def lines(self, data: np.ndarray, n_rows: int) -> None:
        """Whole lines with their newlines, uint8[n_bytes]."""
        if not n_rows:
            return
        offsets = np.concatenate([[0], np.flatnonzero(data == ord("\n")) + 1]).astype(np.int64)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
        lines = pa.Array.from_buffers(pa.large_binary(), n_rows, buffers)
        self.table(pa.table({_LINE: lines}), np.diff(offsets))

    def table(self, table: pa.Table, n_bytes: np.ndarray) -> None:
        """Rows of a Parquet or Arrow file, with their text sizes."""
        draws = self._draws[self.n_rows : self.n_rows + len(table)]
        self._held.append(
            table.append_column(_DRAW, pa.array(draws)).append_column(_N_BYTES, pa.array(n_bytes, pa.int64()))
        )
        self.n_rows += len(table)
        self._n_held += int(n_bytes.sum())
        if self._n_held >= _RUN_BYTES:
            self._flush()

    def _flush(self) -> None:
        """One run."""
        if not self._held:
            return
        table = pa.concat_tables(self._held).unify_dictionaries().combine_chunks()
        self._held = []
        for block in _in_order(table):
            self._put(block)
        self._n_bytes += self._n_held
        self._n_held = 0

    def _put(self, block: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        # zstd level 1 takes 4 times as long for 2/3 of the bytes.
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_stream(sink, block.schema, options=options) as writer:
            writer.write_table(block)
        self._writer.add_array(str(len(self._bounds)), np.frombuffer(sink.getvalue(), np.uint8))
        draws = block[_DRAW]
        self._bounds.append((draws[0].as_py(), draws[-1].as_py()))

    def close(self) -> None:
        """Complete the file; it is committed when the stack closes."""
        self._flush()
        bounds = np.array(self._bounds, np.uint64).reshape(-1, 2)
        self._writer.add_array("first", bounds[:, 0])
        self._writer.add_array("last", bounds[:, 1])
        self._writer.finish({"rows": self.n_rows, "n_bytes": self._n_bytes, "piece": self._piece})


@dataclass(frozen=True)
class GatherCall:
    """Arguments of `gather_shard`: output shard `number` of `n_shards`, in `n_ranges` ranges of hashes."""

    scattered: tuple[str, ...]
    """Exchange files in piece order."""
    number: int
    n_shards: int
    n_ranges: int
    suffix: str
    generation: str
    key: str
    record: str
    """Work-store name of the record, as of a piece that was written."""


def gather_shard(context: Context, call: GatherCall) -> dict[str, Any]:
    """Write one output shard: the rows of its hashes in their order. No file where there is none."""
    clock = Clock()
    name = f"{call.generation}/shards/part-{call.number:05d}-of-{call.n_shards:05d}{call.suffix}"
    files: dict[str, Any] = {}
    with ExitStack() as stack:
        out: _Shard | None = None
        for table in _sorted_ranges(context, call):
            clock.lap("read")
            if out is None:
                out = _Shard(context, stack, name, call.suffix, table.schema)
            out.write(table)
            context.report(len(table), 0)
            clock.lap("write")
        if out is not None:
            files["shards"] = out.close()
    record = {"piece": name.rsplit("/", 1)[1], "key": call.key, "ledger": {}, "files": files}
    record["generation"] = call.generation
    with context.work.commit(call.record) as file:
        file.write(json.dumps(record).encode())
    return {"record": record} | figures(clock)


def _in_order(table: pa.Table) -> Iterator[pa.Table]:
    """The rows by their draws, those of equal draws as they are, in blocks of about _BLOCK_BYTES."""
    order = np.argsort(table[_DRAW].to_numpy(), kind="stable")
    ends = np.cumsum(table[_N_BYTES].to_numpy()[order])
    starts = np.flatnonzero(np.diff(ends // _BLOCK_BYTES, prepend=-1)).tolist()
    for start, stop in zip(starts, [*starts[1:], len(table)], strict=True):
        yield table.take(pa.array(order[start:stop]))


def _sorted_ranges(context: Context, call: GatherCall) -> Iterator[pa.Table]:
    n_ranges = call.n_shards * call.n_ranges
    schema = _first_schema(context, call)
    for number in range(call.number * call.n_ranges, (call.number + 1) * call.n_ranges):
        least, most = (number << 64) // n_ranges, ((number + 1) << 64) // n_ranges - 1
        blocks = []
        for name in call.scattered:
            bundle = context.bundle(name)
            for block in _blocks(bundle, np.uint64(least), np.uint64(most)):
                if not block.schema.equals(schema):
                    raise DataselectError(
                        f"output.shuffle: the rows of {bundle.meta['piece']} have other columns or types "
                        "than those of shards before it; set `output.format: jsonl.zst`, which takes any"
                    )
                blocks.append(block.cast(schema))
        if blocks:
            table = pa.concat_tables(blocks).unify_dictionaries().combine_chunks()
            blocks = []
            yield from _in_order(table)


def _first_schema(context: Context, call: GatherCall) -> pa.Schema | None:
    """Of the first rows of all, whose metadata all output shards get; None where there are no rows."""
    bundles = (context.bundle(name) for name in call.scattered)
    block = next((bundle.array("0") for bundle in bundles if "0" in bundle), None)
    return None if block is None else pa.ipc.open_stream(pa.py_buffer(block)).schema


def _blocks(bundle: Bundle, least: np.uint64, most: np.uint64) -> Iterator[pa.Table]:
    """Rows of a piece with hashes from `least` to `most`, by runs."""
    for number in np.flatnonzero((bundle.array("last") >= least) & (bundle.array("first") <= most)).tolist():
        table = pa.ipc.open_stream(pa.py_buffer(bundle.array(str(number)))).read_all()
        draws = table[_DRAW].to_numpy()
        start, stop = np.searchsorted(draws, least), np.searchsorted(draws, most, side="right")
        if start < stop:
            yield table.slice(start, stop - start)


class _Shard:
    """One output shard."""

    def __init__(self, context: Context, stack: ExitStack, name: str, suffix: str, schema: pa.Schema) -> None:
        self._name = name
        self._file = HashingFile(stack.enter_context(context.output.commit(name)))
        form, codec = SUFFIXES[suffix]
        self._n_rows = 0
        self._lines = LineWriter(self._file, codec) if form == "jsonl" else None
        self._rows: TableWriter | None = None
        if form != "jsonl":
            self._rows = TableWriter(self._file, _without_order(schema.empty_table()).schema, form=form)

    def write(self, table: pa.Table) -> None:
        """Rows in order."""
        self._n_rows += len(table)
        if self._rows is not None:
            self._rows.write(_without_order(table), table[_N_BYTES].to_numpy())
        elif self._lines is not None:
            for chunk in table[_LINE].chunks:
                _, offsets, data = chunk.buffers()
                bounds = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
                self._lines.write(np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]])

    def close(self) -> dict[str, Any]:
        """Complete the file; its entry for the manifest."""
        for writer in (self._lines, self._rows):
            if writer is not None:
                writer.close()
        return self._file.entry(self._name, self._n_rows)


def _without_order(table: pa.Table) -> pa.Table:
    return table.drop_columns([_DRAW, _N_BYTES])


def shuffle_sizes(n_bytes: Sequence[int], n_shards: int | None) -> tuple[int, int]:
    """(number of output shards, ranges of each) for exchange files with so much text."""
    total = sum(n_bytes)
    n_shards = n_shards or max(1, -(-total // SHARD_BYTES))
    return n_shards, max(1, -(-total // n_shards // RANGE_BYTES))
