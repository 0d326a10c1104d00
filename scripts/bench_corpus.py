"""Make the benchmark's corpora: real text, multiplied by copies that share no n-gram.

    python scripts/bench_corpus.py --corpus .sample/raw --out .sample/bench --mb 256

Every copy holds all documents of the corpus, duplicates and short ones included, and every word of a copy
ends in the copy's suffix: duplicates and near-duplicates within a copy stay, between copies there are none.
Words are longer by the suffix (1 or 2 bytes; `bytes_per_word` in corpus.json), and to a fastText model they
are unknown (their n-grams are looked up as ever), so kernels that work by the word look faster than on the
bare text; bench.py measures the kernels on both.

`1x` has --mb of text in shards of about 64 MB, `more` has as many again; 2x is both. Each as .jsonl.zst
(zstd-3) and as .parquet, with the same rows.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from copies import json_escaped, json_line, marked, n_words, suffixes, with_suffix

from dataselect.core.pieces import suffix_of
from dataselect.io.reader import iter_file_texts

SHARD_MB = 64
MIN_SHARDS = 4  # in 1x: two workers need something to share
ROW_GROUP_BYTES = 16_000_000


class Row(NamedTuple):
    """A document, with its words marked or suffixed; `text` as it is, `escaped` for JSON."""

    id: str
    text: bytes
    escaped: bytes


def corpus_files(folder: Path) -> list[Path]:
    """The shards of a folder, at any depth, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and suffix_of(path.name))


def documents(folder: Path, field: str) -> Iterator[Row]:
    for path in corpus_files(folder):
        name = path.relative_to(folder).as_posix()
        texts = (text for array in iter_file_texts(str(path), field) for text in array.to_pylist())
        for row, text in enumerate(texts):
            with_marks = marked(text)
            yield Row(f"{name}#{row}", with_marks.encode(), json_escaped(with_marks))


def endless_rows(base: list[Row], n_copies: int) -> Iterator[Row]:
    """Copy after copy of the base."""
    for suffix in suffixes(n_copies):
        for id_, text, escaped in base:
            yield Row(f"{id_}@{suffix.decode()}", with_suffix(text, suffix), with_suffix(escaped, suffix))


def take_bytes(rows: Iterator[Row], n_bytes: float) -> Iterator[Row]:
    """Rows up to `n_bytes` of text, or all; the last goes over the brim."""
    n_taken = 0
    for row in rows:
        yield row
        n_taken += len(row.text)
        if n_taken >= n_bytes:
            return


def write_shard(stem: Path, rows: Iterator[Row]) -> dict[str, int]:
    """The rows as `stem`.jsonl.zst and `stem`.parquet, as a stream; counts of what they hold."""
    counts = {"n_docs": 0, "n_bytes": 0}
    schema = pa.schema({"id": pa.string(), "text": pa.string()})
    with (
        stem.with_name(stem.name + ".jsonl.zst").open("wb") as file,
        zstandard.ZstdCompressor(level=3).stream_writer(file) as lines,
        pq.ParquetWriter(
            stem.with_name(stem.name + ".parquet"),
            schema,
            compression="zstd",
            compression_level=3,
            use_dictionary=False,
        ) as parquet,
    ):
        while block := list(take_bytes(rows, ROW_GROUP_BYTES)):
            lines.write(b"".join(json_line(row.id, row.escaped) for row in block))
            columns = [
                pa.array([row.id for row in block]),
                pa.array([row.text for row in block], pa.string()),
            ]
            parquet.write_table(pa.table(columns, schema=schema))
            counts["n_docs"] += len(block)
            counts["n_bytes"] += sum(len(row.text) for row in block)
    return counts


def make(corpus: Path, out: Path, mb: float, field: str = "text") -> dict[str, Any]:
    """Write both halves into `out`, replacing it; returns and writes the content of corpus.json."""
    base = list(documents(corpus, field))
    n_base_bytes = sum(len(with_suffix(document.text, b"")) for document in base)
    if not n_base_bytes:
        raise SystemExit(f"{corpus}: no text in its shards; name a folder of JSONL or Parquet shards")
    n_base_words = sum(n_words(document.text) for document in base)
    n_copies = 2 + int(2 * mb * 1e6 / n_base_bytes)
    suffix_bytes = len(next(suffixes(n_copies)))
    shutil.rmtree(out, ignore_errors=True)
    rows = endless_rows(base, n_copies)
    halves = {}
    n_shards = max(MIN_SHARDS, round(mb / SHARD_MB))
    for half in ("1x", "more"):
        (out / half).mkdir(parents=True)
        shards = [
            write_shard(out / half / f"{half}-{number:04d}", take_bytes(rows, mb * 1e6 / n_shards))
            for number in range(n_shards)
        ]
        halves[half] = {key: sum(shard[key] for shard in shards) for key in ("n_docs", "n_bytes")}
    bytes_per_word = n_base_bytes / max(n_base_words, 1)
    record = {
        "request": request(corpus, mb, field),
        "base": {"n_docs": len(base), "n_bytes": n_base_bytes, "bytes_per_word": bytes_per_word},
        "bytes_per_word": bytes_per_word + suffix_bytes,
        "n_shards": n_shards,
        "halves": halves,
    }
    (out / "corpus.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def request(corpus: Path, mb: float, field: str) -> dict[str, Any]:
    """What a corpus depends on: the same request is answered by the corpus that is there."""
    files = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in corpus_files(corpus)]
    return {"corpus": str(corpus.resolve()), "files": files, "mb": mb, "field": field, "version": 1}


def make_if_missing(corpus: Path, out: Path, mb: float, field: str = "text") -> dict[str, Any]:
    """The record of the corpus in `out`, made where it is not the one asked for."""
    try:
        record: dict[str, Any] = json.loads((out / "corpus.json").read_text())
        if record["request"] == request(corpus, mb, field):
            return record
    except (OSError, ValueError, KeyError):
        pass
    return make(corpus, out, mb, field)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True, help="folder of shards of real text")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; replaced")
    parser.add_argument("--mb", type=float, default=256, help="10^6 bytes of text in 1x")
    parser.add_argument("--field", default="text", help="the field that holds the text")
    options = parser.parse_args()
    print(json.dumps(make_if_missing(options.corpus, options.out, options.mb, options.field)))


if __name__ == "__main__":
    main()
