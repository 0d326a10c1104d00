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
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from dataselect.core.errors import DataselectError


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a store."""

    name: str
    size: int
    """Bytes."""
    version: str
    """Modification time in ns or ETag."""


class Store(Protocol):
    """Files under one root, by names with '/' as separator."""

    url: str

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """All files whose name starts with the folder `prefix`, in any order."""

    def stat(self, name: str) -> Entry | None:
        """The file, or None where there is none."""

    def open(self, name: str) -> BinaryIO:
        """A seekable reader; FileNotFoundError where there is none."""

    def commit(self, name: str) -> AbstractContextManager[BinaryIO]:
        """`with store.commit(name) as f: f.write(...)`: all of it appears at the end, or nothing."""

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

    def open(self, name: str) -> BinaryIO:
        return open(self.root / name, "rb")

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
        for path in self.root.rglob(".tmp-*"):
            if not _writer_lives(path):
                self.delete(path.relative_to(self.root).as_posix())


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


_SPOOL_BYTES = 64 << 20  # a commit up to this size waits in memory, a larger one in a temporary file


class FsspecStore:
    """A folder of any fsspec file system: s3://, gs://, memory://, ..."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url.rstrip("/")
        self._fs, self._root = fsspec.core.url_to_fs(self.url)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def list(self, prefix: str = "") -> Iterator[Entry]:
        self._fs.invalidate_cache()
        try:
            found = self._fs.find(self._path(prefix), detail=True)
        except FileNotFoundError:
            return
        for path, info in found.items():
            name = path[len(self._root) :].lstrip("/")
            yield Entry(name, int(info["size"]), fsspec_version(info))

    def stat(self, name: str) -> Entry | None:
        self._fs.invalidate_cache()
        try:
            info = self._fs.info(self._path(name))
        except FileNotFoundError:
            return None
        if info["type"] != "file":
            return None
        return Entry(name, int(info["size"]), fsspec_version(info))

    def open(self, name: str) -> BinaryIO:
        return cast("BinaryIO", self._fs.open(self._path(name), "rb"))

    @contextmanager
    def commit(self, name: str) -> Iterator[BinaryIO]:
        # Spooled, because not every file system can discard what is written (memory:// can't), and an
        # upload that is only half read by the time of an error would have to be undone.
        with explained(f"{self.url}/{name}"), tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
            yield cast("BinaryIO", spool)
            spool.seek(0)
            file = self._fs.open(self._path(name), "wb", autocommit=False)
            try:
                shutil.copyfileobj(spool, file, 1 << 20)
                file.close()
                file.commit()
            except BaseException:
                file.discard()
                raise

    def delete(self, name: str) -> None:
        with explained(f"{self.url}/{name}"):
            if self._fs.exists(self._path(name)):
                self._fs.rm_file(self._path(name))

    def copy(self, source: str, name: str) -> None:
        with explained(f"{self.url}/{name}"):
            self._fs.cp_file(self._path(source), self._path(name))  # `copy` would take * and [ as patterns

    def local_path(self, name: str) -> Path | None:
        return None


def fsspec_version(info: dict[str, object]) -> str:
    """What changes with the content, from fsspec's description of a file; '' where there is nothing."""
    for field in ("ETag", "etag", "version_id", "md5Hash", "LastModified", "mtime", "created"):
        value = info.get(field)
        if isinstance(value, datetime):  # some file systems list numbers and stat dates
            value = value.timestamp()
        if value:
            return str(value)
    return ""


def store_at(url: str | Path, *, durable: bool = False) -> Store:
    """The store for a path or an fsspec URL."""
    if "://" in str(url) and not str(url).startswith("file://"):
        return FsspecStore(str(url))
    return LocalStore(str(url).removeprefix("file://"), durable=durable)
