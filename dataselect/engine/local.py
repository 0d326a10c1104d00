"""The local engine: worker processes that take one task at a time.

Processes come from a fork server that has imported and compiled everything once (fork with Arrow's
threads deadlocks, spawn costs each worker the imports). A dead worker is seen at once, because the wait
is on its process sentinel; its task is retried on a new worker, then the run fails with the task's name.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import signal
import sys
import threading
import time
import traceback
import types
from collections import Counter, deque
from collections.abc import Container, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pyarrow as pa

from dataselect.core.errors import DataselectError
from dataselect.engine.job import Context, Job
from dataselect.engine.tasks import TRIES, Progress, Task, died, execute, no_progress

_REPORT_SECONDS = 0.2


def default_workers() -> int:
    """CPUs this process may use: affinity, and the cgroup's quota where there is one."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cpus = min(cpus, max(1, int(quota) // int(period)))
    return cpus


class LocalEngine:
    """Runs tasks on `n_workers` processes; use as a context manager."""

    def __init__(self, job: Job, n_workers: int) -> None:
        self._job, self.n_workers = job, n_workers
        self._workers: list[_Worker] = []

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self._workers:
            worker.stop()
        self._workers.clear()

    def run(self, tasks: Iterable[Task], progress: Progress = no_progress) -> Iterator[tuple[int, Any]]:
        """As `tasks.Engine` says; a task is taken when a worker is free for it."""
        coming = enumerate(tasks)
        again: list[tuple[int, Task]] = []
        deaths: Counter[int] = Counter()
        busy: dict[_Worker, tuple[int, Task]] = {}
        while True:
            while len(busy) < self.n_workers and (item := again.pop() if again else next(coming, None)):
                worker = self._idle_worker(busy)
                busy[worker] = item
                worker.send(item[1])
            if not busy:
                return
            for worker in _ready(busy):
                index, task = busy[worker]
                message = worker.receive()
                if message is None:
                    del busy[worker]
                    deaths[index] += 1
                    self._replace(worker, task, deaths[index])
                    again.append((index, task))
                elif message[0] == "progress":
                    progress(message[1], message[2])
                elif message[0] == "error":
                    raise message[1]
                else:
                    del busy[worker]
                    yield index, message[1]

    def _idle_worker(self, busy: Container[_Worker]) -> _Worker:
        for worker in self._workers:
            if worker not in busy and worker.alive():
                return worker
        worker = _Worker(self._job)
        self._workers.append(worker)
        return worker

    def _replace(self, worker: _Worker, task: Task, n_deaths: int) -> None:
        self._workers.remove(worker)
        how = worker.stop()
        if n_deaths >= TRIES:
            raise died(task, how)
        print(f"{task.name}: its worker process died ({how}); trying again", file=sys.stderr)


def _ready(busy: Iterable[_Worker]) -> list[_Worker]:
    """Workers with a message or whose process ended."""
    by_handle = {handle: worker for worker in busy for handle in worker.handles()}
    return list(dict.fromkeys(by_handle[handle] for handle in wait(list(by_handle))))


class _Worker:
    def __init__(self, job: Job) -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(["dataselect.engine.preload", *job.kernels()])
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, job, dict(os.environ)), daemon=True)
        with _no_main_module():
            self._process.start()
        theirs.close()

    def handles(self) -> tuple[Any, int]:
        """What `wait` takes."""
        return self._connection, self._process.sentinel

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive()

    def send(self, task: Task) -> None:
        """Start a task; a worker that is dead already is noticed by `receive`."""
        with contextlib.suppress(OSError):
            self._connection.send(task)

    def receive(self) -> Any:
        """The next message, or None where the process died."""
        try:
            return self._connection.recv() if self._connection.poll() or self.alive() else None
        except (EOFError, OSError):
            return None

    def stop(self) -> str:
        """End the process; says how it ended."""
        self._connection.close()
        self._process.join(timeout=0.2)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(timeout=2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        code = self._process.exitcode or 0
        return f"killed by signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep multiprocessing from importing the user's main script again in every worker."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(connection: Connection, job: Job, environ: dict[str, str]) -> None:
    """A worker's life: tasks until the coordinator is gone.

    environ: the coordinator's; that of the fork server may be older, without credentials set since.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for a fork server that the user's program started itself
    os.environ.update(environ)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(sys.stderr.fileno(), 1)  # stdout is for results: what a stage of the user's prints is none
    tasks: deque[Task] = deque()
    arrived = threading.Semaphore(0)
    threading.Thread(target=_receive, args=(connection, tasks, arrived), daemon=True).start()
    reporter = _Reporter(connection)
    context = Context(job, reporter.add)
    while True:
        arrived.acquire()
        task = tasks.popleft()
        try:
            result = execute(context, task)
            reporter.flush()
            pa.default_memory_pool().release_unused()  # else a worker keeps the peak of its largest task
            _send(connection, ("done", result))
        except DataselectError as error:
            _send(connection, ("error", error))


def _send(connection: Connection, message: tuple[Any, ...]) -> None:
    """Tell the coordinator; where it is gone, however it went, go too, without a word."""
    try:
        connection.send(message)
    except OSError:
        os._exit(1)


def _receive(connection: Connection, tasks: deque[Task], arrived: threading.Semaphore) -> None:
    """Take tasks; when the coordinator is gone, however it went, go too, and where a task can't be read."""
    try:
        while True:
            tasks.append(connection.recv())
            arrived.release()
    except (EOFError, OSError):
        pass
    except Exception:  # noqa: BLE001 - the package was replaced under a run: waiting for a task would be for ever
        traceback.print_exc()
    os._exit(1)


class _Reporter:
    """Sends progress a few times a second."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._n_docs = self._n_bytes = 0
        self._last = time.monotonic()

    def add(self, n_docs: int, n_bytes: int) -> None:
        """Count; send when the last message is some time ago."""
        self._n_docs += n_docs
        self._n_bytes += n_bytes
        if time.monotonic() - self._last > _REPORT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what is counted."""
        if self._n_docs or self._n_bytes:
            _send(self._connection, ("progress", self._n_docs, self._n_bytes))
        self._n_docs = self._n_bytes = 0
        self._last = time.monotonic()
