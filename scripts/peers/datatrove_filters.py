"""datatrove: FineWeb's heuristic filters in its order; defaults, but C4 without its rule on punctuation."""

from __future__ import annotations

import sys

from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove_steps import counting, reader, report, run, writer


def main(folder: str, out: str) -> None:
    filters = [
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
    ]
    counted = [reader(folder), counting("rows"), *filters, counting("kept")]
    run([*counted, writer(f"{out}/kept")], f"{out}/logs")
    report()


if __name__ == "__main__":
    main(*sys.argv[1:])
