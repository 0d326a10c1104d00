"""How a run tells what it does; progress bars and figures listen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Listener:
    """Hears nothing; derive from it and override what you need."""

    def phase(self, name: str, n_tasks: int, n_run: int, n_bytes: int) -> None:
        """A phase begins: n_run of its n_tasks run, and read n_bytes (as on the store)."""

    def progress(self, n_docs: int, n_bytes: int) -> None:
        """Documents and uncompressed bytes read since the last call."""

    def task_done(self, name: str, n_bytes: int, figures: Mapping[str, Any]) -> None:
        """A task finished; n_bytes as it was counted in `phase`."""

    def phase_done(self) -> None:
        """The phase is complete."""

    def note(self, text: str) -> None:
        """One line for people."""
