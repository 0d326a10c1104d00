"""Where the time of a task goes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")


class Clock:
    """Seconds of wall time by part. Whoever did some work books the time since the last lap on its part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        """Book the time since the last lap on `part`."""
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
        self._last = now

    def laps(self, part: str, items: Iterable[_T]) -> Iterator[_T]:
        """The items; the time it takes to get each is booked on `part`, after the consumer's own laps."""
        for item in items:
            self.lap(part)
            yield item
        self.lap(part)
