"""`dataselect index`: merge saved indexes of a dedup, take documents out, look at one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataselect.against import index_files, superseded_tables
from dataselect.core.errors import RecipeError
from dataselect.io.bundle import BundleWriter
from dataselect.io.dedup_index import SUFFIX, DedupIndex, Source, merge
from dataselect.io.file_systems import check_output
from dataselect.io.hash_index import has_hashes, listed_ids, make_set, text_hashes
from dataselect.io.store import is_file, store_at, store_of
from dataselect.publish import read_manifest


def merge_indexes(out: str, names: Sequence[str]) -> dict[str, Any]:
    """Write one index of several: index files, and outputs that saved one. Parts it has already are skipped.

    RecipeError where a source has none, or `out` exists and is none of the sources; BadModel for what is no
    whole index, or of another scheme.
    """
    if not out.endswith(SUFFIX):
        raise RecipeError(f"index merge: {out}: the name of an index ends in {SUFFIX}")
    if is_file(out) and out not in names:
        raise RecipeError(f"index merge: {out} exists; name it among the sources too, or remove it")
    sources: list[Source] = []
    seen: set[str] = set()
    n_skipped = 0
    for name in names:
        for source in _sources(name, sources[0].index if sources else None):
            digests = set(source.index.bundle.meta["merged"]) or {source.index.bundle.digest}
            if digests <= seen:
                n_skipped += 1
                continue
            seen |= digests
            sources.append(source)
    n_docs = _write(out, sources)
    return {"out": out, "docs": n_docs, "parts": len(sources), "skipped": n_skipped}


def _write(out: str, sources: Sequence[Source]) -> int:
    """Replace the index `out` in one step; returns the number of its documents."""
    check_output("--out", out)
    store, file_name = store_of(out, durable=True)
    with store.commit(file_name) as file:
        writer = BundleWriter(file)
        meta = merge(writer, sources, store.url)
        writer.finish(meta)
    return int(meta["n_docs"])


def _sources(name: str, like: DedupIndex | None) -> list[Source]:
    if name.endswith(SUFFIX):
        return [Source(DedupIndex.open(name))]
    manifest = read_manifest(store_at(name))
    found = {} if manifest is None else index_files(name, manifest)
    if not found:
        raise RecipeError(f"{name}: no index is published here; set `save_index: true` in the dedup's stage")
    prefix = name.rstrip("/").rpartition("/")[2] + "/"
    of = {label: [Source(DedupIndex.open(path), prefix) for path in paths] for label, paths in found.items()}
    fitting = [label for label in of if like is None or of[label][0].index.scheme == like.scheme]
    if len(fitting) > 1 or (not fitting and len(of) > 1):
        raise RecipeError(
            f"{name}: has the indexes {', '.join(of)}; name the files of one: {name}/current/index"
        )
    return of[(fitting or list(of))[0]]


def drop_documents(
    name: str, out: str | None = None, *, ids: str | None = None, superseded: str | None = None
) -> dict[str, Any]:
    """Take documents out of an index: those of a list of ids, or those that an output lists as superseded.

    RecipeError where neither is given; BadModel where a file is no list.
    """
    if (ids is None) == (superseded is None):
        raise RecipeError("index drop: expected one of --ids and --superseded")
    index = DedupIndex.open(name)
    places: pa.Array = pa.array([], pa.large_string())
    if ids is not None:
        wanted = pa.array([entry for part in listed_ids(ids) for entry in part], pa.large_string())
    else:
        table = superseded_tables(str(superseded))
        without = pc.is_null(table["id"])
        wanted = table["id"].filter(pc.invert(without)).combine_chunks()
        places = _places(*(table[column].filter(without) for column in ("shard", "part", "row")))
    wanted = wanted.filter(pc.not_equal(wanted, ""))  # what a document without an id has
    listed = make_set("ids", iter([wanted])) | make_set("places", iter([places]))
    keep = np.ones(index.n_docs, bool)
    for docs in index.blocks():
        keep[docs] = ~has_hashes(listed, "ids", text_hashes(index.ids(docs)))
        if len(places):
            shards = pa.array(index.shards, pa.string()).take(pa.array(index.section("shard_codes")[docs]))
            rest = (pa.array(index.section(column)[docs]) for column in ("parts", "shard_rows"))
            keep[docs] &= ~has_hashes(listed, "places", text_hashes(_places(shards, *rest)))
    _write(out or name, [Source(index, keep=keep)])
    n_dropped = int((~keep).sum())
    n_listed = len(listed["ids.high"]) + len(listed["places.high"])
    return {"out": out or name, "docs": int(keep.sum()), "dropped": n_dropped, "listed": n_listed}


def _places(shards: Any, parts: Any, rows: Any) -> pa.Array:
    texts = [column.cast(pa.large_string()) for column in (shards, parts, rows)]
    joined = pc.binary_join_element_wise(*texts, pa.scalar("\0", pa.large_string()))
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def show_index(name: str) -> dict[str, Any]:
    """What an index holds; it is read whole, to see that it is not damaged. BadModel where it is."""
    index = DedupIndex.open(name)
    index.check_whole()
    there = [is_file(path) for path, _ in index.text_files()]
    texts = {"files": len(there), "there": sum(there)}
    return {"index": name, "docs": index.n_docs, "texts": texts, "scheme": index.scheme}
