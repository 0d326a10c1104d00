"""Megabytes of text per CPU second of every text kernel, and of the reader.

    python scripts/bench/kernels.py [SHARD ...] [--field text] [--mb 32] [--runs 7] [--model M.bin]

Without a shard (JSONL or Parquet) the text is the source of the Python standard library, cut into documents
of about 4 kB. MB = 10^6 bytes of UTF-8; the best of the runs counts: other processes can only slow one down.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from dataselect.io.reader import iter_file_texts
from dataselect.kernels.arrow import text_buffers


def standard_library_texts() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        source = path.read_text("utf-8", errors="replace")
        yield from (source[start : start + 4096] for start in range(0, len(source), 4096))


def shard_texts(paths: Iterable[Path], field: str) -> Iterator[str]:
    for path in paths:
        for array in iter_file_texts(str(path), field):
            yield from array.to_pylist()


def corpus(texts: Iterator[str], n_bytes: int) -> pa.Array:
    """About n_bytes of the texts, repeated where they are shorter."""
    documents, size = [], 0
    while size < n_bytes and (text := next(texts, None)) is not None:
        documents.append(text)
        size += len(text.encode())
    return pa.array(documents * max(1, round(n_bytes / max(size, 1))), pa.large_string())


def best_seconds(run: Callable[[], object], runs: int) -> float:
    seconds = []
    for _ in range(runs):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds)


def fasttext_case(
    offsets: np.ndarray, data: np.ndarray, model: Path, label: str
) -> dict[str, Callable[[], object]]:
    """Scoring alone; the model is read and folded before."""
    kernel = importlib.import_module("dataselect.kernels.fasttext")
    prepared = importlib.import_module("dataselect.io.fasttext_tables").prepare(str(model), [label])
    return {"fastText score": lambda: kernel.score_texts(offsets, data, prepared)}


def reader_case(shard: Path, field: str) -> tuple[Callable[[], int], int]:
    """From the compressed file to text columns with their row numbers; also the bytes of text in it."""

    def read() -> int:
        return sum(text_buffers(array)[0][-1] for array in iter_file_texts(str(shard), field))

    return read, int(read())


def cases(offsets: np.ndarray, data: np.ndarray) -> dict[str, Callable[[], object]]:
    names = [
        "groups",
        "hashing",
        "layout",
        "minhash",
        "ngrams",
        "overlap",
        "rows",
        "signals",
        "text",
        "tfidf",
    ]
    groups, hashing, layout, minhash, ngrams, overlap, rows, signals, text, tfidf, wordpunct = (
        importlib.import_module(f"dataselect.kernels.{name}") for name in [*names, "wordpunct"]
    )
    n_docs = len(offsets) - 1
    lengths = np.empty(n_docs, np.int64)
    n_words = np.empty(n_docs, np.int64)
    scores = np.empty(n_docs)
    hashes = np.empty((n_docs, 2), np.uint64)
    counts = np.zeros(10_000, np.int64)
    a, b = minhash.affine32_params(128)
    a_256, b_256 = minhash.affine32_params(256)
    signatures = np.empty((n_docs, 128), np.uint32)
    signatures_256 = np.empty((n_docs, 256), np.uint32)
    bands = np.empty((n_docs, 14), np.uint64)
    newline, one_tail, tails = np.array([10], np.uint8), np.array([0, 1]), np.zeros(n_docs, np.int32)
    copied = np.empty(int(offsets[-1] - offsets[0]) + n_docs, np.uint8)
    features = tfidf.feature_lists(offsets, data, 20)
    idf = tfidf.idf_table(np.bincount(tfidf.buckets_of(features[1]), minlength=1 << 20), n_docs)
    index = tfidf.build_index(*tfidf.feature_lists(offsets[:1001], data, 20), idf)
    ranked = np.full((1, index.n_targets), 0.5)
    keys, lengths_of_keys = overlap.target_keys(offsets[:1001], data, 13, 8)
    key_table = overlap.key_table(keys)
    filters = layout.SPACY_WORDS | layout.SPACY_REPETITION | layout.LINES | layout.C4
    signal_counts = np.empty((n_docs, layout.N_COUNTS), np.int64)
    left, right = np.arange(n_docs - 1), np.arange(1, n_docs)

    def components() -> None:
        parent = np.arange(n_docs, dtype=np.uint32)
        groups.connect(left, right, parent)
        groups.find_roots(parent)

    return {
        "gather_rows": lambda: rows.gather_rows(
            data, offsets[:-1], offsets[1:], newline, one_tail, tails, copied
        ),
        "connect, find_roots": components,
        "count_chars": lambda: text.count_chars(offsets, data, lengths),
        "count_words": lambda: text.count_words(offsets, data, lengths),
        "hash128": lambda: hashing.hash128(offsets, data, hashes),
        "shingle_hashes, 5 words": lambda: minhash.shingle_hashes(offsets, data, 5),
        "minhash, 5 words, 128": lambda: minhash.minhash_signatures(
            offsets, data, 5, a, b, signatures, n_words
        ),
        "minhash, 5 words, 256": lambda: minhash.minhash_signatures(
            offsets, data, 5, a_256, b_256, signatures_256, n_words
        ),
        "band_hashes, 14 x 9": lambda: minhash.band_hashes(signatures, 14, 9, bands),
        "count_ngrams, order 2": lambda: ngrams.count_ngrams(offsets, data, 2, 10_000, counts),
        "ngram_lists, order 2": lambda: ngrams.ngram_lists(offsets, data, 2, 10_000),
        "score_ngrams, order 2": lambda: ngrams.score_ngrams(offsets, data, 2, counts, scores, n_words),
        "TF-IDF features": lambda: tfidf.feature_lists(offsets, data, 20),
        "cosines with 1,000 targets": lambda: tfidf.nearest_targets(*features, index, ranked),
        "shared 13-grams": lambda: overlap.shared_words(offsets, data, lengths_of_keys, key_table),
        "signals, Gopher+C4+FineWeb": lambda: signals.document_counts(offsets, data, filters, signal_counts),
        "SHA-256 lists, order 2": lambda: wordpunct.sha256_ngram_lists(offsets, data, 2, 10_000),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "shards", type=Path, nargs="*", help="JSONL or Parquet; default: the standard library's sources"
    )
    parser.add_argument("--field", default="text", help="the field that holds the text")
    parser.add_argument("--mb", type=float, default=32, help="how much text")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--model", type=Path, help="a fastText model, to measure scoring too")
    parser.add_argument("--label", default="hq", help="the label scored")
    parser.add_argument("--json", action="store_true", help="print the rates as JSON")
    options = parser.parse_args()

    texts = shard_texts(options.shards, options.field) if options.shards else standard_library_texts()
    array = corpus(texts, round(options.mb * 1e6))
    start = time.perf_counter()
    importlib.import_module("dataselect.kernels.preload")
    import_seconds = time.perf_counter() - start
    offsets, data = text_buffers(array)
    n_bytes = int(offsets[-1] - offsets[0])
    runs = cases(offsets, data)
    if options.model:
        runs |= fasttext_case(offsets, data, options.model, options.label)
    rates = {name: n_bytes / 1e6 / best_seconds(run, options.runs) for name, run in runs.items()}
    if options.shards:
        read, shard_bytes = reader_case(options.shards[0], options.field)
        rates["reader, first shard"] = shard_bytes / 1e6 / best_seconds(read, min(options.runs, 3))
    if options.json:
        print(json.dumps(rates))
        return
    ascii_share = float((data < 0x80).mean())
    print(f"import dataselect.kernels.preload  {import_seconds:6.2f} s")
    print(f"{len(array)} documents, {n_bytes / 1e6:.1f} MB, {n_bytes / len(array):.0f} bytes each, ", end="")
    print(f"{ascii_share:.1%} ASCII")
    for name, rate in rates.items():
        print(f"{name:26} {rate:8.0f} MB/s")


if __name__ == "__main__":
    main()
