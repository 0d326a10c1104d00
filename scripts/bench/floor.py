"""The floor: copy shards with nothing in between, as fast as pyarrow and zstandard do it on one thread.

    python -m bench.floor jsonl OUT SHARD.jsonl.zst ...
    python -m bench.floor parquet OUT SHARD.parquet ...
    python -m bench.floor read - SHARD.jsonl.zst ...     dataselect's reader alone; nothing is written

JSONL: the text field is parsed, the lines go through as they are. zstd level 3 on both sides.
A pipeline that reads the text, looks at it and writes rows can't take less.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
import zstandard

BLOCK_BYTES = 4 << 20
_TEXT_ONLY = pyarrow.json.ParseOptions(
    explicit_schema=pa.schema({"text": pa.string()}), unexpected_field_behavior="ignore"
)
_ONE_THREAD = pyarrow.json.ReadOptions(use_threads=False, block_size=1 << 30)


def parsed_rows(lines: bytes) -> int:
    """Parse the text field of whole JSONL lines; returns the number of texts."""
    text = pyarrow.json.read_json(pa.BufferReader(lines), _ONE_THREAD, _TEXT_ONLY).column("text")
    return len(text) - int(text.null_count)


def copy_jsonl(shard: Path, out: Path) -> int:
    """Copy a .jsonl.zst; returns its number of rows."""
    n_rows, rest = 0, b""
    with (
        shard.open("rb") as source,
        out.open("wb") as target,
        zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True) as reader,
        zstandard.ZstdCompressor(level=3).stream_writer(target) as writer,
    ):
        while block := reader.read(BLOCK_BYTES):
            end = block.rfind(b"\n") + 1
            lines, rest = (rest + block[:end], block[end:]) if end else (b"", rest + block)
            if lines:
                n_rows += parsed_rows(lines)
                writer.write(lines)
        if rest:
            n_rows += parsed_rows(rest)
            writer.write(rest)
    return n_rows


def copy_parquet(shard: Path, out: Path) -> int:
    """Copy a Parquet file row group by row group; returns its number of rows."""
    n_rows = 0
    with (
        pq.ParquetFile(shard) as source,
        pq.ParquetWriter(
            out, source.schema_arrow, compression="zstd", compression_level=3, use_dictionary=False
        ) as writer,
    ):
        for number in range(source.num_row_groups):
            table = source.read_row_group(number, use_threads=False)
            n_rows += table.num_rows
            writer.write_table(table)
    return n_rows


def read(shard: Path) -> int:
    """Read a shard with dataselect's reader to its text column; returns its number of rows."""
    reader = importlib.import_module("dataselect.io.reader")  # not while the floor itself is measured
    return sum(len(array) for array in reader.iter_file_texts(str(shard), "text"))


def main() -> None:
    if len(sys.argv) < 4 or sys.argv[1] not in ("jsonl", "parquet", "read"):
        sys.exit(__doc__)
    what, out = sys.argv[1], Path(sys.argv[2])
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    if what != "read":
        os.makedirs(out, exist_ok=True)
    n_rows = 0
    for shard in map(Path, sys.argv[3:]):
        if what == "read":
            n_rows += read(shard)
        else:
            n_rows += (copy_jsonl if what == "jsonl" else copy_parquet)(shard, out / shard.name)
    print(json.dumps({"rows": n_rows, "kept": n_rows}))


if __name__ == "__main__":
    main()
