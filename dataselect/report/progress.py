"""Progress on stderr: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from dataselect.core.listener import Listener

_LINE_SECONDS = 30.0
_FIRST_LINE_SECONDS = 5.0


class Progress(Listener):
    """A bar for every phase that runs tasks, in bytes of shards, with documents and text MB/s beside."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._bar: tqdm[Any] | None = None
        self._last_line = time.monotonic() - _LINE_SECONDS + _FIRST_LINE_SECONDS

    def phase(self, name: str, n_tasks: int, n_run: int, n_bytes: int) -> None:
        self._name, self._n_run, self._n_done = name, n_run, 0
        self._n_docs = self._n_text_bytes = self._store_bytes = 0
        self._total, self._ratio = n_bytes, 3.0
        self._started = time.monotonic()
        if self._terminal and not self._quiet:
            total, unit = (n_bytes, "B") if n_bytes else (n_run, "task")
            self._bar = tqdm(total=total, desc=name, unit=unit, unit_scale=True, leave=False, file=sys.stderr)

    def progress(self, n_docs: int, n_bytes: int) -> None:
        self._n_docs += n_docs
        self._n_text_bytes += n_bytes
        self._show()

    def task_done(self, name: str, n_bytes: int, figures: Mapping[str, Any]) -> None:
        self._n_done += 1
        self._store_bytes += n_bytes
        if self._store_bytes:
            # Text bytes for a byte on the store, from the tasks done: makes a bar of what is under way.
            self._ratio = max(1.0, self._n_text_bytes / self._store_bytes)
        self._show()

    def _show(self) -> None:
        read = min(self._total, max(self._store_bytes, int(self._n_text_bytes / self._ratio)))
        seconds = max(time.monotonic() - self._started, 1e-3)
        text = f"{self._n_docs:,} docs, {self._n_text_bytes / 1e6 / seconds:.0f} MB/s"
        if self._bar is not None:
            self._bar.n = read if self._total else self._n_done
            self._bar.set_postfix_str(text if self._total else "", refresh=True)
        elif not self._quiet and time.monotonic() - self._last_line > _LINE_SECONDS:
            self._last_line = time.monotonic()
            print(
                self._line(read / self._total, text, seconds) if self._total else self._tasks(),
                file=sys.stderr,
            )

    def _tasks(self) -> str:
        return f"{self._name}: {self._n_done}/{self._n_run} tasks"

    def _line(self, share: float, text: str, seconds: float) -> str:
        left = f", about {seconds * (1 - share) / share:.0f} s left" if share > 0.01 else ""
        return f"{self._tasks()}, {share:.0%}, {text}{left}"

    def phase_done(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def note(self, text: str) -> None:
        print(text, file=sys.stderr)
