"""An artifact: named sections in one file, with an index and digests at its end.

Layout: section bytes, each padded to 64 (so that arrays can be mapped), the index as JSON, its length
as 8 bytes little-endian, its BLAKE2b-64, and the magic. One file a task keeps inodes and objects few,
and any section can be read alone by its range.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import xxhash

from dataselect.core.errors import TornArtifact
from dataselect.core.fingerprint import fingerprint
from dataselect.io.store import Store

MAGIC = b"dselect1"
_TAIL = 8 + 8 + len(MAGIC)
_ALIGN = 64
_TAIL_GUESS = 16 << 10  # one read gets the index of nearly every bundle
_FAR_TAIL_GUESS = 256 << 10  # on an object store, where a request costs as much: small bundles whole
_GATHERED_BYTES = 1280 << 10  # ... and all of one up to this size, which costs less than another request


class BundleWriter:
    """Writes sections in order; `finish` closes the bundle with its index."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offset = 0
        self._sections: dict[str, dict[str, Any]] = {}

    def add_array(self, name: str, array: np.ndarray) -> None:
        """A numpy array of any shape and plain dtype."""
        array = np.ascontiguousarray(array)
        self._add(name, array.reshape(-1).view(np.uint8).data, dtype=array.dtype.str, shape=list(array.shape))

    def add_chunks(
        self, name: str, dtype: Any, chunks: Iterable[np.ndarray], width: int | None = None
    ) -> int:
        """An array that comes in parts (with `width`, of rows of so many values each); returns its length."""
        digest, length, dtype = xxhash.xxh3_128(), 0, np.dtype(dtype)
        for chunk in chunks:
            data = np.ascontiguousarray(chunk, dtype).reshape(-1).view(np.uint8).data
            digest.update(data)
            self._file.write(data)
            length += data.nbytes
        n = length // (dtype.itemsize * (width or 1))
        shape = [n] if width is None else [n, width]
        self._added(name, length, digest.hexdigest(), dtype=dtype.str, shape=shape)
        return n

    def add_table(self, name: str, table: pa.Table) -> None:
        """An Arrow table, as one IPC stream of one batch (so that the bytes depend on its values alone)."""
        sink = pa.BufferOutputStream()
        table = table.combine_chunks()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        self._add(name, sink.getvalue())

    def _add(self, name: str, data: Any, **extra: Any) -> None:
        self._file.write(data)
        self._added(name, memoryview(data).nbytes, xxhash.xxh3_128_hexdigest(data), **extra)

    def _added(self, name: str, length: int, digest: str, **extra: Any) -> None:
        self._sections[name] = {"offset": self._offset, "length": length, "digest": digest, **extra}
        self._file.write(bytes(_padded(length) - length))
        self._offset += _padded(length)

    def finish(self, meta: Mapping[str, Any]) -> str:
        """Write the index; `meta` is small JSON that readers of the bundle need. Returns `Bundle.digest`."""
        index = json.dumps({"sections": self._sections, "meta": meta}, separators=(",", ":")).encode()
        check = hashlib.blake2b(index, digest_size=8).digest()
        self._file.write(index + len(index).to_bytes(8, "little") + check + MAGIC)
        return _digest(self._sections, meta)


class Bundle:
    """A committed artifact. Opening reads the index only; sections are read when asked for."""

    def __init__(self, store: Store, name: str) -> None:
        """TornArtifact where there is none or it is not whole."""
        self._store, self._name = store, name
        self._map: mmap.mmap | None = None
        is_far = store.local_path(name) is None
        tail = self._read(-(_FAR_TAIL_GUESS if is_far else _TAIL_GUESS))
        index = self._index(tail)
        index_bytes = int.from_bytes(tail[-_TAIL : -_TAIL + 8], "little")
        if len(index) < index_bytes:
            tail = self._read(-_TAIL - index_bytes)
            index = self._index(tail)
        if hashlib.blake2b(index, digest_size=8).digest() != tail[-_TAIL + 8 : -len(MAGIC)]:
            raise self._torn()
        parsed = json.loads(index)
        self._sections: dict[str, dict[str, Any]] = parsed["sections"]
        self.meta: dict[str, Any] = parsed["meta"]
        # What the tail holds of the sections, and where that begins.
        self._n_bytes = max((s["offset"] + _padded(s["length"]) for s in self._sections.values()), default=0)
        end = memoryview(tail)[: len(tail) - _TAIL - len(index)] if is_far else memoryview(b"")
        self._end = self._n_bytes - len(end), end  # one attribute: threads share bundles
        self.most_bytes = max(len(tail), min(_GATHERED_BYTES, self._n_bytes)) if is_far else 0
        """What it holds in memory at most."""

    def _read(self, start: int, stop: int | None = None) -> bytes:
        try:
            return self._store.read(self._name, start, stop)
        except FileNotFoundError:
            raise self._torn() from None

    def _index(self, tail: bytes) -> bytes:
        if len(tail) < _TAIL or tail[-len(MAGIC) :] != MAGIC:
            raise self._torn()
        length = int.from_bytes(tail[-_TAIL : -_TAIL + 8], "little")
        return tail[max(0, len(tail) - _TAIL - length) : -_TAIL]

    def _torn(self) -> TornArtifact:
        return TornArtifact(self._store.url, self._name)

    def __contains__(self, name: str) -> bool:
        return name in self._sections

    @property
    def digest(self) -> str:
        """Digest of all sections and of meta: equal for equal content, whatever made it."""
        return _digest(self._sections, self.meta)

    def section_digest(self, name: str) -> str:
        """Digest of one section, from the index."""
        return str(self._sections[name]["digest"])

    def array(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Read-only view (mapped on a local disk) of a section, or of its elements [start, stop)."""
        section = self._sections[name]
        dtype, shape = np.dtype(section["dtype"]), section["shape"]
        if start == 0 and stop is None:
            return np.frombuffer(self._section(name), dtype).reshape(shape)
        row = dtype.itemsize * int(np.prod(shape[1:]))
        stop = shape[0] if stop is None else stop
        data = self._bytes(section["offset"] + start * row, (stop - start) * row)
        return np.frombuffer(data, dtype).reshape([stop - start, *shape[1:]])

    def names(self) -> list[str]:
        """Names of all sections."""
        return list(self._sections)

    def length(self, name: str) -> int:
        """Elements of an array section, along its first axis; from the index."""
        return int(self._sections[name]["shape"][0])

    def check(self) -> None:
        """Read all sections; TornArtifact where one is not what was written."""
        for name in self._sections:
            self._section(name)

    def table(self, name: str) -> pa.Table:
        """An Arrow table section."""
        return pa.ipc.open_stream(pa.py_buffer(self._section(name))).read_all()

    def arrays(self, max_bytes: int | None = None) -> dict[str, np.ndarray]:
        """All array sections by name, or those of at most max_bytes."""
        return {
            name: self.array(name)
            for name, section in self._sections.items()
            if "dtype" in section and (max_bytes is None or section["length"] <= max_bytes)
        }

    def _section(self, name: str) -> Any:
        """A whole section, checked: xxh3 runs at memory speed, and a power loss leaves pages of zeros."""
        section = self._sections[name]
        data = self._bytes(section["offset"], section["length"])
        if xxhash.xxh3_128_hexdigest(data) != section["digest"]:
            raise self._torn()
        return data

    def _far_bytes(self, offset: int, length: int) -> Any:
        """By a request of its own, or with all that lies between it and the tail where that is little."""
        start, end = self._end
        if offset < start and self._n_bytes - offset <= _GATHERED_BYTES:
            end = memoryview(self._read(offset, start) + bytes(end))
            start = offset
            self._end = start, end
        at = offset - start
        return self._read(offset, offset + length) if at < 0 else end[at : at + length]

    def _bytes(self, offset: int, length: int) -> Any:
        path = self._store.local_path(self._name)
        if length == 0:
            return b""
        if path is None:
            return self._far_bytes(offset, length)
        if self._map is None:
            with open(path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return memoryview(self._map)[offset : offset + length]


def _digest(sections: Mapping[str, Mapping[str, Any]], meta: Mapping[str, Any]) -> str:
    parts = {name: [s["digest"], s.get("dtype"), s.get("shape")] for name, s in sections.items()}
    return fingerprint(parts, meta)


def _padded(n_bytes: int) -> int:
    return n_bytes + -n_bytes % _ALIGN
