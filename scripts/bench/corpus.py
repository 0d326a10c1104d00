"""Make the texts of the benchmark out of real text, multiplied by copies.

    python -m bench.corpus < REQUEST.json   {"base": folder, "field", "out": folder, "specs": [TextSpec, ...]}

A copy holds all documents of the base, duplicates and short ones included. In suffixed text every word of a
copy ends in the copy's suffix: duplicates and near-duplicates within a copy stay, between copies there are
none. Words are longer by the suffix, and to a fastText model or an n-gram table they are unknown, so stages
that look words up are measured on bare text: copies as they are. Peers read the head of the same texts.

Every text is a folder with 1x and 2x; 2x holds 1x (hard links) and as much again. All formats of a text have
the same rows. A text that is there and would be made the same is left as it is.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from copies import json_escaped, json_line, marked, n_words, suffixes, with_suffix

from bench.texts import SIZES, TextSpec
from dataselect.core.errors import DataselectError
from dataselect.core.pieces import suffix_of
from dataselect.io.reader import iter_file_texts

BLOCK_BYTES = 16_000_000  # of text: a row group
VERSION = 3


class Row(NamedTuple):
    """A document, with its words marked or suffixed; `text` as it is, `escaped` for JSON."""

    id: str
    text: bytes
    escaped: bytes


def base_files(folder: Path) -> list[Path]:
    """The shards of a folder, at any depth, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and suffix_of(path.name))


def documents(folder: Path, field: str) -> Iterator[Row]:
    for path in base_files(folder):
        name = path.relative_to(folder).as_posix()
        texts = (text for array in iter_file_texts(str(path), field) for text in array.to_pylist())
        for row, text in enumerate(texts):
            with_marks = marked(text)
            yield Row(f"{name}#{row}", with_marks.encode(), json_escaped(with_marks))


def endless_rows(base: Sequence[Row], kind: str, n_copies: int) -> Iterator[Row]:
    """Copy after copy of the base; ids tell the copies apart in either kind."""
    for suffix in suffixes(n_copies):
        of_word = suffix if kind == "suffixed" else b""
        for id_, text, escaped in base:
            yield Row(f"{id_}@{suffix.decode()}", with_suffix(text, of_word), with_suffix(escaped, of_word))


def take_bytes(rows: Iterator[Row], n_bytes: float) -> Iterator[Row]:
    """Rows up to `n_bytes` of text, or all; the last goes over the brim."""
    n_taken = 0
    for row in rows:
        yield row
        n_taken += len(row.text)
        if n_taken >= n_bytes:
            return


class ShardWriter(ExitStack):
    """One shard in every format asked for, written as a stream; closed as a context."""

    SCHEMA = pa.schema({"id": pa.string(), "text": pa.string()})

    def __init__(self, stem: str, formats: Sequence[str]) -> None:
        super().__init__()
        files: dict[str, Any] = {
            form: self.enter_context(Path(f"{stem}.{form}").open("wb"))  # noqa: SIM115 (closed by the stack)
            for form in formats
            if form != "parquet"
        }
        if file := files.get("jsonl.zst"):
            compressed: Any = zstandard.ZstdCompressor(level=3).stream_writer(file)
            files["jsonl.zst"] = self.enter_context(compressed)
        self._lines = list(files.values())
        self._parquet = None
        if "parquet" in formats:
            options = {"compression": "zstd", "compression_level": 3, "use_dictionary": False}
            self._parquet = self.enter_context(pq.ParquetWriter(f"{stem}.parquet", self.SCHEMA, **options))

    def write(self, block: Sequence[Row]) -> None:
        lines = b"".join(json_line(row.id, row.escaped) for row in block)
        for file in self._lines:
            file.write(lines)
        if self._parquet:
            ids, texts = [row.id for row in block], [row.text for row in block]
            columns = [pa.array(ids), pa.array(texts, pa.string())]
            self._parquet.write_table(pa.table(columns, schema=self.SCHEMA))


def write_half(folder: Path, first: int, rows: Iterator[Row], spec: TextSpec) -> dict[str, int]:
    """Shards first, first + 1, ... of half a text; counts of what they hold."""
    counts = {"n_docs": 0, "n_bytes": 0}
    for number in range(first, first + spec.n_shards):
        of_shard = take_bytes(rows, spec.mb * 1e6 / spec.n_shards)
        with ShardWriter(str(folder / f"{number:04d}"), spec.formats) as shard:
            while block := list(take_bytes(of_shard, BLOCK_BYTES)):
                shard.write(block)
                counts["n_docs"] += len(block)
                counts["n_bytes"] += sum(len(row.text) for row in block)
    return counts


def write_text(base: Sequence[Row], n_copies: int, spec: TextSpec, folder: Path) -> dict[str, dict[str, int]]:
    """Both sizes into `folder`, replacing it; size -> counts."""
    shutil.rmtree(folder, ignore_errors=True)
    one, two = (folder / size for size in SIZES)
    one.mkdir(parents=True)
    two.mkdir()
    rows = endless_rows(base, spec.kind, n_copies)
    first = write_half(one, 0, rows, spec)
    for path in one.iterdir():
        os.link(path, two / path.name)
    more = write_half(two, spec.n_shards, rows, spec)
    return {"1x": first, "2x": {key: first[key] + more[key] for key in first}}


def make(base_folder: Path, field: str, out: Path, specs: Sequence[TextSpec]) -> dict[str, Any]:
    """Make the texts that are not there; {"base", "suffix_bytes", "sizes": [{size: counts}, ...]}."""
    files = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in base_files(base_folder)]
    longest_mb = max(spec.mb for spec in specs)
    base: list[Row] = []
    records: list[dict[str, Any]] = []
    for spec in specs:
        folder = out / spec.name
        request = [str(base_folder.resolve()), files, field, longest_mb, spec.n_shards, VERSION]
        if (record := record_of(folder)).get("request") != request:
            base = base or list(documents(base_folder, field))
            described = describe(base, base_folder)
            n_copies = 2 + int(2 * longest_mb * 1e6 / described["n_bytes"])
            record = {"request": request, "base": described, "suffix_bytes": len(next(suffixes(n_copies)))}
            record["sizes"] = write_text(base, n_copies, spec, folder)
            (folder / "text.json").write_text(json.dumps(record, indent=1) + "\n")
        records.append(record)
    common = {key: records[0][key] for key in ("base", "suffix_bytes")}
    return {**common, "sizes": [record["sizes"] for record in records]}


def record_of(folder: Path) -> dict[str, Any]:
    """What the folder holds; empty where it is not whole."""
    try:
        return dict(json.loads((folder / "text.json").read_text()))
    except (OSError, ValueError):
        return {}


def describe(base: Sequence[Row], folder: Path) -> dict[str, Any]:
    """Size of the base; SystemExit where it has no text."""
    n_bytes = sum(len(with_suffix(row.text, b"")) for row in base)
    if not n_bytes:
        sys.exit(f"{folder}: no text in its shards; name a folder of JSONL or Parquet shards with --corpus")
    words = sum(n_words(row.text) for row in base)
    per_word = n_bytes / max(words, 1)
    return {"folder": str(folder), "n_docs": len(base), "n_bytes": n_bytes, "bytes_per_word": per_word}


def main() -> None:
    request = json.load(sys.stdin)
    specs = [TextSpec(**{**spec, "formats": tuple(spec["formats"])}) for spec in request["specs"]]
    try:
        made = make(Path(request["base"]), request["field"], Path(request["out"]), specs)
    except DataselectError as error:
        sys.exit(str(error))
    print(json.dumps(made))


if __name__ == "__main__":
    main()
