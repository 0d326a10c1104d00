"""What the peers' scripts share: shards of a folder to rows, kept lines to a shard, the counts.

Every script is `python SCRIPT.py INPUT OUTPUT [EXTRA]`: it reads the shards of the folder INPUT, writes what
it keeps into the new folder OUTPUT, and prints one line of JSON with `rows` (read) and `kept`. It uses a
public package the way its documentation does, with the settings named in its first lines. This module needs
orjson and zstandard.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson
import zstandard


def read_rows(folder: str) -> Iterator[tuple[bytes, str]]:
    """(line with its newline, text) of every row of the .jsonl.zst shards."""
    for path in sorted(Path(folder).glob("*.jsonl.zst")):
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as reader:
            rest = b""
            while block := reader.read(4 << 20):
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    yield line + b"\n", orjson.loads(line)["text"]
            if rest:
                yield rest + b"\n", orjson.loads(rest)["text"]


def write_lines(folder: str, lines: Iterable[bytes]) -> None:
    """One .jsonl.zst shard, zstd level 3."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    with (
        (out / "kept.jsonl.zst").open("wb") as file,
        zstandard.ZstdCompressor(level=3).stream_writer(file) as writer,
    ):
        block: list[bytes] = []
        for line in lines:
            block.append(line)
            if len(block) == 1000:
                writer.write(b"".join(block))
                block.clear()
        writer.write(b"".join(block))


def report(rows: int, kept: int, alone_cpu_s: float | None = None) -> None:
    """Print the counts; alone_cpu_s: CPU seconds of the part that a kernel of ours is compared with."""
    print(json.dumps({"rows": rows, "kept": kept, "alone_cpu_s": alone_cpu_s}))
