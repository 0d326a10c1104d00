"""Stores that are no file system: s3://, gs://, abfs://, hf://, memory:// and whatever else fsspec reaches.

Credentials, endpoints and regions are those of the environment, as each store's own tools find them. What
is written appears with one put, or with the completion of a multipart upload. Reads are ranges, fetched
ahead of a reader that goes forward. A request that fails for a passing reason is repeated.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
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
from dataselect.io.store import Entry, explained

TRIES = 5
"""Of a request that fails for a passing reason."""
_FIRST_WAIT_S = 0.5  # then twice as long each time, and half as long to half as long again: 7.5 s in all
_LONG_S = 20.0  # a store's package that has repeated it for so long is believed
_SPOOL_BYTES = 16 << 20  # a commit up to this size waits in memory and is one put, a larger one in a file
_PART_BYTES = 16 << 20  # of a multipart upload, which has at most 10,000 of them: 156 GiB

T = TypeVar("T")
Buffer = bytes | memoryview


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
                raise StoreError(f"{self.url}/{entry.name}: {_REPLACED}")
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
        return lambda start, stop: self._do(name, lambda: _whole(get(start, stop), stop - start))

    def _check_unchanged(self, entry: Entry) -> None:
        """StoreError where the file is another one now: its ranges may be of both."""
        now = self.stat(entry.name)
        if now is None or not entry.is_like(now):
            raise StoreError(f"{self.url}/{entry.name}: {_REPLACED}")

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
                if _status(error) == 416:  # a range of an empty object
                    return b""
                raise
            # Some emulators of GCS send all of a file whose end is asked for.
            return _whole(data, stop - start) if stop is not None else data[min(start, 0) :]

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
            file.discard()
            raise

    def put_new(self, name: str, data: bytes) -> bool:
        with self._writing(name):
            try:
                self._do(name, self._fs.pipe_file, self._path(name), data, mode="create")
            except FileExistsError:
                return False
            except StoreError as error:
                if _status(error) == 409:  # S3's answer while another is making it
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


# Requests that fail ----------------------------------------------------------------------------------------

_PASSING = {
    "ConnectionError",  # botocore: no connection
    "HTTPClientError",  # botocore: one that broke
    "ResponseParserError",
    "IncompleteReadError",
    "ClientError",  # aiohttp; botocore's has a status
    "TransportError",  # httpx, google.auth
    "RequestException",  # requests
    "ServiceRequestError",  # azure
    "ServiceResponseError",
    "ChecksumError",  # gcsfs
}
_LACKS_RIGHTS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "TokenRetrievalError",
    "DefaultCredentialsError",  # google.auth
    "RefreshError",
    "ClientAuthenticationError",  # azure
    "LocalTokenNotFoundError",  # huggingface_hub
}
_ANSWERS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
_REPLACED = "it was replaced while it was read; run the same command again"


def patiently(url: str, request: Callable[[], T], at_least: int = 1) -> T:
    """The request's result; it is repeated, after longer and longer waits, while a failure may pass.

    Passing: throttled (429, 503 SlowDown), any other 5xx, no connection, one that broke, a body cut short.
    Raises StoreError where it fails for good; answers like FileNotFoundError and errors of this machine's
    own (a full disk) are left as they are. at_least: tries of what may take long by itself.
    """
    tries, started = 1, time.monotonic()
    while True:
        try:
            return request()
        except Exception as error:
            why = None if _is_answer(error) else _reason(error)
            if why is None:
                raise
            if not _passes(error):
                raise StoreError(f"{url}: {why}") from error
            if tries == TRIES or (tries >= at_least and time.monotonic() - started > _LONG_S):
                after = f", after {tries} tries" if tries > 1 else ""
                raise StoreError(
                    f"{url}: {why}{after}; run the same command again, it goes on from there"
                ) from error
        time.sleep(_FIRST_WAIT_S * 2 ** (tries - 1) * random.uniform(0.5, 1.5))
        tries += 1


def _is_answer(error: Exception) -> bool:
    """Whether it says how things are. To fsspec's HTTP all that fails is "not found", with the true cause."""
    if not isinstance(error, _ANSWERS):
        return False
    known = _status(error) in (None, 401, 404, 409, 412)
    return error.__cause__ is None or (known and not _passes(error))


class _CutShort(EOFError):
    """A body with fewer bytes than were asked for."""


def _whole(data: bytes, n_bytes: int) -> bytes:
    if len(data) < n_bytes:
        raise _CutShort(f"the answer was cut short ({len(data)} of {n_bytes} bytes)")
    if len(data) > n_bytes:
        raise ValueError("the server sends whole files where ranges are asked for; download it")
    return data


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _status(error: BaseException) -> int | None:
    """HTTP status behind an error of any store's package."""
    for cause in _chain(error):
        if type(cause).__name__ == "ClientPayloadError":  # aiohttp: a body cut short; it calls that a 400
            return None
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0) or None
        if type(cause) is OSError and str(cause).startswith("Forbidden"):  # gcsfs
            return 403
        for holder, field in (
            (response, "status_code"),
            (cause, "status"),
            (cause, "status_code"),
            (cause, "code"),
        ):
            value = getattr(holder, field, None)
            if isinstance(value, int) and 400 <= value < 600:
                return value
    return None


def _kinds(error: BaseException) -> set[str]:
    return {cls.__name__ for cause in _chain(error) for cls in type(cause).__mro__}


def _passes(error: BaseException) -> bool:
    status = _status(error)
    if status is not None:
        return status in (408, 429) or (status >= 500 and status not in (501, 505))
    passing = (TimeoutError, asyncio.TimeoutError, ConnectionError, EOFError)
    return any(isinstance(cause, passing) for cause in _chain(error)) or bool(_kinds(error) & _PASSING)


def _reason(error: BaseException) -> str | None:
    """What went wrong, for a person; None where it is no answer (or silence) of the store."""
    status, kinds = _status(error), _kinds(error)
    told = (error.__cause__ or error) if isinstance(error, _ANSWERS) else error
    text = " ".join(str(told).split()).split(" RequestId:")[0][:300]  # Azure's goes on for lines
    if "FileExpired" in kinds or status == 412:
        return _REPLACED
    if (
        status in (401, 403)
        or kinds & _LACKS_RIGHTS
        or (isinstance(error, PermissionError) and not error.filename)
    ):
        return f"access denied; check the credentials in the environment and what they allow ({text})"
    if status is not None:
        return f"the store answered {status} ({text})"
    if _passes(error):
        return f"the store can't be reached or broke off ({text or type(error).__name__})"
    if isinstance(error, (ValueError, NotImplementedError)):  # what its package makes of an odd request
        return text or "the store does not know how to do this"
    return None


# Reading ---------------------------------------------------------------------------------------------------

_FIRST_BYTES, _MOST_BYTES = 1 << 20, 4 << 20
_WINDOWS = 16  # places that are read at the same time: columns of a Parquet row group
_BUDGET_BYTES = 32 << 20


@dataclass(eq=False)
class _Window:
    """A stretch of the file in memory, and the one behind it on its way."""

    start: int
    data: Buffer
    step: int
    """Bytes to fetch next."""
    ahead: Future[Buffer] | None = None
    ahead_bytes: int = 0

    @property
    def stop(self) -> int:
        return self.start + len(self.data)


class RangeReader(io.RawIOBase):
    """A file by ranges. Reading forward fetches ever larger ranges, the next while this one is used.

    fetch   bytes [start, stop) of the file, all of them; from any thread
    size    bytes
    check   called at the end of `with`, if anything was read: raises where the file was replaced
    Reads of several places at a time have a window each, as the columns of a Parquet file need. Memory:
    at most about 64 MB, 8 MB for one that reads from the start to the end.
    """

    def __init__(
        self, fetch: Callable[[int, int], Buffer], size: int, check: Callable[[], None] | None = None
    ) -> None:
        self._fetch, self._size, self._check = fetch, size, check
        self._at = 0
        self._windows: list[_Window] = []  # the one used last comes first

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._at = base + offset
        return self._at

    def read(self, n_bytes: int | None = -1, /) -> bytes:
        parts = list(self._parts(-1 if n_bytes is None else n_bytes))
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any, /) -> int:
        view, n_read = memoryview(buffer).cast("B"), 0
        for part in self._parts(len(view)):
            view[n_read : n_read + len(part)] = part
            n_read += len(part)
        return n_read

    def _parts(self, n_bytes: int) -> Iterator[memoryview]:
        """Views of the next bytes, all of them where n_bytes < 0."""
        left = max(0, self._size - self._at)
        left = left if n_bytes < 0 else min(left, n_bytes)
        while left:
            window = self._window(self._at, left)
            first = self._at - window.start
            part = memoryview(window.data)[first : first + left]
            yield part
            self._at += len(part)
            left -= len(part)

    def close(self) -> None:
        for window in self._windows:
            if window.ahead is not None:
                window.ahead.cancel()
        self._windows.clear()
        super().close()

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        was_read = bool(self._windows)
        self.close()
        # Not for who stops reading, nor in `close`: finalizers call it, when no request comes back any more.
        if was_read and self._check is not None and kind is not GeneratorExit:
            self._check()

    def _window(self, at: int, wanted: int) -> _Window:
        """One that holds byte `at`; `wanted` bytes will be read from there."""
        for window in self._windows:
            if window.start <= at < window.stop:
                break
            # Readers that skip a little (from one block's head to the next's) go forward, too.
            if window.stop <= at < window.stop + max(window.ahead_bytes, 1):
                self._advance(window, at, wanted)
                break
        else:
            n_bytes = min(max(_FIRST_BYTES, min(wanted, _MOST_BYTES)), self._size - at)
            window = _Window(at, self._fetch(at, at + n_bytes), n_bytes)
            # Any bytes that follow soon are part of the same walk.
            window.ahead_bytes = window.step
            self._windows = self._windows[: _WINDOWS - 1]
        if self._windows[:1] != [window]:
            self._windows = [window, *(other for other in self._windows if other is not window)]
        return window

    def _advance(self, window: _Window, at: int, wanted: int) -> None:
        most = min(_MOST_BYTES, _BUDGET_BYTES // len(self._windows))
        window.step = min(2 * window.step, most)
        if window.ahead is not None:
            window.start, window.data = window.stop, window.ahead.result()
        else:
            stop = min(max(window.stop + window.step, at + min(wanted, _MOST_BYTES)), self._size)
            window.start, window.data = window.stop, self._fetch(window.stop, stop)
        window.ahead, window.ahead_bytes = None, min(window.step, self._size - window.stop)
        if window.ahead_bytes:
            window.ahead = _pool(os.getpid()).submit(
                self._fetch, window.stop, window.stop + window.ahead_bytes
            )


@lru_cache(maxsize=1)
def _pool(_pid: int) -> ThreadPoolExecutor:
    """Threads that fetch ahead; a forked process gets its own."""
    return ThreadPoolExecutor(_WINDOWS, thread_name_prefix="read-ahead")
