"""Many coordinators, one run: processes on machines that share a store take tasks by claiming them.

Every participant walks the same plan. Before it runs a task it makes the task's claim, which only one can
make; when it is done it leaves the task's result beside it. Participants wait for what others claimed, and
take over what was claimed by one who is gone. See `io.claims` for what that costs and what it can't break.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from dataselect.core.fingerprint import fingerprint
from dataselect.engine.job import Job
from dataselect.engine.local import LocalEngine
from dataselect.engine.nodes import node_versions
from dataselect.engine.tasks import Progress, Task, no_progress
from dataselect.io.claims import Board, Claims
from dataselect.io.store import is_far, store_at

_PAUSE_S = (0.2, 2.0)
"""Between two looks at what others do: at first, and after long waiting. On a disk."""
_FAR_PAUSE_S = (1.0, 10.0)
"""The same on an object store, where a look is a listing."""
_PATIENCE = 10
"""A pause is this part of the time waited so far."""


class SharedEngine:
    """Runs tasks on local processes, together with all others that run the same recipe on this work store.

    run_key names the run: participants with the same one share its tasks.
    """

    def __init__(self, job: Job, n_workers: int, run_key: str) -> None:
        self._inner = LocalEngine(job, n_workers)
        self.n_workers = n_workers
        work = store_at(job.work)
        self._claims = Claims(work, run_key, node_versions())
        self._pauses = _FAR_PAUSE_S if is_far(work) else _PAUSE_S

    def __enter__(self) -> SharedEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        self._inner.__exit__(*exc)
        self._claims.close(finished=exc[0] is None)

    def run(self, tasks: Sequence[Task], progress: Progress = no_progress) -> Iterator[tuple[int, Any]]:
        """As `tasks.Engine` says; results of tasks that others ran are as they left them."""
        if not tasks:
            return
        self._claims.open()
        left = {index: _name(task) for index, task in enumerate(tasks)}
        waits_since = time.monotonic()
        while left:
            n_left, looked = len(left), time.monotonic()
            board = self._look(left)
            for index, result in self._found(left, board):
                del left[index]
                yield index, result
            order: list[int] = []
            for k, result in self._inner.run(self._claimed(tasks, left, board, order), progress):
                self._claims.finish(left.pop(order[k]), result)
                yield order[k], result
            if len(left) < n_left:
                waits_since = time.monotonic()
            elif left:
                self._pause(waits_since, looked)

    def _look(self, left: dict[int, str]) -> Board:
        return self._claims.look(sorted({name.rpartition("/")[0] for name in left.values()}))

    def _found(self, left: dict[int, str], board: Board) -> list[tuple[int, Any]]:
        found = [(index, name) for index, name in left.items() if name in board.done]
        results = self._claims.results([name for _, name in found])
        return [(i, result) for (i, _), result in zip(found, results, strict=True) if result is not None]

    def _claimed(
        self, tasks: Sequence[Task], left: dict[int, str], board: Board, order: list[int]
    ) -> Iterator[Task]:
        """Tasks that nobody else runs, claimed as they are taken; `order` gets their indices.

        Every participant goes through them in an order of its own, so that two rarely reach for the same.
        """
        looked = time.monotonic()
        for index, name in sorted(left.items(), key=lambda item: fingerprint(self._claims.owner, item[1])):
            if name in board.done or name in board.claims:
                continue
            if self._claims.take(name, 0):
                order.append(index)
                yield tasks[index]
            elif time.monotonic() - looked > self._pauses[0]:
                board, looked = self._look(left), time.monotonic()
        if time.monotonic() - looked > self._pauses[0]:
            board = self._look(left)
        indices = {name: index for index, name in left.items()}
        others = {name: n for name, n in board.claims.items() if name in indices and name not in board.done}
        for name in self._claims.abandoned(others):
            if self._claims.take(name, others[name] + 1):
                order.append(indices[name])
                yield tasks[indices[name]]

    def _pause(self, waits_since: float, looked: float) -> None:
        """Wait: longer the longer it takes, and at least as long as a look does."""
        now, (least, most) = time.monotonic(), self._pauses
        time.sleep(max(now - looked, min(most, max(least, (now - waits_since) / _PATIENCE))))

    def forget(self) -> None:
        """Results are not to be trusted: an artifact that one of them names is damaged."""
        self._claims.forget()


def _name(task: Task) -> str:
    return f"{task.function.replace(':', '.')}/{fingerprint(task.function, repr(task.call))}"
