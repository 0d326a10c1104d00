"""One output file of a piece, in whatever format it has."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, cast

import numpy as np
import pyarrow as pa

from dataselect.core.pieces import SUFFIXES
from dataselect.io.store import Store
from dataselect.io.writers import ZSTD_LEVEL, HashingFile, LineWriter, TableWriter


class RowFile:
    """A file that is made when its first row comes, and committed when the stack closes.

    suffix       of the output's format, such as '.jsonl.zst'
    compression  of a Parquet file's columns; that of the shard it comes from
    """

    def __init__(
        self, store: Store, stack: ExitStack, name: str, suffix: str, zstd_level: int = ZSTD_LEVEL
    ) -> None:
        """name: in the store, without the suffix."""
        self._store, self._stack, self._zstd_level = store, stack, zstd_level
        self._name = name + suffix
        self.suffix = suffix
        self.compression = "zstd"
        self.n_rows = 0
        self._out: HashingFile | None = None
        self._writer: LineWriter | TableWriter | None = None

    def _file(self) -> HashingFile:
        if self._out is None:
            self._out = HashingFile(self._stack.enter_context(self._store.commit(self._name)))
        return self._out

    def lines(self, data: np.ndarray, n_rows: int) -> None:
        """Whole lines with their newlines, uint8[n_bytes]."""
        if not n_rows:
            return
        if self._writer is None:
            self._writer = LineWriter(self._file(), SUFFIXES[self.suffix][1], self._zstd_level)
        cast("LineWriter", self._writer).write(data)
        self.n_rows += n_rows

    def table(self, table: pa.Table, n_bytes: np.ndarray) -> None:
        """Rows of a Parquet or Arrow file, with their text sizes."""
        if not len(table):
            return
        if self._writer is None:
            form = SUFFIXES[self.suffix][0]
            self._writer = TableWriter(self._file(), table.schema, self.compression, form)
        cast("TableWriter", self._writer).write(table, n_bytes)
        self.n_rows += len(table)

    def close(self) -> None:
        """Complete the file; it is committed when the stack closes."""
        if self._writer is not None:
            self._writer.close()

    def entry(self) -> dict[str, Any]:
        """For the manifest."""
        assert self._out is not None
        return self._out.entry(self._name, self.n_rows)


def write_table(store: Store, name: str, table: pa.Table) -> dict[str, Any]:
    """Commit a Parquet file of these rows; its entry for the manifest."""
    with store.commit(name) as file:
        out = HashingFile(file)
        with TableWriter(out, table.schema) as writer:
            writer.write(table)
    return out.entry(name, len(table))
