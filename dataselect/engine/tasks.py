"""What an engine runs and must do: the contract that `tests/test_engines.py` holds every engine to."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from dataselect.core.errors import DataselectError, TaskFailed
from dataselect.engine.job import Context

TRIES = 3
"""A task whose worker dies is tried this often."""


@dataclass(frozen=True)
class Task:
    """One call of a task function."""

    name: str
    """For people: 'read 1 raw-0001.jsonl.zst'."""
    function: str
    """'module:function' within dataselect.engine; called with (context, call)."""
    call: Any
    """Picklable arguments."""
    memory_bytes: int = 1 << 30
    """What it needs at most, about, for engines that place tasks by memory: readers stay below 600 MB."""


Progress = Callable[[int, int], None]
"""Called with documents and bytes read since the last call."""


def no_progress(n_docs: int, n_bytes: int) -> None:
    """For those who don't listen."""


class Engine(Protocol):
    """Runs tasks; use as a context manager."""

    n_workers: int
    """Tasks at a time, about."""

    def __enter__(self) -> Engine:
        """Nothing is started before the first task."""

    def __exit__(self, *exc: object) -> None:
        """Stop whatever still runs."""

    def run(self, tasks: Sequence[Task], progress: Progress = no_progress) -> Iterator[tuple[int, Any]]:
        """Yield (index of the task, its result) as tasks finish, in any order.

        A DataselectError of a task is raised here at once. A task whose worker dies is tried three times,
        then DataselectError names it. Every task runs at least once; its artifacts are committed whole.
        """


def execute(context: Context, task: Task) -> Any:
    """The task's result. DataselectError for whatever it raises: other errors may not pickle."""
    context.begin()
    try:
        module, name = task.function.split(":")
        return getattr(importlib.import_module(f"dataselect.engine.{module}"), name)(context, task.call)
    except Exception as error:  # noqa: BLE001 - whatever a stage raises must reach the coordinator
        context.failed()
        raise _reported(task, error) from None


def _reported(task: Task, error: Exception) -> DataselectError:
    if type(error).__module__ == DataselectError.__module__:
        return cast("DataselectError", error)
    if isinstance(error, MemoryError):
        return DataselectError(f"{task.name}: out of memory; try fewer --workers")
    if isinstance(error, OSError) and error.strerror:
        return DataselectError(f"{task.name}: {error.filename or 'a file'}: {error.strerror}")
    return TaskFailed(f"{task.name}: {type(error).__name__}: {error}\n{traceback.format_exc()}")


def died(task: Task, how: str) -> DataselectError:
    """The error for a task whose worker died too often."""
    return DataselectError(
        f"{task.name}: its worker process died {TRIES} times ({how}); often this is the system's "
        "out-of-memory killer: try fewer --workers or a smaller input.piece_bytes"
    )
