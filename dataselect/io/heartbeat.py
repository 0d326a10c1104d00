"""Signs of life on a store: a small object that says who lives, renewed until they end.

The lock of an output on an object store is one, and every worker of a shared run has one.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from dataselect.core.errors import DataselectError
from dataselect.io.store import Store


class Heartbeat:
    """One participant's record under `name`, and the thread that renews it."""

    def __init__(
        self, store: Store, name: str, owner: str | None = None, about: Mapping[str, Any] | None = None
    ) -> None:
        """about: what else the record says."""
        self.owner = owner or new_owner()
        self._about = dict(about or {})
        self._store, self._name = store, name
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def record(self) -> bytes:
        """Who lives, and when they said so, by their own clock."""
        who = {"owner": self.owner, "host": socket.gethostname(), "pid": os.getpid()}
        return json.dumps({**self._about, **who, "renewed": time.time()}).encode()

    def renew(self) -> None:
        """Write the record anew."""
        with self._store.commit(self._name) as file:
            file.write(self.record())

    def start(self, every_s: float, renew: Callable[[], None] | None = None) -> None:
        """Renew every so-many seconds; one time that fails is made up for by the next."""

        def keep_on() -> None:
            while not self._ended.wait(every_s):
                with contextlib.suppress(DataselectError):
                    (renew or self.renew)()

        self._thread = threading.Thread(target=keep_on, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Renew no more."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()


def new_owner() -> str:
    """A name for a participant that no other has."""
    return uuid.uuid4().hex


def read_record(store: Store, name: str) -> dict[str, Any] | None:
    """owner, host, pid and renewed of a heartbeat; None where there is none.

    One that can't be read (not ours, or cut off) is of nobody, and as old as can be.
    """
    unknown = {"owner": "", "host": "?", "pid": "?"}
    try:
        record = json.loads(store.read(name))
        return {**unknown, **record, "renewed": float(record["renewed"])}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return None if store.stat(name) is None else {**unknown, "renewed": 0.0}
