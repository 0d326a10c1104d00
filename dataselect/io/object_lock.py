"""A lock on a store without file locks: an object that says who holds it and is renewed while they live.

Advisory: whoever dies without a word holds it until it expires, and a holder that stands still for longer
may lose it. It saves two runs from doing each other's work; that neither publishes half a result does not
depend on it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from dataselect.core.errors import DataselectError, Locked
from dataselect.io.heartbeat import Heartbeat, read_record
from dataselect.io.store import Store

_RENEW_S = 20.0
_EXPIRE_S = 120.0


@contextlib.contextmanager
def object_lock(store: Store, name: str) -> Iterator[Callable[[], None]]:
    """Hold the lock `name` of the store; gives what raises Locked if another took it meanwhile.

    Raises Locked where another has it.
    """
    lock = _Lock(store, name)
    if (other := lock.take()) is not None:
        left = max(0, round(_EXPIRE_S - (time.time() - other["renewed"])))
        raise Locked(
            f"{store.url}: another run is writing to this output folder (process {other['pid']} on "
            f"{other['host']}); if that was killed, its lock expires in {left} s"
        )
    lock.start()
    try:
        yield lock.check
    finally:
        lock.release()


class _Lock:
    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        self._heartbeat = Heartbeat(store, name)

    def take(self) -> dict[str, Any] | None:
        """None when it is ours now, else who has it."""
        holder = read_record(self._store, self._name)
        if holder is not None and time.time() - holder["renewed"] > _EXPIRE_S:
            self._store.delete(self._name)
            holder = None
        if holder is None:
            self._store.put_new(self._name, self._heartbeat.record())
            # Where the store has no conditional puts, or a put was repeated, this says whose it became.
            holder = read_record(self._store, self._name)
        if holder is None:  # given back just now
            return self.take()
        return None if holder["owner"] == self._heartbeat.owner else holder

    def start(self) -> None:
        self._heartbeat.start(_RENEW_S, self._renew)

    def check(self) -> None:
        """Locked where another took it, because it could not be renewed in time."""
        holder = read_record(self._store, self._name)
        if holder is None or holder["owner"] != self._heartbeat.owner:
            raise Locked(f"{self._store.url}: this run's lock expired and another run took it; run it again")

    def release(self) -> None:
        self._heartbeat.stop()
        with contextlib.suppress(DataselectError):  # it expires by itself
            holder = read_record(self._store, self._name)
            if holder is not None and holder["owner"] == self._heartbeat.owner:
                self._store.delete(self._name)

    def _renew(self) -> None:
        self.check()  # not after another took it; `check` says so in the end
        self._heartbeat.renew()
