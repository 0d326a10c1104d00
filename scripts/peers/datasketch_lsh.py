"""datasketch: MinHash of word 5-grams (128 permutations, sha1), MinHashLSH at 0.8, a document at a time."""

from __future__ import annotations

import sys

from datasketch import MinHash, MinHashLSH
from peer_io import read_rows, report, write_lines
from shingles import shingles


def main(folder: str, out: str) -> None:
    index = MinHashLSH(threshold=0.8, num_perm=128)
    kept, n_rows = [], 0
    for line, text in read_rows(folder):
        signature = MinHash(num_perm=128)
        signature.update_batch([shingle.encode() for shingle in shingles(text)])
        if not index.query(signature):
            index.insert(n_rows, signature, check_duplication=False)
            kept.append(line)
        n_rows += 1
    write_lines(out, kept)
    report(n_rows, len(kept))


if __name__ == "__main__":
    main(*sys.argv[1:])
