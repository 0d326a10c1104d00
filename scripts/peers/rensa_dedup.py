"""rensa: RMinHashDeduplicator (128 permutations, LSH, 0.8) over word 5-grams made in Python."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from peer_io import read_rows, report, write_lines
from rensa import RMinHashDeduplicator
from shingles import shingles


def main(folder: str, out: str) -> None:
    deduplicator = RMinHashDeduplicator(threshold=0.8, num_perm=128, use_lsh=True)
    lines: list[bytes] = []

    def entries() -> Iterator[tuple[str, list[str]]]:
        for line, text in read_rows(folder):
            lines.append(line)
            yield str(len(lines)), shingles(text)

    keep = deduplicator.add_pairs(entries())
    write_lines(out, (line for line, kept in zip(lines, keep, strict=True) if kept))
    report(len(lines), sum(keep))


if __name__ == "__main__":
    main(*sys.argv[1:])
