"""Stores that are no file system: s3://, gs://, abfs://, hf://, memory:// and whatever else fsspec reaches.

Credentials, endpoints and regions are those of the environment, as each store's own tools find them. What
is written appears with one put, or with the completion of a multipart upload. Reads are ranges, fetched
ahead of a reader that goes forward. A request that fails for a passing reason is repeated.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from dataselect.core.errors import DataselectError, StoreError
from dataselect.io.file_systems import (
    describe,
    file_size,
    file_system,
    forget,
    fsspec_version,
    is_s3,
    knows_suffix_ranges,
    range_getter,
    reads_at_once,
)
from dataselect.io.lean_s3 import LeanS3, lean_s3
from dataselect.io.patience import REPLACED, patiently, status_of, whole
from dataselect.io.range_reader import Buffer, RangeReader
from dataselect.io.store import Entry, explained

_SPOOL_BYTES = 16 << 20  # a commit up to this size waits in memory and is one put, a larger one in a file
_PART_BYTES = 16 << 20  # of a multipart upload, which has at most 10,000 of them: 156 GiB

T = TypeVar("T")


class FsspecStore:
    """A folder of any fsspec file system; see `io.store.Store`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._fs, self._root = file_system(self.url)
        bucket, _, self._prefix = self._root.partition("/")
        self._lean = lean_s3(self._fs, bucket) if is_s3(self._fs) else None

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _do(self, name: str, request: Callable[..., T], *args: Any, **options: Any) -> T:
        return patiently(f"{self.url}/{name}", lambda: request(*args, **options))

    def list(self, prefix: str = "") -> Iterator[Entry]:
        forget(self._fs)
        try:
            found = self._do(prefix, self._fs.find, self._path(prefix), detail=True)
        except FileNotFoundError:
            return
        for path, info in dict(found).items():  # adlfs answers [] for none
            yield self._entry(path[len(self._root) :].lstrip("/"), info)

    def stat(self, name: str) -> Entry | None:
        try:
            if head := self._head(name):
                return head
            info = self._do(name, describe, self._fs, self._path(name))
        except FileNotFoundError:
            return None
        return self._entry(name, info) if info["type"] == "file" else None

    def _entry(self, name: str, info: dict[str, Any]) -> Entry:
        return Entry(name, file_size(f"{self.url}/{name}", info), fsspec_version(info))

    def _head(self, name: str) -> Entry | None:
        """By a lean request; None where there is no such client."""
        head = None if self._lean is None else self._lean.head(self._key(name))
        return None if head is None else Entry(name, head.size, head.etag)

    def exists(self, name: str) -> bool:
        if not knows_suffix_ranges(self._fs):
            return self.stat(name) is not None
        try:
            return self.read(name, -1) is not None
        except FileNotFoundError:
            return False

    def open(self, name: str) -> BinaryIO:
        return self.opened(name)[1]

    def opened(self, name: str) -> tuple[Entry, BinaryIO]:
        if entry := self._head(name):
            return entry, cast("BinaryIO", RangeReader(self._lean_fetch(entry), entry.size))
        if is_s3(self._fs):
            return self._opened_s3(name)
        entry, fetch = self._ranges(name)
        return entry, cast("BinaryIO", RangeReader(fetch, entry.size, lambda: self._check_unchanged(entry)))

    def _lean_fetch(self, entry: Entry) -> Callable[[int, int], Buffer]:
        lean, key = cast("LeanS3", self._lean), self._key(entry.name)

        def fetch(start: int, stop: int) -> Buffer:
            data = lean.get(key, start, stop, entry.version)
            if data is not None and len(data) == stop - start:
                return data
            now, reader = self._opened_s3(entry.name)
            if now.version != entry.version:
                raise StoreError(f"{self.url}/{entry.name}: {REPLACED}")
            with reader:
                reader.seek(start)
                return reader.read(stop - start)

        return fetch

    def _opened_s3(self, name: str) -> tuple[Entry, BinaryIO]:
        """Its ranges ask for the version that it was opened at (If-Match)."""
        forget(self._fs)
        file = self._do(name, self._fs.open, self._path(name), "rb", cache_type="none")
        entry = self._entry(name, file.details)
        return entry, cast("BinaryIO", RangeReader(self._fetch(name, file._fetch_range), entry.size))  # noqa: SLF001

    def _ranges(self, name: str) -> tuple[Entry, Callable[[int, int], bytes]]:
        entry = self.stat(name)
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.url}/{name}")
        return entry, self._fetch(name, range_getter(self._fs, self._path(name), entry.size))

    def _fetch(self, name: str, get: Callable[[int, int], bytes]) -> Callable[[int, int], bytes]:
        return lambda start, stop: self._do(name, lambda: whole(get(start, stop), stop - start))

    def _check_unchanged(self, entry: Entry) -> None:
        """StoreError where the file is another one now: its ranges may be of both."""
        now = self.stat(entry.name)
        if now is None or not entry.is_like(now):
            raise StoreError(f"{self.url}/{entry.name}: {REPLACED}")

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        if not reads_at_once(self._fs, start, stop):
            entry, fetch = self._ranges(name)
            start = max(0, entry.size + start) if start < 0 else start
            stop = entry.size if stop is None else min(stop, entry.size)
            return fetch(start, stop) if start < stop else b""
        forget(self._fs)

        def get() -> bytes:
            if self._lean is not None:
                data = self._lean.get(self._key(name), start, stop)
                if data is not None and (stop is None or len(data) == stop - start):
                    return bytes(data)
            try:
                data = bytes(self._fs.cat_file(self._path(name), start=start, end=stop))
            except Exception as error:
                if status_of(error) == 416:  # a range of an empty object
                    return b""
                raise
            # Some emulators of GCS send all of a file whose end is asked for.
            return whole(data, stop - start) if stop is not None else data[min(start, 0) :]

        return self._do(name, get)

    @contextmanager
    def commit(self, name: str) -> Iterator[BinaryIO]:
        # Spooled, because not every file system can discard what is written (memory:// can't), and so that
        # an upload that fails can begin again.
        url = f"{self.url}/{name}"
        with self._writing(name), tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
            yield cast("BinaryIO", spool)
            patiently(url, lambda: self._put(name, cast("BinaryIO", spool)), at_least=3)

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        url = f"{self.url}/{name}"
        try:
            with explained(url):
                yield
        except DataselectError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise StoreError(f"{url}: cannot write: there is no such bucket or container") from error
            raise

    def _put(self, name: str, spool: BinaryIO) -> None:
        n_bytes = spool.seek(0, 2)
        spool.seek(0)
        if n_bytes <= _SPOOL_BYTES:
            data = spool.read()
            if self._lean is None or not self._lean.put(self._key(name), data):
                self._fs.pipe_file(self._path(name), data)
            return
        file = self._fs.open(self._path(name), "wb", autocommit=False, block_size=_PART_BYTES)
        try:
            shutil.copyfileobj(spool, file, 1 << 20)
            file.close()
            file.commit()
        except BaseException:
            with contextlib.suppress(Exception):  # what went wrong first is what to tell, and to repeat
                file.discard()
            raise

    def put_new(self, name: str, data: bytes) -> bool:
        with self._writing(name):
            try:
                self._do(name, self._fs.pipe_file, self._path(name), data, mode="create")
            except FileExistsError:
                return False
            except StoreError as error:
                if status_of(error) == 409:  # S3's answer while another is making it
                    return False
                raise
        return True

    def delete(self, name: str) -> None:
        with explained(f"{self.url}/{name}"):
            try:
                self._do(name, self._fs.rm_file, self._path(name))
            except FileNotFoundError:
                return

    def copy(self, source: str, name: str) -> None:
        with explained(f"{self.url}/{name}"):  # `copy` would take * and [ as patterns
            self._do(name, self._fs.cp_file, self._path(source), self._path(name))

    def local_path(self, name: str) -> Path | None:
        return None
