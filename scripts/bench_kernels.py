"""Megabytes of text per second and core of every text kernel.

    python scripts/bench_kernels.py [TEXT.jsonl] [--field text] [--mb 32] [--runs 7]

Without a file the text is the source of the Python standard library, cut into documents of about 4 kB.
MB = 10^6 bytes of UTF-8; the best of the runs counts, since other processes can only slow one down.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from dataselect.kernels.arrow import text_buffers


def standard_library_texts() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        source = path.read_text("utf-8", errors="replace")
        yield from (source[start : start + 4096] for start in range(0, len(source), 4096))


def jsonl_texts(path: Path, field: str) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)[field]


def corpus(texts: Iterator[str], n_bytes: int) -> pa.Array:
    """About n_bytes of the texts, repeated where they are shorter."""
    documents = list(texts)
    size = sum(len(text.encode()) for text in documents)
    return pa.array(documents * max(1, round(n_bytes / size)), pa.large_string())


def best_seconds(run: Callable[[], object], runs: int) -> float:
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def cases(offsets: np.ndarray, data: np.ndarray) -> dict[str, Callable[[], object]]:
    hashing, minhash, ngrams, text = (
        importlib.import_module(f"dataselect.kernels.{name}")
        for name in ("hashing", "minhash", "ngrams", "text")
    )
    n_docs = len(offsets) - 1
    lengths = np.empty(n_docs, np.int64)
    n_words = np.empty(n_docs, np.int64)
    hashes = np.empty((n_docs, 2), np.uint64)
    counts = np.zeros(10_000, np.int64)
    a, b = minhash.affine32_params(128)
    a_256, b_256 = minhash.affine32_params(256)
    signatures = np.empty((n_docs, 128), np.uint32)
    signatures_256 = np.empty((n_docs, 256), np.uint32)
    bands = np.empty((n_docs, 14), np.uint64)
    return {
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
        "score_ngrams, order 2": lambda: ngrams.score_ngrams(offsets, data, 2, counts, lengths, n_words),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "path", type=Path, nargs="?", help="a JSONL file; default: the standard library's sources"
    )
    parser.add_argument("--field", default="text", help="the field that holds the text")
    parser.add_argument("--mb", type=int, default=32, help="how much text")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()

    texts = jsonl_texts(options.path, options.field) if options.path else standard_library_texts()
    array = corpus(texts, options.mb * 1_000_000)

    start = time.perf_counter()
    importlib.import_module("dataselect.kernels.preload")
    print(f"import dataselect.kernels.preload  {time.perf_counter() - start:6.2f} s")
    offsets, data = text_buffers(array)
    n_bytes = int(offsets[-1] - offsets[0])
    ascii_share = float((data < 0x80).mean())
    print(f"{len(array)} documents, {n_bytes / 1e6:.1f} MB, {n_bytes / len(array):.0f} bytes each, ", end="")
    print(f"{ascii_share:.1%} ASCII")
    for name, run in cases(offsets, data).items():
        print(f"{name:24} {n_bytes / 1e6 / best_seconds(run, options.runs):8.0f} MB/s")


if __name__ == "__main__":
    main()
