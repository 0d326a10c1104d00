"""A file read by ranges, ahead of a reader that goes forward."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

Buffer = bytes | memoryview
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
