"""A lock on a store without file locks: an object that says who holds it and is renewed while they live.

Advisory: whoever dies without a word holds it until it expires, and a holder that stands still for longer
may lose it. It saves two runs from doing each other's work; that neither publishes half a result does not
depend on it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from dataselect.core.errors import DataselectError, Locked

if TYPE_CHECKING:
    from dataselect.io.object_store import FsspecStore

_RENEW_S = 20.0
_EXPIRE_S = 120.0
_POLL_S = 2.0


@contextlib.contextmanager
def object_lock(store: FsspecStore, name: str, *, wait: bool = False) -> Iterator[Callable[[], None]]:
    """Hold the lock `name` of the store; gives what raises Locked if another took it meanwhile.

    Raises Locked where another has it; with `wait`, waits its turn.
    """
    lock = _Lock(store, name)
    while (other := lock.take()) is not None:
        if not wait:
            left = max(0, round(_EXPIRE_S - (time.time() - other["renewed"])))
            raise Locked(
                f"{store.url}: another run is writing to this output folder (process {other['pid']} on "
                f"{other['host']}); if that was killed, its lock expires in {left} s"
            )
        time.sleep(_POLL_S)
    lock.start()
    try:
        yield lock.check
    finally:
        lock.release()


class _Lock:
    def __init__(self, store: FsspecStore, name: str) -> None:
        self._store, self._name = store, name
        self._me = {"owner": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid()}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def take(self) -> dict[str, Any] | None:
        """None when it is ours now, else who has it."""
        holder = self._holder()
        if holder is not None and time.time() - holder["renewed"] > _EXPIRE_S:
            self._store.delete(self._name)
            holder = None
        if holder is None:
            self._store.put_new(self._name, self._record())
            # Where the store has no conditional puts, or a put was repeated, this says whose it became.
            holder = self._holder()
        if holder is None:  # given back just now
            return self.take()
        return None if holder["owner"] == self._me["owner"] else holder

    def start(self) -> None:
        self._thread.start()

    def check(self) -> None:
        """Locked where another took it, because it could not be renewed in time."""
        holder = self._holder()
        if holder is None or holder["owner"] != self._me["owner"]:
            raise Locked(f"{self._store.url}: this run's lock expired and another run took it; run it again")

    def release(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(DataselectError):  # it expires by itself
            holder = self._holder()
            if holder is not None and holder["owner"] == self._me["owner"]:
                self._store.delete(self._name)

    def _holder(self) -> dict[str, Any] | None:
        try:
            record = json.loads(self._store.read(self._name))
            return {"owner": "", "host": "?", "pid": "?", **record, "renewed": float(record["renewed"])}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):  # not ours, or cut off: gone when it expires
            entry = self._store.stat(self._name)
            return None if entry is None else {"owner": "", "host": "?", "pid": "?", "renewed": 0.0}

    def _record(self) -> bytes:
        return json.dumps({**self._me, "renewed": time.time()}).encode()

    def _renew(self) -> None:
        while not self._ended.wait(_RENEW_S):
            with contextlib.suppress(DataselectError):  # the next time, perhaps; `check` tells in the end
                self.check()
                with self._store.commit(self._name) as file:
                    file.write(self._record())
