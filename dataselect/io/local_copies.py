"""Copies of models on this machine's disk: what is mapped into memory must lie on one.

One copy a machine, shared by all its workers, in a folder of the user's below the temporary folder. What
was not used for a day goes when another copy comes, and so does the longest unused until the rest fits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from dataselect.core.errors import DataselectError
from dataselect.core.fingerprint import fingerprint
from dataselect.io.store import LocalStore, Store, explained, store_of

_MOST_BYTES = 16 << 30
_UNUSED_S = 24 * 3600.0


def local_file(path: str) -> Path:
    """The file of a path or URL on this machine's disk; FileNotFoundError where there is none."""
    return local_copy(*store_of(path))


def local_copy(store: Store, name: str) -> Path:
    """The file itself where it lies on a disk, else its copy, fetched where this machine has none yet.

    A copy that is open or mapped stays readable when it is removed here.
    """
    local = store.local_path(name)
    if local is not None:
        return local
    entry = store.stat(name)
    if entry is None:
        raise FileNotFoundError(f"{store.url}/{name}")
    if entry.version.startswith("?"):
        raise DataselectError(
            f"{store.url}/{name}: the store tells neither version nor time of this file, so nobody would "
            "notice that a copy is out of date; download it, and name the copy"
        )
    key = fingerprint(store.url, name, entry.size, entry.version)
    copies = LocalStore(copies_folder())
    place = f"{key}/{name.rpartition('/')[2]}"
    path = copies.root / place
    with _alone(copies.root / f"{key}.lock"):
        if not path.exists():
            _make_room(copies.root, entry.size)
            with store.open(name) as source, copies.commit(place) as file:
                shutil.copyfileobj(source, file, 4 << 20)
        with contextlib.suppress(OSError):
            os.utime(path.parent)  # used now
    return path


def forget(path: Path) -> None:
    """Remove a copy that turned out to be damaged."""
    if path.parent.parent == copies_folder():
        shutil.rmtree(path.parent, ignore_errors=True)


@lru_cache(maxsize=1)
def copies_folder() -> Path:
    """Where the copies are: nobody else may write there."""
    folder = Path(tempfile.gettempdir()) / f"dataselect-copies-{os.getuid()}"
    with explained(str(folder)):
        folder.mkdir(mode=0o700, exist_ok=True)
        stat = folder.stat(follow_symlinks=False)
    if stat.st_uid != os.getuid() or stat.st_mode & 0o077:
        raise DataselectError(f"{folder}: is not a folder of yours alone; remove it, or set TMPDIR")
    return folder


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process of this machine at a time."""
    with explained(str(lock)), lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_room(root: Path, n_bytes: int) -> None:
    """Remove old copies; DataselectError where the disk has no room."""
    found = [(path.stat().st_mtime, path) for path in root.iterdir() if path.is_dir()]
    sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for _, path in found}
    most = min(_MOST_BYTES, sum(sizes.values()) + shutil.disk_usage(root).free)
    left = sum(sizes.values()) + n_bytes
    for used, path in sorted(found):
        if left > most or time.time() - used > _UNUSED_S:
            shutil.rmtree(path, ignore_errors=True)
            path.with_name(path.name + ".lock").unlink(missing_ok=True)
            left -= sizes[path]
    if n_bytes > shutil.disk_usage(root).free:
        raise DataselectError(
            f"{root}: no room for a copy of a model of {n_bytes / 1e9:.1f} GB; free space, or set TMPDIR"
        )
