"""A folder for one training, and the moment in which model and card appear."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from dataselect.core.errors import Locked


@contextlib.contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """An empty hidden folder beside `out`, removed at the end.

    It is locked for as long as this process lives; what a killed training left in it is removed by the next
    one. Raises Locked where another process trains the same model.
    """
    folder = out.with_name(f".{out.name}.training")
    lock = _locked(folder)
    try:
        _clear(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(folder: Path) -> int:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Locked(
                f"{folder}: another process trains this model; wait for it, or use another --out"
            ) from None
        # The holder before may have removed the folder between the open and the lock.
        with contextlib.suppress(FileNotFoundError):
            if os.stat(folder).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def commit(files: Mapping[Path, Path], card: Path) -> None:
    """Move each source to its target, whole and durably; the card among them last.

    An old card goes first: whenever a card is there, it describes the model beside it.
    """
    for source in files:
        with source.open("rb+") as file:
            os.fsync(file.fileno())
    card.unlink(missing_ok=True)
    for source, target in sorted(files.items(), key=lambda item: item[1] == card):
        source.replace(target)
    descriptor = os.open(card.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
