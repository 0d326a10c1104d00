"""One way to reach files: list, stat, read, commit. Nothing else, so that object stores fit.

A commit is whole or absent: on a local disk a temporary file that replaces the target, elsewhere one
upload that becomes visible when it is complete. No renames, no directory semantics, no appends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import stat as stat_modes
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from dataselect.core.errors import DataselectError

S = TypeVar("S")
T = TypeVar("T")
_AT_ONCE = 16  # requests: with 30 ms each, 500 a second
_AHEAD = 8  # pieces, of which a task holds some MB each


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a store."""

    name: str
    size: int
    """Bytes."""
    version: str
    """Modification time in ns, ETag, or what else changes with the content. Where a store tells nothing of
    the kind it is '?' and a random number, so that nothing made of the file is taken for current later."""

    def is_like(self, other: Entry) -> bool:
        """Whether the other is the same file, unchanged, as far as the store tells."""
        unknown = self.version[:1] == other.version[:1] == "?"
        return self.size == other.size and (unknown or self.version == other.version)


class Store(Protocol):
    """Files under one root, by names with '/' as separator."""

    url: str

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """All files whose name starts with the folder `prefix`, in any order."""

    def stat(self, name: str) -> Entry | None:
        """The file, or None where there is none."""

    def exists(self, name: str) -> bool:
        """Whether there is a file; cheaper than `stat` on object stores where there is none."""

    def open(self, name: str) -> BinaryIO:
        """A seekable reader; FileNotFoundError where there is none."""

    def opened(self, name: str) -> tuple[Entry, BinaryIO]:
        """The file as it is now, and a reader of just that: on an object store one request, not two."""

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes [start, stop), by one request; start < 0 counts from the end. FileNotFoundError as `open`."""

    def commit(self, name: str) -> AbstractContextManager[BinaryIO]:
        """`with store.commit(name) as f: f.write(...)`: all of it appears at the end, or nothing."""

    def put_new(self, name: str, data: bytes) -> bool:
        """Write a small file where there is none; whether it was written.

        One step on disks and on object stores with conditional writes; elsewhere a look and a write.
        """

    def delete(self, name: str) -> None:
        """Remove the file; silent where there is none."""

    def copy(self, source: str, name: str) -> None:
        """Make `name` the same file as `source`: a hard link where the store has them."""

    def local_path(self, name: str) -> Path | None:
        """The file's path where it can be memory-mapped, else None."""


_REASONS = {
    errno.ENOSPC: "the disk is full; free space or move it, then run the same command again",
    errno.EDQUOT: "the disk quota is used up; free space or move it, then run the same command again",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENAMETOOLONG: "the name is too long for this file system",
}


_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn an OSError on writing `path` into one sentence."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, str(error.strerror or error))
        raise DataselectError(f"{path}: cannot write: {reason}") from error


class LocalStore:
    """A folder on a local or shared disk."""

    def __init__(self, root: str | Path, *, durable: bool = False) -> None:
        """`durable`: fsync before a commit appears (outputs; work files are verified on reading instead)."""
        self.root = Path(root)
        self.url = str(root)
        self._durable = durable

    def list(self, prefix: str = "") -> Iterator[Entry]:
        stack = [self.root / prefix if prefix else self.root]
        while stack:
            try:
                found = list(os.scandir(stack.pop()))
            except (FileNotFoundError, NotADirectoryError):
                continue
            for item in found:
                if item.is_dir():
                    stack.append(Path(item.path))
                elif not item.name.startswith(".tmp-"):
                    entry = self.stat(Path(item.path).relative_to(self.root).as_posix())
                    if entry is not None:  # else it went away meanwhile, or is a broken link
                        yield entry

    def stat(self, name: str) -> Entry | None:
        try:
            stat = os.stat(self.root / name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat_modes.S_ISDIR(stat.st_mode):
            return None
        return Entry(name, stat.st_size, str(stat.st_mtime_ns))

    def exists(self, name: str) -> bool:
        return (self.root / name).is_file()

    def open(self, name: str) -> BinaryIO:
        return open(self.root / name, "rb")

    def opened(self, name: str) -> tuple[Entry, BinaryIO]:
        file = self.open(name)
        stat = os.fstat(file.fileno())
        return Entry(name, stat.st_size, str(stat.st_mtime_ns)), file

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        try:
            return self._read(name, start, stop)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            return self._read(name, start, stop)  # NFS: another host has replaced the file meanwhile

    def _read(self, name: str, start: int, stop: int | None) -> bytes:
        with self.open(name) as file:
            at = file.seek(
                max(start, -os.fstat(file.fileno()).st_size), os.SEEK_END if start < 0 else os.SEEK_SET
            )
            return file.read() if stop is None else file.read(stop - at)

    @contextmanager
    def commit(self, name: str) -> Iterator[BinaryIO]:
        path = self.root / name
        temporary = path.parent / temporary_name()
        with explained(str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(temporary, "wb") as file:
                    yield file
                    if self._durable:
                        file.flush()
                        os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def put_new(self, name: str, data: bytes) -> bool:
        path = self.root / name
        temporary = path.parent / temporary_name()
        with explained(str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(data)
                os.link(temporary, path)  # whole or not at all, which "x" is not
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return self._put_new_unlinked(path, data)
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def _put_new_unlinked(self, path: Path, data: bytes) -> bool:
        """Where the file system has no hard links: another may see it before it is filled."""
        try:
            with open(path, "xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        return True

    def delete(self, name: str) -> None:
        with explained(str(self.root / name)):
            (self.root / name).unlink(missing_ok=True)

    def copy(self, source: str, name: str) -> None:
        path = self.root / name
        with explained(str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            try:
                os.link(self.root / source, path)
            except OSError:  # no hard links here: some network file systems, other devices
                with open(self.root / source, "rb") as old, self.commit(name) as new:
                    shutil.copyfileobj(old, new, 1 << 20)

    def local_path(self, name: str) -> Path | None:
        return self.root / name

    def sweep(self) -> None:
        """Remove what killed writers left behind: temporary files of processes that are gone."""
        for folder, _, names in os.walk(self.root):  # unlike rglob it does not mind folders that go meanwhile
            for path in (Path(folder, name) for name in names if name.startswith(".tmp-")):
                if not _writer_lives(path):
                    self.delete(path.relative_to(self.root).as_posix())

    def prune(self, prefix: str) -> None:
        """Remove empty folders below `prefix`, and it."""
        for folder, _, _ in os.walk(self.root / prefix, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


_STALE_SECONDS = 3600
"""A file that another host writes is abandoned when nothing was added to it for this long."""


def temporary_name() -> str:
    """For a file that this process writes and then moves: says who writes, for `sweep`."""
    return f".tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}-{socket.gethostname()}"


def _writer_lives(path: Path) -> bool:
    pid, _, host = [*path.name.removeprefix(".tmp-").split("-", 2), "", ""][:3]
    if host and host != socket.gethostname():
        with contextlib.suppress(FileNotFoundError):
            return time.time() - path.lstat().st_mtime < _STALE_SECONDS
        return False
    return pid.isdigit() and _runs(int(pid))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:  # another user's
        return True
    except (OSError, OverflowError):
        return False
    return True


def store_at(url: str | Path, *, durable: bool = False) -> Store:
    """The store for a path or an fsspec URL."""
    path = without_scheme(str(url))
    if "://" in path:
        from dataselect.io.object_store import FsspecStore

        return FsspecStore(path)
    return LocalStore(path, durable=durable)


def each(call: Callable[[S], T], items: Sequence[S], *, far: bool) -> list[T]:
    """[call(item) for item in items]; far: on an object store, so many at a time."""
    if not far:
        return [call(item) for item in items]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(call, items))


def ahead(call: Callable[[S], T], items: Iterable[S], *, far: bool) -> Iterator[T]:
    """call(item) for every item, in order; far: on an object store, so by threads that work ahead.

    At most _AHEAD results are made and not yet taken: of a task that looks at every piece in turn, what it
    holds of that many pieces.
    """
    if not far:
        yield from map(call, items)
        return
    coming: deque[Future[T]] = deque()
    with ThreadPoolExecutor(_AHEAD) as pool:
        try:
            for item in items:
                if len(coming) == _AHEAD:
                    yield coming.popleft().result()
                coming.append(pool.submit(call, item))
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()


def is_far(store: Store) -> bool:
    """Whether every request costs its way there and back, as on an object store."""
    return store.local_path("") is None


def store_of(path: str, *, durable: bool = False) -> tuple[Store, str]:
    """The store of a file's folder, and its name there."""
    folder, _, name = path.rpartition("/")
    return store_at(folder or ("/" if path.startswith("/") else "."), durable=durable), name


def is_file(path: str) -> bool:
    """Whether there is a file at a path or URL."""
    store, name = store_of(path)
    return store.stat(name) is not None


def without_scheme(url: str) -> str:
    """The path of a `file:` URL; anything else as it is."""
    return url.removeprefix("file://") if url.startswith("file://") else url.removeprefix("file:")
