"""Signatures of shards for use elsewhere: one row a document, as datasketch's LeanMinHash bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataselect.core.errors import RecipeError
from dataselect.core.pieces import Piece
from dataselect.io.batch import TextBatch
from dataselect.io.lean_minhash import (
    affine32_signature,
    lean_bytes,
    legacy_signature,
    sha1_hashes,
)
from dataselect.io.reader import ReadSpec, iter_piece
from dataselect.io.store import LocalStore
from dataselect.planning.shards import cut_pieces, list_shards

_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string()),
        pa.field("part", pa.int32()),
        pa.field("row", pa.int64()),
        pa.field("id", pa.large_string()),
        pa.field("lean_minhash", pa.binary()),
    ]
)


def sketch_shards(
    patterns: Sequence[str],
    out: Path,
    *,
    text: str = "text",
    id_column: str | None = None,
    scheme: str = "affine32",
    shingle_hash: str = "own",
    ngram: int = 5,
    num_perm: int = 128,
    seed: int = 1,
) -> dict[str, Any]:
    """Write the signature of every document of some shards to a Parquet file; returns counts.

    shingle_hash  own: that of `minhash_dedup` (tokens: words), 32 bits; sha1: datasketch's default over
          the shingle as UTF-8, words joined by spaces, for indexes that were made so (1 % of the speed)
    Documents that can't be read are counted as bad and left out. BadShard, RecipeError.
    """
    if scheme not in ("affine32", "legacy") or shingle_hash not in ("own", "sha1"):
        raise RecipeError("sketch: --scheme is affine32 or legacy, --hash is own or sha1")
    pieces = cut_pieces(list_shards(patterns), 128 << 20)
    if any(Path(shard.url).resolve() == out.resolve() for piece in pieces for shard in piece.shards):
        raise RecipeError(f"sketch: {out} is one of the shards; name another --out")
    spec = ReadSpec(text, id_column, 64 << 20, 1 << 62, 16_384)
    n_docs = n_bad = 0
    metadata = {"scheme": scheme, "hash": shingle_hash, "ngram": ngram, "num_perm": num_perm, "seed": seed}
    schema = _SCHEMA.with_metadata({key: str(value) for key, value in metadata.items()})
    with (
        LocalStore(out.parent, durable=True).commit(out.name) as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for piece in chain.from_iterable(piece.singles() for piece in pieces):
            for batch in iter_piece(piece, spec):
                signatures = _signatures(batch, scheme, shingle_hash, ngram, num_perm, seed)
                lean = [lean_bytes(signature, scheme, seed) for signature in signatures]
                writer.write_table(_table(piece, batch, lean, schema))
                n_docs, n_bad = n_docs + len(batch.rows), n_bad + len(batch.bad)
    return {"out": str(out), "docs": n_docs, "bad": n_bad, **metadata}


def _table(piece: Piece, batch: TextBatch, lean: list[bytes], schema: pa.Schema) -> pa.Table:
    columns = {
        "shard": pa.array([piece.shards[0].name] * len(lean), pa.string()),
        "part": pa.array(np.full(len(lean), piece.part, np.int32)),
        "row": pa.array(batch.rows),
        "id": batch.ids if batch.ids is not None else pa.nulls(len(lean), pa.large_string()),
        "lean_minhash": pa.array(lean, pa.binary()),
    }
    return pa.table(columns, schema=schema)


def _signatures(
    batch: TextBatch, scheme: str, shingle_hash: str, ngram: int, num_perm: int, seed: int
) -> Iterator[np.ndarray]:
    if shingle_hash == "own" and scheme == "affine32":
        from dataselect.kernels.arrow import text_buffers
        from dataselect.kernels.minhash import affine32_params, minhash_signatures

        signatures = np.empty((len(batch.texts), num_perm), np.uint32)
        n_words = np.empty(len(batch.texts), np.int64)
        minhash_signatures(
            *text_buffers(batch.texts), ngram, *affine32_params(num_perm, seed), signatures, n_words
        )
        yield from signatures
        return
    sign = affine32_signature if scheme == "affine32" else legacy_signature
    for hashes in _hashes(batch, shingle_hash, ngram):
        yield sign(hashes, num_perm, seed)


def _hashes(batch: TextBatch, shingle_hash: str, ngram: int) -> Iterator[np.ndarray]:
    if shingle_hash == "sha1":
        for text in batch.texts:
            yield sha1_hashes(text.as_py(), ngram)
        return
    from dataselect.kernels.arrow import text_buffers
    from dataselect.kernels.minhash import shingle_hashes

    first, hashes = shingle_hashes(*text_buffers(batch.texts), ngram)
    for start, stop in pairwise(first.tolist()):
        yield (hashes[start:stop] >> np.uint64(32)).astype(np.uint32)
