"""Many coordinators, one run: processes on machines that share a file system take tasks by claiming them.

Every participant walks the same plan. Before it runs a task it makes the task's claim, a file that only one
can make; when it is done it leaves the task's result beside it. Participants wait for what others claimed. A
claim whose owner stopped touching it has expired and may be taken. Two that run the same task do no harm:
tasks are pure and commit whole, so claims save work and decide nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dataselect.core.errors import RecipeError
from dataselect.core.fingerprint import fingerprint
from dataselect.engine.job import Job
from dataselect.engine.local import LocalEngine
from dataselect.engine.tasks import Progress, Task, no_progress
from dataselect.io.store import LocalStore, store_at

CLAIMS = "claims"
_TOUCH_SECONDS = 5.0
_EXPIRES_SECONDS = 60.0
_POLL_SECONDS = 0.5


class SharedEngine:
    """Runs tasks on local processes, together with all others that run the same recipe on this work folder.

    run_key names the run: its claims and results are in claims/<run_key>/ of the work folder.
    """

    def __init__(self, job: Job, n_workers: int, run_key: str) -> None:
        self._inner = LocalEngine(job, n_workers)
        self.n_workers = n_workers
        work = store_at(job.work)
        if not isinstance(work, LocalStore):
            raise RecipeError(
                f"work: {job.work}: workers join a run through a file system that all of them share"
            )
        self._claims = _Claims(work.root / CLAIMS, run_key)
        self._work = work

    def __enter__(self) -> SharedEngine:
        self._claims.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self._inner.__exit__(*exc)
        self._claims.close()

    def run(self, tasks: Sequence[Task], progress: Progress = no_progress) -> Iterator[tuple[int, Any]]:
        """As `tasks.Engine` says; results of tasks that others ran are as they left them."""
        left = {index: fingerprint(task.function, repr(task.call)) for index, task in enumerate(tasks)}
        while left:
            n_left = len(left)
            for index, result in self._found(left):
                del left[index]
                yield index, result
            order: list[int] = []
            for k, result in self._inner.run(self._claimed(tasks, left, order), progress):
                key = left.pop(order[k])
                with self._work.commit(f"{self._claims.name}/{key}.done") as file:
                    file.write(json.dumps(result).encode())
                self._claims.release(key)
                yield order[k], result
            if len(left) == n_left:
                time.sleep(_POLL_SECONDS)

    def _found(self, left: dict[int, str]) -> list[tuple[int, Any]]:
        done = self._claims.done()
        found = []
        for index, key in left.items():
            if key in done:
                with self._work.open(f"{self._claims.name}/{key}.done") as file:
                    found.append((index, json.loads(file.read())))
        return found

    def _claimed(self, tasks: Sequence[Task], left: dict[int, str], order: list[int]) -> Iterator[Task]:
        """Tasks that nobody else runs, claimed as they are taken; `order` gets their indices."""
        for index, key in list(left.items()):
            if self._claims.take(key):
                order.append(index)
                yield tasks[index]

    def forget(self) -> None:
        """Results are not to be trusted: an artifact that one of them names is damaged."""
        self._claims.forget()


class _Claims:
    """Files <key>.claim, touched while their owner lives, and <key>.done."""

    def __init__(self, root: Path, run_key: str) -> None:
        self.name = f"{CLAIMS}/{run_key}"
        self._root, self._folder = root, root / run_key
        self._held: set[str] = set()
        self._closed = threading.Event()

    def open(self) -> None:
        """Start touching; remove what earlier runs left."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for other in self._root.iterdir():
            if other != self._folder and self._age(other) > _EXPIRES_SECONDS:
                shutil.rmtree(other, ignore_errors=True)
        threading.Thread(target=self._touch, daemon=True).start()

    def close(self) -> None:
        """Give back what is still held."""
        self._closed.set()
        for key in list(self._held):
            self.release(key)

    def done(self) -> set[str]:
        return {path.name.removesuffix(".done") for path in self._folder.glob("*.done")}

    def take(self, key: str) -> bool:
        """Whether the task is ours now."""
        path = self._folder / f"{key}.claim"
        if path.exists() and self._age(path) > _EXPIRES_SECONDS:
            # Renaming succeeds for one participant only, so that no fresh claim is taken away.
            with contextlib.suppress(FileNotFoundError):
                path.rename(expired := self._folder / f"{key}.{os.getpid()}.expired")
                expired.unlink()
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        self._held.add(key)
        if (self._folder / f"{key}.done").exists():
            self.release(key)
            return False
        return True

    def release(self, key: str) -> None:
        self._held.discard(key)
        (self._folder / f"{key}.claim").unlink(missing_ok=True)

    def forget(self) -> None:
        for path in self._folder.glob("*.done"):
            path.unlink(missing_ok=True)

    def _age(self, path: Path) -> float:
        """Seconds since the file was touched, both times by the file system's clock."""
        clock = self._folder / f".clock-{os.getpid()}"
        clock.touch()
        with contextlib.suppress(FileNotFoundError):
            return clock.stat().st_mtime - path.stat().st_mtime
        return 0.0

    def _touch(self) -> None:
        while not self._closed.wait(_TOUCH_SECONDS):
            for key in list(self._held):
                with contextlib.suppress(FileNotFoundError):
                    os.utime(self._folder / f"{key}.claim")
