"""Documents of a dedup, saved so that later runs find them again: keys, signatures, where each came from.

One bundle (io.bundle). Documents are numbered from 0; every key of a document is an entry, sorted by key:

    index         int64[2^INDEX_BITS + 1]  where each range of keys begins
    keys          uint64[n_entries]        ascending
    rows          uint32[n_entries]        the document's number
    check         uint64[n_entries]        second half of 128-bit keys; absent for others
    signatures    uint8[n_docs, n_hashes]  compact MinHash signatures; absent where none are compared
    text_hash     uint64[n_docs]
    shard_codes   uint32[n_docs]           into the table `shards`
    parts         int32[n_docs]            as in `decisions/` of the run that saw the document
    shard_rows    int64[n_docs]
    id_offsets    int64[n_docs + 1]        of id_bytes (UTF-8); no id is an empty one
    text_codes    uint32[n_docs]           into the table `texts`: the file that holds the document's text
    text_rows     int64[n_docs]            ... and its row there

meta: format, scheme (what decides whether keys can be compared), n_docs, merged (digests of its parts).
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from dataselect.core.errors import BadModel, DataselectError, TornArtifact
from dataselect.io.bundle import Bundle, BundleWriter
from dataselect.io.local_copies import local_copy
from dataselect.io.store import LocalStore, store_of

FORMAT = 1
SUFFIX = ".index"
INDEX_BITS = 10
"""Entries are indexed by the top bits of their keys: a reader of one partition reads one range."""
_BLOCK = 1 << 20
VALUES = {"text_hash": np.uint64, "parts": np.int32, "shard_rows": np.int64, "text_rows": np.int64}
"""Sections with a number for each document that stays as it is when documents are put together."""
MAX_DOCS = 1 << 32


def range_index(keys: np.ndarray) -> np.ndarray:
    """int64[2^INDEX_BITS + 1]: where each range of the ascending keys begins."""
    bounds = np.arange(1 << INDEX_BITS, dtype=np.uint64) << np.uint64(64 - INDEX_BITS)
    return np.append(np.searchsorted(keys, bounds), len(keys)).astype(np.int64)


@dataclass(frozen=True)
class IndexedDocs:
    """What an index holds, in memory."""

    keys: np.ndarray
    rows: np.ndarray
    check: np.ndarray | None
    signatures: np.ndarray | None
    text_hash: np.ndarray
    shard_codes: np.ndarray
    parts: np.ndarray
    shard_rows: np.ndarray
    ids: pa.Array | None
    """large_string[n_docs]"""
    shards: Sequence[str]
    text_codes: np.ndarray
    text_rows: np.ndarray
    texts: Sequence[tuple[str, int]]
    """Files with the texts, from the index' folder, and their bytes."""

    def write(self, writer: BundleWriter, scheme: Mapping[str, Any]) -> dict[str, Any]:
        """All sections; returns the meta."""
        from dataselect.kernels.arrow import text_buffers

        n_docs = len(self.text_hash)
        writer.add_array("index", range_index(self.keys))
        writer.add_array("keys", self.keys)
        writer.add_array("rows", self.rows.astype(np.uint32))
        for name, values in (("check", self.check), ("signatures", self.signatures)):
            if values is not None:
                writer.add_array(name, values)
        writer.add_array("text_hash", self.text_hash)
        writer.add_array("shard_codes", self.shard_codes.astype(np.uint32))
        writer.add_array("parts", self.parts.astype(np.int32))
        writer.add_array("shard_rows", self.shard_rows.astype(np.int64))
        offsets, data = np.zeros(n_docs + 1, np.int64), np.empty(0, np.uint8)
        if self.ids is not None:
            offsets, data = text_buffers(self.ids)
            data = data[offsets[0] : offsets[-1]]
        writer.add_array("id_offsets", offsets - offsets[0])
        writer.add_array("id_bytes", data)
        writer.add_array("text_codes", self.text_codes.astype(np.uint32))
        writer.add_array("text_rows", self.text_rows.astype(np.int64))
        writer.add_table("shards", pa.table({"name": pa.array(self.shards, pa.string())}))
        writer.add_table("texts", _texts_table(self.texts))
        return {"format": FORMAT, "scheme": dict(scheme), "n_docs": n_docs, "merged": []}


class DedupIndex:
    """A saved index, mapped: what is read are the pages that are asked for."""

    def __init__(self, bundle: Bundle, place: str) -> None:
        """BadModel where the bundle is no index of this format; `place` is for messages."""
        self.bundle, self.place = bundle, place
        if "scheme" not in bundle.meta:
            raise BadModel(f"{place}: not an index of a dedup")
        if bundle.meta["format"] != FORMAT:
            raise BadModel(
                f"{place}: an index of format {bundle.meta['format']}, not {FORMAT}; make it again"
            )
        self.n_docs = int(bundle.meta["n_docs"])
        self.scheme: dict[str, Any] = bundle.meta["scheme"]

    @classmethod
    def open(cls, path: str) -> DedupIndex:
        """An index file by path or URL (of one on an object store, this machine's copy).

        BadModel where it is none, or is not whole.
        """
        store, name = store_of(path)
        if not store.exists(name):
            raise BadModel(f"{path}: there is no such file")
        try:
            local = local_copy(store, name)
            return cls(Bundle(LocalStore(local.parent), local.name), path)
        except TornArtifact:
            raise BadModel(f"{path}: not a whole index of a dedup; was it cut short?") from None

    def check_scheme(self, scheme: Mapping[str, Any], *, signatures: bool) -> None:
        """BadModel naming the first difference where keys or signatures can't be compared."""
        for name in sorted({*scheme, *self.scheme}, key=lambda name: (name != "use", name)):
            there, here = self.scheme.get(name), scheme.get(name)
            if there != here:
                raise BadModel(
                    f"{self.place}: was made with {name.rstrip('_')}: {there}, but here it is {here}; "
                    "documents of different schemes can't be compared"
                )
        if signatures and "signatures" not in self.bundle:
            raise BadModel(
                f"{self.place}: was made without signatures (verify: exact or none), and they are needed"
            )

    def section(self, name: str) -> np.ndarray:
        """A whole section, mapped and not verified."""
        return self.bundle.array(name, 0, self.bundle.length(name))

    def entries(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """keys, rows and (of 128-bit keys) check of the key ranges start .. stop - 1.

        BadModel where they can't be right.
        """
        first, last = self._index[[start, stop]].tolist()
        names = [name for name in ("keys", "rows", "check") if name in self.bundle]
        found = {name: self.bundle.array(name, first, last) for name in names}
        if len(found["rows"]) and int(found["rows"].max()) >= self.n_docs:
            raise BadModel(f"{self.place}: damaged: it names documents that it does not hold")
        return found

    @cached_property
    def _index(self) -> np.ndarray:
        return self.bundle.array("index")

    @cached_property
    def shards(self) -> list[str]:
        """Names that `shard_codes` stand for."""
        names: list[str] = self.bundle.table("shards")["name"].to_pylist()
        return names

    def text_files(self) -> list[tuple[str, int]]:
        """(path or URL, bytes) of the files with the documents' texts, where they were when it was made."""
        table = self.bundle.table("texts").to_pydict()
        folder = self.place.rpartition("/")[0] or "."
        return [(_joined(folder, name), n) for name, n in zip(table["name"], table["n_bytes"], strict=True)]

    def ids(self, docs: np.ndarray) -> pa.Array:
        """large_string[n]: ids of documents; empty where they have none."""
        return indexed_ids(self.section("id_offsets"), self.section("id_bytes"), docs)

    def check_whole(self) -> None:
        """Read all of it; BadModel where a section is not what was written."""
        try:
            self.bundle.check()
        except TornArtifact:
            raise BadModel(f"{self.place}: damaged") from None

    def blocks(self) -> Iterator[np.ndarray]:
        """Document numbers, some at a time."""
        for start in range(0, self.n_docs, _BLOCK):
            yield np.arange(start, min(start + _BLOCK, self.n_docs))


def _texts_table(texts: Sequence[tuple[str, int]]) -> pa.Table:
    names, sizes = zip(*texts, strict=True) if texts else ((), ())
    return pa.table({"name": pa.array(names, pa.string()), "n_bytes": pa.array(sizes, pa.int64())})


def _joined(folder: str, name: str) -> str:
    """A path from a folder, which may be on an object store."""
    if "://" in name or name.startswith("/"):
        return name
    scheme, separator, path = folder.rpartition("://")
    return scheme + separator + posixpath.normpath(f"{path}/{name}")


def relative_to(folder: str, path: str) -> str:
    """`path` as seen from a folder of the same store, else as it is."""
    if "://" in path or "://" in folder:
        return path
    return os.path.relpath(path, folder).replace(os.sep, "/")


def joined_ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """int64[sum of sizes]: starts[i], starts[i] + 1, ... for every i, one range after the other."""
    ends = np.cumsum(sizes)
    return np.repeat(starts - ends + sizes, sizes) + np.arange(int(sizes.sum()))


def indexed_ids(offsets: np.ndarray, data: np.ndarray, docs: np.ndarray) -> pa.Array:
    """large_string[n]: the texts data[offsets[i]:offsets[i + 1]] of documents i."""
    starts, lengths = offsets[docs], offsets[docs + 1] - offsets[docs]
    new = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    buffers = [pa.py_buffer(new), pa.py_buffer(np.ascontiguousarray(data[joined_ranges(starts, lengths)]))]
    return pa.LargeStringArray.from_buffers(len(docs), *buffers)


@dataclass(frozen=True)
class Source:
    """An index to merge, or a part of it."""

    index: DedupIndex
    prefix: str = ""
    """Put before its shards' names."""
    keep: np.ndarray | None = None
    """bool[n_docs]; None: all."""

    @property
    def n_kept(self) -> int:
        return self.index.n_docs if self.keep is None else int(self.keep.sum())

    def renumbered(self, rows: np.ndarray, first: int) -> np.ndarray:
        """New numbers of kept documents; `first` is that of the first one."""
        if self.keep is None:
            return rows.astype(np.int64) + first
        return self._numbers[rows] + first

    @cached_property
    def _numbers(self) -> np.ndarray:
        assert self.keep is not None
        return np.cumsum(self.keep) - 1

    def kept(self, docs: np.ndarray) -> np.ndarray:
        """Those of the documents that are kept."""
        return docs if self.keep is None else docs[self.keep[docs]]


def merge(writer: BundleWriter, sources: Sequence[Source], folder: str) -> dict[str, Any]:
    """Write one index of several, in this order, into `folder`; returns the meta.

    Memory: a range of the keys (a thousandth), and 9 bytes for every document of a source that loses some.
    Raises BadModel where schemes differ, DataselectError where there are too many documents.
    """
    first = sources[0].index
    for source in sources[1:]:
        source.index.check_scheme(first.scheme, signatures="signatures" in first.bundle)
    firsts = np.concatenate([[0], np.cumsum([source.n_kept for source in sources])]).tolist()
    if firsts[-1] >= MAX_DOCS:
        raise DataselectError(f"an index holds {MAX_DOCS:,} documents at most, not {firsts[-1]:,}")
    sizes: list[int] = []
    for name in ("keys", "rows", "check"):
        if name in first.bundle:
            dtype = np.uint32 if name == "rows" else np.uint64
            parts = (_merged(sources, firsts, number)[name] for number in range(1 << INDEX_BITS))
            writer.add_chunks(name, dtype, _measured(parts, sizes))
    index = np.concatenate([[0], np.cumsum(sizes[: 1 << INDEX_BITS])]).astype(np.int64)
    writer.add_array("index", index)
    if "signatures" in first.bundle:
        width = first.section("signatures").shape[1]
        writer.add_chunks("signatures", np.uint8, _values(sources, "signatures"), width)
    for name, dtype in VALUES.items():
        writer.add_chunks(name, dtype, _values(sources, name))
    files = [source.index.text_files() for source in sources]
    for name, tables in (("shard_codes", [source.index.shards for source in sources]), ("text_codes", files)):
        bases = np.concatenate([[0], np.cumsum([len(table) for table in tables])]).tolist()
        writer.add_chunks(name, np.uint32, _values(sources, name, bases))
    writer.add_chunks("id_offsets", np.int64, _id_offsets(sources))
    writer.add_chunks("id_bytes", np.uint8, _id_bytes(sources))
    names = [source.prefix + name for source in sources for name in source.index.shards]
    writer.add_table("shards", pa.table({"name": pa.array(names, pa.string())}))
    texts = [(relative_to(folder, path), n) for part in files for path, n in part]
    writer.add_table("texts", _texts_table(texts))
    merged = [d for s in sources for d in (s.index.bundle.meta["merged"] or [s.index.bundle.digest])]
    return {"format": FORMAT, "scheme": first.scheme, "n_docs": firsts[-1], "merged": merged}


def _merged(sources: Sequence[Source], firsts: Sequence[int], number: int) -> dict[str, np.ndarray]:
    """The entries of one range of keys, by key and then by document."""
    parts = []
    for source, first in zip(sources, firsts, strict=False):
        found = source.index.entries(number, number + 1)
        if source.keep is not None:
            kept = source.keep[found["rows"]]
            found = {name: values[kept] for name, values in found.items()}
        parts.append(found | {"rows": source.renumbered(found["rows"], first)})
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.lexsort((joined["rows"], joined["keys"]))
    return {name: values[order] for name, values in joined.items()}


def _measured(chunks: Iterator[np.ndarray], sizes: list[int]) -> Iterator[np.ndarray]:
    for chunk in chunks:
        sizes.append(len(chunk))
        yield chunk


def _values(sources: Sequence[Source], name: str, add: Sequence[int] | None = None) -> Iterator[np.ndarray]:
    for k, source in enumerate(sources):
        values = source.index.section(name)
        for docs in source.index.blocks():
            yield values[source.kept(docs)] + (0 if add is None else np.uint32(add[k]))


def _id_offsets(sources: Sequence[Source]) -> Iterator[np.ndarray]:
    last = 0
    yield np.zeros(1, np.int64)
    for source in sources:
        offsets = source.index.section("id_offsets")
        for block in source.index.blocks():
            docs = source.kept(block)
            ends = last + np.cumsum(offsets[docs + 1] - offsets[docs])
            last = int(ends[-1]) if len(ends) else last
            yield ends


def _id_bytes(sources: Sequence[Source]) -> Iterator[np.ndarray]:
    from dataselect.kernels.arrow import text_buffers

    for source in sources:
        for docs in source.index.blocks():
            offsets, data = text_buffers(source.index.ids(source.kept(docs)))
            yield data[offsets[0] : offsets[-1]]
