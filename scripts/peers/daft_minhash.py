"""Daft: its MinHash recipe (normalised text, word 5-grams, 128 permutations, 16 x 8), plain JSON in and out.

The hash is xxhash. Bands are grouped by Daft; components are a union-find in Python, which is cheaper
than the recipe's star contraction.
"""

from __future__ import annotations

import json
import sys

import daft
import pyarrow as pa
from daft import col
from daft.functions import chunk, monotonically_increasing_id

BANDS, ROWS = 16, 8


def find(parents: dict[int, int], row: int) -> int:
    while (parent := parents.setdefault(row, row)) != row:
        parents[row] = row = parents[parent]
    return row


def duplicates(groups: list[list[int]]) -> list[int]:
    """Rows that are not the first of their component."""
    parents: dict[int, int] = {}
    for rows in groups:
        first = find(parents, rows[0])
        for other in rows[1:]:
            root = find(parents, other)
            first, root = min(first, root), max(first, root)
            parents[root] = first
    return [row for row in parents if find(parents, row) != row]


def main(folder: str, out: str) -> None:
    text = col("text").normalize(remove_punct=True, lowercase=True, nfd_unicode=True, white_space=True)
    signature = text.minhash(num_hashes=BANDS * ROWS, ngram_size=5, seed=1, hash_function="xxhash")
    documents = (
        daft.read_json(f"{folder}/*.jsonl").with_column("row", monotonically_increasing_id()).collect()
    )
    bands = documents.select("row", chunk(signature, ROWS).alias("band"))
    bands = bands.with_column("number", daft.lit(list(range(BANDS)))).explode("band", "number")
    groups = bands.groupby("number", "band").agg(col("row").list_agg().alias("rows"))
    groups = groups.where(col("rows").list_count() > 1).select("rows")
    removed = pa.array(duplicates(groups.to_pydict()["rows"]), pa.uint64())
    kept = documents.join(daft.from_arrow(pa.table({"row": removed})), on="row", how="anti")
    kept = kept.exclude("row").collect()
    kept.write_json(f"{out}/kept")
    print(json.dumps({"rows": documents.count_rows(), "kept": kept.count_rows()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
