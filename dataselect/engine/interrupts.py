"""Signals while Ray waits: it swallows what their handlers raise."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def signals_after() -> Iterator[None]:
    """Handlers of SIGINT and SIGTERM that come meanwhile are called at the end, however that comes.

    Ray's waiting swallows what a handler raises (all but KeyboardInterrupt), and its start puts a handler of
    its own in the place of ours. So this is put around its calls, none of which may take long.
    """
    numbers = [signal.SIGINT, signal.SIGTERM] if threading.current_thread() is threading.main_thread() else []
    found = {number: signal.getsignal(number) for number in numbers}
    handlers = {number: handler for number, handler in found.items() if callable(handler)}
    came: list[int] = []
    for number in handlers:
        signal.signal(number, lambda which, _: came.append(which))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for which in came:
            handlers[signal.Signals(which)](which, None)
