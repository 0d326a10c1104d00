"""Side files of a written piece: the index of its kept documents, and the old ones that they supersede."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import pyarrow as pa

from dataselect.engine.columns import ascending, distinct
from dataselect.engine.inputs import SegmentRefs, input_columns, text_column
from dataselect.engine.job import Context
from dataselect.engine.row_file import write_table
from dataselect.io.bundle import BundleWriter
from dataselect.io.dedup_index import SUFFIX, IndexedDocs, relative_to
from dataselect.io.writers import HashingFile
from dataselect.stages.base import DedupStage, stage_labels

if TYPE_CHECKING:
    from dataselect.engine.write import WriteCall

SUPERSEDED = "superseded"
INDEX = "index"
"""Folders of a generation."""
_OF_KIND = {"shards": "", "heldout": "/heldout"}
"""What the index of a kind of shard adds to its stage's label."""


def write_side_files(
    context: Context, call: WriteCall, written: Mapping[str, list[np.ndarray]], shards: Mapping[str, Any]
) -> dict[str, Any]:
    """Files by kind ('index/minhash_dedup.1', the same of what is held out, 'superseded').

    written: by kind ('shards', 'heldout') int64[n_rows] for every segment, how often each row is in the
    output shard of that kind; shards: these shards' entries.
    """
    files: dict[str, Any] = {}
    labels = stage_labels(context.stages)
    for stage, keys in call.index_keys:
        for kind in (kind for kind in written if kind in shards):
            docs = _indexed(context, call, stage, keys, written[kind])
            if docs is not None:
                label = labels[stage] + _OF_KIND[kind]
                folder = f"{call.generation}/{INDEX}/{label}/{call.piece.name}".rpartition("/")[0]
                texts = (relative_to(folder, shards[kind]["name"]), shards[kind]["n_bytes"])
                files[f"{INDEX}/{label}"] = _write_index(
                    context, call, stage, label, replace(docs, texts=[texts])
                )
    alive = [np.sum(parts, axis=0) > 0 for parts in zip(*written.values(), strict=True)]
    table = _superseded(context, call, alive)
    if table is not None and len(table):
        name = f"{call.generation}/{SUPERSEDED}/{call.piece.name}.parquet"
        files[SUPERSEDED] = write_table(context.output, name, table)
    return files


def _write_index(
    context: Context, call: WriteCall, stage: int, label: str, docs: IndexedDocs
) -> dict[str, Any]:
    name = f"{call.generation}/{INDEX}/{label}/{call.piece.name}{SUFFIX}"
    dedup = context.stages[stage]
    assert isinstance(dedup, DedupStage)
    with context.output.commit(name) as file:
        out = HashingFile(file)
        writer = BundleWriter(cast("BinaryIO", out))
        writer.finish(docs.write(writer, dedup.index_scheme()))
    return out.entry(name, len(docs.text_hash))


def _indexed(
    context: Context, call: WriteCall, stage: int, keys: tuple[str, ...], written: list[np.ndarray]
) -> IndexedDocs | None:
    """The kept documents with keys; None where there are none."""
    parts: dict[str, list[Any]] = {}
    n_docs = n_written = 0
    for refs, name, copies in zip(call.segments, keys, written, strict=True):
        bundle = context.bundle(name)
        text_rows = np.cumsum(copies) - copies + n_written
        n_written += int(copies.sum())
        chosen = np.flatnonzero((copies > 0)[bundle.array("rows")])
        rows = bundle.array("rows")[chosen]
        with_keys = distinct(rows.copy())
        found: dict[str, Any] = {
            "keys": bundle.array("keys")[chosen],
            "rows": np.searchsorted(with_keys, rows) + n_docs,
            "text_hash": text_column(context, refs, "text_hash", stage)[with_keys, 0],
            "text_codes": np.zeros(len(with_keys)),
            "text_rows": text_rows[with_keys],
        }
        if "check" in bundle:
            found["check"] = bundle.array("check")[chosen]
        if "signatures" in bundle:
            at = np.searchsorted(bundle.array("signature_rows"), with_keys)
            found["signatures"] = bundle.array("signatures")[at]
        place = _places(context, refs, with_keys)
        found |= {"shard_codes": place["shard"].indices, "parts": place["part"], "shard_rows": place["row"]}
        if "id" in place:
            found["ids"] = place["id"].fill_null("")
        for key, values in found.items():
            parts.setdefault(key, []).append(values)
        n_docs += len(with_keys)
    if not n_docs:
        return None
    ids = pa.concat_arrays(parts.pop("ids")) if "ids" in parts else None
    arrays: dict[str, Any] = {
        key: np.concatenate([np.asarray(v) for v in values]) for key, values in parts.items()
    }
    order = ascending(arrays["keys"])
    for key in {"keys", "rows", "check"} & set(arrays):
        arrays[key] = arrays[key][order]
    shards = [shard.name for shard in call.piece.shards]
    return IndexedDocs(**{"check": None, "signatures": None, **arrays}, ids=ids, shards=shards, texts=())


def _places(context: Context, refs: SegmentRefs, rows: np.ndarray) -> dict[str, Any]:
    """shard, part, row and (where there are any) id of some rows, ascending."""
    mask = np.zeros(refs.n_rows, bool)
    mask[rows] = True
    names = ["shard", "part", "row"] + ["id"] * (context.job.read.id is not None)
    return input_columns(context, refs, names, mask, len(context.stages))


def _superseded(context: Context, call: WriteCall, alive: list[np.ndarray]) -> pa.Table | None:
    """Old documents that kept rows stand for; None where no dedup keeps the new ones."""
    tables = []
    for refs, kept in zip(call.segments, alive, strict=True):
        for name, number in refs.barriers.values():
            bundle = context.bundle(name)
            if f"supersedes/{number}" not in bundle:
                continue
            table = bundle.table(f"supersedes/{number}")
            table = table.filter(pa.array(kept[table["row"].to_numpy()]))
            rows, place = np.unique(table["row"].to_numpy(), return_inverse=True)
            places = pa.table(_places(context, refs, rows)).take(pa.array(place))
            table = table.drop_columns(["row"]).rename_columns(
                ["source", "shard", "part", "row", "id", "similarity"]
            )
            for column in places.column_names:
                values = places[column]
                values = values.cast(pa.string()) if column == "shard" else values
                table = table.append_column(f"by_{column}", values)
            tables.append(table)
    return pa.concat_tables(tables) if tables else None
